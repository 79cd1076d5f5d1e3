"""No password is ever printed."""

from __future__ import annotations

import traceback
from io import StringIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from kvworker.errors import ConfigurationError
from kvworker.settings import Settings, redacted_url

SECRET = "s3cr3t"  # noqa: S105 - must not be printed
DATA = {
    "tools": {
        "kv_store": {
            "adapters": {
                "postgres": {"url": f"postgresql+psycopg://u:{SECRET}@h/d"},
                "sqlite": {"url": f"sqlite:///file:x?vfs=token={SECRET}&uri=true"},
                "cloud": {"api_key": SECRET},
            }
        }
    },
    "conversation_store": {"url": f"postgresql://u:{SECRET}@h/d"},
    "queue": {
        "broker_url": f"amqp://u:{SECRET}@h//",
        "result_backend": f"redis+socket:///run/v.sock?password={SECRET}",
    },
}


def test_settings_hide_passwords_when_printed() -> None:
    settings = Settings.from_mapping(DATA)
    console = Console(file=StringIO(), width=10_000)
    console.print(settings, settings.queue, settings.store)
    assert isinstance(console.file, StringIO)
    shown = [repr(settings), str(settings), repr(settings.store), str(settings.queue), console.file.getvalue()]
    shown += [repr(settings.kv_store), f"{settings.conversation_store}", repr(settings.store.adapters["postgres"])]
    assert not [text for text in shown if SECRET in text]
    assert "amqp://u:***@h//" in repr(settings)


def test_connections_still_get_the_passwords() -> None:
    settings = Settings.from_mapping(DATA)
    assert SECRET in settings.store.adapter_config("postgres")[1]["url"]
    assert SECRET in settings.queue.broker_url
    assert settings.to_mapping()["conversation_store"]["url"] == f"postgresql://u:{SECRET}@h/d"


@pytest.mark.parametrize(
    "data",
    [
        {"queue": {"broker_url": f"redis:/u:{SECRET}@h"}},
        {"queue": {"result_backend": f"redis:/u:{SECRET}@h"}},
        {"queue": {"broker_url": [f"redis://u:{SECRET}@h"]}},
        {"queue": {"brokerurl": f"redis://u:{SECRET}@h"}},
        {"queue": f"redis://u:{SECRET}@h"},
        {"queue": {"max_redeliveries": f"redis://u:{SECRET}@h"}},
        {"conversation_store": {"url": {"password": SECRET}}},
        {"conversation_store": f"postgresql://u:{SECRET}@h/d"},
        {"tools": {"kv_store": {"adapters": {"postgres": {"url": f"mysql://u:{SECRET}@h/d"}}}}},
        {"tools": {"kv_store": {"adapters": {"postgres": {"url": f"host=h password={SECRET}"}}}}},
        {"tools": {"kv_store": {"adapters": {"postgres": f"postgresql://u:{SECRET}@h/d"}}}},
        {"tools": {"kv_store": {"adapters": {"postgres": {"password": SECRET}}}}},
        {"tools": {"kv_store": {"adapters": f"postgresql://u:{SECRET}@h/d"}}},
    ],
)
def test_errors_hide_passwords_in_messages_and_tracebacks(data: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Settings.from_mapping(data)
    assert SECRET not in str(caught.value)
    assert SECRET not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://127.0.0.1:6379/0", "redis://127.0.0.1:6379/0"),
        ("redis://user@h/0", "redis://user@h/0"),
        (f"redis://:{SECRET}@h/0", "redis://:***@h/0"),
        (f"postgresql://u:{SECRET}@h:5/d?sslmode=require", "postgresql://u:***@h:5/d?sslmode=require"),
        (f"postgresql://u:a@b/{SECRET}@h/d", "postgresql://u:***@h/d"),
        (f"postgresql:///d?user=u&password={SECRET}&x=1", "postgresql:///d?user=u&password=***&x=1"),
        (f"postgresql:///d?sslpassword={SECRET}", "postgresql:///d?sslpassword=***"),
        (f"host=h password={SECRET} dbname=d", "host=h password=*** dbname=d"),
        (f"host=h password='{SECRET} x' dbname=d", "host=h password=*** dbname=d"),
        ("sqlite:///.kvworker/kv.sqlite", "sqlite:///.kvworker/kv.sqlite"),
        ("", ""),
    ],
)
def test_redacted_url(url: str, shown: str) -> None:
    assert redacted_url(url) == shown


@given(st.text(st.characters(codec="utf-8"), max_size=20))
def test_no_password_however_odd_survives_redaction(noise: str) -> None:
    password = noise[: len(noise) // 2] + SECRET + noise[len(noise) // 2 :]
    assert SECRET not in redacted_url(f"redis://user:{password}@host:6379/0?x=1")
