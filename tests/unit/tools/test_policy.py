"""Policies without a queue: allowed calls, denials in facades and workers, and their messages."""

from __future__ import annotations

import asyncio
import logging
import pickle
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kvworker import (
    AsyncKeyValueStore,
    ConfigurationError,
    InlineKeyValueStore,
    InvalidRequestError,
    KeyValueStore,
)
from kvworker.adapters import create_kv_store_adapter, register_kv_store_adapter, registry
from kvworker.adapters.providers import adapters_in_use
from kvworker.errors import PolicyDeniedError, StepLostError, rebuild_error
from kvworker.messaging.celery_app import make_celery
from kvworker.ops.local import stack
from kvworker.settings import PersonaSettings, Settings
from kvworker.tools import TOOLS
from kvworker.tools.policy import Policy
from kvworker.worker.runtime import Runtime
from tests.support.policy_matrix import ALLOWED, CELLS, DENIED, NAMESPACES, PERSONAS, VISIBLE, Cell

# No broker listens there: a call that is denied before it is sent does not need one.
QUEUE = {"broker_url": "redis://127.0.0.1:1/0"}
MEMORY = {"kv_store": {"default_adapter": "sqlite", "adapters": {"sqlite": {"url": "sqlite://"}}}}


def settings_of(**policies: Any) -> Settings:
    return Settings.from_mapping({"tools": MEMORY, "queue": QUEUE, "policies": policies})


SETTINGS = settings_of(personas=PERSONAS)


@pytest.fixture
def inline() -> Iterator[InlineKeyValueStore]:
    with InlineKeyValueStore(SETTINGS, "operator") as store:
        for namespace in NAMESPACES:
            store.set(namespace, "k", "kept")
            store.set(namespace, "count", 1)
        yield store


def seen_by_all(store: InlineKeyValueStore) -> list[Any]:
    """Return everything that a call could change."""
    listed = [store.list_keys(namespace, include_values=True) for namespace in NAMESPACES]
    return [*listed, store.list_namespaces()]


def view_of(store: InlineKeyValueStore, persona: str | None) -> InlineKeyValueStore:
    return store.as_persona(persona) if persona else InlineKeyValueStore(store.settings, adapter=store.adapter)


def test_the_matrix_is_complete() -> None:
    assert {cell.tool for cell in CELLS} == set(TOOLS)
    assert {cell.persona for cell in CELLS} == {*PERSONAS, "stranger", None}
    assert {cell.tool for cell in ALLOWED} == {cell.tool for cell in DENIED} == set(TOOLS)
    assert len(CELLS) == 13 * (3 * 24 + 2)


def test_the_matrix_inline_and_a_denial_changes_nothing(inline: InlineKeyValueStore) -> None:
    before = seen_by_all(inline)
    for cell in DENIED:
        with pytest.raises(PolicyDeniedError) as caught:
            view_of(inline, cell.persona).call(cell.tool, cell.arguments)
        error = caught.value
        assert (error.persona, error.tool) == (cell.persona or "", cell.tool), cell
        assert error.namespace == cell.arguments.get("namespace", ""), cell
    assert seen_by_all(inline) == before
    for cell in ALLOWED:
        with suppress(StepLostError):
            view_of(inline, cell.persona).call(cell.tool, cell.arguments)


def test_the_matrix_in_a_worker_whatever_the_sender_checked() -> None:
    runtime = Runtime(make_celery(SETTINGS), SETTINGS)
    for number, cell in enumerate((*DENIED, *ALLOWED)):
        assert is_done(runtime, cell, task_id=f"task-{number}") is cell.is_allowed, cell


def is_done(runtime: Runtime, cell: Cell, task_id: str) -> bool:
    persona = {"persona": cell.persona} if cell.persona else {}
    try:
        run(runtime, cell.tool, {**cell.arguments, **persona}, task_id)
    except PolicyDeniedError:
        return False
    except StepLostError:
        return True
    return True


def run(runtime: Runtime, tool: str, payload: dict[str, Any], task_id: str = "task") -> dict[str, Any]:
    """Run a message as a worker does."""
    request = SimpleNamespace(id=task_id, delivery_info={})
    return runtime.run_operation(request, TOOLS[tool], (), payload)


def test_the_matrix_in_the_facades_before_anything_is_sent() -> None:
    with KeyValueStore(SETTINGS) as store:
        for cell in CELLS:
            view = store.as_persona(cell.persona) if cell.persona else store
            if cell.is_allowed:
                kwargs = view.signature(cell.tool, cell.arguments).kwargs
                assert kwargs["persona"] == cell.persona
                continue
            for call in (view.submit, view.call, view.signature):
                with pytest.raises(PolicyDeniedError):
                    call(cell.tool, cell.arguments)


