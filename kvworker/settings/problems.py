"""Translates pydantic's errors: a line for each problem names the path, the value unless it may be secret, and the fix.

This is the only place that turns a ``ValidationError`` into a ``ConfigurationError``. A validator that knows better
than pydantic where a problem is, or how to fix it, raises what ``problem``, ``problem_at`` or ``refuse`` make.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError

from kvworker.errors import ConfigurationError

_SECRET_WORDS = ("url", "dsn", "backend", "password", "passwd", "secret", "token", "credential")
_NOT_A_MAPPING = ("dict_type", "model_type", "model_attributes_type")
_IN_KEY = "[key]"

#: The type of an error whose message is complete: its value is not shown.
_PROBLEM = "problem"
#: The type of an error whose message is a whole line that begins with a path of its own.
_LINE = "line"

_Location = tuple[int | str, ...]


def problem(text: str) -> PydanticCustomError:
    """Make the error for a validator to raise whose message must not show the value, or shows it already."""
    return PydanticCustomError(_PROBLEM, "{text}", {"text": text})


def problem_at(key: str, text: str) -> ValidationError:
    """Make the same error for a key of the block that is being validated."""
    return ValidationError.from_exception_data("", [InitErrorDetails(type=problem(text), loc=(key,), input=None)])


def refuse(lines: Iterable[str]) -> None:
    """Raise one error for several problems, each a line that begins with the path.

    Raises:
        ValidationError: There is at least one line.
    """
    details = [
        InitErrorDetails(type=PydanticCustomError(_LINE, "{text}", {"text": line}), input=None) for line in lines
    ]
    if details:
        raise ValidationError.from_exception_data("", details)


@contextmanager
def translated(path_prefix: str, model: type[BaseModel]) -> Iterator[None]:
    """Raise what ``configuration_error`` makes in place of a ``ValidationError``."""
    try:
        yield
    except ValidationError as error:
        raise configuration_error(path_prefix, error, model) from None


def configuration_error(
    path_prefix: str, error: ValidationError, model: type[BaseModel] | None = None
) -> ConfigurationError:
    """Translate a validation error.

    Args:
        path_prefix: The path of the block that was validated; empty for the whole file.
        error: The error that pydantic raised.
        model: The block's model, which gives the known keys for an unknown one.
    """
    return ConfigurationError("\n".join(problem_lines(path_prefix, error, model)))


def problem_lines(path_prefix: str, error: ValidationError, model: type[BaseModel] | None = None) -> Iterator[str]:
    """Yield the lines of ``configuration_error``."""
    for details in error.errors(include_url=False):
        yield details["msg"] if details["type"] == _LINE else _line(path_prefix, details, model)


def _line(path_prefix: str, details: ErrorDetails, model: type[BaseModel] | None) -> str:
    location = details["loc"]
    if details["type"] == _PROBLEM and location[-1:] == (_IN_KEY,):
        location = location[:-2]
    path = ".".join([path_prefix, *map(str, location)] if path_prefix else map(str, location))
    return f"{path}: {_reason(details, model)}"


def _reason(details: ErrorDetails, model: type[BaseModel] | None) -> str:
    kind, location, value = details["type"], details["loc"], details["input"]
    if kind == _PROBLEM:
        return details["msg"]
    if kind == "extra_forbidden":
        return f"unknown key; {_known_keys(model, location)}"
    if kind in _NOT_A_MAPPING:
        shown = f", not a {type(value).__name__}" if isinstance(value, str) else _shown(location, value)
        return f"it should be a mapping (key: value){shown}"
    return _fix(details["msg"]) + _shown(location, value)


def _fix(message: str) -> str:
    text = message.removeprefix("Value error, ").replace("Input should", "it should")
    return text[:1].lower() + text[1:]


def _shown(location: _Location, value: object) -> str:
    if any(word in str(part).lower() for part in location for word in _SECRET_WORDS):
        return ""
    if isinstance(value, str):
        return f", not {value!r}" if "://" not in value and len(value) <= 80 else ""
    if value is None or isinstance(value, bool | int | float):
        return f", not {value!r}"
    return f", not a {type(value).__name__}"


def _known_keys(model: type[BaseModel] | None, location: _Location) -> str:
    block = _model_at(model, location[:-1])
    if block is None:
        return "remove it or correct its spelling"
    close = difflib.get_close_matches(str(location[-1]), block.model_fields, n=1)
    return (f"did you mean {close[0]}? " if close else "") + f"known here: {', '.join(block.model_fields)}"


def _model_at(model: type[BaseModel] | None, location: _Location) -> type[BaseModel] | None:
    annotation: Any = model
    for part in location:
        if _is_model(annotation):
            field = annotation.model_fields.get(str(part))
            annotation = field.annotation if field else None
        else:
            # Blocks by name: dict[name, block].
            annotation = next(reversed(get_args(annotation)), None)
    return annotation if _is_model(annotation) else None


def _is_model(annotation: object) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)
