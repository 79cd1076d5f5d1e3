"""OAuth tokens are verified by their issuer's keys, which are really served over HTTP."""

from __future__ import annotations

import base64
import hmac
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import anyio
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from kvworker.integrations.mcp.key_set import CannotVerifyError, KeySet
from kvworker.integrations.mcp.verifiers import ClientToken, ForbiddenError, OAuthVerifier
from kvworker.settings.oauth import OAuthSettings
from tests.support.issuer import AUDIENCE, Issuer, running_issuer


class Clock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(scope="module")
def server() -> Iterator[Issuer]:
    with running_issuer() as issuer:
        yield issuer


@pytest.fixture
def issuer(server: Issuer) -> Issuer:
    server.document = {"keys": [server.public("rsa"), server.public("ec"), server.public("ed")]}
    server.asked, server.status = 0, 200
    return server


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def verifier(issuer: Issuer, clock: Clock) -> OAuthVerifier:
    return make_verifier(issuer, clock)


def make_verifier(issuer: Issuer, clock: Clock, **settings: Any) -> OAuthVerifier:
    oauth = OAuthSettings.model_validate({**issuer.settings, **settings})
    return OAuthVerifier(oauth, KeySet(oauth.jwks_url, oauth.algorithms, clock))


def verify(verifier: OAuthVerifier, token: str) -> ClientToken | None:
    return anyio.run(verifier.verify_token, token)


def encoded(data: object) -> str:
    text = data if isinstance(data, bytes) else json.dumps(data).encode()
    return base64.urlsafe_b64encode(text).rstrip(b"=").decode()


def forged(header: object, claims: object, signature: bytes = b"") -> str:
    return ".".join([encoded(header), encoded(claims), encoded(signature)])


def confused(issuer: Issuer) -> str:
    """Sign by HMAC with the published RSA key, which a verifier that trusts the header would take for the secret."""
    secret = issuer.rsa.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    claims = {"iss": issuer.url, "aud": AUDIENCE, "sub": "x", "exp": int(time.time()) + 600}
    text = f"{encoded({'alg': 'HS256', 'kid': 'rsa'})}.{encoded(claims)}"
    return f"{text}.{encoded(hmac.digest(secret, text.encode(), 'sha256'))}"


def unsigned(issuer: Issuer, alg: str = "none") -> str:
    claims = {"iss": issuer.url, "aud": AUDIENCE, "sub": "x", "exp": int(time.time()) + 600}
    return forged({"alg": alg, "kid": "rsa"}, claims)


def with_changed_claims(issuer: Issuer) -> str:
    header, _, signature = issuer.token().split(".")
    claims = {"iss": issuer.url, "aud": AUDIENCE, "sub": "admin", "exp": int(time.time()) + 600}
    return f"{header}.{encoded(claims)}.{signature}"


def critical(issuer: Issuer) -> str:
    import jwt  # noqa: PLC0415 - the other tests make tokens through the issuer

    claims = {"iss": issuer.url, "aud": AUDIENCE, "exp": int(time.time()) + 600}
    return jwt.encode(claims, issuer.rsa, "RS256", {"kid": "rsa", "crit": ["exp"], "b64": True})


class TestTokens:
    @pytest.mark.parametrize(
        ("kind", "algorithm"), [("rsa", "RS256"), ("rsa", "PS256"), ("ec", "ES256"), ("ed", "EdDSA")]
    )
    def test_a_valid_one_counts_and_is_not_kept(
        self, issuer: Issuer, verifier: OAuthVerifier, kind: str, algorithm: str
    ) -> None:
        text = issuer.token(key=getattr(issuer, kind), algorithm=algorithm, kid=kind, aud=["other", AUDIENCE])
        token = verify(verifier, text)
        assert token is not None
        assert (token.client_id, token.subject, token.claims) == ("a-client", "someone", {"iss": issuer.url})
        assert (token.persona, token.namespace_prefix) == (None, None)
        assert text not in repr(token)

    @pytest.mark.parametrize(
        "make",
        [
            lambda issuer: issuer.token(exp=int(time.time()) - 60),
            lambda issuer: issuer.token(exp=None),
            lambda issuer: issuer.token(exp="soon"),
            lambda issuer: issuer.token(exp=float("inf")),
            lambda issuer: issuer.token(nbf=int(time.time()) + 600),
            lambda issuer: issuer.token(iat=int(time.time()) + 600),
            lambda issuer: issuer.token(aud="https://other.example/mcp"),
            lambda issuer: issuer.token(aud=AUDIENCE + "/"),
            lambda issuer: issuer.token(aud=None),
            lambda issuer: issuer.token(aud=[]),
            lambda issuer: issuer.token(iss="https://other.example"),
            lambda issuer: issuer.token(iss=issuer.url + "/"),
            lambda issuer: issuer.token(iss=None),
            lambda issuer: issuer.token(iss=[issuer.url]),
            lambda issuer: issuer.token(sub=["someone"]),
            lambda issuer: issuer.token(key=rsa.generate_private_key(65537, 2048)),
            lambda issuer: issuer.token(kid="unknown"),
            lambda issuer: issuer.token(kid="ec"),
            lambda issuer: issuer.token(kid=None),
            lambda issuer: issuer.token(algorithm="RS512"),
            unsigned,
            lambda issuer: unsigned(issuer, "NONE"),
            lambda issuer: unsigned(issuer, "RS256"),
            confused,
            with_changed_claims,
            critical,
        ],
    )
    def test_every_other_one_is_refused(
        self, issuer: Issuer, verifier: OAuthVerifier, make: Callable[[Issuer], str]
    ) -> None:
        assert verify(verifier, make(issuer)) is None

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "..",
            "a.b.c",
            "kvw_" + "a" * 43,
            "a" * 100_000,
            forged([], {}),
            forged("[" * 5000, {}),
            forged(b"[" * 9000, {}),
            forged({"alg": "RS256", "kid": ["rsa"]}, {}),
            forged({"alg": ["RS256"], "kid": "rsa"}, {}),
            forged({"alg": "RS256", "kid": "rsa"}, b"[" * 9000),
            forged(b"\xff\xfe", b"\xff"),
            forged({"alg": "RS256", "kid": "rsa", "jwk": {}, "jku": "http://127.0.0.1:1"}, {}),
        ],
    )
    def test_hostile_texts_are_refused(self, verifier: OAuthVerifier, text: str) -> None:
        assert verify(verifier, text) is None

    def test_its_scopes_choose_the_persona_and_a_claim_the_prefix(self, issuer: Issuer, clock: Clock) -> None:
        scopes = {"kv.write": "writer", "kv.read": "reader", "kv": None}
        verifier = make_verifier(issuer, clock, scopes=scopes, prefix_claim="tenant")

        def rights(**claims: Any) -> tuple[str | None, str | None]:
            token = verify(verifier, issuer.token(tenant="team-a", **claims))
            assert token is not None
            return token.persona, token.namespace_prefix

        assert rights(scope="kv.read kv.write") == ("writer", "team-a")
        assert rights(scope="openid kv.read") == ("reader", "team-a")
        assert rights(scp=["kv"]) == (None, "team-a")
        for scope in ("openid", "kv.write2", "", None, 7, {"kv.write": 1}):
            with pytest.raises(ForbiddenError) as refused:
                verify(verifier, issuer.token(scope=scope, tenant="team-a"))
            assert refused.value.scopes == ("kv.write", "kv.read", "kv")
        for tenant in (None, "", "a/b", " ", 7, ["team-a"], "x" * 101, "\ud800"):
            with pytest.raises(ForbiddenError, match="claim 'tenant'"):
                verify(verifier, issuer.token(scope="kv", tenant=tenant))


