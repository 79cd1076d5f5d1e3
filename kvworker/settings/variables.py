"""Reads the environment variables with pydantic-settings and checks their values."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    InitSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from kvworker.settings.adapters import GlobalQuotaBytes, PoolOverflow, PoolSize, QuotaBytes, TimeoutSeconds
from kvworker.settings.environment import OTHER_REUSE_VARIABLE, OTHER_URL_VARIABLE, REUSE_VARIABLE, URL_VARIABLE
from kvworker.settings.policies import check_signing_key
from kvworker.settings.problems import refuse, translated
from kvworker.settings.urls import BROKER_SCHEMES, REDIS_SCHEMES, database_url_problem, queue_url

_MAX_LENGTH = 50
_BOOLEANS = {
    **dict.fromkeys(("true", "1", "yes", "on"), True),
    **dict.fromkeys(("false", "0", "no", "off"), False),
}


def _check_url(text: str) -> str:
    if problem := database_url_problem("postgres", text):
        raise ValueError(problem)
    return text


def _signing_keys(text: str) -> list[str]:
    return [check_signing_key(line) for line in text.splitlines() if line.strip()]


def _check_broker(text: str) -> str:
    return queue_url(text, BROKER_SCHEMES)


def _check_results(text: str) -> str:
    return queue_url(text, REDIS_SCHEMES)


def _boolean(text: str) -> bool:
    if text.lower() not in _BOOLEANS:
        raise ValueError("it should be true or false")
    return _BOOLEANS[text.lower()]


# As Python reads them, and thus ATLAS: 1_000 is a whole number, and 1e1 is a number.
def _whole_number(text: str) -> int:
    if not re.fullmatch(r"[+-]?[0-9]+(_[0-9]+)*", text) or len(text) > _MAX_LENGTH:
        raise ValueError("it should be a whole number, such as 1000 or 1_000")
    return int(text)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError("it should be a number, such as 30, 0.5 or 1e1") from None


class _Variables(BaseSettings):
    model_config = SettingsConfigDict(case_sensitive=True, validate_default=False, hide_input_in_errors=True)

    signing_key: Annotated[str | None, AfterValidator(check_signing_key)] = Field(
        default=None, alias="KVWORKER_SIGNING_KEY"
    )
    previous_signing_keys: Annotated[list[str] | None, NoDecode, BeforeValidator(_signing_keys)] = Field(
        default=None, alias="KVWORKER_PREVIOUS_SIGNING_KEYS"
    )
    broker_url: Annotated[str | None, AfterValidator(_check_broker)] = Field(default=None, alias="KVWORKER_BROKER_URL")
    result_backend: Annotated[str | None, AfterValidator(_check_results)] = Field(
        default=None, alias="KVWORKER_RESULT_BACKEND"
    )
    url: Annotated[str | None, AfterValidator(_check_url)] = Field(default=None, alias="ATLAS_KV_STORE_URL")
    reuse: Annotated[bool | None, BeforeValidator(_boolean)] = Field(default=None, alias="ATLAS_KV_REUSE_CONVERSATION")
    namespace_quota: Annotated[QuotaBytes | None, BeforeValidator(_whole_number)] = Field(
        default=None, alias="ATLAS_KV_NAMESPACE_QUOTA_BYTES"
    )
    global_quota: Annotated[GlobalQuotaBytes | None, BeforeValidator(_whole_number)] = Field(
        default=None, alias="ATLAS_KV_GLOBAL_QUOTA_BYTES"
    )
    pool_size: Annotated[PoolSize | None, BeforeValidator(_whole_number)] = Field(
        default=None, alias="ATLAS_KV_POOL_SIZE"
    )
    max_overflow: Annotated[PoolOverflow | None, BeforeValidator(_whole_number)] = Field(
        default=None, alias="ATLAS_KV_MAX_OVERFLOW"
    )
    pool_timeout: Annotated[TimeoutSeconds | None, BeforeValidator(_number)] = Field(
        default=None, alias="ATLAS_KV_POOL_TIMEOUT"
    )
    other_url: Annotated[str | None, AfterValidator(_check_url)] = Field(default=None, alias="ATLAS_KV_URL")
    other_reuse: Annotated[bool | None, BeforeValidator(_boolean)] = Field(
        default=None, alias="ATLAS_KV_REUSE_CONVERSATION_STORE"
    )
    conversation_url: str | None = Field(default=None, alias="CONVERSATION_DATABASE_URL")

    @model_validator(mode="after")
    def _check_contradiction(self) -> Self:
        if (self.reuse or self.other_reuse) and (self.url or self.other_url):
            reuse = REUSE_VARIABLE if self.reuse else OTHER_REUSE_VARIABLE
            url = URL_VARIABLE if self.url else OTHER_URL_VARIABLE
            refuse([f"{reuse}: true contradicts {url}, which names another database; unset one of them"])
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - pydantic-settings' signature
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - pydantic-settings' signature
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - see above
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read the environment that is passed to ``read_variables``, which need not be this process's."""
        assert isinstance(env_settings, EnvSettingsSource)  # noqa: S101 - tells the type checker
        assert isinstance(init_settings, InitSettingsSource)  # noqa: S101
        env_settings.env_vars = init_settings.init_kwargs["environ"]
        return (env_settings,)


def read_variables(environ: Mapping[str, str]) -> dict[str, Any]:
    """Parse environment variables and return their values by name.

    Args:
        environ: The variables to read; others in it are ignored.

    Raises:
        ConfigurationError: A variable has an impossible value, or two contradict each other.
    """
    with translated("", _Variables):
        return _Variables.model_validate({"environ": environ}).model_dump(by_alias=True, exclude_unset=True)
