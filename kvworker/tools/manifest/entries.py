"""Entries of a host's tool manifest: the facts by which the host offers a tool, calls it and restricts it."""

from __future__ import annotations

import math
from typing import Any, Final

from kvworker.__version__ import __version__
from kvworker.settings import Settings
from kvworker.settings.store import PROVIDER_PREFIX
from kvworker.tools import ACCESS_FLAG, TOOLS, Tool
from kvworker.tools.manifest.schemas import input_schema, output_schema
from kvworker.tools.policy import Policy

_READ: Final = "This tool changes nothing, so calls may be repeated."
_REPEATABLE: Final = (
    "A repeated call leaves the same state as a single one. With an idempotency_key, it is applied once and later calls"
    " return the first result."
)
_NOT_REPEATABLE: Final = (
    "Give an idempotency_key, such as the run id and step number. A call repeated without one is applied again."
)


def tools_of(settings: Settings, persona: str | None = None) -> tuple[Tool, ...]:
    """Return the tools that a persona may use.

    Args:
        settings: The settings with the policies.
        persona: The persona, or None for the configured default persona. Without either, all tools are returned.

    Raises:
        ConfigurationError: The persona is not configured.
    """
    name = persona or settings.policies.default_persona
    if name is None:
        return tuple(TOOLS.values())
    allowed = Policy(settings.policies).allowed_tools(name)
    return tuple(tool for tool in TOOLS.values() if tool.name in allowed)


def manifest_entries(settings: Settings, persona: str | None = None) -> list[dict[str, Any]]:
    """Return an entry for each tool that the persona may use, as the manifest of the agent platform ATLAS has it.

    ``default_timeout`` is in whole seconds. ``requires_flags`` holds the flags for each kind of operation.
    ``side_effects`` is "none" or "write".

    Each entry lists its providers, one per adapter. The first is the one in use: the persona's own, or else the
    configured default.

    Raises:
        ConfigurationError: The persona is not configured.
    """
    providers = _providers(settings, persona)
    return [_entry(tool, settings, providers) for tool in tools_of(settings, persona)]


def _entry(tool: Tool, settings: Settings, providers: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "name": tool.name,
        "version": __version__,
        "description": tool.summary,
        "parameters": input_schema(tool),
        "returns": output_schema(tool),
        "side_effects": "write" if tool.writes else "none",
        "idempotency_key": _idempotency(tool, settings.maintenance.operation_retention_seconds),
        "default_timeout": math.ceil(settings.facade.timeout_seconds),
        "allow_parallel": True,
        "auth": {"required": False},
        "requires_flags": _required_flags(tool),
        "providers": providers,
    }


def _required_flags(tool: Tool) -> dict[str, list[str]]:
    access = {"read": [ACCESS_FLAG]}
    if not tool.writes:
        return access
    flags = list(tool.requires_flags)
    # For a call that names no operation, ATLAS checks the flags of "read" and "execute", but not those of "write".
    return {**access, "write": flags, "execute": flags}


def _idempotency(tool: Tool, retention_seconds: int) -> dict[str, Any]:
    if not tool.writes:
        return {"supported": False, "required": False, "guidance": _READ}
    return {
        "supported": True,
        "required": False,
        "scope": "namespace",
        "retention_seconds": retention_seconds,
        "guidance": _REPEATABLE if tool.repeatable else _NOT_REPEATABLE,
    }


def _providers(settings: Settings, persona: str | None) -> list[dict[str, Any]]:
    name = persona or settings.policies.default_persona
    provider = Policy(settings.policies).provider_of(name) if name else None
    # A provider may also have its adapter's plain name.
    default = provider.removeprefix(PROVIDER_PREFIX) if provider else settings.store.default_adapter
    return [
        {"name": PROVIDER_PREFIX + adapter, "adapter": adapter, "default": adapter == default}
        for adapter in dict.fromkeys([default, *settings.store.adapters])
    ]
