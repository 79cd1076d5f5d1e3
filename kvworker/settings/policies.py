"""The ``policies`` block: what each persona may do, and what signs messages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError, model_validator

from kvworker.errors import ConfigurationError
from kvworker.settings.adapters import configuration_error
from kvworker.settings.blocks import Block
from kvworker.settings.yaml_file import mapping_at, near_misses, read_file

SIGNING_KEY_VARIABLE = "KVWORKER_SIGNING_KEY"
MIN_SIGNING_KEY_BYTES = 16

_PATH = "policies"
_CERTIFICATE_FILES = ("security_key", "security_certificate", "security_cert_store")


def _listed(example: str) -> BeforeValidator:
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


_Name = Annotated[str, AfterValidator(_not_blank)]
# Not strict itself, so that YAML's lists become tuples; what they hold is.
_Flags = Annotated[tuple[_Name, ...], Field(strict=False), _listed("[type.system.kv_store_access]")]
_Rights = Annotated[tuple[Literal["read", "write"], ...], Field(strict=False), _listed("[read, write]")]
_Namespaces = Annotated[dict[_Name, _Rights] | None, BeforeValidator(_is_mapping)]


class PersonaSettings(Block):
    """What one persona may do.

    ``namespaces`` maps patterns to rights; in a pattern ``*`` is any run of characters, all else is literal.
    None is every namespace, an empty mapping is none. ``provider`` names the adapter that the persona's
    operations run on; None is the default one.
    """

    flags: _Flags = ()
    namespaces: _Namespaces = None
    provider: _Name | None = None


class PoliciesSettings(Block):
    """The personas by name, the one for calls that name none, and what signs messages.

    ``signing_key`` is a secret that senders and workers share. The others are files, for Celery's message signing: a
    private key, its certificate, and the certificates of those who are believed.
    """

    default_persona: str | None = None
    signing_key: SecretStr | None = None
    security_key: str | None = None
    security_certificate: str | None = None
    security_cert_store: str | None = None
    personas: dict[str, PersonaSettings] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _check(self) -> Self:
        problems = [*_default_problems(self.default_persona, self.personas)]
        if self.signing_key and (problem := _key_problem(self.signing_key.get_secret_value())):
            problems.append(f"{_PATH}.signing_key: {problem}")
        problems += _certificate_problems(self)
        if problems:
            raise ConfigurationError("\n".join(problems))
        return self

    @property
    def has_certificates(self) -> bool:
        """Whether messages and results are signed and verified by certificates."""
        return self.security_key is not None

    def to_mapping(self) -> dict[str, Any]:
        """The block laid out like the file's, with the personas of the personas file in it."""
        personas = {name: persona.model_dump(exclude_none=True) for name, persona in self.personas.items()}
        return {
            "default_persona": self.default_persona,
            "signing_key": self.signing_key,
            **{name: getattr(self, name) for name in _CERTIFICATE_FILES},
            "personas_file": None,
            "personas": personas or None,
        }


class PoliciesBlock(Block):
    """The block as it is in the file; what it holds is read one by one, so that each problem has its line."""

    default_persona: str | None = None
    signing_key: Any = Field(default=None, repr=False)
    security_key: str | None = None
    security_certificate: str | None = None
    security_cert_store: str | None = None
    personas_file: str | None = None
    personas: Any = None


def read_policies(
    data: Mapping[Any, Any], environ: Mapping[str, str], directory: Path, problems: list[str]
) -> PoliciesSettings | None:
    """The policies, with those of the personas file; None, and lines in ``problems``, if they are wrong.

    ``directory`` is where a relative ``personas_file`` starts.
    """
    found = len(problems)
    block = _read_block(mapping_at(data, _PATH, _PATH, problems), problems)
    if block is None:
        return None
    signing_key = _read_signing_key(block.signing_key, environ, problems)
    personas = _read_personas(block.model_dump(), f"{_PATH}.", problems)
    if block.personas_file is not None:
        _add_personas_of_file(personas, directory / Path(block.personas_file).expanduser(), problems)
    if len(problems) == found:
        problems.extend(_default_problems(block.default_persona, personas))
    problems.extend(_certificate_problems(block))
    if len(problems) > found:
        return None
    files = {name: _from(directory, getattr(block, name)) for name in _CERTIFICATE_FILES}
    return PoliciesSettings(default_persona=block.default_persona, signing_key=signing_key, personas=personas, **files)