class TestKeys:
    def test_they_are_asked_for_rarely(self, issuer: Issuer, verifier: OAuthVerifier, clock: Clock) -> None:
        async def flood() -> None:
            async with anyio.create_task_group() as tasks:
                for number in range(50):
                    tasks.start_soon(verifier.verify_token, issuer.token(kid=f"unknown {number}"))
                    tasks.start_soon(verifier.verify_token, issuer.token())

        anyio.run(flood)
        assert issuer.asked == 1
        clock.now += 11
        anyio.run(flood)
        assert issuer.asked == 2
        clock.now += 299
        assert verify(verifier, issuer.token()) is not None
        assert issuer.asked == 2
        clock.now += 2
        assert verify(verifier, issuer.token()) is not None
        assert issuer.asked == 3

    def test_a_new_key_counts_and_a_removed_one_ends(
        self, issuer: Issuer, verifier: OAuthVerifier, clock: Clock
    ) -> None:
        assert verify(verifier, issuer.token()) is not None
        issuer.document = {"keys": [issuer.public("rsa", kid="new")]}
        clock.now += 11
        assert verify(verifier, issuer.token(kid="new")) is not None
        assert verify(verifier, issuer.token()) is None
        # There is one, so a token need not name it.
        assert verify(verifier, issuer.token(kid=None)) is not None

    @pytest.mark.parametrize(
        ("status", "document"),
        [
            (500, {"keys": []}),
            (302, {"keys": []}),
            (200, b"nonsense"),
            (200, b"[" * 100_000),
            (200, b" " * (1024 * 1024 + 1)),
            (200, []),
            (200, {"keys": {}}),
            (200, {"keys": [{"kty": "oct", "k": "c2VjcmV0LXNlY3JldC1zZWNyZXQ", "kid": "rsa", "alg": "HS256"}, 7, {}]}),
            (200, {"keys": [{"kty": "RSA", "n": "AQ", "kid": "rsa"}, {"kty": "RSA", "n": 1, "e": [], "kid": "x"}]}),
        ],
    )
    def test_old_ones_count_for_an_hour_while_new_ones_cannot_be_read(
        self, issuer: Issuer, verifier: OAuthVerifier, clock: Clock, status: int, document: object
    ) -> None:
        assert verify(verifier, issuer.token()) is not None
        issuer.status, issuer.document = status, document
        clock.now += 3000
        assert verify(verifier, issuer.token()) is not None
        assert issuer.asked == 2
        clock.now += 601
        with pytest.raises(CannotVerifyError):
            verify(verifier, issuer.token())

    def test_keys_for_encryption_or_for_other_algorithms_do_not_count(
        self, issuer: Issuer, verifier: OAuthVerifier
    ) -> None:
        issuer.document = {
            "keys": [issuer.public("rsa", use="enc"), issuer.public("ec", alg="ES384"), issuer.public("ed", use="sig")]
        }
        assert verify(verifier, issuer.token()) is None
        assert verify(verifier, issuer.token(key=issuer.ec, algorithm="ES256", kid="ec")) is None
        assert verify(verifier, issuer.token(key=issuer.ed, algorithm="EdDSA", kid="ed")) is not None
