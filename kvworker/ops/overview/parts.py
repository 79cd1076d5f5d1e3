"""Runs the parts of an overview beside each other. Each is bounded in time and fails separately."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeAlias, TypeVar

_Value = TypeVar("_Value")


@dataclass(frozen=True)
class Part(Generic[_Value]):
    """A part of an overview: its value, or why there is none.

    A part without a value and without a problem is one that the backend cannot tell.
    """

    value: _Value | None = None
    problem: str = ""


#: Parts by their names. Those of one source run one after the other, for example on one database.
Source: TypeAlias = Mapping[str, Callable[[], Any]]


class PartRunner:
    """Runs sources in threads that outlive a deadline: a frozen server holds up its own source alone. Thread-safe.

    A source that still runs from an earlier time is not started again, so that threads cannot pile up.

    Args:
        describe: Returns the text that stands for an exception.
    """

    def __init__(self, describe: Callable[[Exception], str]) -> None:
        self._describe = describe
        self._running: dict[str, threading.Thread] = {}
        self._lock = threading.Lock()

    def run(self, sources: Mapping[str, Source], seconds: float) -> dict[str, dict[str, Part[Any]]]:
        """Run all sources for at most so many seconds.

        Returns:
            For each source its parts by name.
        """
        results: dict[str, dict[str, Part[Any]]] = {name: {} for name in sources}
        threads = [self._start(name, source, results[name]) for name, source in sources.items()]
        give_up_at = time.monotonic() + seconds
        for thread in threads:
            if thread is not None:
                thread.join(max(0.0, give_up_at - time.monotonic()))
        silent = Part[Any](problem=f"no answer within {seconds:g} s")
        return {name: {part: results[name].get(part, silent) for part in source} for name, source in sources.items()}

    def wait(self, seconds: float) -> bool:
        """Wait for sources that still run; False if some do afterwards."""
        give_up_at = time.monotonic() + seconds
        for thread in list(self._running.values()):
            thread.join(max(0.0, give_up_at - time.monotonic()))
        return not any(thread.is_alive() for thread in self._running.values())

    def _start(self, name: str, source: Source, results: dict[str, Part[Any]]) -> threading.Thread | None:
        with self._lock:
            earlier = self._running.get(name)
            if earlier is not None and earlier.is_alive():
                return None
            # A daemon: the end of the process must not wait for a frozen server.
            thread = threading.Thread(
                target=self._run, args=(source, results), name=f"kvworker-overview-{name}", daemon=True
            )
            self._running[name] = thread
            thread.start()
        return thread

    def _run(self, source: Source, results: dict[str, Part[Any]]) -> None:
        for name, read in source.items():
            try:
                results[name] = Part(read())
            except Exception as error:  # noqa: BLE001 - drivers and client libraries share no base class
                results[name] = Part(problem=self._describe(error))
