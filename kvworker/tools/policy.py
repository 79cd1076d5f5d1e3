"""What personas may do. The facades ask before anything is sent, and the worker asks again."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from kvworker.errors import ConfigurationError, PolicyDeniedError
from kvworker.model import MAX_NAMESPACE_BYTES
from kvworker.tools import STEP_TOOLS, TOOLS, Tool

if TYPE_CHECKING:
    from kvworker.settings import PersonaSettings, PoliciesSettings

logger = logging.getLogger(__name__)

_UNKNOWN = "no such persona is configured"
_NOT_CONFIGURED = (
    "no policies are configured where this was checked (the caller, then the worker), so a persona means nothing;"
    " configure the same `policies` for both, or name no persona"
)
_NAMELESS = "policies are enforced; name a persona, or configure policies.default_persona"
_WHOLE_STORE = "it needs read access to every namespace"


class Policy:
    """The policies of a configuration. Without personas nothing is restricted, and no persona can be named."""

    def __init__(self, settings: PoliciesSettings) -> None:
        self._settings = settings

    @property
    def is_enforced(self) -> bool:
        """Whether a call needs a persona that may do it."""
        return bool(self._settings.personas)

    def admit(self, persona: str | None, tool: Tool, arguments: Mapping[str, Any]) -> str:
        """The persona that a call with checked arguments runs as; "" where no policy is enforced.

        Raises:
            PolicyDeniedError: it may not do this.
        """
        name = persona or self._settings.default_persona or ""
        if detail := self._objection(name, tool, arguments):
            raise denied(name, tool.name, arguments.get("namespace"), detail)
        return name

    def visible(self, persona: str) -> Callable[[str], bool] | None:
        """Tells which namespaces a persona may read; None is that it may read all."""
        if not self.is_enforced:
            return None
        grants = self._persona(persona)
        return None if _is_unrestricted(grants) else lambda namespace: _may(grants, "read", namespace)

    def allowed_tools(self, persona: str) -> frozenset[str]:
        """The tools of which the persona may make at least some calls.

        Raises:
            ConfigurationError: there is no such persona.
        """
        grants = self._persona(persona)
        steps = {tool.name for tool in STEP_TOOLS if _may_ever(grants, tool)}
        others = {name for name, tool in TOOLS.items() if name != "kv_batch" and _may_ever(grants, tool)}
        return frozenset(steps | others | ({"kv_batch"} if steps else set()))

    def provider_of(self, persona: str) -> str | None:
        """The provider that the persona's operations run on; None is the default adapter.

        Raises:
            ConfigurationError: there is no such persona.
        """
        return self._persona(persona).provider if persona else None

    def _persona(self, persona: str) -> PersonaSettings:
        try:
            return self._settings.personas[persona]
        except KeyError:
            raise ConfigurationError(f"policies.personas: no persona is named {persona!r}") from None

    def _objection(self, persona: str, tool: Tool, arguments: Mapping[str, Any]) -> str | None:
        if not self.is_enforced:
            return _NOT_CONFIGURED if persona else None
        if not persona:
            return _NAMELESS
        grants = self._settings.personas.get(persona)
        if grants is None:
            return _UNKNOWN
        parts = _parts(tool, arguments)
        wanted = dict.fromkeys(flag for part in parts for flag in part.requires_flags)
        if missing := [flag for flag in wanted if flag not in grants.flags]:
            return f"it needs the flag {' and the flag '.join(missing)}"
        return _objection_to_namespace(grants, {_right(part) for part in parts}, tool, arguments)


def _objection_to_namespace(
    grants: PersonaSettings, rights: set[str], tool: Tool, arguments: Mapping[str, Any]
) -> str | None:
    namespace = arguments.get("namespace")
    if namespace is None:
        # A listing shows what the persona may read; the sum of all namespaces shows all of them.
        return None if tool.name == "kv_list_namespaces" or _is_unrestricted(grants) else _WHOLE_STORE
    missing = [right for right in sorted(rights) if not _may(grants, right, namespace)]
    return f"it needs {' and '.join(missing)} access to this namespace" if missing else None


def _parts(tool: Tool, arguments: Mapping[str, Any]) -> list[Tool]:
    """What a call does: a batch is no more than its operations."""
    if tool.name != "kv_batch":
        return [tool]
    return [TOOLS[name] for name in {operation["tool"]: None for operation in arguments["operations"]}]


def _right(tool: Tool) -> str:
    return "read" if tool.side_effects == "none" else "write"


def _may(grants: PersonaSettings, right: str, namespace: str) -> bool:
    if grants.namespaces is None:
        return True
    return any(right in rights and matches(pattern, namespace) for pattern, rights in grants.namespaces.items())


def _may_ever(grants: PersonaSettings, tool: Tool) -> bool:
    if not set(tool.requires_flags) <= set(grants.flags):
        return False
    if grants.namespaces is None or tool.name == "kv_list_namespaces":
        return True
    return any(_right(tool) in rights for rights in grants.namespaces.values())


def _is_unrestricted(grants: PersonaSettings) -> bool:
    """Whether the persona may read every namespace, those of the future included."""
    return grants.namespaces is None or "read" in grants.namespaces.get("*", ())


def matches(pattern: str, name: str) -> bool:
    """Whether a name is of a pattern, in which ``*`` is any run of characters and all else is literal.

    Written out because a regular expression of several such runs can take time without end.
    """
    first, *inner = pattern.split("*")
    if not inner:
        return name == pattern
    last = inner.pop()
    if len(name) < len(first) + len(last) or not (name.startswith(first) and name.endswith(last)):
        return False
    position, end = len(first), len(name) - len(last)
    for part in inner:
        found = name.find(part, position, end)
        if found < 0:
            return False
        position = found + len(part)
    return True


def denied(persona: object, tool: str, namespace: object, detail: str) -> PolicyDeniedError:
    """The error, after it is logged; a message that is not authentic may hold anything as its names."""
    error = PolicyDeniedError(_name(persona), tool, _name(namespace), detail)
    logger.warning("denied: persona %r, tool %s, namespace %r: %s", error.persona, tool, error.namespace, detail)
    return error


def _name(name: object) -> str:
    return name[:MAX_NAMESPACE_BYTES] if isinstance(name, str) else ""
