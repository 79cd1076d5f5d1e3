from __future__ import annotations

import re
from itertools import chain
from pathlib import Path
from typing import get_args

import pytest
from psycopg._queries import MAX_CACHED_STATEMENT_LENGTH, MAX_CACHED_STATEMENT_PARAMS

import kvworker.adapters
from kvworker.adapters.sql import statements as statements_module
from kvworker.adapters.sql import write
from kvworker.adapters.sql.schema import PREVIOUS_VERSION, SCHEMA_VERSION
from kvworker.adapters.sql.statements import StatementName, load_statements

ADAPTERS = Path(kvworker.adapters.__file__).parent
DIALECTS = ["postgres", "sqlite"]


def statements_of(dialect: str) -> set[str]:
    return set(load_statements(f"kvworker.adapters.{dialect}"))


def quoted_names(*folders: str) -> set[str]:
    """Every string in the code of these folders that looks like a statement's name."""
    # One lists the names, and the names in fingerprints of the other are not those of statements.
    other = {Path(statements_module.__file__), Path(write.__file__)}
    files = [file for folder in folders for file in (ADAPTERS / folder).rglob("*.py")]
    sources = [file.read_text() for file in files if file not in other]
    return {name for source in sources for name in re.findall(r'"([a-z_]+)"', source)}


def test_the_files_hold_exactly_the_named_statements() -> None:
    assert {name for dialect in DIALECTS for name in statements_of(dialect)} == set(get_args(StatementName))


@pytest.mark.parametrize("dialect", DIALECTS)
def test_both_versions_of_the_schema_have_the_same_statements(dialect: str) -> None:
    package = f"kvworker.adapters.{dialect}"
    assert load_statements(package, PREVIOUS_VERSION).keys() == load_statements(package, SCHEMA_VERSION).keys()


@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_statement_is_used(dialect: str) -> None:
    assert statements_of(dialect) <= quoted_names("sql", dialect)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_statement_that_the_code_uses_exists(dialect: str) -> None:
    assert quoted_names("sql", dialect) & set(get_args(StatementName)) <= statements_of(dialect)


def test_psycopg_keeps_every_statement_parsed() -> None:
    """It parses a longer statement, or one with more parameters, on every call. Parsing takes longer than running."""
    versions = (PREVIOUS_VERSION, SCHEMA_VERSION)
    for name, text in chain(*(load_statements("kvworker.adapters.postgres", each).items() for each in versions)):
        assert len(text) <= MAX_CACHED_STATEMENT_LENGTH, f"{name} has {len(text)} characters; shorten it"
        assert len(set(re.findall(r"%\((\w+)\)s", text))) <= MAX_CACHED_STATEMENT_PARAMS, name


@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_fragment_is_included(dialect: str) -> None:
    source = "\n".join(file.read_text() for file in (ADAPTERS / dialect / "sql").glob("*.sql"))
    fragments = set(re.findall(r"^-- fragment: (\w+)$", source, re.MULTILINE))
    assert fragments == set(re.findall(r"^-- include: (\w+)$", source, re.MULTILINE))


@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_statement_and_fragment_is_named_once(dialect: str) -> None:
    for omitted in ("records.sql", "records_0004.sql"):
        files = [file for file in (ADAPTERS / dialect / "sql").glob("*.sql") if file.name != omitted]
        source = "\n".join(file.read_text() for file in files)
        names = re.findall(r"^-- (?:name|fragment): (\w+)$", source, re.MULTILINE)
        assert len(names) == len(set(names))


@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_statement_says_what_it_does(dialect: str) -> None:
    source = "\n".join(file.read_text() for file in (ADAPTERS / dialect / "sql").glob("*.sql"))
    parts = re.split(r"^-- (?:name|fragment): (\w+)\n", source, flags=re.MULTILINE)
    # A statement of includes only is what its fragments are.
    bare = [name for name, body in zip(parts[1::2], parts[2::2], strict=True) if not body.startswith("-- ")]
    assert bare == []
