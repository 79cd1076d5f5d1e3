"""Import direction, where import-linter cannot see it: what is loaded when one module is."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import kvworker

ROOT = Path(__file__).resolve().parents[2]


def loaded_by(statement: str) -> set[str]:
    code = f"{statement}\nimport sys\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    return set(done.stdout.split())


def test_the_client_loads_no_worker_and_no_database() -> None:
    loaded = loaded_by("import kvworker.client")
    assert not loaded & {"tasks", "kvworker.worker", "kvworker.adapters", "sqlalchemy", "psycopg", "alembic"}


def test_the_facade_comes_without_adapters_from_the_package_too() -> None:
    loaded = loaded_by("from kvworker import KeyValueStore, Settings, KVStoreError")
    assert not loaded & {"tasks", "kvworker.adapters", "sqlalchemy"}


def test_the_adapters_load_no_queue() -> None:
    loaded = loaded_by("import kvworker.adapters.postgres, kvworker.adapters.sqlite")
    assert not loaded & {"celery", "kombu", "redis", "tasks"}


def test_model_and_errors_are_pure() -> None:
    loaded = loaded_by("import kvworker.model, kvworker.errors")
    assert not loaded & {"celery", "sqlalchemy", "yaml", "pydantic"}


def test_every_public_name_is_there() -> None:
    tree = ast.parse((ROOT / "kvworker/__init__.py").read_text())
    typed = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("kvworker.")
        for alias in node.names
    }
    assert typed == set(kvworker.__all__)
    assert all(getattr(kvworker, name).__name__ == name for name in typed - {"__version__"})
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        kvworker.nothing  # noqa: B018 - the lookup is the test
