"""Commands that work on the database directly, with a real SQLite."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from unittest.mock import create_autospec

import pytest
import yaml

from kvworker.adapters import KeyValueStoreAdapter, registry
from kvworker.adapters.sql.schema import PREVIOUS_VERSION, SCHEMA_VERSION
from kvworker.cli import main
from kvworker.ops.database import open_adapter, open_sql_adapter
from kvworker.settings import Settings


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The configuration of an empty SQLite store."""
    path = tmp_path / "kvworker.yaml"
    block = {"url": f"sqlite:///{tmp_path}/kv.sqlite", "global_quota_bytes": 1000}
    path.write_text(
        yaml.safe_dump({"tools": {"kv_store": {"default_adapter": "sqlite", "adapters": {"sqlite": block}}}})
    )
    monkeypatch.setenv("KVWORKER_CONFIG", str(path))
    return path


@pytest.fixture
def filled(config: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """A migrated store with two live entries and an expired one."""
    run("migrate")
    capsys.readouterr()
    with open_adapter(Settings.load(config)) as adapter:
        adapter.set("[red]odd\x1b name", "a", "one")
        adapter.set("plain", "b", [1, 2])
        adapter.set("plain", "c", 3, ttl_seconds=1e-6)
    return config


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as exit_info:
        main(arguments)
    assert isinstance(exit_info.value.code, int)
    return exit_info.value.code


def output(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert run(*arguments) == 0, capsys.readouterr().err
    return capsys.readouterr().out


def test_migrate_prints_the_version_and_can_be_repeated(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert output(capsys, "migrate") == "the schema is at version 0005\n"
    assert json.loads(output(capsys, "migrate", "--json")) == {"schema_version": "0005"}


def test_a_plan_for_an_expanded_schema_names_the_last_step(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("migrate")
    with sqlite3.connect(config.parent / "kv.sqlite") as store:
        store.execute("UPDATE kv_schema_version SET version_num = ?", (PREVIOUS_VERSION,))
    capsys.readouterr()
    last_step = f"expanded to {SCHEMA_VERSION}; upgrade all workers, and then run `kvworker migrate --finish`"
    assert output(capsys, "migrate", "--plan") == f"sqlite: nothing to do now; the schema is {last_step}\n"
    assert json.loads(output(capsys, "migrate", "--plan", "--json"))[0]["expanded"] == SCHEMA_VERSION


@pytest.mark.parametrize(("version", "message"), [(None, "no schema to migrate"), ("7", "at version 7")])
def test_an_adapter_that_is_not_bundled_is_migrated_too(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    version: str | None,
    message: str,
) -> None:
    path = tmp_path / "kvworker.yaml"
    path.write_text(yaml.safe_dump({"tools": {"kv_store": {"default_adapter": "mine"}}}))
    adapter = create_autospec(KeyValueStoreAdapter, instance=True)
    adapter.__enter__.return_value = adapter
    adapter.schema_version.return_value = version
    monkeypatch.setitem(registry._factories, "mine", lambda _config: adapter)
    assert message in output(capsys, "migrate", "--config", str(path))
    assert json.loads(output(capsys, "migrate", "--json", "--config", str(path))) == {"schema_version": version}
    assert adapter.migrate.call_count == 2


def test_without_a_schema_the_error_says_what_to_run(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("namespaces") == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "kvworker migrate" in error


def test_namespaces_shows_usage_against_quota(filled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    usage = {entry["namespace"]: entry for entry in json.loads(output(capsys, "namespaces", "--json"))}
    assert usage["[red]odd\x1b name"]["used_bytes"] == len('"one"')
    assert usage[None]["quota_bytes"] == 1000
    table = output(capsys, "namespaces")
    assert r"'[red]odd\x1b name'" in table
    assert "\x1b" not in table
    assert "(all)" in table


def test_sweep_deletes_expired_entries(filled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert json.loads(output(capsys, "sweep", "--json")) == {"deleted_rows": 1, "freed_bytes": 1}
    assert output(capsys, "sweep") == "deleted 0 expired entries, 0 bytes\n"
    with open_adapter(Settings.load(filled)) as adapter:
        adapter.set("plain", "c", 3, ttl_seconds=1e-6)
    assert output(capsys, "sweep") == "deleted 1 expired entry, 1 byte\n"


def test_recompute_shows_and_corrects_a_drift(filled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output(capsys, "sweep")
    connection = sqlite3.connect(filled.parent / "kv.sqlite")
    with connection:
        connection.execute("UPDATE kv_ledgers SET used_bytes = 99, limit_bytes = 999 WHERE namespace = 'plain'")
    connection.close()
    report = json.loads(output(capsys, "recompute", "--json"))
    assert report["checked_namespaces"] == 2
    assert report["drifts"][0]["namespace"] == "plain"
    assert (report["drifts"][0]["recorded_bytes"], report["drifts"][0]["actual_bytes"]) == (99, 5)
    assert output(capsys, "recompute") == "checked 2 namespaces, corrected 0 ledgers\n"


def test_export_writes_live_entries_as_lines(filled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [json.loads(line) for line in output(capsys, "export").splitlines()]
    assert lines == [
        {"namespace": "[red]odd\x1b name", "key": "a", "value": "one"},
        {"namespace": "plain", "key": "b", "value": [1, 2]},
    ]
    target = filled.parent / "out.jsonl"
    output(capsys, "export", str(target), "--namespace", "plain")
    assert target.read_text() == '{"namespace":"plain","key":"b","value":[1,2]}\n'
    assert not target.with_name("out.jsonl.part").exists()


def test_export_of_an_unknown_namespace_keeps_the_file_and_says_so(
    filled: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = filled.parent / "out.jsonl"
    output(capsys, "export", str(target), "--namespace", "plain")
    exported = target.read_text()
    assert run("export", str(target), "--namespace", "plane") == 1
    assert capsys.readouterr().err == "Error: the store has no namespace 'plane', so nothing was exported\n"
    assert target.read_text() == exported


def test_a_clear_of_a_mistyped_namespace_makes_it_no_known_one(
    filled: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with open_adapter(Settings.load(filled)) as adapter:
        adapter.clear("plane")
    assert run("export", "--namespace", "plane") == 1
    assert "the store has no namespace 'plane'" in capsys.readouterr().err


def test_export_of_a_namespace_that_is_empty_now_writes_an_empty_file(
    filled: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with open_adapter(Settings.load(filled)) as adapter:
        adapter.delete("plain", "b")
        adapter.delete("plain", "c")
    target = filled.parent / "out.jsonl"
    output(capsys, "export", str(target), "--namespace", "plain")
    assert target.read_text() == ""


def test_export_reads_page_after_page(filled: Path) -> None:
    settings = Settings.load(filled)
    with open_sql_adapter(settings) as adapter:
        for number in range(7):
            adapter.set("pages", f"{number:02}", number)
        entries = list(adapter.export_entries("pages", page_rows=3))
    assert [entry.value for entry in entries] == list(range(7))
