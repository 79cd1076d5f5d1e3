"""An adapter that implements only the public methods gets every step through them, with plain values."""

from __future__ import annotations

from typing import Any, cast

import pytest

from kvworker import create_kv_store_adapter
from kvworker.adapters import KeyValueStoreAdapter
from kvworker.messaging.wire import Request
from kvworker.tools import TOOLS, check_arguments
from kvworker.worker.execution import execute

NAMES = {"namespace": "n", "key": "k"}


class MethodsOnly:
    """Records the calls of its methods and passes them to an adapter in memory."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []
        self._adapter = create_kv_store_adapter("sqlite", {"url": "sqlite://"})

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._adapter, name)

        def call(*args: Any, **options: Any) -> Any:
            self.calls.append((name, args, options))
            return method(*args, **options)

        return call

    apply_step = KeyValueStoreAdapter.apply_step


@pytest.mark.parametrize(
    ("tool", "arguments", "args", "options"),
    [
        (
            "kv_set",
            {"value": {"a": [1]}, "ttl_seconds": 5, "if_absent": True},
            ({"a": [1]},),
            {"ttl_seconds": 5.0, "expected_version": None, "if_absent": True, "keep_ttl": False},
        ),
        ("kv_delete", {}, (), {"expected_version": None}),
        (
            "kv_increment",
            {"delta": 3, "initial_value": 4, "ttl_seconds": 5},
            (),
            {"delta": 3, "initial_value": 4, "ttl_seconds": 5.0},
        ),
        ("kv_touch", {"ttl_seconds": 5}, (5.0,), {}),
        ("kv_persist", {}, (), {}),
    ],
)
def test_a_step_calls_the_method_of_its_action(
    tool: str, arguments: dict[str, Any], args: tuple[Any, ...], options: dict[str, Any]
) -> None:
    adapter = MethodsOnly()
    request = Request(TOOLS[tool], check_arguments(TOOLS[tool], {**NAMES, **arguments}), "operation")
    result = execute(cast(KeyValueStoreAdapter, adapter), request)
    assert isinstance(result, TOOLS[tool].result)
    expected_options = {**options, "operation_id": "operation"}
    assert adapter.calls == [(tool.removeprefix("kv_"), ("n", "k", *args), expected_options)]
