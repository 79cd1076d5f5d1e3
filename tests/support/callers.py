"""A caller that keeps calling while something is changed under it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from kvworker import KeyValueStore, Settings
from tests.support.processes import wait_until


class Caller:
    """A caller that increments a counter until it is told to stop, and changes its configuration when told to."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.answered = 0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.error: BaseException | None = None

    @contextmanager
    def running(self) -> Iterator[None]:
        """Call for as long as the block lasts."""
        self._thread.start()
        try:
            yield
        finally:
            self._stopping.set()
            self._thread.join()

    def makes_progress(self) -> None:
        """Wait until more calls have been answered, so that each configuration was in use."""
        until = self.answered + 5
        wait_until(lambda: self.error or self.answered >= until, what="answers")
        assert self.error is None

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                used = self.settings
                with KeyValueStore(used) as store:
                    while used is self.settings and not self._stopping.is_set():
                        store.increment("n", "calls", timeout=60)
                        self.answered += 1
        except BaseException as error:  # noqa: BLE001 - the test reports it
            self.error = error
