"""Translates pydantic's ``ValidationError`` into a ``ConfigurationError``. No other module does.

Each problem becomes a line with the path, the value unless it may be a secret, and the fix. Validators that need
another message or path than pydantic's use ``problem``, ``problem_at`` and ``refuse``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from math import isfinite
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError

from kvworker.errors import ConfigurationError
from kvworker.settings.yaml_file import is_old_number
from kvworker.wording import did_you_mean

_SECRET_WORDS = ("url", "dsn", "backend", "password", "passwd", "secret", "token", "credential")
_NOT_A_MAPPING = ("dict_type", "model_type", "model_attributes_type")
_IN_KEY = "[key]"

#: Error type: the message is complete, so the value is not appended.
_PROBLEM = "problem"
#: Error type: the message is a complete line and starts with the path.
_LINE = "line"

_PLAIN_WORDS = {
    "a valid integer": "an integer",
    "a valid number": "a number",
    "a valid boolean": "true or false",
    "a valid string": "text",
}
_TRUTH_VALUES = {"true": "true", "yes": "true", "on": "true", "false": "false", "no": "false", "off": "false"}

_Location = tuple[int | str, ...]


def problem(text: str) -> PydanticCustomError:
    """Make an error for a validator to raise. The value is not appended to its text."""
    return PydanticCustomError(_PROBLEM, "{text}", {"text": text})


def problem_at(key: str, text: str) -> ValidationError:
    """Make such an error for one key of the block that is being validated."""
    return ValidationError.from_exception_data("", [InitErrorDetails(type=problem(text), loc=(key,), input=None)])


def refuse(lines: Iterable[str]) -> None:
    """Raise one error for several problems, each a complete line that starts with the path.

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
    """Replace a ``ValidationError`` from the body with ``configuration_error``'s result."""
    try:
        yield
    except ValidationError as error:
        raise configuration_error(path_prefix, error, model) from None


def configuration_error(
    path_prefix: str, error: ValidationError, model: type[BaseModel] | None = None
) -> ConfigurationError:
    """Translate a validation error.

    Args:
        path_prefix: The path of the validated block; empty for the whole file.
        error: The error that pydantic raised.
        model: The model of the validated block. If given, an unknown key is answered with the known ones.
    """
    return ConfigurationError("\n".join(problem_lines(path_prefix, error, model)))


def problem_lines(path_prefix: str, error: ValidationError, model: type[BaseModel] | None = None) -> Iterator[str]:
    """Yield the lines of the message; see ``configuration_error``."""
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
    return _fix(details["msg"]) + _shown(location, value) + _hint(kind, location, value)


def _fix(message: str) -> str:
    text = message.removeprefix("Value error, ").replace("Input should", "it should")
    for pydantics, plain in _PLAIN_WORDS.items():
        text = text.replace(pydantics, plain)
    return text[:1].lower() + text[1:]


def _shown(location: _Location, value: object) -> str:
    if any(word in str(part).lower() for part in location for word in _SECRET_WORDS):
        return ""
    if isinstance(value, str):
        return f", not {value!r}" if "://" not in value and len(value) <= 80 else ""
    if value is None or isinstance(value, bool | int | float):
        return f", not {value!r}"
    return f", not a {type(value).__name__}"


def _hint(kind: str, location: _Location, value: object) -> str:
    """Say how to write what YAML reads as another type."""
    if not _shown(location, value):
        return ""
    if kind == "string_type" and isinstance(value, bool | int | float):
        return f"; write '{value}' with quotes" if type(value) is int else "; write it with quotes"
    if not isinstance(value, str):
        return ""
    # The writer of 060 means 60, and YAML 1.1 reads 48.
    if is_old_number(value):
        return "; write plain digits, without a leading zero or a colon"
    meant = _meant(kind, value)
    return f", which is text; write {meant} without quotes" if meant else ""


def _meant(kind: str, text: str) -> str:
    """Return how to write the number or the truth value that a text spells; "" if it spells none."""
    if kind == "bool_type":
        return _TRUTH_VALUES.get(text.strip().lower(), "")
    if kind not in {"int_type", "float_type"}:
        return ""
    with suppress(ValueError):
        return str(int(text))
    with suppress(ValueError):
        number = float(text)
        if number.is_integer():
            return str(int(number))
        return str(number) if isfinite(number) and kind == "float_type" else ""
    return ""


def _known_keys(model: type[BaseModel] | None, location: _Location) -> str:
    block = _model_at(model, location[:-1])
    if block is None:
        return "remove it or correct its spelling"
    hint = did_you_mean(str(location[-1]), block.model_fields)
    return f"{hint} known here: {', '.join(block.model_fields)}".lstrip()


def _model_at(model: type[BaseModel] | None, location: _Location) -> type[BaseModel] | None:
    annotation: Any = model
    for part in location:
        if _is_model(annotation):
            field = annotation.model_fields.get(str(part))
            annotation = field.annotation if field else None
        else:
            # A dict of blocks by name.
            annotation = next(reversed(get_args(annotation)), None)
    return annotation if _is_model(annotation) else None


def _is_model(annotation: object) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)
