"""The published tests that kvworker's store cannot pass, by reason. Each of them must exist and fail.

A name without parameters covers the test with all of its parameters.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

INAPPLICABLE: Final[Mapping[str, Mapping[str, tuple[str, ...]]]] = {
    "langgraph-checkpoint": {
        "InMemoryStore without an index ignores a query; kvworker says that it cannot search by it": (
            "test_store.py::test_cannot_put_empty_namespace",
        ),
    },
    "langgraph-checkpoint-sqlite": {
        "it reads SqliteStore's own tables": ("test_store.py::test_vector_store_initialization",),
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
