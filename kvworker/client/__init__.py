"""The facades, which send an operation and await its result: ``KeyValueStore`` and ``AsyncKeyValueStore``.

May import ``messaging`` and everything below it. It never imports ``worker``, ``tasks``, ``adapters`` or a database
library, so a caller needs none of them.
"""

from kvworker.client.aio import AsyncKeyValueStore
from kvworker.client.sync import KeyValueStore

__all__ = ["AsyncKeyValueStore", "KeyValueStore"]
