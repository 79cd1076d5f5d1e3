"""``Settings``: the whole configuration as one frozen object."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from pydantic import (
    Field,
    PrivateAttr,
    SecretStr,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    field_validator,
    model_validator,
)
from pydantic.functional_validators import ModelWrapValidatorHandler

from kvworker.errors import ConfigurationError
from kvworker.settings.atlas import atlas_choices
from kvworker.settings.base import Block
from kvworker.settings.blocks import (
    ConversationStoreSettings,
    FacadeSettings,
    MaintenanceSettings,
    QueueSettings,
    generated_id_retention,
    rule_problems,
)
from kvworker.settings.config_file import read_configuration
from kvworker.settings.environment import url_files_in_use, value_at, with_conversation_database, with_fallbacks
from kvworker.settings.policies import PoliciesSettings
from kvworker.settings.problems import problem_lines, refuse, translated
from kvworker.settings.store import ADAPTERS_PATH, AdaptersSettings, KvStoreSettings, Store, ToolsSettings
from kvworker.settings.stray_keys import is_distinctive, near_misses, slid_keys
from kvworker.settings.url_files import UrlFile


class Settings(Block):
    """The whole configuration. ``Settings()`` holds the defaults; ``load`` reads a file and the environment.

    It is valid or not constructed: any problem raises a ``ConfigurationError``.
    """

    tools: ToolsSettings = Field(default=ToolsSettings(), description="The tools of the host program.")
    conversation_store: ConversationStoreSettings = Field(
        default=ConversationStoreSettings(), description="The host program's conversation store."
    )
    queue: QueueSettings = Field(
        default=QueueSettings(), description="The broker, the result backend and the delivery of messages."
    )
    facade: FacadeSettings = Field(default=FacadeSettings(), description="The caller's side.")
    # This block has rules with the two above, so its defaults are checked too.
    maintenance: MaintenanceSettings = Field(
        default=MaintenanceSettings(), validate_default=True, description="The periodic tasks."
    )
    policies: PoliciesSettings = Field(
        default=PoliciesSettings(),
        description="Personas and message signing. Everything is allowed until you configure a persona.",
    )

    _choices: tuple[str, ...] = PrivateAttr(default=())
    _url_files: Mapping[tuple[str, ...], UrlFile] = PrivateAttr(default={})

    @classmethod
    def load(cls, path: str | Path | None = None, *, environ: Mapping[str, str] = os.environ) -> Self:
        """Read a file and the environment.

        Args:
            path: The file; by default the one that ``KVWORKER_CONFIG`` names, else ``.kvworker/kvworker.yaml`` (which
                ``kvworker up`` writes) if it exists in the working directory, else none.
            environ: The environment variables.

        Raises:
            ConfigurationError: The file cannot be read, or something in it or in the environment is wrong.
        """
        data, file = read_configuration(path, environ)
        return cls.from_mapping(data, environ=environ, directory=file.parent if file else None)

    @classmethod
    def of(cls, source: Self | str | Path | Mapping[Any, Any] | None) -> Self:
        """Return settings as they are, or load them from a file (see ``load``) or a mapping in the file's layout.

        Raises:
            ConfigurationError: The file cannot be read, or something in it, in the mapping or the environment is wrong.
        """
        if isinstance(source, cls):
            return source
        if isinstance(source, Mapping):
            return cls.from_mapping(source, environ=os.environ)
        # A URL is not shown: it may hold a password.
        is_url = isinstance(source, str) and "://" in source
        if (source is None or isinstance(source, str | os.PathLike)) and not is_url:
            return cls.load(source)
        given = "a URL" if is_url else f"an object of type {type(source).__name__}"
        raise ConfigurationError(
            f"the settings should be Settings, a file's path or a mapping such as {{'queue': {{'broker_url': 'redis://h'}}}},"
            f" not {given}"
        )

    @classmethod
    def from_mapping(
        cls, data: Mapping[Any, Any], *, environ: Mapping[str, str] | None = None, directory: Path | None = None
    ) -> Self:
        """Read a mapping in the file's layout.

        Args:
            data: The mapping. A host program's own top-level keys and tools are ignored.
            environ: The environment variables; by default none.
            directory: The start of relative paths in ``policies``; by default the working directory.

        Raises:
            ConfigurationError: One line for each problem: the path, the value and the fix.
        """
        lines = list(_stray_keys(data))
        block = {key: data[key] for key in cls.model_fields if key in data}
        url_files: Mapping[tuple[str, ...], UrlFile] = {}
        try:
            url_files = url_files_in_use(block, environ or {})
            block = dict(with_fallbacks(block, environ or {}))
            block = dict(with_conversation_database(block, data))
        except ConfigurationError as error:
            lines.append(str(error))
        try:
            settings = cls.model_validate(block, context=directory or Path())
        except ConfigurationError as error:
            lines.append(str(error))
        if lines:
            raise ConfigurationError("\n".join(lines))
        has_conversation_url = settings.conversation_store.url is not None
        choices = atlas_choices(data, environ or {}, settings.kv_store, has_conversation_url=has_conversation_url)
        settings._choices = tuple(choices)
        settings._url_files = url_files
        return settings

    @property
    def choices(self) -> tuple[str, ...]:
        """The decisions that a configuration written for ATLAS leaves open. A worker logs them once."""
        return self._choices

    @field_validator("maintenance", mode="wrap")
    @classmethod
    def _check_rules(
        cls, data: object, handler: ValidatorFunctionWrapHandler, info: ValidationInfo
    ) -> MaintenanceSettings:
        """Check the rules within and between these blocks all at once, those about valid blocks even if others are not.

        The rules hang on the last of the blocks. A block that is itself refused would be unknown to later rules.
        """
        problems: list[str] = []
        maintenance: MaintenanceSettings | None = None
        try:
            maintenance = handler(data)
        except ValidationError as error:
            problems += problem_lines("maintenance", error, MaintenanceSettings)
        problems += rule_problems(info.data.get("queue"), info.data.get("facade"), maintenance)
        refuse(problems)
        assert maintenance is not None  # noqa: S101 - else there was a problem
        return maintenance

    @model_validator(mode="wrap")
    @classmethod
    def _translate(cls, data: object, handler: ModelWrapValidatorHandler[Self]) -> Self:
        with translated("", cls):
            return handler(data)

    @property
    def kv_store(self) -> KvStoreSettings:
        """The ``tools.kv_store`` block."""
        return self.tools.kv_store

    @cached_property
    def store(self) -> Store:
        """The adapters, with the settings that they need from other blocks."""
        return Store(
            self.kv_store,
            self.conversation_store.url,
            self.maintenance.operation_retention_seconds,
            self.generated_id_retention_seconds,
            self._url_files,
        )

    @property
    def broker_file(self) -> UrlFile | None:
        """The file that holds the broker's URL, if the environment names one."""
        return self._url_files.get(("queue", "broker_url"))

    @property
    def results_file(self) -> UrlFile | None:
        """The file that holds the URL of the results' server, if the environment names one. It may be the broker's."""
        is_brokers = self.queue.result_backend == self.queue.broker_url
        return self._url_files.get(("queue", "result_backend")) or (self.broker_file if is_brokers else None)

    @property
    def generated_id_retention_seconds(self) -> int:
        """Seconds for which an operation id is remembered that no caller chose."""
        return generated_id_retention(self.queue, self.facade, self.maintenance)

    def to_mapping(self, *, reveal_secrets: bool = True) -> dict[str, Any]:
        """Return the configuration in the file's layout, with the defaults.

        Args:
            reveal_secrets: Return secrets as plain text. If false, each ``SecretStr`` stays one, but the queue's URLs
                still contain their passwords.
        """
        unset = {"operation_retention_seconds", "generated_id_retention_seconds"}
        adapters = {"postgres": {*unset, "url_file"}, "sqlite": unset}
        mapping = self.model_dump(exclude={"tools": {"kv_store": {"adapters": adapters}}, "policies": True})
        mapping["policies"] = self.policies.to_mapping()
        revealed: dict[str, Any] = _revealed(mapping) if reveal_secrets else mapping
        return revealed


