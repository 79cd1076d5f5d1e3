"""Public names, and the imports that happen at runtime, which import-linter cannot see."""

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


@pytest.mark.parametrize("module", ["client", "client.sync", "client.aio"])
def test_the_client_loads_no_worker_and_no_database(module: str) -> None:
    loaded = loaded_by(f"import kvworker.{module}")
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


def test_the_stub_lists_the_public_names() -> None:
    tree = ast.parse((ROOT / "kvworker/__init__.pyi").read_text())
    names = {
        alias.asname or "": f"{node.module}.{alias.name}"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    namespace = vars(kvworker)
    assert names.pop("__version__") == "kvworker.__version__.__version__"
    assert names == {name: f"{module}.{name}" for name, module in namespace["_MODULES"].items()}
    assert set(namespace["__all__"]) == {*names, "__version__"}
    assert all(getattr(kvworker, name).__name__ == name for name in names)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        kvworker.nothing  # type: ignore[attr-defined] # noqa: B018 - the lookup is the test
