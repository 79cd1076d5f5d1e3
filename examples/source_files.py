"""The pipeline's input: the Python files of installed packages. This module uses no queue and no store."""

from __future__ import annotations

import ast
from importlib.util import find_spec
from pathlib import Path

COUNTERS = ("files", "lines", "bytes", "functions", "classes")


def package_root(package: str) -> Path:
    """Find the directory of an installed package.

    Raises:
        ModuleNotFoundError: It is not installed, or is a single module.
    """
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(f"{package} is not an installed package")
    return Path(spec.submodule_search_locations[0])


def python_files(package: str) -> list[str]:
    """List the Python files of a package in order, relative to its directory."""
    root = package_root(package)
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*.py"))


def summarize(source: bytes) -> dict[str, int]:
    """Compute the amounts that a file adds to the counters."""
    nodes = list(ast.walk(ast.parse(source)))
    return {
        "files": 1,
        "lines": len(source.splitlines()),
        "bytes": len(source),
        "functions": sum(isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) for node in nodes),
        "classes": sum(isinstance(node, ast.ClassDef) for node in nodes),
    }


def count_directly(package: str) -> dict[str, int]:
    """Count a whole package in a plain loop in this process."""
    root = package_root(package)
    summaries = [summarize((root / file).read_bytes()) for file in python_files(package)]
    return {counter: sum(summary[counter] for summary in summaries) for counter in COUNTERS}
