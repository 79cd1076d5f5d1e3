"""The application whose operations join a host program's groups and chords."""

from __future__ import annotations

import pytest
from celery import Celery, _state

from kvworker import Settings
from kvworker.client.host_application import application_for
from kvworker.messaging.celery_app import make_celery


@pytest.mark.parametrize(("master_name", "is_same"), [("primary", True), ("other", False)])
def test_a_host_whose_celery_finds_the_same_primary_through_sentinel(
    monkeypatch: pytest.MonkeyPatch, master_name: str, is_same: bool
) -> None:
    url = "sentinel://:p@h:26379/1;sentinel://:p@i:26379/1"
    host = Celery("host", broker=url, backend=url, set_as_current=False)
    host.conf.broker_transport_options = host.conf.result_backend_transport_options = {"master_name": master_name}
    monkeypatch.setattr(_state._tls, "current_app", host)
    own = make_celery(Settings.from_mapping({"queue": {"broker_url": "sentinel://:p@h,i/1?master_name=primary"}}))
    assert application_for(own) is (host if is_same else own)
