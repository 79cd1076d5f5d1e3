"""The published tests that kvworker's store cannot pass, by reason. Each of them must exist and fail.

A name without parameters covers the test with all of its parameters.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

_VECTORS = "vectors are not supported, and so neither scores nor an order by similarity"

INAPPLICABLE: Final[Mapping[str, Mapping[str, tuple[str, ...]]]] = {
    "langgraph-checkpoint": {
        _VECTORS: (
            "test_store.py::test_vector_store_initialization",
            "test_store.py::test_vector_update_with_embedding",
            "test_store.py::test_async_vector_update_with_embedding",
            "test_store.py::test_vector_search_with_filters",
            "test_store.py::test_async_vector_search_with_filters",
            "test_store.py::test_embed_with_path",
            "test_store.py::test_non_ascii",
        ),
    },
    "langgraph-checkpoint-sqlite": {
        _VECTORS: (
            "test_store.py::test_vector_store_initialization",
            "test_store.py::test_vector_update_with_embedding",
            "test_store.py::test_vector_search_with_filters",
            "test_store.py::test_vector_search_pagination",
            "test_store.py::test_embed_with_path",
            "test_store.py::test_embed_with_path_operation_config",
            "test_store.py::test_scores",
            "test_store.py::test_non_ascii",
            "test_async_store.py::test_vector_store_initialization",
            "test_async_store.py::test_vector_update_with_embedding",
            "test_async_store.py::test_embed_with_path",
        ),
        "it reads the SQL of SqliteStore's own migrations": ("test_store.py::test_nonnull_migrations",),
        "SqliteStore refuses a filter's field that could be SQL; kvworker never makes a field part of its SQL": (
            "test_store.py::test_sql_injection_vulnerability",
        ),
        "SqliteStore reads a filter's field with periods as a path; kvworker, like InMemoryStore, reads it as a name": (
            "test_store.py::test_filter_keys_with_hyphens_and_digits",
        ),
        "SqliteStore's reads renew a TTL only if refresh_on_read is set; LangGraph's contract has them renew it": (
            "test_ttl.py::test_ttl_override_default",
        ),
        "a synchronous call may run in an event loop, except over an AsyncKeyValueStore (test_langgraph_kvworker.py)": (
            "test_async_store.py::test_no_running_loop",
        ),
    },
}
