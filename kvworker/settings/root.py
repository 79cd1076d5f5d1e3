"""``Settings``: from a file and the environment to one frozen object, or to one error with every problem."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Self, TypeVar

from pydantic import BaseModel, SecretStr, ValidationError, model_validator

from kvworker.errors import ConfigurationError
from kvworker.settings.adapters import configuration_error
from kvworker.settings.blocks import (
    Block,
    ConversationStoreSettings,
    FacadeSettings,
    MaintenanceSettings,
    QueueSettings,
    cross_problems,
)
from kvworker.settings.kv_store_block import read_kv_store
from kvworker.settings.policies import PoliciesSettings, read_policies
from kvworker.settings.store import KvStoreSettings, Store
from kvworker.settings.yaml_file import mapping_at, near_misses, read_file

CONFIG_VARIABLE = "KVWORKER_CONFIG"

_TOP_LEVEL_KEYS = ("tools", "conversation_store", "queue", "facade", "maintenance", "policies")

B = TypeVar("B", bound=BaseModel)


class Settings(Block):
    """The whole configuration. ``Settings()`` is the defaults; ``load`` reads a file and the environment."""

    kv_store: KvStoreSettings = KvStoreSettings()
    conversation_store: ConversationStoreSettings = ConversationStoreSettings()
    queue: QueueSettings = QueueSettings()
    facade: FacadeSettings = FacadeSettings()
    maintenance: MaintenanceSettings = MaintenanceSettings()
    policies: PoliciesSettings = PoliciesSettings()

    @classmethod
    def load(cls, path: str | Path | None = None, *, environ: Mapping[str, str] = os.environ) -> Self:
        """Read the file at ``path``, or the one that ``KVWORKER_CONFIG`` names, or none; then the environment.

        Raises:
            ConfigurationError: the file cannot be read, or something in it or in the environment is wrong.

        """
        named_by = "config file"
        if path is None or not str(path).strip():
            path, named_by = environ.get(CONFIG_VARIABLE, "").strip(), CONFIG_VARIABLE
        if not path:
            return cls.from_mapping({}, environ=environ)
        file = Path(path)
        return cls.from_mapping(read_file(file, named_by), environ=environ, directory=file.expanduser().parent)

    @classmethod
    def from_mapping(
        cls, data: Mapping[Any, Any], *, environ: Mapping[str, str] | None = None, directory: Path | None = None
    ) -> Self:
        """Read a mapping laid out like the file; of the environment only what ``environ`` holds.

        ``directory`` is where a relative ``policies.personas_file`` starts; by default the working directory.

        Raises:
            ConfigurationError: one line per problem: the path, the value and the fix.

        """
        problems = [*near_misses(data.keys(), _TOP_LEVEL_KEYS)]
        kv_store = read_kv_store(data, environ or {}, problems)
        conversation_store = _read_block(ConversationStoreSettings, data, "conversation_store", problems)
        queue = _read_block(QueueSettings, data, "queue", problems)
        facade = _read_block(FacadeSettings, data, "facade", problems)
        maintenance = _read_block(MaintenanceSettings, data, "maintenance", problems)
        policies = read_policies(data, environ or {}, directory or Path(), problems)
        problems.extend(cross_problems(queue, facade, maintenance))
        if problems or not (kv_store and conversation_store and queue and facade and maintenance and policies):
            raise ConfigurationError("\n".join(problems))
        return cls(
            kv_store=kv_store,
            conversation_store=conversation_store,
            queue=queue,
            facade=facade,
            maintenance=maintenance,
            policies=policies,
        )

    @model_validator(mode="after")
    def _check_across(self) -> Self:
        problems = list(cross_problems(self.queue, self.facade, self.maintenance))
        if problems:
            raise ConfigurationError("\n".join(problems))
        return self

    @cached_property
    def store(self) -> Store:
        """The adapters, each with what it needs from the other blocks."""
        return Store(self.kv_store, self.conversation_store.url, self.maintenance.operation_retention_seconds)

    def to_mapping(self) -> dict[str, Any]:
        """The configuration laid out like the file, defaults written out. It holds the passwords."""
        adapters = {
            "postgres": self.kv_store.postgres.model_dump(exclude={"operation_retention_seconds"}),
            "sqlite": self.kv_store.sqlite.model_dump(exclude={"operation_retention_seconds"}),
            **self.kv_store.others,
        }
        blocks = {
            name: getattr(self, name).model_dump() for name in ("conversation_store", "queue", "facade", "maintenance")
        }
        kv_store = {"default_adapter": self.kv_store.default_adapter, "adapters": adapters}
        blocks["policies"] = self.policies.to_mapping()
        plain: dict[str, Any] = _revealed({"tools": {"kv_store": kv_store}, **blocks})
        return plain


def _read_block(model: type[B], data: Mapping[Any, Any], name: str, problems: list[str]) -> B | None:
    try:
        return model.model_validate(mapping_at(data, name, name, problems))
    except ValidationError as error:
        problems.extend(str(configuration_error(name, error, model)).splitlines())
        return None


def _revealed(value: object) -> Any:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, dict):
        return {key: _revealed(item) for key, item in value.items()}
    return value