def _from(directory: Path, file: str | None) -> str | None:
    return None if file is None else str((directory / Path(file).expanduser()).absolute())


def _certificate_problems(block: PoliciesSettings | PoliciesBlock) -> Iterator[str]:
    missing = [name for name in _CERTIFICATE_FILES if getattr(block, name) is None]
    if 0 < len(missing) < len(_CERTIFICATE_FILES):
        yield f"{_PATH}.{missing[0]}: it is missing; give {', '.join(_CERTIFICATE_FILES)}, or none of them"


def _read_block(block: Mapping[Any, Any], problems: list[str]) -> PoliciesBlock | None:
    try:
        return PoliciesBlock.model_validate(block)
    except ValidationError as error:
        problems.extend(str(configuration_error(_PATH, error, PoliciesBlock)).splitlines())
        return None


def _read_signing_key(given: object, environ: Mapping[str, str], problems: list[str]) -> SecretStr | None:
    """The key that the file gives, or else the environment; no line about it ever shows it."""
    path, key = f"{_PATH}.signing_key", given
    if key is None:
        path, key = SIGNING_KEY_VARIABLE, environ.get(SIGNING_KEY_VARIABLE, "").strip()
    if key == "":
        return None
    if problem := _key_problem(key):
        problems.append(f"{path}: {problem}")
        return None
    return SecretStr(str(key).strip())


def _key_problem(key: object) -> str | None:
    if not isinstance(key, str):
        return "it should be a string; put it in quotes"
    try:
        size = len(key.strip().encode())
    except UnicodeEncodeError:
        return "it should be UTF-8 text"
    if size < MIN_SIGNING_KEY_BYTES:
        return f"it should be at least {MIN_SIGNING_KEY_BYTES} bytes long, such as `openssl rand -hex 32` prints"
    return None


def _add_personas_of_file(personas: dict[str, PersonaSettings], path: Path, problems: list[str]) -> None:
    try:
        data = read_file(path, f"{_PATH}.personas_file")
    except ConfigurationError as error:
        problems.append(str(error))
        return
    found = len(problems)
    problems.extend(f"{path}: {line}" for line in near_misses(data.keys(), ("personas",)))
    of_file = _read_personas(data, f"{path}: ", problems)
    if not of_file and len(problems) == found:
        problems.append(f"{path}: personas: there is none; name at least one, or leave {_PATH}.personas_file out")
    problems.extend(
        f"{path}: personas.{name}: {_PATH}.personas has one of this name too; remove one"
        for name in of_file
        if name in personas
    )
    personas.update(of_file)


def _read_personas(data: Mapping[Any, Any], prefix: str, problems: list[str]) -> dict[str, PersonaSettings]:
    path = f"{prefix}personas"
    block = mapping_at(data, "personas", path, problems)
    if not block and isinstance(data.get("personas"), Mapping):
        # Without personas everything is allowed, which somebody who writes {} hardly means.
        problems.append(f"{path}: there is none; name at least one, or leave the key out to allow everything")
    personas = {}
    for name in block:
        if not isinstance(name, str) or not name.strip():
            problems.append(f"{path}: a persona's name should be a string that is not blank, not {name!r}; quote it")
        elif persona := _read_persona(block, name, f"{path}.{name}", problems):
            personas[name] = persona
    return personas


def _read_persona(block: Mapping[Any, Any], name: str, path: str, problems: list[str]) -> PersonaSettings | None:
    persona = mapping_at(block, name, path, problems)
    if _is_blank(persona.get("namespaces", {})):
        problems.append(f"{path}.namespaces: it is blank; leave it out for every namespace, or write {{}} for none")
        return None
    try:
        return PersonaSettings.model_validate(persona)
    except ValidationError as error:
        problems.extend(str(configuration_error(path, error, PersonaSettings)).splitlines())
        return None


def _is_blank(value: object) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())


def _default_problems(default: str | None, personas: Mapping[str, PersonaSettings]) -> Iterator[str]:
    if default is not None and default not in personas:
        known = f"the personas are {', '.join(sorted(personas))}" if personas else "there are no personas"
        yield f"{_PATH}.default_persona: no persona is named {default!r}; {known}"
