"""An agent that books, charges and mails once each, although its process may be killed at any moment.

Run it twice, and have it killed in between, after the charge has happened and before anybody has recorded that::

    python -m examples.trip_agent trip-7 --state /tmp/trip --die-in charge
    python -m examples.trip_agent trip-7 --state /tmp/trip

The second execution waits until the lease of the dead one has run out, finds the charge in the world outside, takes its
receipt, and continues with the mail. The model is scripted here; any model may stand in its place, since its answers
are steps of the run as well.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
from pathlib import Path
from typing import Any

from kvworker import InlineKeyValueStore
from kvworker.durable import UnknownStep, current_step, done, not_done

#: Short, so that the second execution need not wait for long. A service's would be a minute or so.
LEASE_SECONDS = 2.0


class World:
    """Whatever is outside of the store: a file in which each effect is a line, with the key of its step.

    Args:
        path: The file.
        die_in: The effect after which the process is killed, before it can record anything.
    """

    def __init__(self, path: Path, die_in: str | None = None) -> None:
        self._path = path
        self._die_in = die_in

    def effects(self) -> list[dict[str, Any]]:
        """Return the effects that have happened."""
        return [json.loads(line) for line in self._path.read_text().splitlines()] if self._path.exists() else []

    def perform(self, kind: str, **details: Any) -> dict[str, Any]:
        """Perform an effect and return its receipt. Services take such a reference as their idempotency key."""
        receipt = {"kind": kind, "reference": current_step().key, **details}
        with self._path.open("a") as file:
            file.write(f"{json.dumps(receipt)}\n")
        if kind == self._die_in:
            os.kill(os.getpid(), signal.SIGKILL)
        return receipt

    def look(self, step: UnknownStep) -> Any:
        """Settle a step that a dead process left: did its effect happen?"""
        receipts = [effect for effect in self.effects() if effect["reference"] == step.key]
        return done(receipts[0]) if receipts else not_done


def scripted_model(messages: list[dict[str, Any]]) -> dict[str, Any]:
    """Answer as a language model would: the next tool to call, or a text."""
    receipts = [message["content"] for message in messages if message["role"] == "tool"]
    calls: list[dict[str, Any]] = [
        {"tool": "book", "arguments": {"flight": "KV 17"}},
        {"tool": "charge", "arguments": {"cents": 9900}},
        {"tool": "mail", "arguments": {"to": "ada@example.org", "about": "KV 17"}},
    ]
    if len(receipts) < len(calls):
        return calls[len(receipts)]
    return {"text": f"Your trip is booked: {', '.join(receipt['kind'] for receipt in receipts)}."}


def plan_trip(store: InlineKeyValueStore, run_id: str, world: World) -> str:
    """Run the agent's loop. It is a plain function: after a crash, call it again with the same run."""
    messages: list[dict[str, Any]] = [{"role": "user", "content": "Book me a trip on KV 17."}]
    with store.run(run_id, lease_seconds=LEASE_SECONDS, wait_seconds=60, on_unknown=world.look) as run:
        while True:
            answer = run.step("model", scripted_model, messages)
            if "tool" not in answer:
                return str(answer["text"])
            receipt = run.step(answer["tool"], world.perform, answer["tool"], **answer["arguments"])
            messages = [*messages, {"role": "assistant", "content": answer}, {"role": "tool", "content": receipt}]


def main() -> None:
    """Run the agent from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run_id", help="the run's name; the same name continues the same run")
    parser.add_argument("--state", type=Path, required=True, help="a folder for the store and the world outside")
    parser.add_argument("--die-in", choices=["book", "charge", "mail"], help="the effect after which it is killed")
    options = parser.parse_args()
    options.state.mkdir(parents=True, exist_ok=True)
    adapter = {"url": f"sqlite:///{options.state.absolute()}/kv.sqlite", "migrate_on_start": True}
    settings = {"tools": {"kv_store": {"adapters": {"sqlite": adapter}, "default_adapter": "sqlite"}}}
    world = World(options.state / "effects.jsonl", options.die_in)
    with InlineKeyValueStore(settings) as store:
        print(plan_trip(store, options.run_id, world))  # noqa: T201 - the program's output
    for effect in world.effects():
        print(f"- {effect['kind']}, reference {effect['reference']}")  # noqa: T201


if __name__ == "__main__":
    main()
