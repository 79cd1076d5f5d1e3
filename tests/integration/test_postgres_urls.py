"""URLs of PostgreSQL: parameters are checked, and no error shows a password."""

from __future__ import annotations

import psycopg
import pytest
from sqlalchemy.engine import make_url

from kvworker.adapters.postgres import make_adapter
from kvworker.adapters.sql.adapter import SqlAdapter
from kvworker.errors import ConfigurationError, KVStoreError
from tests.support.elapsed import finishes_within

_PASSWORD = "s3cret-in-no-message"  # noqa: S105 - that it is never shown is what is tested


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://user:{_PASSWORD}@127.0.0.1:1/database",
        f"postgresql://user:{_PASSWORD}@name.invalid/database?connect_timeout=2",
        f"postgresql://user:{_PASSWORD}@127.0.0.1:1/database?sslmode=nonsense",
        f"postgresql://user:{_PASSWORD}@127.0.0.1:port/database",
        f"postgresql://user@127.0.0.1:1/database?password={_PASSWORD}",
        f"postgresql://user:not/escaped@{_PASSWORD}@127.0.0.1:1/database",
        f"postgresql://user:not@{_PASSWORD}/escaped@127.0.0.1:1/database",
        f"mysql://user:{_PASSWORD}@127.0.0.1/database",
        f"user:{_PASSWORD}@127.0.0.1/database",
    ],
)
def test_no_error_shows_a_password(url: str) -> None:
    with finishes_within(10), pytest.raises(KVStoreError) as caught:
        make_adapter({"url": url}).get("namespace", "key")
    error: BaseException | None = caught.value
    while error is not None:
        assert _PASSWORD not in f"{error!s} {error!r} {error.args!r}"
        error = error.__cause__


@pytest.mark.parametrize(
    ("parameter", "message"),
    [
        ("foo=1", "the parameter 'foo' is none of PostgreSQL's connection parameters"),
        ("autocommit=true", "the parameter 'autocommit' is none of PostgreSQL's connection parameters"),
        ("prepare_threshold=0", "the parameter 'prepare_threshold' is none of PostgreSQL's connection parameters"),
        ("sslmode=perhaps", "correct this parameter in the url: .*invalid sslmode value"),
        ("connect_timeout=soon", "correct this parameter in the url: .*connect_timeout"),
    ],
)
def test_a_wrong_parameter_in_the_url_is_an_error_of_the_configuration(
    postgres_url: str, parameter: str, message: str
) -> None:
    """These were unknown outcomes that a worker retried, or were passed on as text."""
    with pytest.raises(ConfigurationError, match=message):
        make_adapter({"url": f"{postgres_url}&{parameter}"}).get("n", "k")


def test_an_engine_does_not_show_a_password_given_as_a_parameter() -> None:
    with make_adapter({"url": f"postgresql://user@127.0.0.1:1/database?password={_PASSWORD}"}) as adapter:
        assert isinstance(adapter, SqlAdapter)
        assert _PASSWORD not in repr(adapter._executor.engine.get())


def test_a_schema_other_than_public_is_named_in_the_url(postgres_url: str) -> None:
    with psycopg.connect(postgres_url.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute("CREATE SCHEMA elsewhere")
    url = make_url(postgres_url).update_query_dict({"options": "-csearch_path=elsewhere"}).render_as_string()
    with make_adapter({"url": url}) as adapter, make_adapter({"url": postgres_url}) as another:
        adapter.migrate()
        adapter.set("namespace", "key", "elsewhere")
        assert not another.get("namespace", "key").found
