"""Verifies bearer tokens: those of our own file, and those of an OAuth 2.1 authorization server."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Final

import jwt
from jwt import PyJWK
from mcp.server.auth.provider import AccessToken, TokenVerifier

from kvworker.access import Grant, TokenFile, check_namespace_prefix
from kvworker.access.grants import is_token
from kvworker.errors import ConfigurationError
from kvworker.integrations.mcp.key_set import KeySet
from kvworker.settings.oauth import OAuthSettings

logger = logging.getLogger(__name__)

#: Clocks of two machines may differ by this much.
_LEEWAY_SECONDS: Final = 30
_MAX_TOKEN_BYTES: Final = 16 * 1024


class ClientToken(AccessToken):
    """A valid token's rights, without the token itself. Requests of a session must have the same principal."""

    persona: str | None = None
    namespace_prefix: str | None = None


class ForbiddenError(Exception):
    """The token is valid, but opens nothing here. The message names no claim's value.

    Attributes:
        scopes: The scopes of which the token needs one; empty if no scope would help.
    """

    def __init__(self, reason: str, scopes: tuple[str, ...] = ()) -> None:
        super().__init__(reason)
        self.scopes = scopes


def file_token(grant: Grant) -> ClientToken:
    """Return the rights of one of our own tokens. A later token of the same name is another principal."""
    return ClientToken(
        token="",
        client_id=grant.name,
        subject=grant.token_sha256[:16],
        scopes=[],
        persona=grant.persona,
        namespace_prefix=grant.namespace_prefix,
    )


class FileVerifier(TokenVerifier):
    """Verifies the tokens of ``kvworker tokens``."""

    def __init__(self, tokens: TokenFile) -> None:
        self._tokens = tokens

    async def verify_token(self, token: str) -> ClientToken | None:
        """Return the rights of a token, or None if it is not valid.

        Raises:
            ConfigurationError: The file cannot be read.
        """
        grant = self._tokens.find(token)
        return None if grant is None else file_token(grant)


class OAuthVerifier(TokenVerifier):
    """Verifies JSON Web Tokens by the keys of their issuer."""

    def __init__(self, settings: OAuthSettings, keys: KeySet) -> None:
        self._settings = settings
        self._keys = keys

    async def verify_token(self, token: str) -> ClientToken | None:
        """Return the rights of a token, or None if it is not valid.

        Raises:
            ForbiddenError: The token is valid, but has no scope that opens anything, or no usable prefix.
            CannotVerifyError: The issuer's keys cannot be fetched.
        """
        header = _header_of(token)
        if header is None or header["alg"] not in self._settings.algorithms:
            return None
        key = await self._keys.find(header.get("kid"), header["alg"])
        claims = None if key is None else self._claims(token, key)
        return None if claims is None else self._rights(claims)

    def _claims(self, token: str, key: PyJWK) -> dict[str, Any] | None:
        try:
            claims: dict[str, Any] = jwt.decode(
                token,
                key,
                algorithms=[key.algorithm_name],
                audience=self._settings.audience,
                issuer=self._settings.issuer,
                leeway=_LEEWAY_SECONDS,
                options={"require": ["exp", "iss", "aud"]},
            )
        except Exception as error:  # noqa: BLE001 - a hostile token can make the library raise more than its own errors
            logger.info("an OAuth token is refused: %s", type(error).__name__)
            return None
        return claims

    def _rights(self, claims: Mapping[str, Any]) -> ClientToken:
        scopes = _scopes_of(claims)
        subject = claims.get("sub")
        return ClientToken(
            token="",
            client_id=str(claims.get("client_id") or claims.get("azp") or subject or ""),
            subject=None if subject is None else str(subject),
            scopes=scopes,
            claims={"iss": self._settings.issuer},
            persona=self._persona(scopes),
            namespace_prefix=self._prefix(claims),
        )

    def _persona(self, scopes: list[str]) -> str | None:
        accepted = self._settings.scopes
        if not accepted:
            return None
        for scope, persona in accepted.items():
            if scope in scopes:
                return persona
        raise ForbiddenError("the token has none of the scopes that open this server", tuple(accepted))

    def _prefix(self, claims: Mapping[str, Any]) -> str | None:
        name = self._settings.prefix_claim
        if name is None:
            return None
        prefix = claims.get(name)
        try:
            return check_namespace_prefix(prefix)  # type: ignore[arg-type]  # it refuses other types
        except ConfigurationError:
            raise ForbiddenError(f"the token's claim {name!r} is no namespace prefix") from None


class EitherVerifier(TokenVerifier):
    """Verifies tokens of the file and of the authorization server, which do not look alike."""

    def __init__(self, file: FileVerifier, oauth: OAuthVerifier) -> None:
        self._file = file
        self._oauth = oauth

    async def verify_token(self, token: str) -> AccessToken | None:
        """Return the rights of a token, or None if it is not valid; see the two verifiers."""
        return await (self._file if is_token(token) else self._oauth).verify_token(token)


def _header_of(token: str) -> dict[str, Any] | None:
    """Return a token's header, which nothing has verified yet, or None if the token is malformed."""
    if len(token) > _MAX_TOKEN_BYTES or token.count(".") != 2:
        return None
    try:
        header = jwt.get_unverified_header(token)
    except Exception:  # noqa: BLE001 - a hostile token can make the library raise more than its own errors
        return None
    kid = header.get("kid")
    # We understand no extension, and must refuse a token whose issuer calls one critical.
    if not isinstance(header.get("alg"), str) or not isinstance(kid, str | None) or "crit" in header:
        return None
    return header


def _scopes_of(claims: Mapping[str, Any]) -> list[str]:
    """Return the scopes, which RFC 9068 calls ``scope``, and some issuers ``scp``."""
    given = claims.get("scope", claims.get("scp"))
    if isinstance(given, str):
        return given.split()
    return [scope for scope in given if isinstance(scope, str)] if isinstance(given, list) else []
