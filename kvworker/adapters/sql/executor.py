"""Runs work on a connection: checks the schema, retries, and translates drivers' errors in this one place."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

from sqlalchemy.exc import DBAPIError, NoSuchTableError
from tenacity import RetryCallState, Retrying, retry_if_exception_type

from kvworker import tracing
from kvworker.adapters.sql.dialect import Dialect
from kvworker.adapters.sql.engines import ProcessEngine
from kvworker.adapters.sql.schema import SCHEMA_VERSION, works_with
from kvworker.adapters.sql.signals import ConflictError, ConnectionLostError, RetryableError
from kvworker.errors import ConfigurationError, SchemaError, StoreUnavailableError
from kvworker.retries import CONFLICT_PAUSE

if TYPE_CHECKING:
    from kvworker.adapters.sql.migrations import PlannedStep

_Result = TypeVar("_Result")

#: The interval at which a process checks whether a newer program has migrated the database.
SCHEMA_CHECK_SECONDS = 30.0
#: A second lost connection in a row means that the database is away; conflicts usually pass.
_MAX_RETRIES: Final[Mapping[type[RetryableError], int]] = {ConnectionLostError: 1, ConflictError: 5}


class Executor:
    """Runs functions of a driver's connection, and retries after a conflict or a stale connection.

    Retrying is safe because every write carries an operation id: if its commit went through unnoticed, the retry
    replays it instead of applying it twice.
    """

    def __init__(self, dialect: Dialect, engine: ProcessEngine, *, migrate_on_start: bool) -> None:
        self.dialect = dialect
        self.engine = engine
        self._migrate_on_start = migrate_on_start
        self._check_schema_at = 0.0

    def run(self, work: Callable[[Any], _Result], operation_id: str = "", operation: str = "query") -> _Result:
        """Return the result of ``work`` for a connection in autocommit mode.

        Args:
            work: Called with the driver's connection, possibly several times.
            operation_id: The operation id that a ``StoreUnavailableError`` carries.
            operation: The name of the work in traces.

        Raises:
            StoreUnavailableError: the database is unavailable.
            SchemaError: its schema is missing or of another version.
            ConfigurationError: the adapter's configuration does not fit the database.
        """

        def attempt() -> _Result:
            """Run the work, after a check of the schema if the last check is too old."""
            if time.monotonic() >= self._check_schema_at:
                self._check_schema()
            return self._use(work)

        if tracing.active is None:
            return self._run_with_retries(attempt, operation_id)
        with tracing.active.query(self.dialect.name, operation):
            return self._run_with_retries(attempt, operation_id)

    def run_unchecked(self, work: Callable[[Any], _Result]) -> _Result:
        """Return the result of ``work`` as ``run`` does, whatever the state of the schema is."""
        return self._run_with_retries(lambda: self._on_connection(work))

    def inspect(self, work: Callable[[Any], _Result]) -> _Result:
        """Return the result of ``work`` as ``run`` does, without migrating the database on first use."""

        def attempt() -> _Result:
            """Run the work on a schema that this program knows."""
            self._check_version()
            return self._use(work)

        return self._run_with_retries(attempt)

    def schema_differences(self) -> list[str]:
        """Say how the database's schema differs from what the migrations make."""

        def read() -> list[str]:
            """Compare them on a connection of SQLAlchemy's."""
            from kvworker.adapters.sql.migrations.differences import find_differences  # noqa: PLC0415 - as above

            try:
                with self.engine.get().connect() as connection:
                    return find_differences(connection)
            except NoSuchTableError:
                raise ConflictError("the schema was repeatedly migrated while it was read") from None

        return self._run_with_retries(read)

    def migrate(self, *, finish: bool = False) -> None:
        """Create or update the schema. With ``finish`` it no longer works with the previous release."""
        self._run_with_retries(partial(self._migrate, finish=finish))

    def plan_migration(self, *, finish: bool = False) -> tuple[list[PlannedStep], str]:
        """Return what ``migrate`` would do, as steps and as a script."""

        def plan() -> tuple[list[PlannedStep], str]:
            """Read the state of the schema, and make the plan."""
            from kvworker.adapters.sql.migrations import plan_migration, script_of  # noqa: PLC0415

            engine = self.engine.get()
            return plan_migration(engine, finish=finish), script_of(engine, finish=finish)

        return self._run_with_retries(plan)

    def schema_version(self) -> tuple[str, str | None]:
        """Read the version of the database's schema, and the version that it is expanded to, if it is.

        Raises:
            SchemaError: the database was never migrated.
        """
        return self._run_with_retries(self._read_version)

    def _migrate(self, *, finish: bool = False) -> None:
        # Alembic takes long to import, and a worker rarely needs it.
        from kvworker.adapters.sql.migrations import migrate  # noqa: PLC0415

        self.engine.use(self.dialect.check_encoding)
        migrate(self.engine.get(), finish=finish)

    def _read_version(self) -> tuple[str, str | None]:
        def read(connection: Any) -> Any:
            """Read the version, after a check of the encoding that it is stored in."""
            self.dialect.check_encoding(connection)
            return self.dialect.fetch_one(connection, "schema_version", {})

        row = self._on_connection(read)
        if row is None:
            raise SchemaError("the database has no schema version; run `kvworker migrate`")
        return row[0], row[1] if len(row) > 1 else None

    def _check_schema(self) -> None:
        if self._migrate_on_start and not self._check_schema_at:
            self._migrate()
        self._check_version()
        self._check_schema_at = time.monotonic() + SCHEMA_CHECK_SECONDS

    def _use(self, work: Callable[[Any], _Result]) -> _Result:
        """Run the work, and once more if the schema may have been migrated meanwhile."""
        try:
            return self._on_connection(work)
        except self.dialect.driver_errors as error:
            if not isinstance(self.dialect.translate(error), SchemaError):
                raise
            # Another thread may have found out first, so it means nothing if the statements are the same as before.
            self._check_version()
        return self._on_connection(work)

    def _on_connection(self, work: Callable[[Any], _Result]) -> _Result:
        return self.engine.use(work)

    def _check_version(self) -> None:
        """Check the schema's version, and use its statements."""
        version, expanded = self._read_version()
        if not works_with(version, expanded):
            advice = "upgrade this program" if version > SCHEMA_VERSION else "run `kvworker migrate`"
            raise SchemaError(
                f"the database's schema is of version {version}, and this program works with {SCHEMA_VERSION}; {advice}"
            )
        self.dialect.use_schema(version)

    def _run_with_retries(self, attempt: Callable[[], _Result], operation_id: str = "") -> _Result:
        # Tenacity comes in only after a failure: a success, which is the hot path, pays nothing for it.
        try:
            return self._translate_errors(attempt)
        except StoreUnavailableError as error:
            raise StoreUnavailableError(error.detail, operation_id) from error.__cause__
        except RetryableError as error:
            failure = error
        return self._retry(attempt, failure, operation_id)

    def _retry(self, attempt: Callable[[], _Result], failure: RetryableError, operation_id: str) -> _Result:
        failures: list[type[RetryableError]] = []

        def next_attempt() -> _Result:
            """Run the work again, but first repeat the failure of the attempt that was already made."""
            try:
                if not failures:
                    # The attempt that was made already counts as the first one.
                    raise failure
                return self._translate_errors(attempt)
            except RetryableError as error:
                failures.append(type(error))
                if isinstance(error, ConnectionLostError):
                    self.engine.discard_connections()
                raise

        def is_exhausted(_state: RetryCallState) -> bool:
            """Tell whether failures of the last one's kind have used up their retries."""
            return failures.count(failures[-1]) > _MAX_RETRIES[failures[-1]]

        def pause_seconds(state: RetryCallState) -> float:
            """Pause after a conflict, and retry at once on a new connection."""
            return CONFLICT_PAUSE(state) if failures[-1] is ConflictError else 0.0

        retrying = Retrying(
            retry=retry_if_exception_type(RetryableError), stop=is_exhausted, wait=pause_seconds, reraise=True
        )
        try:
            return retrying(next_attempt)
        except (ConfigurationError, SchemaError) as error:
            # This error alone would mean that nothing was done, but an earlier attempt may have been applied.
            raise StoreUnavailableError(f"a connection was lost, and then {error}", operation_id) from error
        except StoreUnavailableError as error:
            raise StoreUnavailableError(error.detail, operation_id) from error.__cause__
        except RetryableError as error:
            raise StoreUnavailableError(error.reason, operation_id) from error.__cause__

    def _translate_errors(self, attempt: Callable[[], _Result]) -> _Result:
        try:
            return attempt()
        except self.dialect.driver_errors as error:
            raise self.dialect.translate(error) from self.dialect.cause_of(error)
        except DBAPIError as error:
            # Only a migration raises this; everything else uses the driver directly. Without a statement the error
            # is about connecting.
            cause = error.orig if isinstance(error.orig, Exception) else error
            translate = self.dialect.cannot_connect if error.statement is None else self.dialect.translate
            raise translate(cause) from self.dialect.cause_of(cause)


class InspectionExecutor(Executor):
    """Runs queries that show a store to an operator: they give up soon on a table that another session has locked."""

    def _on_connection(self, work: Callable[[Any], _Result]) -> _Result:
        def inspect(connection: Any) -> _Result:
            """Run the work within the bound."""
            with self.dialect.inspection(connection):
                return work(connection)

        return super()._on_connection(inspect)
