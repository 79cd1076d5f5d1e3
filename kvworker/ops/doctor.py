"""Checks a deployment: its configuration, its servers and its workers, with a fix for each failure."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from redis.exceptions import RedisError

from kvworker.adapters import KeyValueStoreAdapter
from kvworker.adapters.providers import adapters_in_use, unknown_names
from kvworker.adapters.sql.adapter import SqlAdapter
from kvworker.client.sync import KeyValueStore
from kvworker.errors import ConfigurationError, KVStoreError, OperationTimeoutError, PolicyDeniedError, SchemaError
from kvworker.messaging.celery_app import make_celery
from kvworker.messaging.certificates import check_certificates
from kvworker.messaging.connection_faults import has_answered, refused_login
from kvworker.messaging.queue_readiness import check_broker
from kvworker.messaging.result_checks import refusal_by_results
from kvworker.messaging.signing import UNSIGNED
from kvworker.ops.database import open_adapter
from kvworker.ops.fleet import Fleet, ask_workers, outdated_text
from kvworker.ops.overview.locks import lasting_locks, lock_text
from kvworker.settings import Settings, redacted_url
from kvworker.settings.config_file import find_file
from kvworker.wording import counted, noun

#: The database's clock decides expiry and the result server's clock decides deadlines. Beat's messages expire by the
#: machines' own clocks, so all of them must agree.
MAX_CLOCK_DIFFERENCE_SECONDS = 2.0

_MIN_WORKER_TIMEOUT_SECONDS = 5.0
#: A caller's machine may lack a package with an adapter, which no other check needs.
_NEED_ADAPTERS: Final = frozenset({"config", "database", "schema", "clocks"})
_OUTDATED_FIX = "replace this worker by one of the newest release"
_SILENCE_FIX = "it is frozen, or busy in a pool such as solo; look at its log, and end it by SIGKILL if it hangs"


@dataclass(frozen=True)
class Finding:
    """The outcome of a check. ``fix`` says what to do if it failed, else it is empty."""

    name: str
    ok: bool
    detail: str
    fix: str = ""


class CheckError(Exception):
    """A check failed: ``detail`` says how, and ``fix`` what to do."""

    def __init__(self, detail: str, fix: str) -> None:
        super().__init__(detail, fix)
        self.detail = detail
        self.fix = fix


def check_deployment(config: Path | None, names: tuple[str, ...] = ()) -> Iterator[Finding]:
    """Check the configuration file first, and if it is valid, what it configures.

    Args:
        config: The configuration file; None checks the defaults and the environment.
        names: The checks of ``CHECKS`` to run; all of them if empty. ``config`` alone runs none of them.

    Returns:
        One finding for each check, as soon as it is known. The configuration's always comes first.
    """
    try:
        settings = Settings.load(config)
        check_certificates(settings.policies)
    except ConfigurationError as error:
        yield Finding(
            "config", ok=False, detail=str(error), fix="correct it; docs/reference/configuration.md lists every key"
        )
        return
    if problems := [*unknown_names(settings)] if not names or _NEED_ADAPTERS.intersection(names) else []:
        fix = "correct it, or install the package with that adapter"
        yield Finding("config", ok=False, detail="\n".join(problems), fix=fix)
        yield from run_checks(settings, names, already_failed=("config",))
        return
    file = find_file(config, os.environ)
    yield Finding("config", ok=True, detail=str(file) if file else "no file: defaults and environment")
    yield from run_checks(settings, names)


def run_checks(
    settings: Settings, names: tuple[str, ...] = (), already_failed: tuple[str, ...] = ()
) -> Iterator[Finding]:
    """Run the named checks of ``CHECKS``, or all of them, one after the other.

    After the check ``worker``, a further finding of this name follows for each worker that answers.

    A check is reported as failed without being run if one that it needs has failed, here or in ``already_failed``.
    """
    failed = set(already_failed)
    for name, check in CHECKS.items():
        if names and name not in names:
            continue
        if needed := failed.intersection(_NEEDED.get(name, ())):
            yield Finding(name, ok=False, detail="not checked", fix=f"fix first: {', '.join(sorted(needed))}")
            continue
        try:
            yield Finding(name, ok=True, detail=check(settings))
        except CheckError as error:
            failed.add(name)
            yield Finding(name, ok=False, detail=redacted_url(error.detail), fix=error.fix)
        if name == "worker":
            yield from _each_worker(settings)


def _broker(settings: Settings) -> str:
    shown = redacted_url(settings.queue.broker_url)
    try:
        check_broker(make_celery(settings), settings)
    except Exception as error:
        start = "start the broker (`kvworker up` starts a local one)"
        raise CheckError(f"{shown}: {error}", _queue_fix(error, start, "queue.broker_url")) from error
    return shown


def _results(settings: Settings) -> str:
    shown = redacted_url(settings.queue.result_backend)
    try:
        refusal = refusal_by_results(make_celery(settings).backend)
    except (RedisError, OSError) as error:
        fix = _queue_fix(error, "start the result backend", "queue.result_backend")
        raise CheckError(f"{shown}: {error}", fix) from error
    if refusal is not None:
        raise CheckError(f"{shown}: {refusal.reason}", refusal.advice)
    return shown


def _queue_fix(error: Exception, start: str, setting: str) -> str:
    if refused_login(error):
        parts = "user, password or virtual host" if setting == "queue.broker_url" else "user or password"
        return f"correct {parts} in {setting}, or the user's rights on the server"
    if has_answered(error):
        return f"the server answers, so correct {setting} or the server"
    return f"{start}, or correct {setting}"


def _database(settings: Settings) -> str:
    names = adapters_in_use(settings)
    for name in names:
        try:
            with open_adapter(settings, name) as adapter:
                _check_locks(name, adapter)
                _query(adapter)
                _check_files(name, adapter)
        except SchemaError:
            # The database answered. The schema check reports this error.
            pass
        except KVStoreError as error:
            setting = f"tools.kv_store.adapters.{name}"
            fix = f"start or create it, or correct {setting}"
            if isinstance(error, ConfigurationError):
                fix = f"do what the message says, in {setting} or on the server"
            raise CheckError(f"{name}: {error}", fix) from error
    return ", ".join(names)


def _check_locks(name: str, adapter: KeyValueStoreAdapter) -> None:
    if locks := lasting_locks(adapter):
        detail = "\n".join(f"{name}: {lock_text(lock)}" for lock in locks)
        fix = "let it finish, or end it in the database with SELECT pg_terminate_backend(PROCESS)"
        raise CheckError(detail, fix if locks[0].pid else "commit or roll back what pg_prepared_xacts shows")


def _check_files(name: str, adapter: KeyValueStoreAdapter) -> None:
    if isinstance(adapter, SqlAdapter) and (files := shlex.join(map(str, adapter.files_open_to_others()))):
        raise CheckError(f"{name}: any user of this machine can read or write {files}", f"run `chmod o= {files}`")


def _query(adapter: KeyValueStoreAdapter) -> None:
    if isinstance(adapter, SqlAdapter):
        adapter.schema_version()
    else:
        adapter.usage("kvworker")


def _schema(settings: Settings) -> str:
    return ", ".join(dict.fromkeys(_adapter_schema(settings, name) for name in adapters_in_use(settings)))


def _adapter_schema(settings: Settings, name: str) -> str:
    try:
        with open_adapter(settings, name) as adapter:
            if not isinstance(adapter, SqlAdapter):
                return "the adapter's own"
            adapter.check_schema()
            version, expanded = adapter.schema_version(), adapter.expanded_version()
    except KVStoreError as error:
        raise CheckError(f"{name}: {error}", "run `kvworker migrate`, or upgrade kvworker") from error
    return f"version {version}, expanded to {expanded}" if expanded else f"version {version}"


def _clocks(settings: Settings) -> str:
    differences: dict[str, float] = {}
    try:
        with open_adapter(settings) as adapter:
            if isinstance(adapter, SqlAdapter):
                adapter.schema_version()  # Connects, so that the difference below excludes the connection time.
                differences["database"] = _difference_seconds(adapter.clock)
        results = make_celery(settings).backend
        results.server_time()  # Connects, so that the difference below excludes the connection time.
        differences["results"] = _difference_seconds(results.server_time)
    except (KVStoreError, RedisError, OSError) as error:
        raise CheckError(f"the clocks cannot be compared: {error}", "fix the failed checks above first") from error
    shown = ", ".join(f"{name} {seconds:+.3f} s" for name, seconds in differences.items())
    if any(abs(seconds) > MAX_CLOCK_DIFFERENCE_SECONDS for seconds in differences.values()):
        raise CheckError(f"{shown} from this machine's clock", "synchronize the clocks of all machines (NTP)")
    return shown


def _worker(settings: Settings) -> str:
    started = time.monotonic()
    timeout_seconds = max(_MIN_WORKER_TIMEOUT_SECONDS, settings.facade.timeout_seconds)
    try:
        with KeyValueStore(settings) as store:
            store.probe(timeout_seconds).result()
    except PolicyDeniedError as error:
        if error.detail == UNSIGNED:
            raise CheckError(str(error), "set the same policies.signing_key for callers and workers") from error
    except OperationTimeoutError as error:
        queue_name = settings.queue.queue_name
        unknown_certificate = ", or its policies.security_cert_store lacks this certificate (see its log)"
        raise CheckError(
            f"no worker answered on the queue {queue_name!r} within {timeout_seconds:g} s",
            "start a worker with `kvworker worker`; a running one is busy, or uses another broker or queue"
            + (unknown_certificate if settings.policies.has_certificates else ""),
        ) from error
    except KVStoreError as error:
        if outdated := outdated_text(str(error)):
            raise CheckError(outdated, _OUTDATED_FIX) from error
        raise CheckError(str(error), "fix the failed checks above first, or see the worker's log") from error
    return f"answered in {(time.monotonic() - started) * 1000:.0f} ms"


def _each_worker(settings: Settings) -> Iterator[Finding]:
    """Report each worker by its name: another one may have answered the probe."""
    try:
        fleet = ask_workers(settings)
    except Exception as error:  # noqa: BLE001 - the client libraries of brokers share no base class
        detail = f"the workers cannot be asked one by one: {error}"
        fix = "let this login publish on the broker's channels, or turn queue.remote_control off"
        yield Finding("worker", ok=False, detail=redacted_url(detail), fix=fix)
        return
    for worker in fleet.answers:
        if outdated := outdated_text(worker.problem):
            yield Finding("worker", ok=False, detail=f"{worker.name}: {outdated}", fix=_OUTDATED_FIX)
        elif worker.problem:
            detail = f"{worker.name}: it consumes nothing, since it cannot serve: {worker.problem}"
            fix = "start or correct what it names, or tools.kv_store.adapters or queue.result_backend; then it goes on"
            yield Finding("worker", ok=False, detail=redacted_url(detail), fix=fix)
        else:
            yield Finding("worker", ok=True, detail=f"{worker.name}: it can serve")
    for name in fleet.shared_names:
        detail = f"several workers have the name {name}, so that monitors take them for one"
        fix = "start each with a name of its own: `kvworker worker -- -n NAME@%h`"
        yield Finding("worker", ok=False, detail=detail, fix=fix)
    if fleet.silent_count:
        yield Finding("worker", ok=False, detail=_silence(fleet), fix=_SILENCE_FIX)


def _silence(fleet: Fleet) -> str:
    workers = counted(fleet.silent_count, "worker is", "workers are")
    names = ", ".join(fleet.silent_names)
    which = names if len(fleet.silent_names) <= fleet.silent_count else f"among {names}"
    return f"{workers} connected to the broker and {noun(fleet.silent_count, 'does', 'do')} not answer: {which}".rstrip(
        ": "
    )


def _difference_seconds(clock: Callable[[], float]) -> float:
    before = time.time()
    remote = clock()
    return remote - (before + time.time()) / 2


#: The checks by name, in the order in which they run. Each gives the detail of its finding, or raises ``CheckError``.
CHECKS: Final[Mapping[str, Callable[[Settings], str]]] = {
    "broker": _broker,
    "results": _results,
    "database": _database,
    "schema": _schema,
    "clocks": _clocks,
    "worker": _worker,
}

_NEEDED: Final[Mapping[str, tuple[str, ...]]] = {
    "database": ("config",),
    "schema": ("config", "database"),
    "clocks": ("config", "results", "database", "schema"),
    "worker": ("broker", "results"),
}
