"""The grant of a token: its name and what its holder may do. Makes tokens and their hashes."""

from __future__ import annotations

import hashlib
import re
import secrets
from datetime import UTC, datetime
from typing import Annotated, ClassVar, Final

from pydantic import AfterValidator, AwareDatetime, Field

from kvworker.errors import ConfigurationError, InvalidKeyError
from kvworker.model import check_namespace, check_prefix
from kvworker.settings.base import Block, is_blank
from kvworker.settings.problems import problem

#: Ends every namespace prefix and is not allowed inside one, so that no prefix is the beginning of another: "a/" and
#: "ab/" share no namespaces, and "a/b/" cannot exist.
SEPARATOR: Final = "/"
_MAX_PREFIX_BYTES: Final = 100
#: Begins every token, so that scanners find one that was committed somewhere by mistake.
_MARK: Final = "kvw_"
_SECRET_BYTES: Final = 32
_TOKEN: Final = re.compile(_MARK + r"[A-Za-z0-9_-]{43}")


def check_namespace_prefix(name: str) -> str:
    """Return the name of a namespace prefix, to which the store's namespaces add the separator.

    Raises:
        ConfigurationError: The name is blank, too long, or holds the separator.
    """
    try:
        check_prefix("the namespace prefix", check_namespace(name), _MAX_PREFIX_BYTES)
    except InvalidKeyError as error:
        raise ConfigurationError(f"a namespace prefix must also be a valid namespace: {error}") from None
    if SEPARATOR in name:
        raise ConfigurationError(
            f"a namespace prefix must not hold {SEPARATOR!r}, which the server adds to its end; otherwise one"
            f" prefix could be the beginning of another: {name!r}"
        )
    return name


def _check_persona(name: str) -> str:
    if is_blank(name):
        raise problem("a persona's name must not be blank")
    return name


def _check_prefix(name: str) -> str:
    try:
        return check_namespace_prefix(name)
    except ConfigurationError as error:
        raise problem(str(error)) from None


class Grant(Block):
    """A token's name and what its holder may do. The token itself is known only to its holder."""

    #: A blank persona or prefix, such as an empty variable of a script, must not mean that nothing is limited.
    omits_blank_text: ClassVar[bool] = False

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    persona: Annotated[str, AfterValidator(_check_persona)] | None = Field(default=None, max_length=255)
    #: Without the separator. The holder sees only the namespaces below it. Over MCP their names lack it.
    namespace_prefix: Annotated[str, AfterValidator(_check_prefix)] | None = None
    expires_at: AwareDatetime | None = Field(default=None, strict=False)
    token_sha256: str = Field(pattern=r"^[0-9a-f]{64}$", repr=False)

    @property
    def has_expired(self) -> bool:
        """True if the token is no longer valid."""
        return self.expires_at is not None and self.expires_at <= datetime.now(UTC)


def new_token() -> str:
    """Return a new random token."""
    return _MARK + secrets.token_urlsafe(_SECRET_BYTES)


def is_token(text: str) -> bool:
    """True if the text has the form of our tokens. Tokens of other issuers do not have it."""
    return _TOKEN.fullmatch(text) is not None


def hash_of(token: str) -> str:
    """Return the hash under which a token is kept.

    A fast hash suffices, because a token holds 256 random bits: no one can try them all. Slow hashes and salts protect
    passwords, which people choose.
    """
    return hashlib.sha256(token.encode()).hexdigest()
