from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from kvworker.ops.overview.parts import Part, PartRunner, Source


@pytest.fixture
def frozen() -> Iterator[threading.Event]:
    """Ends the waits of a test's frozen servers, at the latest when the test has ended."""
    event = threading.Event()
    yield event
    event.set()


def refuse() -> None:
    raise ValueError("away")


def test_each_part_fails_on_its_own(frozen: threading.Event) -> None:
    runner = PartRunner(str)
    sources: dict[str, Source] = {
        "one": {"first": lambda: 1, "refused": refuse, "third": lambda: 3},
        "frozen": {"before": lambda: 4, "waits": lambda: frozen.wait(60), "after": lambda: 5},
        "unknown": {"none": lambda: None},
    }
    parts = runner.run(sources, seconds=0.5)
    assert parts["one"] == {"first": Part(1), "refused": Part(problem="away"), "third": Part(3)}
    assert parts["unknown"] == {"none": Part()}
    silent = Part[int](problem="no answer within 0.5 s")
    assert parts["frozen"] == {"before": Part(4), "waits": silent, "after": silent}
    assert not runner.wait(0)


def test_a_source_that_still_runs_is_not_started_again(frozen: threading.Event) -> None:
    runner = PartRunner(str)
    started: list[int] = []

    def wait() -> bool:
        started.append(1)
        return frozen.wait(60)

    source = {"frozen": {"waits": wait}}
    for _ in range(3):
        assert runner.run(source, seconds=0.01)["frozen"]["waits"].problem
    assert len(started) == 1
    frozen.set()
    assert runner.wait(60)
    assert runner.run(source, seconds=60) == {"frozen": {"waits": Part(True)}}
    assert len(started) == 2
