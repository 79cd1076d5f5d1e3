"""Lets a command that is told to end do what it does after Ctrl-C: report, and leave nothing half written."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class SignalInterrupt(KeyboardInterrupt):
    """A signal that asks the process to end.

    Attributes:
        number: The signal's number.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@contextmanager
def interruptible(announce: Callable[[], object] = lambda: None) -> Iterator[None]:
    """Raise SignalInterrupt at the first signal, ignore others from then on, and restore the handlers at the end.

    SIGHUP stays ignored if it is, as below ``nohup``.

    Args:
        announce: Called at the first signal, before the exception.
    """

    def interrupt(number: int, _frame: FrameType | None) -> None:
        """Turn the first signal into an exception in the main thread."""
        for each in before:
            signal.signal(each, signal.SIG_IGN)
        announce()
        raise SignalInterrupt(number)

    ignored = {signal.SIGHUP} if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else set()
    before = {number: signal.getsignal(number) for number in _SIGNALS if number not in ignored}
    for number in before:
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
