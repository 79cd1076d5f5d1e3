"""The options that the commands for Celery's processes add to Celery's own."""

from __future__ import annotations

from click.testing import CliRunner

from kvworker.cli.celery import worker_command


def test_a_wrong_address_for_metrics_is_told_before_celery_starts() -> None:
    done = CliRunner().invoke(worker_command, ["--metrics-listen", "here"])
    assert done.exit_code == 2
    assert "it should be HOST:PORT, PORT or HOST:FIRST-LAST" in done.output
