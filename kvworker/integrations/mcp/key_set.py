"""The public keys of an authorization server. They are kept for some minutes, and asked for again if one is missing."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

import anyio
import httpx2
from jwt import PyJWK

logger = logging.getLogger(__name__)

_FRESH_SECONDS: Final = 300.0
#: While the server does not answer, its last keys count for this long.
_USABLE_SECONDS: Final = 3600.0
#: Tokens with unknown key ids cannot make us ask more often.
_PAUSE_SECONDS: Final = 10.0
_TIMEOUT_SECONDS: Final = 5.0
_MAX_BYTES: Final = 1024 * 1024
#: Public keys. A secret among them would let anyone who knows it make tokens.
_KEY_TYPES: Final = ("RSA", "EC", "OKP")

_KeyId: TypeAlias = tuple[str | None, str]


class CannotVerifyError(Exception):
    """The keys cannot be fetched, so a token can be neither accepted nor refused."""


class KeySet:
    """The keys at a URL. For one event loop.

    Args:
        url: Where the JSON Web Key Set is.
        algorithms: The algorithms that count. Keys for others are left out.
        clock: Returns seconds.
    """

    def __init__(self, url: str, algorithms: tuple[str, ...], clock: Callable[[], float] = time.monotonic) -> None:
        self._url = url
        self._algorithms = algorithms
        self._clock = clock
        self._keys: Mapping[_KeyId, PyJWK] = {}
        self._fetched_at = self._asked_at = float("-inf")
        self._asking = anyio.Lock()

    async def find(self, kid: str | None, algorithm: str) -> PyJWK | None:
        """Return the key with an id for an algorithm, or None if there is none. A single key needs no id.

        Raises:
            CannotVerifyError: The server does not answer, and its last keys are too old.
        """
        is_known = (kid, algorithm) in self._keys
        if not is_known or self._age_seconds > _FRESH_SECONDS:
            await self._refresh(needed=not is_known)
        if self._age_seconds > _USABLE_SECONDS:
            raise CannotVerifyError(f"the keys of the authorization server at {self._url} cannot be fetched")
        return self._keys.get((kid, algorithm))

    @property
    def _age_seconds(self) -> float:
        return self._clock() - self._fetched_at

    async def _refresh(self, *, needed: bool) -> None:
        if self._asking.locked() and not needed:
            return
        async with self._asking:
            # A request that waited may find that another one has just asked.
            if self._clock() - self._asked_at < _PAUSE_SECONDS:
                return
            self._asked_at = self._clock()
            try:
                self._keys = self._keys_of(await self._fetch())
                self._fetched_at = self._clock()
            except (httpx2.HTTPError, httpx2.InvalidURL, ValueError, RecursionError, OSError) as error:
                logger.warning("the keys at %s cannot be read: %s", self._url, str(error) or type(error).__name__)

    async def _fetch(self) -> Any:
        # No redirects: they could lead to a server that was not configured.
        # The client's own timeout is for each read, and a server may send byte by byte.
        with anyio.fail_after(_TIMEOUT_SECONDS):
            async with (
                httpx2.AsyncClient(timeout=_TIMEOUT_SECONDS, follow_redirects=False) as client,
                client.stream("GET", self._url, headers={"Accept": "application/json"}) as response,
            ):
                if response.status_code != httpx2.codes.OK:
                    raise ValueError(f"status {response.status_code}")
                body = b""
                async for part in response.aiter_bytes():
                    body += part
                    if len(body) > _MAX_BYTES:
                        raise ValueError(f"more than {_MAX_BYTES:,} bytes")
        return json.loads(body)

    def _keys_of(self, document: Any) -> dict[_KeyId, PyJWK]:
        """Return the usable keys by id and algorithm. A key need not name its algorithm."""
        if not isinstance(document, dict) or not isinstance(document.get("keys"), list):
            raise ValueError('it is not a JSON object with a list of "keys"')  # noqa: TRY004 - not a programmer's mistake
        usable = [data for data in document["keys"] if _is_usable(data)]
        keys: dict[_KeyId, PyJWK] = {}
        for data in usable:
            for algorithm in self._algorithms:
                if data.get("alg") in {None, algorithm} and (key := _key_of(data, algorithm)) is not None:
                    keys[data.get("kid"), algorithm] = key
                    if len(usable) == 1:
                        keys[None, algorithm] = key
        if not keys:
            raise ValueError("none of its keys is for an algorithm of policies.oauth.algorithms")
        return keys


def _is_usable(data: Any) -> bool:
    if not isinstance(data, dict) or data.get("kty") not in _KEY_TYPES or data.get("use", "sig") != "sig":
        return False
    return isinstance(data.get("kid"), str | None) and isinstance(data.get("alg"), str | None)


def _key_of(data: dict[str, Any], algorithm: str) -> PyJWK | None:
    try:
        return PyJWK(data, algorithm)
    except Exception:  # noqa: BLE001 - a wrong key can make the library raise more than its own errors
        return None
