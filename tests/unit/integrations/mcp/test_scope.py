"""A session of the MCP server sees only the namespaces under its prefix, and never the prefix itself."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvworker import ConfigurationError, InlineKeyValueStore, InvalidRequestError, KVStoreError
from kvworker.errors import (
    BatchRefusedError,
    IdempotencyConflictError,
    InvalidKeyError,
    NamespaceQuotaExceededError,
    OperationFailedError,
    OperationTimeoutError,
    PolicyDeniedError,
    VersionConflictError,
)
from kvworker.integrations.mcp.scope import Scope
from kvworker.model import BatchResult, LedgerUsage, NamespaceList
from kvworker.tools import TOOLS

NAMES = st.text(st.characters(exclude_characters="\x00/", exclude_categories=["Cs"]), min_size=1, max_size=8).filter(
    str.strip
)


def call(store: InlineKeyValueStore, scope: Scope, name: str, **arguments: Any) -> dict[str, Any]:
    """Call a tool as the server does."""
    tool = scope.tool(TOOLS[name])
    try:
        return scope.outward(store.call_tool(tool, scope.inward(tool, arguments), None)).to_dict()
    except KVStoreError as error:
        raise scope.error(error) from None


@given(one=NAMES, other=NAMES, namespace=st.text(min_size=1))
def test_no_namespace_has_two_prefixes(one: str, other: str, namespace: str) -> None:
    full = Scope.named(one).prefix + namespace
    assert full.startswith(Scope.named(other).prefix) == (one == other)


@pytest.mark.parametrize(
    ("name", "reason"),
    [("", "blank"), ("  ", "blank"), ("a/b", "must not hold '/'"), ("x" * 101, "at most 100"), ("\x00", "NUL")],
)
def test_a_prefix_that_would_not_separate_sessions_is_refused(name: str, reason: str) -> None:
    with pytest.raises(ConfigurationError, match=reason):
        Scope.named(name)


def test_a_sessions_id_cannot_be_read_from_its_prefix() -> None:
    prefix = Scope.of_session("5e55104").prefix
    assert "5e55104" not in prefix
    assert prefix == Scope.of_session("5e55104").prefix != Scope.of_session("5e55105").prefix
    assert Scope.of_process().prefix != Scope.of_process().prefix


def test_sessions_do_not_reach_each_others_entries() -> None:
    with InlineKeyValueStore() as store:
        one, other = Scope.named("a"), Scope.named("ab")
        call(store, one, "kv_set", namespace="n", key="k", value=1)
        call(store, one, "kv_set", namespace="b", key="k", value=1)
        assert call(store, other, "kv_get", namespace="n", key="k")["found"] is False
        assert call(store, other, "kv_list_namespaces")["namespaces"] == []
        assert call(store, other, "kv_usage", namespace="n")["used_bytes"] == 0
        assert call(store, other, "kv_clear", namespace="n")["deleted_entries"] == 0
        for escape in ("../a/n", "/a/n", "a/n", "../../n"):
            assert call(store, other, "kv_get", namespace=escape, key="k")["found"] is False
        listed = call(store, one, "kv_list_namespaces")["namespaces"]
        assert [usage["namespace"] for usage in listed] == ["b", "n"]
        assert [usage.namespace for usage in store.list_namespaces().namespaces] == ["a/b", "a/n"]


def test_a_listing_continues_page_by_page_without_the_prefix() -> None:
    with InlineKeyValueStore() as store:
        scope = Scope.named("a")
        for namespace in ("x1", "x2", "x3", "y"):
            call(store, scope, "kv_set", namespace=namespace, key="k", value=1)
        first = call(store, scope, "kv_list_namespaces", prefix="x", limit=2)
        assert first["next_cursor"] == "x2"
        second = call(store, scope, "kv_list_namespaces", prefix="x", limit=2, cursor="x2")
        assert [usage["namespace"] for usage in second["namespaces"]] == ["x3"]
        assert second["next_cursor"] is None


def test_namespaces_outside_the_scope_are_hidden_even_if_the_adapter_lists_them() -> None:
    page = NamespaceList(tuple(LedgerUsage(name, 1, 1, None) for name in ("A/n", "a/n", "b/n")), "a/n")
    shown = Scope.named("a").outward(page)
    assert shown == NamespaceList((LedgerUsage("n", 1, 1, None),), "n")


def test_a_session_cannot_read_the_whole_stores_usage() -> None:
    with InlineKeyValueStore() as store:
        scope = Scope.named("a")
        assert scope.tool(TOOLS["kv_usage"]).required == ("namespace",)
        assert "whole store" not in scope.tool(TOOLS["kv_usage"]).summary
        assert Scope().tool(TOOLS["kv_usage"]) is TOOLS["kv_usage"]
        for arguments in ({}, {"namespace": None}):
            with pytest.raises(InvalidRequestError):
                call(store, scope, "kv_usage", **arguments)


@pytest.mark.parametrize("name", [name for name in TOOLS if name != "kv_list_namespaces"])
def test_every_call_gets_the_prefix(name: str) -> None:
    scope = Scope.named("a")
    assert scope.inward(TOOLS[name], {"namespace": "n", "other": 1}) == {"namespace": "a/n", "other": 1}
    for arguments in ({}, {"namespace": None}, {"namespace": 7}, {"namespace": " "}):
        with pytest.raises(InvalidRequestError):
            scope.inward(TOOLS[name], arguments)


def test_a_namespace_may_be_as_long_as_the_prefix_leaves() -> None:
    scope = Scope.named("abc")
    assert len(scope.inward(TOOLS["kv_get"], {"namespace": "n" * 251})["namespace"]) == 255
    with pytest.raises(InvalidKeyError, match="namespace is 252 bytes of UTF-8; at most 251 are allowed"):
        scope.inward(TOOLS["kv_get"], {"namespace": "ü" * 126})
    with pytest.raises(InvalidKeyError, match="prefix is 252 bytes of UTF-8; at most 251 are allowed"):
        scope.inward(TOOLS["kv_list_namespaces"], {"prefix": "n" * 252})


@pytest.mark.parametrize(
    ("cursor", "reason"),
    [
        (" ", "cursor must not be blank"),
        (7, "cursor must be a string, not 7"),
        ("n" * 252, "cursor is 252 bytes of UTF-8; at most 251 are allowed"),
    ],
)
def test_a_wrong_cursor_is_named_and_measured_without_the_prefix(cursor: object, reason: str) -> None:
    with pytest.raises(InvalidRequestError, match=reason):
        Scope.named("abc").inward(TOOLS["kv_list_namespaces"], {"cursor": cursor})


def test_without_a_prefix_everything_passes_unchanged() -> None:
    error = VersionConflictError("a/n", "k", 1, None)
    page = NamespaceList((), None)
    scope = Scope()
    assert scope.inward(TOOLS["kv_usage"], {}) == {}
    assert scope.outward(page) is page
    assert scope.error(error) is error


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (VersionConflictError("a/n", "a/k", 1, None), VersionConflictError("n", "a/k", 1, None)),
        (IdempotencyConflictError("a/n", "op"), IdempotencyConflictError("n", "op")),
        (NamespaceQuotaExceededError("a/n", 3, 2, 1), NamespaceQuotaExceededError("n", 3, 2, 1)),
        (PolicyDeniedError("a", "kv_get", "a/n", "no"), PolicyDeniedError("a", "kv_get", "n", "no")),
        (OperationTimeoutError("op", "late"), OperationTimeoutError("op", "late")),
        (OperationFailedError("op", "in namespace 'a/n'"), OperationFailedError("op", "in namespace 'n'")),
        (InvalidRequestError('it is "a/n\'" here'), InvalidRequestError('it is "n\'" here')),
        (InvalidRequestError("data/n and a/n"), InvalidRequestError("data/n and a/n")),
        (
            BatchRefusedError(1, "VersionConflictError", ["a/n", "k", 1, 2]),
            BatchRefusedError(1, "VersionConflictError", ["n", "k", 1, 2]),
        ),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_come_without_the_prefix(error: KVStoreError, expected: KVStoreError) -> None:
    shown = Scope.named("a").error(error)
    assert type(shown) is type(expected)
    assert shown.args == expected.args
    assert str(shown) == str(expected)


def test_a_batchs_results_and_errors_come_without_the_prefix() -> None:
    with InlineKeyValueStore() as store:
        operations = [
            {"tool": "kv_set", "key": "a/k", "value": "a/n"},
            {"tool": "kv_set", "key": "a/k", "value": 2, "if_absent": True},
        ]
        result = call(store, Scope.named("a"), "kv_batch", namespace="n", operations=operations, atomic=False)
        first, second = result["results"]
        assert (result["namespace"], first["namespace"]) == ("n", "n")
        assert (first["key"], first["value"]) == ("a/k", "a/n")
        assert second["error"]["args"][:2] == ["n", "a/k"]
        assert "'a/n'" not in second["error"]["message"]
        with pytest.raises(BatchRefusedError) as refused:
            call(store, Scope.named("a"), "kv_batch", namespace="n", operations=operations[1:])
        assert "'n'" in str(refused.value)
        assert isinstance(Scope.named("a").outward(BatchResult("a/n", ())), BatchResult)