def test_the_asynchronous_facade_refuses_as_well() -> None:
    async def check() -> None:
        async with AsyncKeyValueStore(SETTINGS, "reader") as store:
            with pytest.raises(PolicyDeniedError, match="'reader'"):
                await store.set("n", "k", 1)
            with pytest.raises(PolicyDeniedError, match="'nobody'"):
                await store.as_persona("nobody").get("n", "k")
            assert (store.persona, store.as_persona("nobody").persona) == ("reader", "nobody")

    asyncio.run(check())


def test_a_listing_shows_only_readable_namespaces(inline: InlineKeyValueStore) -> None:
    for persona, namespaces in {**VISIBLE, "reader": set(NAMESPACES), "starred": set(NAMESPACES)}.items():
        view = inline.as_persona(persona)
        assert {usage.namespace for usage in view.list_namespaces().namespaces} == namespaces
        found, cursor = set(), None
        while page := view.list_namespaces(limit=1, cursor=cursor):
            found |= {usage.namespace for usage in page.namespaces}
            if (cursor := page.next_cursor) is None:
                break
        assert found == namespaces


#: The tools that return what others stored.
READING = {"kv_get", "kv_get_and_delete", "kv_step_begin", "kv_step_status"}


@pytest.mark.parametrize(
    ("persona", "tools"),
    [
        ("reader", {"kv_get", "kv_step_status", "kv_list_keys", "kv_list_namespaces", "kv_usage", "kv_batch"}),
        ("listener", {"kv_get", "kv_step_status", "kv_list_keys", "kv_list_namespaces", "kv_usage", "kv_batch"}),
        ("writer", set(TOOLS) - {"kv_set_quota"}),
        ("team", set(TOOLS) - {"kv_set_quota"}),
        ("operator", set(TOOLS)),
        ("lead", set(TOOLS)),
        ("dropbox", set(TOOLS) - {"kv_set_quota", *READING, "kv_list_keys", "kv_usage"}),
        ("nowhere", {"kv_list_namespaces"}),
        ("half", set[str]()),
        ("nobody", set[str]()),
    ],
)
def test_the_tools_of_a_persona(persona: str, tools: set[str]) -> None:
    assert Policy(SETTINGS.policies).allowed_tools(persona) == tools
    assert tools == {cell.tool for cell in ALLOWED if cell.persona == persona}


def test_a_persona_that_is_not_configured_has_neither_tools_nor_a_provider() -> None:
    for policy in (Policy(SETTINGS.policies), Policy(settings_of().policies)):
        for ask in (policy.allowed_tools, policy.provider_of):
            with pytest.raises(ConfigurationError, match="no persona is named 'stranger'") as caught:
                ask("stranger")
            assert "reader" not in str(caught.value)


def test_a_denial_names_the_missing_right_and_never_those_of_others(inline: InlineKeyValueStore) -> None:
    def detail(persona: str | None, tool: str, **arguments: Any) -> str:
        with pytest.raises(PolicyDeniedError) as caught:
            view_of(inline, persona).call(tool, arguments)
        assert rebuild_error("PolicyDeniedError", caught.value.args) is not None
        return caught.value.detail

    get = {"namespace": "other", "key": "k"}
    assert detail("half", "kv_get", **get) == "it needs the flag type.system.kv_store_access"
    assert detail("nobody", "kv_delete", **get) == (
        "it needs the flag type.system.kv_store_access and the flag type.system.kv_store_write"
    )
    assert detail("team", "kv_get", **get) == "it needs read access to this namespace"
    mixed = [{"tool": "kv_get", "key": "k"}, {"tool": "kv_delete", "key": "k"}]
    assert detail("team", "kv_batch", namespace="other", operations=mixed) == (
        "it needs read and write access to this namespace"
    )
    assert detail("team", "kv_usage") == "it needs read access to every namespace"
    assert detail("stranger", "kv_get", **get) == "no such persona is configured"
    assert "policies.default_persona" in detail(None, "kv_get", **get)


def test_a_denial_is_logged_without_key_and_value(
    inline: InlineKeyValueStore, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING), pytest.raises(PolicyDeniedError) as caught:
        inline.as_persona("reader").set("team.a", "the-key", "the-value", idempotency_key="the-id")
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("kvworker.tools.policy", logging.WARNING)
    assert record.getMessage() == (
        "denied: persona 'reader', tool kv_set, namespace 'team.a': it needs the flag type.system.kv_store_write"
    )
    assert not re.search("the-key|the-value|the-id", f"{record.getMessage()} {caught.value} {caught.value.args}")


def test_without_policies_everything_is_allowed_except_naming_a_persona() -> None:
    settings = settings_of()
    assert not Policy(settings.policies).is_enforced
    with InlineKeyValueStore(settings) as store:
        store.set("n", "k", 1)
        assert store.usage().entry_count == 1
        with pytest.raises(PolicyDeniedError, match="no personas are configured in the process that checked this call"):
            store.as_persona("reader").get("n", "k")
    with KeyValueStore(settings, "reader") as queued:
        assert "persona" not in KeyValueStore(settings).signature("kv_get", {"namespace": "n", "key": "k"}).kwargs
        with pytest.raises(PolicyDeniedError, match="no personas are configured in the process that checked this call"):
            queued.get("n", "k")
    with pytest.raises(PolicyDeniedError, match="no personas are configured in the process that checked this call"):
        run(Runtime(make_celery(settings), settings), "kv_get", {"namespace": "n", "key": "k", "persona": "reader"})


