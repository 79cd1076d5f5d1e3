"""The LangGraph store of a persona that may not do everything."""

from __future__ import annotations

import pytest
from langgraph.store.base import GetOp, PutOp

from kvworker import Settings
from kvworker.errors import PolicyDeniedError
from kvworker.integrations.langgraph import KvworkerStore
from tests.support.counting import CountingStore

_IN_MEMORY = {"tools": {"kv_store": {"default_adapter": "sqlite", "adapters": {"sqlite": {"url": "sqlite://"}}}}}


class TestPersonas:
    def test_a_reader_finds_only_readable_items_and_cannot_write(self) -> None:
        flags = ["type.system.kv_store_access", "type.system.kv_store_write"]
        personas = {
            "writer": {"flags": flags},
            "reader": {"flags": flags[:1], "namespaces": {"langgraph:shared*": ["read"]}},
        }
        settings = Settings.from_mapping({**_IN_MEMORY, "policies": {"personas": personas}})
        with CountingStore(settings) as kv_store:
            writer = KvworkerStore(kv_store.as_persona("writer"))
            reader = KvworkerStore(kv_store.as_persona("reader"), ttl={"refresh_on_read": False})
            writer.batch([PutOp(("shared", "x"), "k", {"n": 1}, ttl=1), PutOp(("private",), "k", {"n": 2})])
            assert [item.namespace for item in reader.search(())] == [("shared", "x")]
            for refused in (
                GetOp(("private",), "k"),
                PutOp(("shared", "x"), "k", {}),
                GetOp(("shared", "x"), "k", refresh_ttl=True),
            ):
                with pytest.raises(PolicyDeniedError, match="'reader' may not use"):
                    reader.batch([refused])
