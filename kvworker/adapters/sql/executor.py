"""Running work on a connection: schema check, retries and the one place where drivers' errors are translated."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any, TypeVar

from sqlalchemy.exc import DBAPIError

from kvworker.adapters.sql.dialect import ConnectionLostError, Dialect, RetryableError
from kvworker.adapters.sql.engines import ProcessEngine
from kvworker.adapters.sql.schema import SCHEMA_VERSION
from kvworker.errors import ConfigurationError, SchemaError, StoreUnavailableError

_Result = TypeVar("_Result")

#: How soon a process hears that a newer program has migrated the database under it.
SCHEMA_CHECK_SECONDS = 30.0
_MAX_LOST_CONNECTIONS = 1
_MAX_CONFLICTS = 5
_MAX_CONFLICT_PAUSE_SECONDS = 0.05


class Executor:
    """Runs functions of a driver's connection, each again when the database undid it or the connection was stale.

    Work is run again only because that is safe: every write carries an operation id, so that one whose
    commit was not heard of is replayed and not repeated.
    """

    def __init__(self, dialect: Dialect, engine: ProcessEngine, *, migrate_on_start: bool) -> None:
        self.dialect = dialect
        self.engine = engine
        self._migrate_on_start = migrate_on_start
        self._check_schema_at = 0.0

    def run(self, work: Callable[[Any], _Result], operation_id: str = "") -> _Result:
        """Give what ``work`` returns for a connection in autocommit mode; ``operation_id`` is for the error.

        Raises:
            StoreUnavailableError, SchemaError: the database cannot serve.
        """

        def attempt() -> _Result:
            if time.monotonic() >= self._check_schema_at:
                self._check_schema()
            return self.engine.use(work)

        return self._retried(attempt, operation_id)

    def migrate(self) -> None:
        """Create or update the schema."""
        self._retried(self._migrate)

    def schema_version(self) -> str:
        """Read which version of the schema the database has.

        Raises:
            SchemaError: it has none.
        """
        return self._retried(self._read_version)

    def _migrate(self) -> None:
        # Alembic takes long to import, and a worker rarely needs it.
        from kvworker.adapters.sql.migrations import migrate  # noqa: PLC0415

        migrate(self.engine.get())

    def _read_version(self) -> str:
        row = self.engine.use(lambda connection: self.dialect.fetch_one(connection, "schema_version", {}))
        if row is None:
            raise SchemaError("the database has no schema version; run `kvworker migrate`")
        return str(row[0])

    def _check_schema(self) -> None:
        if self._migrate_on_start and not self._check_schema_at:
            self._migrate()
        version = self._read_version()
        if version != SCHEMA_VERSION:
            raise SchemaError(
                f"the database's schema is of version {version}, and this program works with {SCHEMA_VERSION};"
                " run `kvworker migrate` with the newest version of the program"
            )
        self._check_schema_at = time.monotonic() + SCHEMA_CHECK_SECONDS

    def _retried(self, attempt: Callable[[], _Result], operation_id: str = "") -> _Result:
        failures: list[type[RetryableError]] = []
        while True:
            try:
                return self._translated(attempt)
            except (ConfigurationError, SchemaError) as error:
                if not failures:
                    raise
                # These say that nothing was done; the try before may have been.
                raise StoreUnavailableError(f"a connection was lost, and then {error}", operation_id) from error
            except StoreUnavailableError as error:
                raise StoreUnavailableError(error.detail, operation_id) from error.__cause__
            except RetryableError as error:
                failures.append(type(error))
                if failures.count(type(error)) > self._prepare_retry(error):
                    raise StoreUnavailableError(error.reason, operation_id) from error.__cause__

    def _translated(self, attempt: Callable[[], _Result]) -> _Result:
        try:
            return attempt()
        except self.dialect.driver_errors as error:
            raise self.dialect.translate(error) from self.dialect.cause_of(error)
        except DBAPIError as error:
            # From a migration: all else runs on the driver itself. Without a statement it is about connecting.
            cause = error.orig if isinstance(error.orig, Exception) else error
            meaning = self.dialect.cannot_connect if error.statement is None else self.dialect.translate
            raise meaning(cause) from self.dialect.cause_of(cause)

    def _prepare_retry(self, error: RetryableError) -> int:
        """Make ready for another try, and tell how many such failures are worth one."""
        if isinstance(error, ConnectionLostError):
            self.engine.discard_connections()
            return _MAX_LOST_CONNECTIONS
        time.sleep(random.uniform(0, _MAX_CONFLICT_PAUSE_SECONDS))  # noqa: S311 - not a secret
        return _MAX_CONFLICTS
