"""The types that define a tool: parameters, result fields, and facts that a host or a model needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

from kvworker.model import OperationResult

TASK_PREFIX: Final = "kvworker."

#: The flags that a persona needs. Reads need access; writes need access and write; an operator's tools need all three.
ACCESS_FLAG: Final = "type.system.kv_store_access"
WRITE_FLAG: Final = "type.system.kv_store_write"
ADMIN_FLAG: Final = "type.system.kv_store_admin"

#: The flags of tools that read, and of those that write.
READS: Final = (ACCESS_FLAG,)
WRITES: Final = (ACCESS_FLAG, WRITE_FLAG)

SideEffects: TypeAlias = Literal["none", "write", "destructive"]


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of a tool.

    ``schema`` is its JSON Schema without null; an optional parameter also accepts null. ``check`` returns the
    checked argument or raises ``InvalidRequestError``. A parameter that ``holds_values`` is or contains any JSON value,
    and its checked argument is an ``EncodedValue`` or a digest.
    """

    name: str
    schema: Mapping[str, Any]
    description: str
    check: Callable[[Any], Any]
    required: bool = True
    holds_values: bool = False

    def is_default(self, value: object) -> bool:
        """True if the value equals the default, so that it need not be sent."""
        default = self.schema.get("default")
        return default is not None and type(value) is type(default) and value == default


@dataclass(frozen=True, slots=True)
class ResultField:
    """A field of a tool's result. A field that is not ``always`` present is left out when it has no value."""

    name: str
    schema: Mapping[str, Any]
    description: str
    always: bool = True


@dataclass(frozen=True, slots=True)
class Tool:
    """One operation: the source of its manifest entry, its schemas, its checks and its task's name.

    ``repeatable`` is True if calling the tool twice leaves the same state as calling it once, even without an
    idempotency key. ``reveals`` is True for a tool that writes and returns what others stored: it needs the right to
    read as well.
    """

    name: str
    summary: str
    parameters: tuple[Parameter, ...]
    result: type[OperationResult]
    result_fields: tuple[ResultField, ...]
    side_effects: SideEffects
    requires_flags: tuple[str, ...]
    repeatable: bool = True
    reveals: bool = False

    @property
    def task_name(self) -> str:
        """The name of the Celery task."""
        return TASK_PREFIX + self.name

    @property
    def writes(self) -> bool:
        """True if the tool accepts an operation id."""
        return "idempotency_key" in self.optional

    @property
    def required(self) -> tuple[str, ...]:
        """The names of the required parameters."""
        return tuple(parameter.name for parameter in self.parameters if parameter.required)

    @property
    def optional(self) -> tuple[str, ...]:
        """The names of the optional parameters, which may be left out or null."""
        return tuple(parameter.name for parameter in self.parameters if not parameter.required)