def _stray_keys(data: Mapping[Any, Any]) -> Iterator[str]:
    """Yield a line for each key of ours that is misspelled or misplaced where a host program's keys may stand."""
    tools, store = _mapping_at(data, "tools"), _mapping_at(data, "tools", "kv_store")
    yield from near_misses(data, tuple(Settings.model_fields))
    yield from near_misses(tools, tuple(ToolsSettings.model_fields), "tools.")
    # The chosen adapter exists under its name, however similar that is to a bundled adapter's.
    adapters = {
        name: block for name, block in _mapping_at(store, "adapters").items() if name != store.get("default_adapter")
    }
    absent = [name for name in AdaptersSettings.model_fields if name not in _mapping_at(store, "adapters")]
    yield from near_misses(
        [name for name in adapters if name not in AdaptersSettings.model_fields], absent, f"{ADAPTERS_PATH}."
    )
    yield from slid_keys(data, Settings)
    yield from slid_keys(tools, ToolsSettings, "tools.")
    yield from slid_keys(adapters, AdaptersSettings, f"{ADAPTERS_PATH}.")
    yield from _indented_blocks("tools", tools)
    yield from _indented_blocks("kvworker", _mapping_at(data, "kvworker"))


def _indented_blocks(path: str, data: Mapping[Any, Any]) -> Iterator[str]:
    """Yield a line for each top-level block that stands below another key."""
    for name, block in data.items():
        field = Settings.model_fields.get(name) if isinstance(name, str) else None
        if field is None or not isinstance(block, Mapping):
            continue
        known: Any = field.annotation
        if any(key in known.model_fields and is_distinctive(key) for key in block):
            yield f"{path}.{name}: it does nothing here; it belongs at the top level, without indentation"


def _mapping_at(data: Mapping[Any, Any], *path: str) -> Mapping[Any, Any]:
    block = value_at(data, path)
    return block if isinstance(block, Mapping) else {}


def _revealed(value: object) -> Any:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, dict):
        return {key: _revealed(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return tuple(_revealed(item) for item in value)
    return value
