"""``batch``: many operations on one namespace in one message."""

from __future__ import annotations

import codecs
import json
import sys
from collections.abc import Mapping
from typing import IO, Any

import click

from kvworker.cli.options import idempotency_option
from kvworker.cli.output import print_error, print_json, shown_name
from kvworker.cli.tool_command import Call, outcome_text, replay_note, tool_command
from kvworker.errors import InvalidRequestError
from kvworker.wording import counted


@click.command("batch")
@click.argument("namespace")
@click.argument("file", type=click.File("rb"))
@click.option("--not-atomic", is_flag=True, help="Apply or refuse each operation separately.")
@idempotency_option
@tool_command
def batch_command(call: Call, *, as_json: bool, file: IO[bytes], not_atomic: bool, **arguments: Any) -> None:
    """Run the operations of FILE on NAMESPACE.

    They run in order, in one transaction. FILE is a JSON array or JSON lines; `-` reads standard input. An operation
    is an object with its tool, one that works on a single key such as kv_get or kv_increment, and that tool's other
    arguments:

    {"tool": "kv_set", "key": "k", "value": 1, "ttl_seconds": 60}

    If one is refused, none is applied. With --not-atomic the others are applied, each refusal is a line on standard
    error, and the exit code is 1.
    """
    operations = _parse_operations(file.read())
    result = call("kv_batch", {**arguments, "operations": operations, "atomic": not not_atomic})
    refused_count = _print_refusals(operations, result)
    if as_json:
        print_json(result)
    else:
        _print_results(result)
        click.echo(f"{counted(len(operations), 'operation')}, {refused_count} refused{replay_note(result)}")
    sys.exit(1 if refused_count else 0)


def _parse_operations(data: bytes) -> list[Any]:
    """Parse a JSON array or JSON lines. The tool checks whether the items are operations.

    Raises:
        InvalidRequestError: The file is not JSON.
    """
    data = data.removeprefix(codecs.BOM_UTF8)
    if data.lstrip().startswith(b"["):
        operations: list[Any] = _parse(data, "FILE")
        return operations
    lines = enumerate(data.splitlines(), start=1)
    return [_parse(line, f"line {number} of FILE") for number, line in lines if line.strip()]


def _parse(text: bytes, label: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidRequestError(f"{label} is not JSON: {error}") from None


def _print_results(result: Mapping[str, Any]) -> None:
    for index, outcome in enumerate(result["results"]):
        if "error" not in outcome:
            click.echo(f"{_label(index, outcome, outcome['key'])}: {outcome_text(outcome['tool'], outcome)}")


def _print_refusals(operations: list[Any], result: Mapping[str, Any]) -> int:
    """Print every refusal, and return their number."""
    refused = [(index, outcome) for index, outcome in enumerate(result["results"]) if "error" in outcome]
    for index, outcome in refused:
        print_error(f"{_label(index, outcome, operations[index]['key'])}: {outcome['error']['message']}")
    return len(refused)


def _label(index: int, outcome: Mapping[str, Any], key: str) -> str:
    return f"operations[{index}] {outcome['tool']} {shown_name(key)}"
