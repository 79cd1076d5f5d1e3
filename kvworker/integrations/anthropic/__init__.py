"""Keeps the files of Claude's memory tool in kvworker.

Needs the extra ``anthropic``::

    from anthropic import Anthropic
    from kvworker import KeyValueStore
    from kvworker.integrations.anthropic import KvworkerMemoryTool

    memory = KvworkerMemoryTool(KeyValueStore.from_config("config/kvworker.yaml"), "memory:user-7")
    runner = Anthropic().beta.messages.tool_runner(tools=[memory], …)

``tool`` holds the public classes, ``files`` the logic of the commands, ``paths`` their paths, and ``text`` what Claude
reads. This package may import what ``kvworker.integrations`` may.
"""

from kvworker.errors import extra_needed

try:
    from kvworker.integrations.anthropic.tool import AsyncKvworkerMemoryTool, KvworkerMemoryTool
except ModuleNotFoundError as missing:
    if missing.name is None or missing.name.partition(".")[0] != "anthropic":
        raise
    raise ModuleNotFoundError(
        extra_needed("kvworker.integrations.anthropic", "anthropic"), name=missing.name
    ) from missing

__all__ = ["AsyncKvworkerMemoryTool", "KvworkerMemoryTool"]
