"""Gives a LangGraph graph a checkpointer and long-term memory in kvworker.

Needs the extra ``langgraph``::

    from kvworker import KeyValueStore
    from kvworker.integrations.langgraph import KvworkerSaver, KvworkerStore

    store = KeyValueStore.from_config("config/kvworker.yaml")
    graph = builder.compile(checkpointer=KvworkerSaver(store), store=KvworkerStore(store))

``saver`` holds the checkpointer, and ``checkpoints`` the logic of its operations. ``store`` holds the memory, ``batch``
and ``reads`` the logic of its operations, ``items`` the form in which items are stored, and ``matching`` the filters.
This package may import what ``kvworker.integrations`` may.
"""

from kvworker.errors import extra_needed

try:
    from kvworker.integrations.langgraph.checkpoints.fence import StaleWriterError
    from kvworker.integrations.langgraph.saver import KvworkerSaver
    from kvworker.integrations.langgraph.store import KvworkerStore
except ModuleNotFoundError as missing:
    if missing.name is None or missing.name.partition(".")[0] not in {"langgraph", "langchain_core"}:
        raise
    raise ModuleNotFoundError(
        extra_needed("kvworker.integrations.langgraph", "langgraph"),
        name=missing.name,
    ) from missing

__all__ = ["KvworkerSaver", "KvworkerStore", "StaleWriterError"]
