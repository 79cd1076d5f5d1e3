from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from tests.unit.cli.conftest import Kvworker


def spoil(tmp_path: Path, statement: str) -> None:
    with closing(sqlite3.connect(tmp_path / "kv.sqlite")) as connection, connection:
        connection.execute(statement)


def test_a_consistent_store_is_reported_in_one_line(kvworker: Kvworker) -> None:
    kvworker("set", "one", "key", "1")
    ran = kvworker("verify")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out == "sqlite: checked 1 namespace, 1 entry, 1 operation record: no problem\n"
    assert kvworker("verify", "--json").json == {
        "ok": True,
        "stores": [
            {
                "adapter": "sqlite",
                "checked": True,
                "namespaces": 1,
                "entries": 1,
                "records": 1,
                "problem_count": 0,
                "problems": [],
            }
        ],
    }


def test_each_problem_has_a_line_and_what_to_do(kvworker: Kvworker, tmp_path: Path) -> None:
    kvworker("set", "one\x1b", "key", '"secret"')
    spoil(tmp_path, "UPDATE kv_ledgers SET used_bytes = 99")
    spoil(tmp_path, "UPDATE kv_totals SET total = 5")
    ran = kvworker("verify")
    assert ran.code == 1
    assert ran.out.splitlines() == [
        "ledger: namespace 'one\\x1b': its ledger counts 99 bytes for 8",
        "totals: the store: kv_totals counts 5, and there are 1 namespaces",
        "ledger: run `kvworker recompute`, which sets ledgers to what their entries and records use",
        "totals: run `kvworker recompute`, which sets ledgers to what their entries and records use",
        "sqlite: checked 1 namespace, 1 entry, 1 operation record: 2 problems",
    ]
    kvworker("recompute")
    assert kvworker("verify").code == 0


def test_many_problems_are_counted(kvworker: Kvworker, tmp_path: Path) -> None:
    for number in range(25):
        kvworker("set", "one", f"key {number}", "1")
    spoil(tmp_path, "UPDATE kv_entries SET size_bytes = 0")
    ran = kvworker("verify")
    assert ran.code == 1
    assert "... and 6 more" in ran.out.splitlines()
    assert ran.out.count("its size is recorded as 0 bytes, and its value has 1") == 20
    found = kvworker("verify", "--json")
    assert found.code == 1
    assert '"problem_count": 26' in found.out


def test_it_does_not_make_a_store(kvworker: Kvworker) -> None:
    ran = kvworker("verify")
    assert ran.code == 1
    assert "run `kvworker migrate`" in ran.err
