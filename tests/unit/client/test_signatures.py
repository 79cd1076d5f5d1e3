"""Operations as signatures, without a broker."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from celery import Celery, _state

from kvworker import ConfigurationError, KeyValueStore


@pytest.fixture
def eager_application(monkeypatch: pytest.MonkeyPatch) -> Iterator[Celery]:
    """The host program's application in its tests, with Celery's eager mode."""
    monkeypatch.setattr(_state, "default_app", None)
    monkeypatch.setattr(_state._tls, "current_app", None)
    with Celery("host") as app:
        app.conf.task_always_eager = True
        yield app


def test_a_signature_says_what_to_do_instead_of_running_eagerly(eager_application: Celery) -> None:
    with KeyValueStore.from_config({}) as store:
        with pytest.raises(ConfigurationError, match=r"task_always_eager is set.*unset it.*InlineKeyValueStore"):
            store.signature("kv_get", {"namespace": "n", "key": "k"})
        eager_application.conf.task_always_eager = False
        assert store.signature("kv_get", {"namespace": "n", "key": "k"}).task == "kvworker.kv_get"
