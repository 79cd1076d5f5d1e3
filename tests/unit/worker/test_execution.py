"""Every tool reaches its method of the adapter."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from kvworker import InlineKeyValueStore
from kvworker.messaging.wire import Request
from kvworker.tools import TOOLS, Tool, check_arguments
from kvworker.worker.execution import execute
from tasks import operations

ARGUMENTS: dict[str, dict[str, Any]] = {
    "kv_get": {"namespace": "n", "key": "k"},
    "kv_set": {"namespace": "n", "key": "k", "value": 1, "ttl_seconds": 5, "if_absent": True},
    "kv_delete": {"namespace": "n", "key": "k"},
    "kv_increment": {"namespace": "n", "key": "k", "delta": 3, "initial_value": 4},
    "kv_touch": {"namespace": "n", "key": "k", "ttl_seconds": 5},
    "kv_persist": {"namespace": "n", "key": "k"},
    "kv_acquire_permit": {"namespace": "n", "key": "k", "holder": "h", "ttl_seconds": 5, "permits": 2},
    "kv_renew_permit": {"namespace": "n", "key": "k", "holder": "h", "ttl_seconds": 5},
    "kv_release_permit": {"namespace": "n", "key": "k", "holder": "h"},
    "kv_rate_limit": {"namespace": "n", "key": "k", "limit": 10, "per_seconds": 60, "quantity": 3},
    "kv_append": {"namespace": "n", "key": "k", "items": [1], "max_items": 5, "ttl_seconds": 5},
    "kv_merge": {"namespace": "n", "key": "k", "patch": {"a": None}, "ttl_seconds": 5},
    "kv_get_and_delete": {"namespace": "n", "key": "k"},
    "kv_step_begin": {"namespace": "n", "key": "k", "holder": "h", "arguments": [1], "lease_seconds": 5},
    "kv_step_renew": {"namespace": "n", "key": "step", "token": 7},
    "kv_step_finish": {"namespace": "n", "key": "step", "token": 7, "state": "done", "value": 1},
    "kv_step_status": {"namespace": "n", "key": "step"},
    "kv_list_keys": {"namespace": "n", "limit": 1, "include_values": True},
    "kv_list_namespaces": {"prefix": "n"},
    "kv_clear": {"namespace": "n"},
    "kv_usage": {},
    "kv_set_quota": {"namespace": "n", "quota_bytes": 100},
    "kv_batch": {"namespace": "n", "operations": [{"tool": "kv_get", "key": "k"}]},
}


@pytest.mark.parametrize("tool", TOOLS.values(), ids=TOOLS)
def test_a_tool_gives_its_result(tool: Tool) -> None:
    with InlineKeyValueStore() as store:
        if tool.name == "kv_renew_permit":
            store.acquire_permit("n", "k", "h", 5)
        store.set("n", "step", {"$step": 1, "state": "reserved", "token": 7})
        request = Request(tool, check_arguments(tool, ARGUMENTS[tool.name]), "operation")
        assert isinstance(execute(store.adapter, request), tool.result)


def test_every_tool_has_a_task_of_its_name() -> None:
    assert {name: body.__name__ for name, body in operations.OPERATIONS.items()} == {
        tool.task_name: tool.name for tool in TOOLS.values()
    }


@pytest.mark.parametrize(("name", "body"), operations.OPERATIONS.items(), ids=operations.OPERATIONS)
def test_a_task_runs_the_tool_of_its_name(name: str, body: Any) -> None:
    assert f'TOOLS["{name.removeprefix("kvworker.")}"]' in inspect.getsource(body)
