"""The gate that keeps connections closed while the process forks."""

from __future__ import annotations

import threading

from kvworker.adapters.sql.fork_gate import ForkGate


def passes(gate: ForkGate) -> threading.Event:
    """Start a thread that uses the gate once, and return the event that it sets when it got through."""
    passed = threading.Event()

    def use() -> None:
        with gate.passing():
            passed.set()

    threading.Thread(target=use, daemon=True).start()
    return passed


def test_the_gate_stays_closed_until_every_forking_thread_has_opened_it() -> None:
    gate = ForkGate()
    assert gate.close()
    assert gate.close()
    gate.open()
    passed = passes(gate)
    assert not passed.wait(0.2)
    gate.open()
    assert passed.wait(30)