def test_the_default_persona_applies_to_calls_that_name_none() -> None:
    settings = settings_of(personas=PERSONAS, default_persona="reader")
    with InlineKeyValueStore(settings) as store:
        assert store.get("n", "k").found is False
        with pytest.raises(PolicyDeniedError, match="'reader'"):
            store.set("n", "k", 1)
        assert store.as_persona("writer").set("n", "k", 1).value == 1
    with KeyValueStore(settings) as queued:
        assert queued.signature("kv_get", {"namespace": "n", "key": "k"}).kwargs["persona"] == "reader"
    runtime = Runtime(make_celery(settings), settings)
    assert run(runtime, "kv_get", {"namespace": "n", "key": "k"})["found"] is False
    with pytest.raises(PolicyDeniedError, match="'reader'"):
        run(runtime, "kv_set", {"namespace": "n", "key": "k", "value": 1})


@pytest.mark.parametrize("persona", ["", " ", 5, ["reader"], "x" * 256])
def test_an_invalid_persona_name_is_refused(persona: Any) -> None:
    with pytest.raises(InvalidRequestError, match="persona must be a non-blank string"):
        KeyValueStore(SETTINGS, persona)
    with pytest.raises(InvalidRequestError, match="persona must be a non-blank string"):
        KeyValueStore(SETTINGS).as_persona(persona)
    runtime = Runtime(make_celery(SETTINGS), SETTINGS)
    with pytest.raises(InvalidRequestError, match="persona must be a non-blank string"):
        run(runtime, "kv_get", {"namespace": "n", "key": "k", "persona": persona})


def test_a_view_shares_connections_and_their_closing() -> None:
    store = KeyValueStore(SETTINGS, "reader")
    view = store.as_persona("writer")
    assert (store.persona, view.persona) == ("reader", "writer")
    assert view.dispatcher() is store.dispatcher()
    view.close()
    for either in (store, view):
        with pytest.raises(InvalidRequestError, match="the store is closed"):
            either.get("n", "k")


def test_pickling_keeps_the_persona() -> None:
    for store in (KeyValueStore(SETTINGS, "reader"), KeyValueStore(SETTINGS).as_persona("reader")):
        copied = pickle.loads(pickle.dumps(store))  # noqa: S301 - of our own making
        assert (copied.persona, copied.settings) == ("reader", SETTINGS)
    assert pickle.loads(pickle.dumps(AsyncKeyValueStore(SETTINGS, "reader"))).persona == "reader"  # noqa: S301


def test_a_persona_runs_on_the_adapter_of_its_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_factories", dict(registry._factories))
    register_kv_store_adapter(
        "policytest", lambda config: create_kv_store_adapter("sqlite", {"url": "sqlite://", **config})
    )
    flags = PERSONAS["operator"]["flags"]
    providers = {"a": None, "b": "kv_store_policytest", "c": "policytest", "d": "kv_store_sqlite", "e": "kv_store_no"}
    personas = {name: {"flags": flags, "provider": provider} for name, provider in providers.items()}
    settings = settings_of(personas=personas)
    assert adapters_in_use(settings) == ("sqlite", "policytest")
    with InlineKeyValueStore(settings) as store:
        store.as_persona("b").set("n", "k", "of b")
        found = {name: store.as_persona(name).get("n", "k").found for name in "abcd"}
        assert found == {"a": False, "b": True, "c": True, "d": False}
        with pytest.raises(ConfigurationError, match=r"'kv_store_no'; available: .*kv_store_policytest, .*sqlite"):
            store.as_persona("e").get("n", "k")
    runtime = Runtime(make_celery(settings), settings)
    arguments = {"namespace": "n", "key": "k"}
    run(runtime, "kv_set", {**arguments, "value": 1, "persona": "d"})
    found = {name: run(runtime, "kv_get", {**arguments, "persona": name})["found"] for name in "abcd"}
    assert found == {"a": True, "b": False, "c": False, "d": True}
    with pytest.raises(ConfigurationError, match="'kv_store_no'"):
        run(runtime, "kv_get", {**arguments, "persona": "e"})


def test_a_local_stack_runs_every_persona_on_its_one_database(tmp_path: Path) -> None:
    personas = {"p": {"flags": ["x"], "provider": "kv_store_postgres"}, "q": {}}
    given = settings_of(personas=personas, signing_key="a-key-of-the-tests", default_persona="p")
    config = stack._write_config(tmp_path, given, "redis://127.0.0.1:1/0", "sqlite:///x")
    made = Settings.load(config, environ={})
    assert adapters_in_use(made) == ("sqlite",)
    assert made.policies == given.policies.model_copy(
        update={"personas": {"p": PersonaSettings(flags=("x",)), "q": PersonaSettings()}}
    )
