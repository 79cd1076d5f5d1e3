"""What a worker does around an operation."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from kvworker import SchemaError, Settings
from kvworker.messaging.celery_app import make_celery
from kvworker.tools import TOOLS
from kvworker.worker.runtime import Runtime


def test_what_only_an_operator_can_mend_is_in_the_workers_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    adapters = {"default_adapter": "sqlite", "adapters": {"sqlite": {"url": f"sqlite:///{tmp_path}/kv.sqlite"}}}
    settings = Settings.from_mapping({"tools": {"kv_store": adapters}})
    runtime = Runtime(make_celery(settings), settings)
    request = SimpleNamespace(id="task", delivery_info={})
    with pytest.raises(SchemaError):
        runtime.run_operation(request, TOOLS["kv_get"], (), {"namespace": "n", "key": "k"})
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert "kvworker migrate" in caplog.text
