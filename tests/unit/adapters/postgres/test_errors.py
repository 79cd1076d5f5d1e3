from __future__ import annotations

import psycopg
import pytest

from kvworker.adapters.postgres.errors import cannot_connect
from kvworker.errors import ConfigurationError


@pytest.mark.parametrize(
    "reason",
    [
        "unsupported startup parameter: options",
        # PgBouncer 1.20 and newer.
        "unsupported startup parameter in options: lock_timeout",
    ],
)
def test_a_parameter_that_pgbouncer_refuses_is_permanent(reason: str) -> None:
    error = cannot_connect(psycopg.OperationalError(f"connection failed: FATAL:  {reason}"), None, None)
    assert isinstance(error, ConfigurationError)
    assert "prepare_threshold: null" in str(error)
