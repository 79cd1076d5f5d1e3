"""kvworker as LangGraph's long-term memory: a ``BaseStore`` that a graph is compiled with.

It needs the extra ``langgraph``::

    from kvworker import KeyValueStore
    from kvworker.integrations.langgraph import KvworkerStore

    memory = KvworkerStore(KeyValueStore.from_config("config/kvworker.yaml"))
    graph = builder.compile(store=memory)
"""

try:
    from kvworker.integrations.langgraph.store import KvworkerStore
except ModuleNotFoundError as missing:
    if missing.name is None or missing.name.partition(".")[0] != "langgraph":
        raise
    raise ModuleNotFoundError(
        "kvworker.integrations.langgraph needs langgraph-checkpoint: pip install 'kvworker[langgraph]'",
        name=missing.name,
    ) from missing

__all__ = ["KvworkerStore"]
