"""Gives a LangGraph graph long-term memory in kvworker: a ``BaseStore`` to compile the graph with.

Needs the extra ``langgraph``::

    from kvworker import KeyValueStore
    from kvworker.integrations.langgraph import KvworkerStore

    memory = KvworkerStore(KeyValueStore.from_config("config/kvworker.yaml"))
    graph = builder.compile(store=memory)

``store`` holds the public class, ``batch`` and ``reads`` the logic of its operations, ``items`` the form in which items
are stored, and ``matching`` the filters. This package may import what ``kvworker.integrations`` may.
"""

from kvworker.errors import extra_needed

try:
    from kvworker.integrations.langgraph.store import KvworkerStore
except ModuleNotFoundError as missing:
    if missing.name is None or missing.name.partition(".")[0] != "langgraph":
        raise
    raise ModuleNotFoundError(
        extra_needed("kvworker.integrations.langgraph", "langgraph"),
        name=missing.name,
    ) from missing

__all__ = ["KvworkerStore"]
