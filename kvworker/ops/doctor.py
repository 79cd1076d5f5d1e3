"""Checks of a deployment: what is configured, what can be reached, and how to mend what fails."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from celery import Celery
from redis import Redis
from redis.exceptions import RedisError

from kvworker.adapters import KeyValueStoreAdapter
from kvworker.adapters.providers import adapter_of, adapters_in_use
from kvworker.adapters.sql.adapter import SqlAdapter
from kvworker.adapters.sql.schema import SCHEMA_VERSION
from kvworker.client.sync import KeyValueStore
from kvworker.errors import KVStoreError, OperationTimeoutError, PolicyDeniedError, SchemaError
from kvworker.messaging.celery_app import make_celery
from kvworker.messaging.signing import UNSIGNED
from kvworker.ops.database import open_adapter
from kvworker.settings import Settings, redacted_url
from kvworker.settings.urls import speaks_redis

#: Expiry is by the database's clock, deadlines by the results' server's, what beat sends expires by the machines' own.
MAX_CLOCK_DIFFERENCE_SECONDS = 2.0

_WORKER_SECONDS = 5.0


@dataclass(frozen=True)
class Finding:
    """What a check found; ``fix`` says what to do when it failed."""

    name: str
    ok: bool
    detail: str
    fix: str = ""


class CheckError(Exception):
    """A check failed."""

    def __init__(self, detail: str, fix: str) -> None:
        super().__init__(detail, fix)
        self.detail = detail
        self.fix = fix


def run_checks(settings: Settings, names: tuple[str, ...] = ()) -> Iterator[Finding]:
    """Run the named checks of ``CHECKS``, or all, one after the other."""
    failed = set[str]()
    for name, check in CHECKS.items():
        if names and name not in names:
            continue
        if needed := failed.intersection(_NEEDED.get(name, ())):
            yield Finding(name, ok=False, detail="not checked", fix=f"mend first: {', '.join(sorted(needed))}")
            continue
        try:
            yield Finding(name, ok=True, detail=check(settings))
        except CheckError as error:
            failed.add(name)
            yield Finding(name, ok=False, detail=redacted_url(error.detail), fix=error.fix)


def _broker(settings: Settings) -> str:
    app = make_celery(settings)
    shown = redacted_url(settings.queue.broker_url)
    try:
        with app.connection_for_write(heartbeat=0) as connection:
            connection.ensure_connection(max_retries=0, reraise_as_library_errors=False)
            if not speaks_redis(settings.queue.broker_url):
                return shown
            # Its client connects only when it is used.
            connection.default_channel.client.ping()
    except Exception as error:
        raise CheckError(f"{shown}: {error}", "start the broker, or correct queue.broker_url") from error
    return shown


def _results(settings: Settings) -> str:
    shown = redacted_url(settings.queue.result_backend)
    try:
        _redis(make_celery(settings)).ping()
    except (RedisError, OSError) as error:
        raise CheckError(f"{shown}: {error}", "start the server of results, or correct queue.result_backend") from error
    return shown


def _database(settings: Settings) -> str:
    names = adapters_in_use(settings)
    for name in names:
        try:
            with open_adapter(settings, name) as adapter:
                _touch(adapter)
        except SchemaError:
            # It was reached; the next check tells.
            pass
        except KVStoreError as error:
            raise CheckError(f"{name}: {error}", f"start it, or correct tools.kv_store.adapters.{name}") from error
    _check_providers(settings)
    return ", ".join(names)


def _check_providers(settings: Settings) -> None:
    for name, persona in settings.policies.personas.items():
        try:
            adapter_of(persona.provider or settings.store.default_adapter)
        except KVStoreError as error:
            raise CheckError(str(error), f"correct the provider of the persona {name!r} in policies") from error


def _touch(adapter: KeyValueStoreAdapter) -> None:
    if isinstance(adapter, SqlAdapter):
        adapter.schema_version()
    else:
        adapter.usage("kvworker")


def _schema(settings: Settings) -> str:
    return ", ".join(dict.fromkeys(_schema_of(settings, name) for name in adapters_in_use(settings)))


def _schema_of(settings: Settings, name: str) -> str:
    try:
        with open_adapter(settings, name) as adapter:
            if not isinstance(adapter, SqlAdapter):
                return "the adapter's own"
            version = adapter.schema_version()
    except KVStoreError as error:
        raise CheckError(f"{name}: {error}", "run `kvworker migrate`") from error
    if version != SCHEMA_VERSION:
        raise CheckError(
            f"{name}: version {version}; this program works with {SCHEMA_VERSION}",
            "run `kvworker migrate`, or this program's newest version",
        )
    return f"version {version}"


def _clocks(settings: Settings) -> str:
    differences: dict[str, float] = {}
    try:
        with open_adapter(settings) as adapter:
            if isinstance(adapter, SqlAdapter):
                adapter.schema_version()  # So that connecting is not counted as a difference.
                differences["database"] = _difference(adapter.clock)
        client = _redis(make_celery(settings))
        client.ping()
        differences["results"] = _difference(lambda: _redis_clock(client))
    except (KVStoreError, RedisError, OSError) as error:
        raise CheckError(f"cannot be compared: {error}", "mend what failed above") from error
    shown = ", ".join(f"{name} {seconds:+.3f} s" for name, seconds in differences.items())
    if any(abs(seconds) > MAX_CLOCK_DIFFERENCE_SECONDS for seconds in differences.values()):
        raise CheckError(f"{shown} from this machine's", "synchronize the clocks of all machines (NTP)")
    return shown


def _worker(settings: Settings) -> str:
    started = time.monotonic()
    timeout_seconds = max(_WORKER_SECONDS, settings.facade.timeout_seconds)
    try:
        with KeyValueStore(settings) as store:
            store.probe(timeout_seconds).result()
    except PolicyDeniedError as error:
        if error.detail == UNSIGNED:
            raise CheckError(str(error), "give the callers and the workers the same policies.signing_key") from error
    except OperationTimeoutError as error:
        queue_name = settings.queue.queue_name
        unsigned = ", or its policies.security_cert_store lacks this certificate, as its log tells"
        raise CheckError(
            f"nobody answered on the queue {queue_name!r} within {timeout_seconds:g} s",
            "start a worker: `kvworker worker`; if one runs, it is busy, or has another broker or queue"
            + (unsigned if settings.policies.has_certificates else ""),
        ) from error
    except KVStoreError as error:
        raise CheckError(str(error), "mend what failed above, or see the worker's log") from error
    return f"answered in {(time.monotonic() - started) * 1000:.0f} ms"


def _difference(clock: Callable[[], float]) -> float:
    before = time.time()
    there = clock()
    return there - (before + time.time()) / 2


def _redis_clock(client: Redis) -> float:
    seconds, microseconds = client.time()
    return float(seconds) + float(microseconds) / 1e6


def _redis(app: Celery) -> Redis:
    client: Redis = app.backend.client
    return client


CHECKS: Final[Mapping[str, Callable[[Settings], str]]] = {
    "broker": _broker,
    "results": _results,
    "database": _database,
    "schema": _schema,
    "clocks": _clocks,
    "worker": _worker,
}

_NEEDED: Final[Mapping[str, tuple[str, ...]]] = {
    "schema": ("database",),
    "clocks": ("results", "database", "schema"),
    "worker": ("broker", "results"),
}
