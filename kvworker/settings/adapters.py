"""The settings of the bundled adapters: one frozen object per block under ``tools.kv_store.adapters``."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, model_validator

from kvworker.errors import ConfigurationError

_SECRET_WORDS = ("url", "dsn", "backend", "password", "passwd", "secret", "token", "credential")

# Three weeks: both databases keep timeouts as milliseconds in 32 bits, and SQLite takes a longer one as none.
_TimeoutSeconds = Annotated[float, Field(gt=0, le=2_000_000, allow_inf_nan=False)]
# Ten years: PostgreSQL's timestamps end some day.
_RetentionSeconds = Annotated[float, Field(gt=0, le=315_360_000, allow_inf_nan=False)]
_Bytes = Annotated[int, Field(gt=0, le=2**62)]


def drop_omitted(block: Mapping[str, Any], *, keep: frozenset[str] = frozenset()) -> dict[str, Any]:
    """Drop keys whose value is blank or null, which count as omitted; under a key in ``keep`` null means something."""
    return {
        key: value
        for key, value in block.items()
        if not (value is None and key not in keep) and not (isinstance(value, str) and not value.strip())
    }


class _Block(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, hide_input_in_errors=True)

    nullable_keys: ClassVar[frozenset[str]] = frozenset()

    @model_validator(mode="before")
    @classmethod
    def _omit_blank(cls, data: object) -> object:
        if isinstance(data, Mapping):
            return drop_omitted({str(key): value for key, value in data.items()}, keep=cls.nullable_keys)
        return data


class PoolSettings(_Block):
    """The connection pool of one process. ``timeout`` is how many seconds a call waits for a connection."""

    size: int = Field(default=5, ge=1)
    max_overflow: int = Field(default=10, ge=0)
    timeout: _TimeoutSeconds = 30.0


class SqlAdapterSettings(_Block):
    """What both SQL adapters are told.

    ``operation_retention_seconds`` is how long the record of a write is kept, and with it the promise
    that the same operation id is applied once. ``migrate_on_start`` creates or updates the schema on
    first use, which suits a single machine; otherwise run ``kvworker migrate``.
    """

    url: SecretStr | None = None
    reuse_conversation_store: bool | None = None
    namespace_quota_bytes: _Bytes = 1_048_576
    global_quota_bytes: _Bytes | None = None
    pool: PoolSettings = PoolSettings()
    operation_retention_seconds: _RetentionSeconds = 86_400.0
    migrate_on_start: bool = False


class PostgresSettings(SqlAdapterSettings):
    """The ``postgres`` adapter's block. ``prepare_threshold`` is null behind PgBouncer in transaction mode."""

    nullable_keys: ClassVar[frozenset[str]] = frozenset({"prepare_threshold"})

    prepare_threshold: int | None = Field(default=1, ge=0)
    statement_timeout_seconds: _TimeoutSeconds = 10.0


class SqliteSettings(SqlAdapterSettings):
    """The ``sqlite`` adapter's block. ``busy_timeout_seconds`` is how long a write waits for other writers."""

    busy_timeout_seconds: _TimeoutSeconds = 10.0


def configuration_error(
    path_prefix: str, error: ValidationError, model: type[BaseModel] | None = None
) -> ConfigurationError:
    """Write one line per problem: the path, the value unless it may be a secret, and the fix.

    ``model`` is the model that refused, so that an unknown key is answered with the known ones.
    """
    lines = []
    for problem in error.errors(include_url=False, include_context=False):
        location = problem["loc"]
        path = ".".join([path_prefix, *map(str, location)] if path_prefix else map(str, location))
        if problem["type"] == "extra_forbidden":
            lines.append(f"{path}: unknown key; {_known_keys(model, location)}")
        else:
            lines.append(f"{path}: {_fix(problem['msg'])}{_shown(location, problem['input'])}")
    return ConfigurationError("\n".join(lines))


def _fix(message: str) -> str:
    text = message.removeprefix("Value error, ").replace("Input should", "it should")
    return text[:1].lower() + text[1:]


def _shown(location: tuple[int | str, ...], value: object) -> str:
    if any(word in str(part).lower() for part in location for word in _SECRET_WORDS):
        return ""
    if isinstance(value, str):
        return f", not {value!r}" if "://" not in value and len(value) <= 80 else ""
    if value is None or isinstance(value, bool | int | float):
        return f", not {value!r}"
    return f", not a {type(value).__name__}"


def _known_keys(model: type[BaseModel] | None, location: tuple[int | str, ...]) -> str:
    for part in location[:-1]:
        field = model.model_fields.get(str(part)) if model else None
        inner = field.annotation if field else None
        model = inner if isinstance(inner, type) and issubclass(inner, BaseModel) else None
    if model is None:
        return "remove it or correct its spelling"
    close = difflib.get_close_matches(str(location[-1]), model.model_fields, n=1)
    return (f"did you mean {close[0]}? " if close else "") + f"known here: {', '.join(model.model_fields)}"
