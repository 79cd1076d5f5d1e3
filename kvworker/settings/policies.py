"""The ``policies`` block: personas and message signing."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SecretStr,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic.functional_validators import ModelWrapValidatorHandler

from kvworker.settings.base import Block
from kvworker.settings.oauth import OAuthSettings
from kvworker.settings.personas import AT_LEAST_ONE, Personas, PersonasFile, PersonasFileSetting, listed, path_in
from kvworker.settings.problems import problem, refuse, translated
from kvworker.wording import did_you_mean

MIN_SIGNING_KEY_BYTES = 16

_PATH = "policies"
_CERTIFICATE_FILES = ("security_key", "security_certificate", "security_cert_store")


def check_signing_key(key: object) -> str:
    """Return the key without surrounding white space.

    Raises:
        PydanticCustomError: The key is not a string of at least 16 bytes. The message does not show it.
    """
    if not isinstance(key, str):
        raise problem("it should be a string; put it in quotes")
    try:
        size_bytes = len(key.strip().encode())
    except UnicodeEncodeError:
        raise problem("it should be UTF-8 text") from None
    if size_bytes < MIN_SIGNING_KEY_BYTES:
        raise problem(
            f"it should be at least {MIN_SIGNING_KEY_BYTES} bytes long, such as `openssl rand -hex 32` prints"
        )
    return key.strip()


def _signing_key(key: object) -> str:
    return check_signing_key(key.get_secret_value() if isinstance(key, SecretStr) else key)


def _absolute(file: str, info: ValidationInfo) -> str:
    return file if info.context is None else str(path_in(info.context, file))


# Distinguishes omitted personas from {}, which a file must not contain.
_OMITTED: Any = None
_SigningKey = Annotated[SecretStr, BeforeValidator(_signing_key)]
_File = Annotated[str, AfterValidator(_absolute)]


class PoliciesSettings(Block):
    """Personas and message signing. Relative paths start at the configuration file's directory."""

    default_persona: str | None = Field(
        default=None, description="The persona of calls that do not name one. Such calls are refused if it is omitted."
    )
    signing_key: _SigningKey | None = Field(
        default=None,
        description="A secret of at least 16 bytes that callers and workers share. It signs messages; a worker that has"
        " it refuses every operation whose message lacks its signature.",
    )
    previous_signing_keys: Annotated[tuple[_SigningKey, ...], listed("[the-key-before-this-one]")] = Field(
        default=(),
        strict=False,
        description="Keys whose signatures workers still accept, while callers change to signing_key.",
    )
    security_key: _File | None = Field(
        default=None,
        description="The private key (RSA, PEM, no password) that signs messages and results by Celery's message"
        " signing. Give all three files or none.",
    )
    security_certificate: _File | None = Field(default=None, description="The certificate (PEM) of security_key.")
    security_cert_store: _File | None = Field(
        default=None,
        validate_default=True,
        description="A directory, or a pattern such as trusted/*.pem, of the certificates that are trusted.",
    )
    tokens_file: _File | None = Field(
        default=None,
        description="The file of the tokens that open the MCP server over HTTP and the dashboard. `kvworker tokens`"
        " writes it; it holds only hashes.",
    )
    oauth: OAuthSettings | None = Field(
        default=None, description="The authorization server whose tokens open the MCP server over HTTP."
    )
    personas_file: PersonasFileSetting = Field(
        default=None, description="A YAML file with more personas, such as config/personas.yaml."
    )
    personas: Personas = Field(
        default=_OMITTED,
        validate_default=True,
        description="One block for each persona, by name.",
        json_schema_extra=AT_LEAST_ONE,
    )

    @field_validator("previous_signing_keys")
    @classmethod
    def _check_needed(cls, keys: tuple[SecretStr, ...], info: ValidationInfo) -> tuple[SecretStr, ...]:
        if keys and info.data.get("signing_key", "invalid") is None:
            refuse([f"{_PATH}.previous_signing_keys: they have no effect without {_PATH}.signing_key"])
        return keys

    @field_validator("security_cert_store")
    @classmethod
    def _check_all_or_none(cls, store: str | None, info: ValidationInfo) -> str | None:
        files = {name: info.data[name] for name in _CERTIFICATE_FILES[:-1] if name in info.data}
        missing = [name for name, file in {**files, _CERTIFICATE_FILES[-1]: store}.items() if file is None]
        if 0 < len(missing) < len(_CERTIFICATE_FILES):
            refuse([f"{_PATH}.{missing[0]}: it is missing; give {', '.join(_CERTIFICATE_FILES)}, or none of them"])
        return store

    @field_validator("personas", mode="after")
    @classmethod
    def _add_personas_of_file(cls, personas: Personas, info: ValidationInfo) -> Personas:
        file: PersonasFile | None = info.data.get("personas_file")
        if file is None:
            return personas
        refuse(
            f"{file.path}: personas.{name}: {_PATH}.personas has one of this name too; remove one"
            for name in file.personas
            if name in personas
        )
        return {**personas, **file.personas}

    @model_validator(mode="after")
    def _check_named_personas(self) -> Self:
        named = {"default_persona": self.default_persona}
        if self.oauth is not None:
            named |= {f"oauth.scopes.{scope}": persona for scope, persona in self.oauth.scopes.items()}
        names = ", ".join(sorted(self.personas))
        for path, persona in named.items():
            if persona is not None and persona not in self.personas:
                hint = did_you_mean(persona, self.personas)
                known = f"{hint} the personas are {names}".lstrip() if names else "there are no personas"
                refuse([f"{_PATH}.{path}: no persona is named {persona!r}; {known}"])
        return self

    @model_validator(mode="wrap")
    @classmethod
    def _translate(cls, data: object, handler: ModelWrapValidatorHandler[Self], info: ValidationInfo) -> Self:
        if info.context is not None:
            return handler(data)
        with translated(_PATH, cls):
            return handler(data)

    @property
    def accepted_signing_keys(self) -> tuple[SecretStr, ...]:
        """The keys whose signatures a worker accepts; none if it needs no signature."""
        return (self.signing_key, *self.previous_signing_keys) if self.signing_key else ()

    @property
    def has_certificates(self) -> bool:
        """True if messages and results are signed and verified by certificates."""
        return self.security_key is not None

    def to_mapping(self) -> dict[str, Any]:
        """Return the block in the file's layout, with the personas of the personas file merged in."""
        personas = {name: persona.model_dump(exclude_none=True) for name, persona in self.personas.items()}
        return {**self.model_dump(exclude={"personas"}), "personas_file": None, "personas": personas or None}
