"""No error reveals a stored or sent value, a password or SQL. This raises every error class that callers can see."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, suppress
from traceback import format_exception
from typing import Any

import psycopg
import pytest
from celery.app.task import Context

from kvworker import InlineKeyValueStore, KeyValueStore, Settings
from kvworker.client.pending_reply import PendingReply
from kvworker.client.transport.message import Message
from kvworker.errors import (
    BatchRefusedError,
    ConfigurationError,
    CounterOverflowError,
    EffectUnknownError,
    GlobalQuotaExceededError,
    IdempotencyConflictError,
    InvalidKeyError,
    InvalidRequestError,
    InvalidTTLError,
    InvalidValueTypeError,
    KVStoreError,
    LeaseHeldError,
    LeaseLostError,
    LimitExceededError,
    NamespaceQuotaExceededError,
    NestedCallError,
    OperationExpiredError,
    OperationFailedError,
    OperationNotSentError,
    OperationTimeoutError,
    PipelineError,
    PolicyDeniedError,
    QueueUnavailableError,
    RateLimitExceededError,
    ReadTooLargeError,
    RecordTooLargeError,
    RedeliveryLimitError,
    ReplayTooLargeError,
    SchemaError,
    StepConflictError,
    StepFailedError,
    StepInProgressError,
    StepLostError,
    StepUnrecordedError,
    StoreUnavailableError,
    UnsupportedMessageError,
    ValueSerializationError,
    VersionConflictError,
)
from kvworker.messaging.celery_app import make_celery
from kvworker.tools import find_tool
from kvworker.worker.runtime import Runtime
from tests.support.documents import ROOT
from tests.unit.test_errors import public_tree

VALUE, PASSWORD = "the-value-that-is-secret", "the-password-of-the-server"
NUMBER = 2**63 - 1
#: Texts that must not appear in any error, or in a log line about it.
SECRETS = (VALUE, PASSWORD, str(NUMBER), "SELECT", "INSERT", "UPDATE ")
NAMES = {"namespace": "n", "key": "k"}
#: Its text is fixed but for names; tests/acceptance/shared/test_canvas.py raises it in a worker.
NOT_RAISED_HERE = {NestedCallError}

Provoke = Callable[[InlineKeyValueStore], object]


def over(url: str, adapter: str = "postgres", **block: Any) -> InlineKeyValueStore:
    adapters = {adapter: {"url": url, "migrate_on_start": True, **block}}
    data = {"tools": {"kv_store": {"default_adapter": adapter, "adapters": adapters}}}
    return InlineKeyValueStore(Settings.from_mapping(data))


def with_quotas(**block: Any) -> InlineKeyValueStore:
    return over("sqlite://", "sqlite", **block)


def write_to(opened: InlineKeyValueStore) -> None:
    with opened as store:
        store.set("n", "k", VALUE)


def write_twice(opened: InlineKeyValueStore) -> None:
    with opened as store:
        store.set("n", "k", VALUE)
        store.set("n", "another", VALUE)


def configuration(_: InlineKeyValueStore) -> None:
    Settings.from_mapping(
        {
            "queue": {"broker_url": f"redis:/u:{PASSWORD}@h", "result_backend": f"redis://u:{PASSWORD}@h/x"},
            "policies": {"signing_key": PASSWORD[:9]},
            "tools": {"kv_store": {"adapters": {"postgres": {"url": f"mysql://u:{PASSWORD}@h/d"}}}},
        }
    )


def overflow(store: InlineKeyValueStore) -> None:
    store.set("n", "k", NUMBER)
    store.increment("n", "k")


def not_a_number(store: InlineKeyValueStore) -> None:
    store.set("n", "k", VALUE)
    store.increment("n", "k")


def another_version(store: InlineKeyValueStore) -> None:
    store.set("n", "k", VALUE)
    store.set("n", "k", VALUE + "!", expected_version=1)


def another_operation(store: InlineKeyValueStore) -> None:
    for value in (VALUE, VALUE + "!"):
        store.set("n", "k", value, idempotency_key="id")


def batch(store: InlineKeyValueStore) -> None:
    steps = [{"tool": "kv_set", "key": "k", "value": VALUE}, {"tool": "kv_increment", "key": "k"}]
    store.batch("n", steps)


def large_batch(_: InlineKeyValueStore) -> None:
    with with_quotas(namespace_quota_bytes=2**30) as store:
        for key in ("a", "b", "c"):
            store.set("n", key, VALUE * 100_000)
        store.batch("n", [{"tool": "kv_get", "key": key} for key in ("a", "b", "c")])


def large_replay(_: InlineKeyValueStore) -> None:
    with with_quotas(namespace_quota_bytes=2**30) as store:
        batch = [*({"tool": "kv_get", "key": key} for key in ("a", "b", "c")), {"tool": "kv_increment", "key": "runs"}]
        store.batch("n", batch, idempotency_key="once")
        for key in ("a", "b", "c"):
            store.set("n", key, VALUE * 100_000)
        store.batch("n", batch, idempotency_key="once")


def too_large_to_keep(_: InlineKeyValueStore) -> None:
    with with_quotas() as store:
        store.set("n", "large", VALUE * 10_000)
        store.get_and_delete("n", "large")


def denied(_: InlineKeyValueStore) -> None:
    policies = {"personas": {"reader": {"flags": ["type.system.kv_store_access"]}}, "signing_key": PASSWORD}
    with KeyValueStore(Settings.from_mapping({"policies": policies}), "reader") as store:
        store.set("n", "k", VALUE)


def pipeline(store: InlineKeyValueStore) -> None:
    store.set("n", "k", VALUE)
    with store.pipeline() as collected:
        collected.set("n", "l", VALUE)
        collected.increment("n", "k")


def not_sent(store: InlineKeyValueStore) -> None:
    collected = store.pipeline()
    with suppress(RuntimeError), collected:
        handle = collected.set("n", "k", VALUE)
        raise RuntimeError(VALUE)
    handle.result()


def no_database(_: InlineKeyValueStore) -> None:
    write_to(over(f"postgresql://user:{PASSWORD}@127.0.0.1:1/database"))


def no_broker(_: InlineKeyValueStore) -> None:
    queue = {"broker_url": f"redis://user:{PASSWORD}@127.0.0.1:1/0"}
    with KeyValueStore(Settings.from_mapping({"queue": queue})) as store:
        store.set("n", "k", VALUE, timeout=0.3)


def failed(_: InlineKeyValueStore) -> None:
    message = Message("kvworker.kv_set", "id", {**NAMES, "value": VALUE}, "kv_set(...)", time.monotonic() + 1)
    failure = {"exc_type": "TypeError", "exc_message": [VALUE], "exc_module": "builtins"}
    PendingReply(find_tool("kv_set"), "id", message).outcome({"status": "FAILURE", "result": failure})


def in_a_worker(payload: Mapping[str, Any], *, valkey_url: str, redeliveries: int = 0) -> None:
    """Run a kv_set as a worker does."""
    sqlite = {"url": "sqlite://", "migrate_on_start": True}
    data = {
        "tools": {"kv_store": {"default_adapter": "sqlite", "adapters": {"sqlite": sqlite}}},
        "queue": {"broker_url": valkey_url, "max_redeliveries": 1},
    }
    settings = Settings.from_mapping(data)
    runtime = Runtime(make_celery(settings), settings)
    request = Context(id="id", delivery_info={"redelivered": redeliveries > 0})
    with closing(runtime.adapters):
        for number in range(max(1, redeliveries)):
            # An operation that was applied would be answered from its record.
            unapplied = {**NAMES, "value": VALUE, "idempotency_key": f"operation {number}"}
            runtime.run_operation(request, find_tool("kv_set"), (), {**unapplied, **payload})


def held(store: InlineKeyValueStore) -> None:
    with store.lease("n", "k"), store.lease("n", "k"):
        pass


def limited(store: InlineKeyValueStore) -> None:
    call = store.rate_limited("n", "k", limit=1, per_seconds=3600)(lambda text: text)
    for _ in range(2):
        call(VALUE)


def failed_before(store: InlineKeyValueStore) -> None:
    with suppress(ValueError), store.step("n", "k", record=ValueError):
        raise ValueError(VALUE)
    with store.step("n", "k"):
        pass


def in_progress(store: InlineKeyValueStore) -> None:
    with store.step("n", "k", arguments=VALUE), store.step("n", "k", arguments=VALUE):
        pass


def unknown(store: InlineKeyValueStore) -> None:
    with suppress(ValueError), store.step("n", "k", arguments=VALUE):
        raise ValueError(VALUE)
    with store.step("n", "k", arguments=VALUE):
        pass


def other_arguments(store: InlineKeyValueStore) -> None:
    for arguments in (VALUE, VALUE + "!"):
        with store.step("n", "k", arguments=arguments):
            pass


def unrecorded(store: InlineKeyValueStore) -> None:
    with store.step("n", "k") as step:
        step.finish({VALUE})  # type: ignore[arg-type]


PROVOKED: Mapping[type[KVStoreError], Provoke] = {
    ConfigurationError: configuration,
    InvalidRequestError: lambda store: store.call("kv_set", {**NAMES, "value": 1, "expected_version": VALUE}),
    InvalidKeyError: lambda store: store.set("n", " ", VALUE),
    InvalidTTLError: lambda store: store.set("n", "k", VALUE, ttl_seconds=-1),
    ValueSerializationError: lambda store: store.set("n", "k", {VALUE: [VALUE, {VALUE}]}),  # type: ignore[list-item]
    InvalidValueTypeError: not_a_number,
    CounterOverflowError: overflow,
    VersionConflictError: another_version,
    IdempotencyConflictError: another_operation,
    BatchRefusedError: batch,
    ReadTooLargeError: large_batch,
    ReplayTooLargeError: large_replay,
    RecordTooLargeError: too_large_to_keep,
    NamespaceQuotaExceededError: lambda _: write_to(with_quotas(namespace_quota_bytes=5)),
    GlobalQuotaExceededError: lambda _: write_to(with_quotas(global_quota_bytes=5)),
    LimitExceededError: lambda _: write_twice(with_quotas(namespace_entry_limit=1)),
    PolicyDeniedError: denied,
    StoreUnavailableError: no_database,
    PipelineError: pipeline,
    QueueUnavailableError: no_broker,
    OperationNotSentError: not_sent,
    OperationFailedError: failed,
    LeaseHeldError: held,
    LeaseLostError: lambda store: store.renew_permit("n", "k", VALUE, 30),
    RateLimitExceededError: limited,
    StepInProgressError: in_progress,
    EffectUnknownError: unknown,
    StepLostError: lambda store: store.step_finish("n", "k", token=1, state="done", value=VALUE),
    StepConflictError: other_arguments,
    StepUnrecordedError: unrecorded,
    StepFailedError: failed_before,
}


@pytest.fixture
def on_servers(request: pytest.FixtureRequest) -> Mapping[type[KVStoreError], Provoke]:
    """Return the errors that need a server or a file, which is made when one is provoked."""

    def url(server: str) -> str:
        return str(request.getfixturevalue(f"{server}_url"))

    def unanswered(_: InlineKeyValueStore) -> None:
        with KeyValueStore(Settings.from_mapping({"queue": {"broker_url": url("valkey")}})) as store:
            store.set("n", "k", VALUE, timeout=2.0)

    def refused_by_a_constraint(_: InlineKeyValueStore) -> None:
        with psycopg.connect(url("postgres").replace("+psycopg", ""), autocommit=True) as connection:
            connection.execute("ALTER TABLE kv_entries ADD CONSTRAINT mine CHECK (length(value) < 9)")
        write_to(over(url("postgres")))

    return {
        KVStoreError: refused_by_a_constraint,
        UnsupportedMessageError: lambda _: in_a_worker({"v": 9}, valkey_url=url("valkey")),
        OperationExpiredError: lambda _: in_a_worker({"deadline": 1.0}, valkey_url=url("valkey")),
        RedeliveryLimitError: lambda _: in_a_worker({}, valkey_url=url("valkey"), redeliveries=2),
        OperationTimeoutError: unanswered,
        SchemaError: lambda _: write_to(over(url("sqlite"), "sqlite", migrate_on_start=False)),
    }


@pytest.fixture(params=["sqlite", "postgres"])
def store(request: pytest.FixtureRequest) -> Iterator[InlineKeyValueStore]:
    with over(request.getfixturevalue(f"{request.param}_url"), request.param) as store:
        yield store


def raised() -> set[type[KVStoreError]]:
    """Return every class that is raised as itself."""
    return {cls for cls in public_tree() if not cls.__subclasses__()} | {
        KVStoreError,
        InvalidRequestError,
        IdempotencyConflictError,
    }


@pytest.mark.parametrize("cls", sorted(raised() - NOT_RAISED_HERE, key=str))
def test_an_error_and_its_log_hold_no_value_no_password_and_no_sql(
    cls: type[KVStoreError],
    store: InlineKeyValueStore,
    on_servers: Mapping[type[KVStoreError], Provoke],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG, logger="kvworker")
    caplog.set_level(logging.DEBUG, logger="tasks")
    with pytest.raises(cls) as caught:
        {**PROVOKED, **on_servers}[cls](store)
    error = caught.value
    assert type(error) is cls
    shown = [str(error), repr(error), repr(error.args), repr(vars(error)), caplog.text]
    assert not [text for text in shown if any(secret in text for secret in SECRETS)]
    # Its causes must not reveal any either.
    traceback = "".join(format_exception(error))
    assert not [secret for secret in (VALUE, PASSWORD, str(NUMBER)) if secret in traceback]


def test_the_document_tells_of_every_error() -> None:
    text = (ROOT / "docs" / "explanation" / "security.md").read_text(encoding="utf-8")
    table = text.split("## What errors reveal", 1)[1].split("\n## ", 1)[0]
    told = re.findall(r"`(\w+Error)`", "".join(line.split("|")[1] for line in table.splitlines() if line[:2] == "| "))
    assert sorted(told) == sorted(cls.__name__ for cls in raised())
