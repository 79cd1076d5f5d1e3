"""``steps``: shows durable steps, and lets an operator settle the unknown ones."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from typing import Any, Final

import click
from rich.table import Table

from kvworker.cli.json_arguments import parse_json
from kvworker.cli.options import ttl_option
from kvworker.cli.output import console, json_text, make_table, print_json, seconds_text, shell_word, shown_name
from kvworker.cli.step_rows import (
    STATES,
    find_steps,
    kept_text,
    lease_text,
    outcome_text,
    read_step,
    without_value,
)
from kvworker.cli.tool_command import Call, tool_command
from kvworker.errors import KVStoreError
from kvworker.model import DEFAULT_PAGE_ROWS

#: Enough for the one call that follows. If the command is killed before it, the step is unknown again after this time.
_SETTLING_SECONDS: Final = 60


@click.group("steps")
def steps_command() -> None:
    """Show durable steps, and settle those that are unknown.

    A durable step records an effect outside the store. It is unknown if its lease ran out before an outcome was
    recorded: the effect may have happened, or not.
    """


def _parse_cursor(_context: click.Context, _parameter: click.Parameter, text: str | None) -> tuple[str, str] | None:
    if text is None:
        return None
    with suppress(ValueError, RecursionError):
        match json.loads(text):
            case [str(namespace), str(key)]:
                return namespace, key
    raise click.BadParameter('it is not the cursor of an earlier page, such as ["charges", "o-17"]')


@steps_command.command("list")
@click.argument("namespace", required=False)
@click.option("--state", type=click.Choice(STATES), help="List only steps in this state.")
@click.option("--prefix", metavar="TEXT", help="List only keys that begin with TEXT.")
@click.option(
    "--limit", type=click.IntRange(min=1), metavar="N", help=f"Number of steps at most [default: {DEFAULT_PAGE_ROWS}]."
)
@click.option("--cursor", callback=_parse_cursor, metavar="C", help="Continue where an earlier page ended.")
@click.option("--all", "whole", is_flag=True, help="List all steps.")
@tool_command
def list_command(call: Call, *, as_json: bool, limit: int | None, whole: bool, **where: Any) -> None:
    """List the durable steps of NAMESPACE or, without one, of all namespaces.

    It reads every entry to find the steps, and shows no values. --timeout bounds each call that it makes.

    If there are more, the last line gives the --cursor of the next page. With --json it is "next_cursor", which is
    null on the last page.
    """
    size = _page_size(limit, whole=whole)
    if where["cursor"] is not None and where["namespace"] not in {None, where["cursor"][0]}:
        raise click.UsageError("the --cursor is of another namespace")
    found = find_steps(call, **where)
    rows = [without_value(row) for row in islice(found, size)]
    more = next(found, None) is not None
    next_cursor = json_text([rows[-1]["namespace"], rows[-1]["key"]]) if more else None
    if as_json:
        print_json({"steps": rows, "next_cursor": next_cursor})
        return
    console().print(_table(rows))
    if next_cursor is not None:
        click.echo(f"more: --cursor {shell_word(next_cursor)}")


def _page_size(limit: int | None, *, whole: bool) -> int | None:
    if whole and limit is not None:
        raise click.UsageError("--all and --limit exclude each other")
    return None if whole else limit or DEFAULT_PAGE_ROWS


def _table(rows: Iterable[Mapping[str, Any]]) -> Table:
    columns = ("namespace", "key", "state", "token", "holder", "lease", "outcome", "kept for")
    table = make_table(*columns, numbers=("token",))
    for row in rows:
        names = shown_name(row["namespace"]), shown_name(row["key"]), row["state"], str(row["token"])
        cells = lease_text(row), shown_name(outcome_text(row)), kept_text(row)
        table.add_row(*names, shown_name(row.get("holder", "")), *cells)
    return table


@steps_command.command("show")
@click.argument("namespace")
@click.argument("key")
@click.option("--value", "with_value", is_flag=True, help="Show the recorded value too.")
@tool_command
def show_command(call: Call, *, as_json: bool, namespace: str, key: str, with_value: bool) -> None:
    """Show one durable step: its state, holder, token and lease, or the shape of its outcome.

    If there is no step, it says so on standard error and the exit code is 1. With --json it prints "state": "absent"
    and the exit code is 0.
    """
    row = read_step(call, namespace, key)
    if not with_value:
        row = without_value(row)
    if as_json:
        print_json(row)
        return
    if row["state"] == "absent":
        raise click.ClickException(_absent_text(row))
    for name, text in _lines(row).items():
        if text:
            click.echo(f"{name:<10}{text}")
    if row["state"] == "unknown":
        command = f"kvworker steps resolve {shell_word(namespace)} {shell_word(key)} --token {row['token']}"
        click.echo(f"Look whether the effect happened, then settle it: {command} --done, --failed or --not-done")


def _lines(row: Mapping[str, Any]) -> dict[str, str]:
    return {
        "state": row["state"],
        "token": str(row["token"]),
        "holder": json_text(row["holder"]) if row.get("holder") else "",
        "lease": lease_text(row),
        "outcome": shown_name(outcome_text(row)).plain,
        "value": json_text(row["value"]) if "value" in row else "",
        "kept for": kept_text(row),
    }


@steps_command.command("resolve")
@click.argument("namespace")
@click.argument("key")
@click.option("--done", is_flag=True, help="The effect happened.")
@click.option("--failed", is_flag=True, help="The effect failed for good.")
@click.option("--not-done", is_flag=True, help="It did not happen: the step may run again.")
@click.option("--value", metavar="JSON", help="With --done: the effect's result; - reads it from standard input.")
@click.option("--message", metavar="TEXT", help="With --failed: what went wrong.")
@click.option("--token", type=int, metavar="N", help="Settle the step only if it still has this token.")
@ttl_option
@tool_command
def resolve_command(call: Call, *, as_json: bool, namespace: str, key: str, **options: Any) -> None:
    """Settle the durable step KEY, which is unknown, after you looked whether its effect happened.

    Say --done, --failed or --not-done. Later callers get the recorded result or error; after --not-done the step runs
    again. The command refuses a step whose lease still runs. If its holder or another operator comes first, the command
    changes nothing and says so.
    """
    expected_token = options.pop("token")
    states = {"done": options.pop("done"), "failed": options.pop("failed"), "released": options.pop("not_done")}
    outcome = _outcome([state for state, is_given in states.items() if is_given], **options)
    name = {"namespace": namespace, "key": key}
    token = _take_over(call, name, expected_token)
    try:
        result = call("kv_step_finish", {**name, "token": token, **outcome})
    except KVStoreError:
        # The outcome may not fit. The next attempt need not wait for the end of this lease.
        with suppress(KVStoreError):
            call("kv_step_finish", {**name, "token": token, "state": "unknown"})
        raise
    if as_json:
        print_json(result)
    else:
        click.echo("the step may run again" if result["state"] == "released" else f"the step is {result['state']}")


def _outcome(
    states: Sequence[str], value: str | None, message: str | None, ttl_seconds: float | None
) -> dict[str, Any]:
    """Return the outcome as the arguments of ``kv_step_finish``."""
    if len(states) != 1:
        raise click.UsageError("say what you found, as one of --done, --failed and --not-done")
    (state,) = states
    for option, given, needed in (
        ("--value", value, ("done",)),
        ("--message", message, ("failed",)),
        ("--ttl", ttl_seconds, ("done", "failed")),
    ):
        if given is not None and state not in needed:
            raise click.UsageError(f"{option} goes with {' and '.join(f'--{each}' for each in needed)} only")
    outcome: dict[str, Any] = {"state": state}
    if ttl_seconds is not None:
        outcome["ttl_seconds"] = ttl_seconds
    if state == "failed":
        # The form in which `once` records an error, of no particular class.
        outcome["value"] = {"message": message or ""}
    elif value is not None:
        outcome["value"] = parse_json(value, "--value")
    return outcome


def _take_over(call: Call, name: Mapping[str, str], expected_token: int | None) -> int:
    """Take an unknown step over, so that its holder and other operators cannot settle it too. Return its new token.

    Raises:
        ClickException: The step is not unknown, or it changed meanwhile.
    """
    status = call("kv_step_status", name)
    if status["state"] != "unknown":
        raise click.ClickException(_refusals[status["state"]](status))
    if expected_token not in {None, status["token"]}:
        raise click.ClickException(f"the step has token {status['token']} by now; look at it again with `steps show`")
    begin = {
        "tool": "kv_step_begin",
        "key": name["key"],
        "takeover_token": status["token"],
        "lease_seconds": _SETTLING_SECONDS,
        **_holder(status["holder"]),
    }
    operations = [{"tool": "kv_get", "key": name["key"]}, begin]
    found, begun = call("kv_batch", {"namespace": name["namespace"], "operations": operations})["results"]
    if begun["state"] != "reserved":
        raise click.ClickException(_refusals[begun["state"]](begun))
    if not found["found"]:
        # It was released since it was read, so the call has reserved it as a new step.
        call("kv_step_finish", {**name, "token": begun["token"], "state": "released"})
        raise click.ClickException(_refusals["absent"](name))
    token: int = begun["token"]
    return token


def _holder(present: str) -> dict[str, str]:
    """Return this operator's name, cut so that the step does not grow: a full quota must not keep it unknown."""
    host = socket.gethostname().encode("ascii", "replace").decode()
    shown = f"kvworker steps resolve on {host}"[: len(present.encode())].strip()
    return {"holder": shown} if shown else {}


def _absent_text(status: Mapping[str, Any]) -> str:
    return "no durable step {key!r} in namespace {namespace!r}".format(**status)


def _held_text(status: Mapping[str, Any]) -> str:
    return (
        f"the step is in progress: {status['holder']!r} holds it for another {seconds_text(status['lease_seconds'])}."
        " If the holder has died, the step becomes unknown then: try again"
    )


def _ended_text(status: Mapping[str, Any]) -> str:
    return f"the step is {status['state']} already, so there is nothing to settle; `steps show` describes its outcome"


#: Why a step in this state cannot be settled.
_refusals: Final[Mapping[str, Callable[[Mapping[str, Any]], str]]] = {
    "absent": lambda status: _absent_text(status) + ": it never began, or may run again",
    "in_progress": _held_text,
    "unknown": lambda _: "another caller took the step over and is unknown too; look at it again with `steps show`",
    "done": _ended_text,
    "failed": _ended_text,
}
