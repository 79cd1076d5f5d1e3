"""Errors that end a durable step for good: recorded by type and message, and raised again by every later caller."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from kvworker.errors import StepFailedError, ValueSerializationError
from kvworker.model import encode_value


def recorded_error(error: Exception) -> dict[str, Any]:
    """Return an error as a JSON value. Its arguments are kept if they are JSON, to make the same error again."""
    data: dict[str, Any] = {"type": _name(type(error)), "message": _message(error)}
    try:
        encode_value(list(error.args))
    except ValueSerializationError:
        return data
    return {**data, "args": list(error.args)}


def error_again(name: tuple[str, str], data: object, classes: Sequence[type[Exception]]) -> Exception:
    """Make the error that was recorded.

    Nothing is imported for it: its class is one of the declared ones or a subclass that the program has loaded.

    Args:
        name: The step's namespace and key.
        data: What ``recorded_error`` returned, or whatever another program recorded.
        classes: The declared classes.

    Returns:
        The error itself, or a ``StepFailedError`` if its class is not known or cannot be made again.
    """
    found = data if isinstance(data, dict) else {"message": str(data)}
    error_type, message = str(found.get("type", "an error")), str(found.get("message", ""))
    for cls in _with_subclasses(classes):
        if _name(cls) == error_type:
            again = _make(cls, found.get("args", [message]))
            if again is not None:
                return again
    return StepFailedError(*name, error_type, message)


def _make(cls: type[Exception], args: object) -> Exception | None:
    if not isinstance(args, list):
        return None
    try:
        error = cls(*args)
        str(error)
    except Exception:  # noqa: BLE001 - a class may want other arguments than those that it keeps
        return None
    return error if type(error) is cls else None


def _with_subclasses(classes: Sequence[type[Exception]]) -> Iterator[type[Exception]]:
    for cls in classes:
        yield cls
        yield from _with_subclasses(cls.__subclasses__())


def _name(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def _message(error: Exception) -> str:
    """Return the error's message without lone surrogates, which the store refuses."""
    try:
        message = str(error)
    except Exception:  # noqa: BLE001 - the step must be recorded as failed, whatever the class does
        return ""
    return message.encode(errors="replace").decode()
