"""The base of all errors, and how an error that crossed the queue is rebuilt."""

from __future__ import annotations

from collections.abc import Sequence

_classes: dict[str, type[KVStoreError]] = {}


class KVStoreError(Exception):
    """The key-value store failed."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        # Only kvworker's own errors are rebuilt. An adapter's subclass crosses the queue as a failed operation.
        if __package__ and cls.__module__.startswith(f"{__package__}."):
            cls.__module__ = __package__  # The name that callers import from, for tracebacks and pickles.
            _classes[cls.__name__] = cls

    def __str__(self) -> str:
        """Return the first argument, or the class's docstring if there is none."""
        return str(self.args[0]) if self.args else (self.__doc__ or type(self).__name__)


class UnknownOutcomeError(KVStoreError):
    """Whether the operation was applied is unknown.

    ``operation_id`` names it. Call again with it as ``idempotency_key`` to apply a write exactly once. It is empty if
    an adapter was called without one.
    """

    operation_id: str


KVStoreError.__module__ = __package__ or KVStoreError.__module__
_classes[KVStoreError.__name__] = KVStoreError


def rebuild_error(class_name: str, args: Sequence[object]) -> KVStoreError | None:
    """Rebuild the error that a worker raised.

    Args:
        class_name: The error's class name, as it crossed the queue.
        args: The error's ``args``, as they crossed the queue.

    Returns:
        The error, or None if it is not one of kvworker's own or the arguments do not fit its class.
    """
    error_class = _classes.get(class_name)
    if error_class is None:
        return None
    try:
        error = error_class(*args)
        str(error)
    except Exception:  # noqa: BLE001 - arguments of another shape fail where the class first uses them
        return None
    return error
