"""The dashboard's sessions, in the memory of this process. A token or the key opens each."""

from __future__ import annotations

import hmac
import secrets
import time
from collections import OrderedDict
from dataclasses import dataclass, field, replace
from typing import Final

from kvworker.access import SEPARATOR, TokenFile
from kvworker.messaging.wire import check_persona
from kvworker.settings import Settings
from kvworker.tools import TOOLS
from kvworker.tools.policy import Policy

_MOST_SESSIONS: Final = 1000
#: The holder of one token cannot end the sessions of others by opening many.
_MOST_SESSIONS_OF_TOKEN: Final = 50
#: A session that was not used for this long is over.
_IDLE_SECONDS: Final = 12 * 3600.0


@dataclass(frozen=True)
class Viewer:
    """The rights of a viewer.

    Attributes:
        name: The name of the token; "" without one.
        persona: The persona; None for none.
        may_see_namespaces: True if the policies let them see any namespace.
        patterns: The patterns of the namespaces that they may see; None means all.
        provider: The provider of their entries; None is the default.
        prefix: The beginning of the names of all namespaces that they may see or change.
    """

    name: str = ""
    persona: str | None = None
    may_see_namespaces: bool = True
    patterns: tuple[str, ...] | None = None
    provider: str | None = None
    prefix: str = ""

    @property
    def sees_everything(self) -> bool:
        """True if no namespace is hidden."""
        return self.may_see_namespaces and self.patterns is None and not self.prefix


@dataclass
class Session:
    """A browser that has opened the dashboard. ``form_token`` is in each of its forms, and no other site knows it."""

    token: str = field(repr=False)
    form_token: str = field(default_factory=secrets.token_urlsafe, repr=False)
    used_at: float = field(default_factory=time.monotonic)

    def accepts(self, form_token: str) -> bool:
        """Tell whether a form was made for this session."""
        return hmac.compare_digest(self.form_token.encode(), form_token.encode())


class Viewers:
    """The sessions, and what each may see. For one event loop.

    Args:
        settings: The settings, whose policies apply.
        persona: The persona of those whose token names none.
        tokens: The file of the tokens that open the dashboard. Without it, ``key`` does.

    Attributes:
        key: A secret for the person who started this process; "" if tokens open the dashboard. Other users of the
            machine can reach its port, too.

    Raises:
        InvalidRequestError: The name of the persona is blank or too long.
    """

    def __init__(self, settings: Settings, persona: str | None, tokens: TokenFile | None) -> None:
        self.key = "" if tokens else secrets.token_urlsafe(32)
        self._policy = Policy(settings.policies)
        self._persona = check_persona(persona) or settings.policies.default_persona
        self._tokens = tokens
        self._sessions: OrderedDict[str, Session] = OrderedDict()

    def check(self) -> None:
        """Check the persona and the tokens.

        Raises:
            ConfigurationError: One of them is wrong.
        """
        for persona in {self._persona, *(grant.persona for grant in (self._tokens.grants() if self._tokens else ()))}:
            self._viewer("", persona)

    def open(self, token: str) -> str:
        """Open a session with a token or the key, and return its id."""
        identity = secrets.token_urlsafe(32)
        # The one that was used last is at the end.
        same = [name for name, session in self._sessions.items() if session.token == token]
        if len(same) >= _MOST_SESSIONS_OF_TOKEN:
            self._sessions.pop(same[0])
        self._sessions[identity] = Session(token)
        if len(self._sessions) > _MOST_SESSIONS:
            self._sessions.popitem(last=False)
        return identity

    def find(self, identity: str) -> Session | None:
        """Return a session, or None if it is unknown or over."""
        session = self._sessions.get(identity)
        if session is None or time.monotonic() - session.used_at > _IDLE_SECONDS:
            self._sessions.pop(identity, None)
            return None
        session.used_at = time.monotonic()
        self._sessions.move_to_end(identity)
        return session

    def close(self, identity: str) -> None:
        """End a session."""
        self._sessions.pop(identity, None)

    def viewer_of(self, token: str) -> Viewer | None:
        """Return what the holder of a token or of the key may see, or None if it opens nothing, for example no longer.

        Raises:
            ConfigurationError: The file of tokens cannot be read, or the token's persona does not exist.
        """
        if self._tokens is None:
            is_key = hmac.compare_digest(token.encode(), self.key.encode())
            return self._viewer("", self._persona) if is_key else None
        grant = self._tokens.find(token)
        if grant is None:
            return None
        viewer = self._viewer(grant.name, grant.persona or self._persona)
        return viewer if grant.namespace_prefix is None else replace(viewer, prefix=grant.namespace_prefix + SEPARATOR)

    def _viewer(self, name: str, persona: str | None) -> Viewer:
        if not self._policy.is_enforced:
            return Viewer(name)
        if not persona:
            return Viewer(name, may_see_namespaces=False, patterns=())
        may_see = TOOLS["kv_list_namespaces"].name in self._policy.allowed_tools(persona)
        patterns = self._policy.readable_patterns(persona)
        return Viewer(name, persona, may_see, patterns, self._policy.provider_of(persona))
