"""Decides which persona may do what. The facades check before they send a call, and the worker checks again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from kvworker.errors import ConfigurationError
from kvworker.model.patterns import matches
from kvworker.tools import STEP_TOOLS, TOOLS, Tool
from kvworker.tools.denials import log_denial

if TYPE_CHECKING:
    from kvworker.settings import PersonaSettings, PoliciesSettings

_UNKNOWN = "no such persona is configured"
_NOT_CONFIGURED = (
    "no personas are configured in the process that checked this call (first the caller, then the worker);"
    " give both the same `policies`, or call without a persona"
)
_NAMELESS = "policies are enforced; name a persona, or configure policies.default_persona"
_WHOLE_STORE = "it needs read access to every namespace"


class Policy:
    """The policies of a configuration. Without personas nothing is restricted, and a call that names one is denied."""

    def __init__(self, settings: PoliciesSettings) -> None:
        self._settings = settings

    @property
    def is_enforced(self) -> bool:
        """True if every call needs a persona with the right to make it."""
        return bool(self._settings.personas)

    def admit(self, persona: str | None, tool: Tool, arguments: Mapping[str, Any]) -> str:
        """Return the persona that a call with checked arguments runs as, or "" if no policy is enforced.

        Raises:
            PolicyDeniedError: The persona may not make this call.
        """
        name = persona or self._settings.default_persona or ""
        if detail := self._objection(name, tool, arguments):
            raise log_denial(name, tool.name, arguments.get("namespace"), detail)
        return name

    def visible(self, persona: str) -> Callable[[str], bool] | None:
        """Return a predicate for the namespaces that a persona may read, or None if it may read all."""
        if not self.is_enforced:
            return None
        grants = self._persona(persona)
        return None if _is_unrestricted(grants) else lambda namespace: _may(grants, "read", namespace)

    def readable_patterns(self, persona: str) -> tuple[str, ...] | None:
        """Return the patterns of the namespaces that a persona may read, or None if it may read all."""
        if not self.is_enforced:
            return None
        grants = self._persona(persona)
        if grants.namespaces is None or _is_unrestricted(grants):
            return None
        return tuple(pattern for pattern, rights in grants.namespaces.items() if "read" in rights)

    def allowed_tools(self, persona: str) -> frozenset[str]:
        """Return the names of the tools that the persona may call with at least some arguments.

        Raises:
            ConfigurationError: The persona is not configured.
        """
        grants = self._persona(persona)
        steps = {tool.name for tool in STEP_TOOLS if _may_ever(grants, tool)}
        others = {name for name, tool in TOOLS.items() if name != "kv_batch" and _may_ever(grants, tool)}
        return frozenset(steps | others | ({"kv_batch"} if steps else set()))

    def provider_of(self, persona: str) -> str | None:
        """Return the provider that the persona's operations run on, or None for the default adapter.

        Raises:
            ConfigurationError: The persona is not configured.
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
        tools = _tools_of_call(tool, arguments)
        required = dict.fromkeys(flag for each in tools for flag in each.requires_flags)
        if missing := [flag for flag in required if flag not in grants.flags]:
            return f"it needs the flag {' and the flag '.join(missing)}"
        return _objection_to_namespace(grants, set[str]().union(*map(_rights, tools)), tool, arguments)


def _objection_to_namespace(
    grants: PersonaSettings, rights: set[str], tool: Tool, arguments: Mapping[str, Any]
) -> str | None:
    namespace = arguments.get("namespace")
    if namespace is None:
        # A listing shows only what the persona may read. The whole store's usage reveals the other namespaces too.
        return None if tool.name == "kv_list_namespaces" or _is_unrestricted(grants) else _WHOLE_STORE
    missing = [right for right in sorted(rights) if not _may(grants, right, namespace)]
    return f"it needs {' and '.join(missing)} access to this namespace" if missing else None


def _tools_of_call(tool: Tool, arguments: Mapping[str, Any]) -> list[Tool]:
    """Return the tools that a call uses: the tool itself or, for a batch, the tools of its operations."""
    if tool.name != "kv_batch":
        return [tool]
    return [TOOLS[name] for name in {operation["tool"]: None for operation in arguments["operations"]}]


def _rights(tool: Tool) -> set[str]:
    if tool.side_effects == "none":
        return {"read"}
    return {"read", "write"} if tool.reveals else {"write"}


def _may(grants: PersonaSettings, right: str, namespace: str) -> bool:
    if grants.namespaces is None:
        return True
    return any(right in rights and matches(pattern, namespace) for pattern, rights in grants.namespaces.items())


def _may_ever(grants: PersonaSettings, tool: Tool) -> bool:
    if not set(tool.requires_flags) <= set(grants.flags):
        return False
    if grants.namespaces is None or tool.name == "kv_list_namespaces":
        return True
    given = {right for rights in grants.namespaces.values() for right in rights}
    return _rights(tool) <= given


def _is_unrestricted(grants: PersonaSettings) -> bool:
    """True if the persona may read every namespace, including future ones."""
    return grants.namespaces is None or "read" in grants.namespaces.get("*", ())
