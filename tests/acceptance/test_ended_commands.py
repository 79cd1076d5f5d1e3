"""Commands that are told to end while they work: they report, and leave nothing half written."""

from __future__ import annotations

import json
import signal
import subprocess
from functools import partial
from pathlib import Path

import psycopg
import pytest
import yaml
from redis import Redis

from kvworker.adapters.postgres import make_adapter
from tests.support.command_line import KVWORKER, clean_environ
from tests.support.processes import wait_until


def start(*arguments: str, cwd: Path, config: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*KVWORKER, *arguments, "--config", str(config)],
        cwd=cwd,
        env=clean_environ(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Under nohup it would inherit that SIGHUP is ignored.
        preexec_fn=partial(signal.signal, signal.SIGHUP, signal.SIG_DFL),  # noqa: PLW1509 - it takes no lock
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_import_that_is_told_to_end_says_what_it_did(
    number: signal.Signals, tmp_path: Path, valkey_url: str
) -> None:
    config, lines = tmp_path / "kvworker.yaml", tmp_path / "in.jsonl"
    config.write_text(yaml.safe_dump({"queue": {"broker_url": valkey_url, "result_backend": valkey_url}}))
    lines.write_text("".join(json.dumps({"namespace": "n", "key": f"{key}", "value": 1}) + "\n" for key in range(200)))
    # Without a worker, the only batch stays unanswered.
    process = start("import", "in.jsonl", "--timeout", "60", cwd=tmp_path, config=config)
    with Redis.from_url(valkey_url) as redis:
        wait_until(lambda: redis.llen("kv"), what="the batch in the queue")
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert out == "applied 0, replayed 0, failed 0\n"
    assert "200 lines were not answered yet; import the same file again to be sure" in err
    assert "Traceback" not in err


def test_an_export_that_is_told_to_end_leaves_no_half_written_file(tmp_path: Path, postgres_url: str) -> None:
    config, target = tmp_path / "kvworker.yaml", tmp_path / "out.jsonl"
    config.write_text(yaml.safe_dump({"tools": {"kv_store": {"adapters": {"postgres": {"url": postgres_url}}}}}))
    with make_adapter({"url": postgres_url}) as adapter:
        adapter.set("n", "k", 1)
    target.write_text("an older export")
    with psycopg.connect(postgres_url.replace("+psycopg", "")) as connection:
        connection.execute("LOCK TABLE kv_entries IN ACCESS EXCLUSIVE MODE")
        process = start("export", "out.jsonl", cwd=tmp_path, config=config)
        wait_until(lambda: list(tmp_path.glob("*.part")), what="the unfinished file")
        process.terminate()
        _, err = process.communicate(timeout=60)
    assert (process.returncode, "Traceback" in err) == (128 + signal.SIGTERM, False)
    assert target.read_text() == "an older export"
    assert not list(tmp_path.glob("*.part"))
