"""The permissions of personas, read from the ``policies`` block or from a personas file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
)
from pydantic.config import JsonDict
from pydantic_core import PydanticKnownError

from kvworker.errors import ConfigurationError
from kvworker.settings.base import MAY_BE_BLANK, Block, is_blank
from kvworker.settings.problems import problem, problem_lines, refuse
from kvworker.settings.stray_keys import near_misses, slid_keys
from kvworker.settings.yaml_file import read_file


def listed(example: str) -> BeforeValidator:
    """Return a validator that refuses a value that is not a list, and shows an example of one."""

    def check(value: object) -> object:
        if not isinstance(value, list | tuple):
            raise ValueError(f"it should be a list, such as {example}")  # noqa: TRY004 - pydantic reports only these
        return value

    return BeforeValidator(check)


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("it should not be blank")
    return text


def _is_mapping(value: object) -> object:
    if not isinstance(value, Mapping | None):
        raise ValueError('it should be a mapping of patterns to rights, such as "research.*": [read, write]')  # noqa: TRY004
    return value


def _persona_name(name: object) -> object:
    if not isinstance(name, str) or is_blank(name):
        raise problem(f"a persona's name should be a string that is not blank, not {name!r}; quote it")
    return name


def _not_empty(personas: object, info: ValidationInfo) -> object:
    if personas is None:
        return {}
    # Without personas everything is allowed. A {} in a file hardly means that.
    if info.context is not None and isinstance(personas, Mapping) and not personas:
        raise problem("there is none; name at least one, or leave the key out to allow everything")
    return personas


_SETTING = "policies.personas_file"

AT_LEAST_ONE: Final[JsonDict] = {"minProperties": 1}

_VISIBLE = Field(json_schema_extra={"pattern": r"\S"})
_Name = Annotated[str, AfterValidator(_not_blank), _VISIBLE]
# Only the items are strict: YAML gives lists, and they become tuples.
_Flags = Annotated[tuple[_Name, ...], Field(strict=False), listed("[type.system.kv_store_access]")]
_Rights = Annotated[tuple[Literal["read", "write"], ...], Field(strict=False), listed("[read, write]")]
_Namespaces = Annotated[dict[_Name, _Rights] | None, BeforeValidator(_is_mapping)]


class PersonaSettings(Block):
    """The permissions of one persona."""

    limiting_keys: ClassVar[Mapping[str, str]] = {
        "namespaces": "leave it out for every namespace, or write {} for none"
    }

    flags: _Flags = Field(
        default=(), description="Flags that the persona is granted. Flags of other tools are ignored."
    )
    namespaces: _Namespaces = Field(
        default=None,
        json_schema_extra={MAY_BE_BLANK: False},
        description="Lists of `read` and `write` by namespace pattern. In a pattern, * matches any run of characters"
        " and everything else is literal; put patterns in quotes. A namespace gets the rights of every pattern that"
        " matches it. Omit this key to allow every namespace; {} allows none.",
    )
    provider: _Name | None = Field(
        default=None,
        description="The adapter that runs the persona's operations: kv_store_<adapter>, or the adapter's name."
        " Default: the default adapter.",
    )


Personas = Annotated[dict[Annotated[str, BeforeValidator(_persona_name)], PersonaSettings], BeforeValidator(_not_empty)]


class PersonasBlock(Block):
    """The content of a personas file. Other keys in it are ignored."""

    model_config = ConfigDict(extra="ignore")

    personas: Personas = Field(description="One block for each persona, by name.", json_schema_extra=AT_LEAST_ONE)


@dataclass(frozen=True)
class PersonasFile:
    """A personas file that has been read."""

    path: Path
    personas: Mapping[str, PersonaSettings]


def path_in(directory: Path | None, file: str) -> Path:
    """Return the absolute path of a file that the configuration names.

    Args:
        directory: The start of a relative path; by default the working directory.
        file: The path as written. ``~`` is the home directory.
    """
    try:
        return ((directory or Path()) / Path(file).expanduser()).absolute()
    except RuntimeError:
        raise problem("it starts in the home directory of an unknown user") from None


def _read_personas_file(value: object, info: ValidationInfo) -> PersonasFile:
    if isinstance(value, PersonasFile):
        return value
    if not isinstance(value, str):
        raise PydanticKnownError("string_type")
    path = path_in(info.context, value)
    try:
        data = read_file(path, _SETTING)
    except ConfigurationError as error:
        refuse([str(error)])
        raise
    lines = [*near_misses(data, ("personas",)), *slid_keys(data, PersonasBlock)]
    if is_blank(data.get("personas")):
        lines = lines or [f"personas: there is none; name at least one, or leave {_SETTING} out"]
    refuse(f"{path}: {line}" for line in lines)
    try:
        return PersonasFile(path, PersonasBlock.model_validate(data, context=path.parent).personas)
    except ValidationError as error:
        refuse(f"{path}: {line}" for line in problem_lines("", error, PersonasBlock))
        raise


PersonasFileSetting = Annotated[
    Any,
    PlainValidator(_read_personas_file),
    PlainSerializer(lambda file: str(file.path) if file else None),
    WithJsonSchema({"type": "string"}),
]
