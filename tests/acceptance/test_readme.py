"""The README is short, and the reference lists every operation, error and command. test_docs.py runs the blocks."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from typing import Any

import click
import pytest

from kvworker import KeyValueStore, errors
from kvworker.cli.group import cli
from kvworker.errors import KVStoreError
from kvworker.tools import TOOLS
from tests.support.documents import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
REFERENCE = (ROOT / "docs/reference/operations.md").read_text(encoding="utf-8")
COMMANDS = (ROOT / "docs/reference/command-line.md").read_text(encoding="utf-8")

#: Parameters of every method or every write. The reference names them below its table instead.
COMMON = {"self", "timeout", "idempotency_key"}
OPERATIONS = {
    tool: (ast.parse(method, mode="eval").body, set(re.findall(r"`(\w+)`", result)))
    for method, tool, result in re.findall(r"^\| `(.+?)` \| `(kv_\w+)` \| .+? \| (.+) \|$", REFERENCE, re.MULTILINE)
}


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) <= 150


def test_the_first_thirty_lines_give_purpose_set_up_and_snippet() -> None:
    beginning = "\n".join(README.splitlines()[:30])
    assert all(word in beginning for word in ("key-value store", "make demo", "make test", "store.get(", "```\n"))


def test_every_operation_is_listed() -> None:
    assert list(OPERATIONS) == list(TOOLS)


@pytest.mark.parametrize("name", TOOLS)
def test_an_operation_is_listed_as_it_is(name: str) -> None:
    method, result = OPERATIONS[name]
    assert isinstance(method, ast.Call)
    method_name = name.removeprefix("kv_")
    assert ast.unparse(method.func) == method_name
    parameters = inspect.signature(getattr(KeyValueStore, method_name)).parameters.values()
    taken = {parameter.name: parameter.default for parameter in parameters if parameter.name not in COMMON}
    listed: dict[str, Any] = {ast.unparse(argument): inspect.Parameter.empty for argument in method.args}
    listed |= {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in method.keywords}
    assert listed == taken
    assert result == {field.name for field in TOOLS[name].result_fields} - {"namespace", "key"}


def raised(cls: type[KVStoreError] = KVStoreError) -> Iterator[str]:
    """Yield the errors that are raised; the others are only their base classes."""
    children = [child for child in cls.__subclasses__() if child.__module__.startswith(errors.__name__)]
    if not children or cls in {errors.InvalidRequestError, errors.IdempotencyConflictError}:
        yield cls.__name__
    for child in children:
        yield from raised(child)


def test_every_error_is_listed() -> None:
    rows = re.findall(r"^\| (.+?) \| .+ \|$", REFERENCE.split("| error |")[1].split("\n\n")[0], re.MULTILINE)
    assert {name for row in rows for name in re.findall(r"`(\w+)`", row)} == set(raised())


def test_every_command_is_listed() -> None:
    rows = re.findall(r"^\| (.+?) \| .+ \|$", COMMANDS.split("| command |")[1].split("\n\n")[0], re.MULTILINE)
    listed = [name for row in rows for name in re.findall(r"`([a-z]+)[^`]*`", row)]
    assert sorted(listed) == sorted(cli.list_commands(click.Context(cli)))
