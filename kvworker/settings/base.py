"""``Block``: what every block of the configuration file has in common."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Final

from pydantic import BaseModel, ConfigDict, ValidationInfo, model_validator

from kvworker.settings.problems import problem_at
from kvworker.settings.urls import redacted_url

#: Marks in a field's JSON Schema whether a blank value counts as omitted there.
MAY_BE_BLANK: Final = "x-may-be-blank"


def is_blank(value: object) -> bool:
    """Return whether a value counts as omitted: null, or a string without a visible character."""
    return value is None or (isinstance(value, str) and not value.strip())


class Block(BaseModel):
    """A block of the file. It refuses unknown keys and wrong types. A blank value counts as omitted.

    The validation context is the directory of the configuration file. It is None when a program constructs a block
    itself; rules about how a file is written do not apply then.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, hide_input_in_errors=True)

    #: Keys for which null has its own meaning.
    nullable_keys: ClassVar[frozenset[str]] = frozenset()
    #: Keys that limit something, and what to do instead of leaving one blank: its variable may not have been set.
    limiting_keys: ClassVar[Mapping[str, str]] = {}
    #: False takes blank text as it takes any other text.
    omits_blank_text: ClassVar[bool] = True

    @model_validator(mode="before")
    @classmethod
    def _omit_blank(cls, data: object, info: ValidationInfo) -> object:
        if not cls.omits_blank_text:
            return data
        if is_blank(data):
            return {}
        if not isinstance(data, Mapping):
            return data
        kept = {str(key): value for key, value in data.items()}
        for key, advice in cls.limiting_keys.items():
            if info.context is not None and is_blank(kept.get(key, {})):
                raise problem_at(key, f"it is blank; {advice}")
        return {
            key: value
            for key, value in kept.items()
            if not is_blank(value) or (value is None and key in cls.nullable_keys)
        }

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        for name, value in super().__repr_args__():
            yield name, redacted_url(value) if isinstance(value, str) else value
