"""Controls HTTP access: for everyone, or for holders of tokens from a file or from an OAuth 2.1 server."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from mcp.server.auth.provider import TokenVerifier
from mcp.server.auth.routes import build_resource_metadata_url, create_protected_resource_routes
from mcp.server.auth.settings import AuthSettings
from starlette.routing import Route
from starlette.types import ASGIApp

from kvworker.access import FailedAttempts, TokenFile
from kvworker.errors import ConfigurationError
from kvworker.integrations.mcp.audience import Audience, Callers
from kvworker.integrations.mcp.bearer import BearerGuard, Door
from kvworker.integrations.mcp.health import ALIVE_PATH, READY_PATH
from kvworker.integrations.mcp.key_set import KeySet
from kvworker.integrations.mcp.verifiers import ClientToken, EitherVerifier, FileVerifier, OAuthVerifier, file_token
from kvworker.settings import Settings
from kvworker.settings.oauth import OAuthSettings


@dataclass(frozen=True)
class Admission:
    """The tokens that open the server. Without either kind, it is open to everyone who reaches it.

    Attributes:
        tokens: The file of our own tokens.
        oauth: The authorization server whose tokens count.
        trusted_proxies: The addresses of proxies. Their ``X-Forwarded-For`` names the client whose failures count.
        metrics_listen: Where to serve the number of failed attempts for Prometheus; None for nowhere.
        failures: The failed attempts.
    """

    tokens: TokenFile | None = None
    oauth: OAuthSettings | None = None
    trusted_proxies: tuple[str, ...] = ()
    metrics_listen: str | None = None
    failures: FailedAttempts = field(default_factory=lambda: FailedAttempts("the MCP server"))

    @property
    def is_required(self) -> bool:
        """True if every request needs a token."""
        return self.tokens is not None or self.oauth is not None

    def check(self, settings: Settings, audience: Audience) -> None:
        """Check at the start that everyone who could be let in can be served.

        Raises:
            ConfigurationError: The file of tokens is wrong, or a persona or a prefix of a token is.
        """
        if audience.persona or not self.is_required:
            audience.tools(settings)
        for name, token in self._examples():
            try:
                audience.of_token(token).tools(settings)
            except ConfigurationError as error:
                raise ConfigurationError(f"{name}: {error}") from None

    def check_tokens(self) -> None:
        """Check that the file of tokens can be read, if there is one.

        Raises:
            ConfigurationError: It cannot.
        """
        if self.tokens is not None:
            self.tokens.grants()

    def guarded(self, app: ASGIApp, callers: Callers) -> ASGIApp:
        """Return an application that lets only requests with a valid token through to another one."""
        verifier = self._verifier()
        if verifier is None:
            return app
        open_paths = {ALIVE_PATH, READY_PATH, *(route.path for route in self.routes())}
        metadata_url = None if self.oauth is None else _metadata_url(_published(self.oauth))
        return BearerGuard(app, Door(verifier, callers.check, frozenset(open_paths), self.failures, metadata_url))

    def routes(self) -> list[Route]:
        """Return the routes by which clients learn which authorization server to ask for a token (RFC 9728)."""
        if self.oauth is None:
            return []
        published = _published(self.oauth)
        assert published.resource_server_url is not None  # noqa: S101 - it is given
        scopes = list(self.oauth.scopes) or None
        return create_protected_resource_routes(published.resource_server_url, [published.issuer_url], scopes)

    def _verifier(self) -> TokenVerifier | None:
        file = None if self.tokens is None else FileVerifier(self.tokens)
        if self.oauth is None:
            return file
        oauth = OAuthVerifier(self.oauth, KeySet(self.oauth.jwks_url, self.oauth.algorithms))
        return oauth if file is None else EitherVerifier(file, oauth)

    def _examples(self) -> Iterator[tuple[str, ClientToken]]:
        if self.tokens is not None:
            for grant in self.tokens.grants():
                yield f"the token {grant.name!r} of {self.tokens.path}", file_token(grant)
        if self.oauth is not None and self.oauth.prefix_claim is None:
            for persona in self.oauth.scopes.values() or [None]:
                yield "policies.oauth", ClientToken(token="", client_id="", scopes=[], persona=persona)


def _published(oauth: OAuthSettings) -> AuthSettings:
    return AuthSettings.model_validate(
        {
            "issuer_url": oauth.issuer,
            "resource_server_url": oauth.resource_url,
            # The verifier checks the audience.
            "validate_token_resource": False,
        }
    )


def _metadata_url(published: AuthSettings) -> str:
    assert published.resource_server_url is not None  # noqa: S101 - it is given
    return str(build_resource_metadata_url(published.resource_server_url))
