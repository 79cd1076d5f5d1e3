"""The clients of the server: which persona, namespaces and tools each has."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from kvworker.client.aio import AsyncKeyValueStore
from kvworker.errors import ConfigurationError
from kvworker.integrations.mcp.scope import SESSION_PREFIX, Scope
from kvworker.integrations.mcp.server import Caller, Context, session_id
from kvworker.integrations.mcp.verifiers import ClientToken
from kvworker.settings import Settings
from kvworker.tools.manifest import tools_of

#: Tokens of one issuer may have any number of namespace prefixes.
_MAX_REMEMBERED = 1000


@dataclass(frozen=True)
class Audience:
    """The persona and the namespaces of clients.

    ``namespace_prefix`` limits all clients to shared namespaces. ``own_namespaces`` gives every session its own.
    Without either, clients see the whole store.
    """

    persona: str | None = None
    namespace_prefix: str | None = None
    own_namespaces: bool = False

    def of_token(self, token: ClientToken | None) -> Audience:
        """Return the audience of a token's holder. The token's persona and namespaces win over the server's."""
        if token is None:
            return self
        persona = token.persona or self.persona
        if token.namespace_prefix is None:
            return Audience(persona, self.namespace_prefix, self.own_namespaces)
        return Audience(persona, token.namespace_prefix)

    def tools(self, settings: Settings) -> tuple[str, ...]:
        """Return the names of the tools that the clients may use.

        Raises:
            ConfigurationError: The persona is missing, not configured or without access to the namespaces, or their
                prefix is invalid.
        """
        persona = self.persona or settings.policies.default_persona
        if settings.policies.personas and not persona:
            raise ConfigurationError("policies are enforced, so the server needs a persona: name it with --persona")
        tools = tools_of(settings, persona)
        if persona:
            self._check_access(persona, settings.policies.personas[persona].namespaces)
        return tuple(tool.name for tool in tools)

    def common_scope(self) -> Scope:
        """Return the scope that all clients share, if sessions do not have their own namespaces.

        Raises:
            ConfigurationError: The prefix is invalid.
        """
        return Scope() if self.namespace_prefix is None else Scope.named(self.namespace_prefix)

    def _check_access(self, persona: str, patterns: Iterable[str] | None) -> None:
        prefix = SESSION_PREFIX if self.own_namespaces else self.common_scope().prefix
        if prefix and patterns is not None and not any(_may_match(pattern, prefix) for pattern in patterns):
            raise ConfigurationError(
                f"persona {persona!r} has no access to namespaces that begin with {prefix!r}: its patterns are compared"
                f" with whole names, so it needs one such as '{prefix}*'"
            )


class Callers:
    """Finds the sender of each request over HTTP."""

    def __init__(self, settings: Settings, store: AsyncKeyValueStore, audience: Audience) -> None:
        self._settings = settings
        self._store = store
        self.audience = audience
        self._of_audience = lru_cache(_MAX_REMEMBERED)(self._make)

    def check(self, token: ClientToken | None) -> None:
        """Check that a token's holder can be served.

        Raises:
            ConfigurationError: The token's persona is missing or not configured, or its prefix is invalid.
        """
        self._of_audience(self.audience.of_token(token))

    def caller_of(self, context: Context) -> Caller:
        """Return the sender of a request."""
        request: Any = context.request
        user = request.scope.get("user")
        audience = self.audience.of_token(user.access_token if user else None)
        caller = self._of_audience(audience)
        if not audience.own_namespaces:
            return caller
        return Caller(caller.store, Scope.of_session(session_id(context)), caller.offered)

    def _make(self, audience: Audience) -> Caller:
        offered = audience.tools(self._settings)
        store = self._store.as_persona(audience.persona) if audience.persona else self._store
        # An example of sessions' scopes: they differ in nothing but their prefix.
        return Caller(store, Scope.of_process() if audience.own_namespaces else audience.common_scope(), offered)


def _may_match(pattern: str, prefix: str) -> bool:
    """True if a persona's pattern can match a name that begins with the prefix."""
    literal, star, _ = pattern.partition("*")
    return literal.startswith(prefix) or (star == "*" and prefix.startswith(literal))
