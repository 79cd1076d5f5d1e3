"""What a tool is: its parameters, its result, and what a host or a model must know to use it well."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

from kvworker.model import OperationResult

TASK_PREFIX: Final = "kvworker."

#: The flags that a persona needs (the seed's first two). ADMIN is for what an operator would do.
ACCESS_FLAG: Final = "type.system.kv_store_access"
WRITE_FLAG: Final = "type.system.kv_store_write"
ADMIN_FLAG: Final = "type.system.kv_store_admin"

SideEffects: TypeAlias = Literal["none", "write", "destructive"]


@dataclass(frozen=True, slots=True)
class Parameter:
    """An argument of a tool. ``schema`` is its JSON Schema without null, which an optional one may also be."""

    name: str
    schema: Mapping[str, Any]
    description: str
    check: Callable[[Any], Any]
    required: bool = True

    def is_default(self, value: object) -> bool:
        """Whether leaving the argument out would mean the same as this value, which is not sent then."""
        default = self.schema.get("default")
        return default is not None and type(value) is type(default) and value == default


@dataclass(frozen=True, slots=True)
class ResultField:
    """A field of a tool's result; one that is not ``always`` there is left out when it says nothing."""

    name: str
    schema: Mapping[str, Any]
    description: str
    always: bool = True


@dataclass(frozen=True, slots=True)
class Tool:
    """One operation: the source of its manifest entry, its schemas, its checks and its task's name.

    ``method`` is the adapter's and the facades' method that it calls. ``repeatable`` tells that doing it
    twice leaves what doing it once would have left, whether or not an idempotency key is given.
    """

    name: str
    method: str
    summary: str
    parameters: tuple[Parameter, ...]
    result: type[OperationResult]
    result_fields: tuple[ResultField, ...]
    side_effects: SideEffects
    requires_flags: tuple[str, ...]
    repeatable: bool = True

    @property
    def task_name(self) -> str:
        """The name of the Celery task."""
        return TASK_PREFIX + self.name

    @property
    def writes(self) -> bool:
        """Whether it takes an operation id."""
        return "idempotency_key" in self.optional

    @property
    def required(self) -> tuple[str, ...]:
        """The names of the arguments that must be given."""
        return tuple(parameter.name for parameter in self.parameters if parameter.required)

    @property
    def optional(self) -> tuple[str, ...]:
        """The names of the arguments that may be left out, or null."""
        return tuple(parameter.name for parameter in self.parameters if not parameter.required)
