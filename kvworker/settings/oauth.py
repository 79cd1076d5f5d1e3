"""The ``policies.oauth`` block: whose OAuth 2.1 tokens open the MCP server over HTTP, and as whom."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, ValidationInfo, field_validator

from kvworker.settings.base import MAY_BE_BLANK, Block
from kvworker.settings.problems import problem

_LOOPBACK = ("localhost", "127.0.0.1", "::1")

#: The algorithms whose keys can be published. With a shared secret, every verifier of tokens could also make one.
_Algorithm = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]


def _check_url(url: str) -> str:
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise problem("its host and port cannot be read") from None
    if parts.scheme not in {"http", "https"} or not host or parts.username is not None or parts.fragment:
        raise problem("it should be a URL like https://id.example.com, without a user and a fragment")
    if parts.scheme == "http" and host not in _LOOPBACK:
        raise problem("it should begin with https://, since anyone on the way could change what http:// carries")
    return url


_Url = Annotated[str, AfterValidator(_check_url)]


class OAuthSettings(Block):
    """An OAuth 2.1 authorization server whose tokens open the MCP server over HTTP."""

    limiting_keys: ClassVar[Mapping[str, str]] = dict.fromkeys(
        ("scopes", "prefix_claim"), "leave it out if it should limit no token"
    )

    issuer: _Url = Field(description="The issuer of the tokens, exactly as their claim iss has it.")
    audience: str = Field(
        description="Their claim aud: the name under which the authorization server knows this MCP server, usually its"
        " URL."
    )
    jwks_url: _Url = Field(description="The URL of the issuer's public keys (JSON Web Key Set).")
    resource_url: _Url | None = Field(
        default=None,
        validate_default=True,
        description="The URL under which clients reach this MCP server. Default: audience, if that is a URL.",
    )
    algorithms: tuple[_Algorithm, ...] = Field(
        default=("RS256", "PS256", "ES256", "EdDSA"),
        strict=False,
        min_length=1,
        description="The signature algorithms that count.",
    )
    scopes: dict[str, str | None] = Field(
        default={},
        json_schema_extra={MAY_BE_BLANK: False},
        description="The persona of each scope; without a persona, the server's. A token's first scope in this order"
        " counts, and a token without one is refused. If omitted, every token of the issuer for this audience counts.",
    )
    prefix_claim: Annotated[str, Field(json_schema_extra={"pattern": r"\S"})] | None = Field(
        default=None,
        json_schema_extra={MAY_BE_BLANK: False},
        description="The claim that holds the namespace prefix of a token's holder, such as tenant. A token without it"
        " is refused.",
    )

    @field_validator("resource_url")
    @classmethod
    def _default_resource(cls, url: str | None, info: ValidationInfo) -> str | None:
        audience = info.data.get("audience")
        if url is not None or audience is None:
            return url
        if not audience.startswith(("http://", "https://")):
            raise problem("it is required, since audience is not a URL")
        return _check_url(audience)
