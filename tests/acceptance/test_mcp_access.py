"""The MCP server over HTTP lets in only the holders of tokens, each as its persona and in its namespaces."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import asynccontextmanager, closing, suppress
from http.client import HTTPConnection, IncompleteRead
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from kvworker import KeyValueStore
from kvworker.access import TokenStore
from tests.support.access_metrics import access_failures
from tests.support.issuer import Issuer, running_issuer
from tests.support.mcp_http import INITIALIZE, SESSION_HEADER, bearer, get, open_session, post, serving
from tests.support.mcp_session import fail, run_within, use, write_config
from tests.support.processes import wait_until
from tests.support.servers import free_port

READ, WRITE = "type.system.kv_store_access", "type.system.kv_store_write"
PERSONAS = {
    "operator": {"flags": [READ, WRITE]},
    "writer": {"flags": [READ, WRITE], "namespaces": {"team-*": ["read", "write"]}},
    "reader": {"flags": [READ], "namespaces": {"team-*": ["read"]}},
}


@pytest.fixture(scope="module")
def issuer() -> Iterator[Issuer]:
    with running_issuer() as issuer:
        yield issuer


@pytest.fixture
def tokens(tmp_path: Path) -> TokenStore:
    return TokenStore(tmp_path / "tokens")


def create(tokens: TokenStore, name: str, persona: str | None = None, prefix: str | None = None) -> str:
    return tokens.create(name, persona=persona, namespace_prefix=prefix, expires_at=None)


@asynccontextmanager
async def client_of(url: str, token: str, mode: Any = "auto") -> Any:
    async with (
        httpx2.AsyncClient(headers=bearer(token), timeout=60) as http,
        Client(streamable_http_client(url, http_client=http), mode=mode) as client,
    ):
        yield client


class TestThroughTheQueue:
    @pytest.fixture
    def config_overrides(self, issuer: Issuer) -> dict[str, Any]:
        scopes = {"kv.write": "writer", "kv.read": "reader"}
        return {
            "policies": {
                "personas": PERSONAS,
                "oauth": {**issuer.settings, "scopes": scopes, "prefix_claim": "tenant"},
            }
        }

    @pytest.mark.usefixtures("celery_setup")
    def test_each_token_has_its_persona_and_its_namespaces(
        self, tmp_path: Path, kv_config: Path, store: KeyValueStore, tokens: TokenStore, issuer: Issuer
    ) -> None:
        operator = store.as_persona("operator")
        writer, reader = create(tokens, "writer", "writer", "team-a"), create(tokens, "reader", "reader", "team-b")
        whole = create(tokens, "whole", "operator")
        theirs = issuer.token(scope="kv.write", tenant="team-b")

        async def sessions(url: str) -> None:
            async with (
                client_of(url, writer) as a,
                client_of(url, reader, "legacy") as b,
                client_of(url, theirs) as c,
                client_of(url, whole) as all_of_it,
            ):
                await use(a, "kv_set", namespace="n", key="k", value="a's")
                assert (await use(b, "kv_get", namespace="n", key="k"))["found"] is False
                denied = await fail(b, "kv_set", namespace="n", key="k", value=1)
                assert (denied["type"], denied["details"]["persona"]) == ("PolicyDeniedError", "reader")
                await use(c, "kv_set", namespace="n", key="k", value="b's")
                assert (await use(b, "kv_get", namespace="n", key="k"))["value"] == "b's"
                assert (await use(a, "kv_get", namespace="n", key="k"))["value"] == "a's"
                for client in (a, b, c):
                    (usage,) = (await use(client, "kv_list_namespaces"))["namespaces"]
                    assert usage["namespace"] == "n"
                assert (await use(all_of_it, "kv_get", namespace="team-a/n", key="k"))["value"] == "a's"
                offered = {tool.name for tool in (await b.list_tools()).tools}
                assert ("kv_get" in offered, "kv_set" in offered) == (True, False)

        with serving(tmp_path, kv_config, "--tokens", str(tokens.path)) as server:
            run_within(sessions(server.url), timeout_seconds=60)
            assert get(server.url, "/readyz") == (200, {"status": "ready"})
            for token in (writer, reader, whole, theirs):
                assert token not in server.logs()
        assert {str(usage.namespace) for usage in operator.list_namespaces().namespaces} == {"team-a/n", "team-b/n"}


def test_sessions_belong_to_their_token_and_end_with_it(tmp_path: Path, tokens: TokenStore) -> None:
    one, other = create(tokens, "one"), create(tokens, "other")
    with serving(tmp_path, write_config(tmp_path), "--tokens", str(tokens.path), "--session-prefix") as server:

        def listed(token: str, session: str) -> int:
            return post(server.url, "tools/list", {}, {**bearer(token), SESSION_HEADER: session}, number=2).status

        session, others = open_session(server.url, bearer(one)), open_session(server.url, bearer(other))
        assert [listed(one, session), listed(other, others)] == [200, 200]
        assert [listed(other, session), listed(one, others)] == [404, 404]
        with closing(HTTPConnection(urlsplit(server.url).netloc, timeout=60)) as connection:
            headers = {**bearer(one), SESSION_HEADER: session, "Accept": "text/event-stream"}
            connection.request("GET", "/mcp", headers=headers)
            stream = connection.getresponse()
            assert stream.status == 200
            tokens.revoke("one")
            assert listed(one, session) == 401
            # The open stream ends as well.
            with suppress(IncompleteRead):
                while stream.read(1):
                    pass
        again = create(tokens, "one")
        assert [listed(again, session), listed(other, others)] == [404, 200]
        open_session(server.url, bearer(again))
        tokens.path.write_text("nonsense\n")
        assert listed(other, others) == 503
        assert get(server.url, "/readyz") == (503, {"status": "not ready"})
        assert f"{tokens.path}, line 1: it is not a JSON object" in server.logs()


def test_requests_without_a_valid_token_are_challenged(tmp_path: Path, tokens: TokenStore, issuer: Issuer) -> None:
    valid = create(tokens, "valid")
    oauth = {**issuer.settings, "scopes": {"kv": None, "kv.admin": None}}
    config = write_config(tmp_path, policies={"oauth": oauth, "tokens_file": str(tokens.path)})
    with serving(tmp_path, config) as server:
        metadata = ', resource_metadata="https://kv.example/.well-known/oauth-protected-resource/mcp"'

        def answer(headers: dict[str, str]) -> tuple[int, str | None]:
            answer = post(server.url, "initialize", INITIALIZE, headers)
            return answer.status, answer.challenge

        assert answer({}) == (401, f'Bearer realm="kvworker"{metadata}')
        for credentials in (
            "Basic YTpi",
            "Bearer",
            "Bearer ",
            f"Bearer {valid} x",
            f"Bearer {valid},",
            f"Token {valid}",
        ):
            status, challenge = answer({"Authorization": credentials})
            assert (status, 'error="invalid_request"' in str(challenge)) == (401, True), credentials
        description = 'error_description="the token is unknown, revoked or expired"'
        invalid = f'Bearer realm="kvworker", error="invalid_token", {description}{metadata}'
        for token in ("kvw_" + "a" * 43, issuer.token(exp=1), issuer.token(aud="other"), "x" * 20_000):
            assert answer(bearer(token)) == (401, invalid)
        scopes = ', scope="kv kv.admin"'
        status, challenge = answer(bearer(issuer.token(scope="other")))
        assert (status, scopes in str(challenge), "insufficient_scope" in str(challenge)) == (403, True, True)
        for token in (valid, issuer.token(scope="kv.admin")):
            assert answer(bearer(token)) == (200, None)
            assert answer({"Authorization": f"bEaReR  {token}"}) == (200, None)
        status, published = get(server.url, "/.well-known/oauth-protected-resource/mcp")
        assert (status, published["resource"], published["authorization_servers"], published["scopes_supported"]) == (
            200,
            "https://kv.example/mcp",
            [issuer.url],
            ["kv", "kv.admin"],
        )
        assert get(server.url, "/healthz") == (200, {"status": "alive"})
        # A probe knows an address alone.
        assert get(server.url, "/healthz", {"Host": "10.1.2.3:8000"}) == (200, {"status": "alive"})
        assert get(server.url, "/readyz") == (503, {"status": "not ready"})
        for path in ("/healthz/", "/HEALTHZ", "/healthz/../mcp", "//healthz", "/mcp?access_token=" + valid, "/other"):
            assert get(server.url, path)[0] == 401, path
        assert post(server.url, "initialize", INITIALIZE, {**bearer(valid), "Host": "evil.example"}).status == 421
        assert valid not in server.logs()


def send(url: str, *lines: str | bytes, body: bytes = b"") -> bytes:
    """Send a request line by line, and return the status of the answer; empty if the connection was closed."""
    parts = urlsplit(url)
    with socket.create_connection((parts.hostname, parts.port or 0), timeout=60) as connection:
        head = [line if isinstance(line, bytes) else line.encode() for line in lines]
        try:
            connection.sendall(b"\r\n".join([*head, b"", body]))
            return connection.recv(65536).split(b"\r\n")[0][9:12]
        except ConnectionError:
            return b""


def test_hostile_requests_open_nothing_and_the_server_goes_on(tmp_path: Path, tokens: TokenStore) -> None:
    valid = create(tokens, "valid")
    wrong = "kvw_" + "a" * 43
    metrics_port = free_port()
    options = ("--tokens", str(tokens.path), "--metrics-listen", str(metrics_port))
    with serving(tmp_path, write_config(tmp_path), *options) as server:
        host = f"Host: {urlsplit(server.url).netloc}"
        json_headers = (host, "Content-Type: application/json", "Accept: application/json, text/event-stream")

        def refused(*lines: str | bytes) -> bool:
            return send(server.url, "POST /mcp HTTP/1.1", *json_headers, "Content-Length: 0", *lines) in {
                b"400", b"401", b"429", b"431", b"",
            }  # fmt: skip

        authorized = f"Authorization: Bearer {valid}"
        # Two programs on the way could each read another one of these.
        assert refused(authorized, f"Authorization: Bearer {wrong}")
        assert refused(f"Authorization: Bearer {wrong}", authorized)
        assert refused(authorized, authorized)
        assert refused(f"Authorization : Bearer {valid}")
        assert refused(f"Authorization: Bearer {wrong}\r\n Bearer {valid}")
        assert refused(f"Authorization_: Bearer {valid}", f"X-Authorization: Bearer {valid}")
        assert refused(f"Authorization: Bearer {valid}\0")
        assert refused(f"Authorization: Bearer {valid}é".encode())
        assert refused(b"Authorization: Bearer \xff\xfe")
        assert refused(f"Authorization: Bearer {'a' * 1_000_000}")
        assert refused(*(f"X-{number}: {'a' * 1000}" for number in range(1000)))
        # A second request hides in the body of the first.
        smuggled = f"POST /mcp HTTP/1.1\r\n{host}\r\n{authorized}\r\nContent-Length: 0\r\n\r\n".encode()
        for ambiguous in (
            ("Content-Length: 5", "Transfer-Encoding: chunked"),
            ("Content-Length: 0", f"Content-Length: {len(smuggled)}"),
            ("Transfer-Encoding: xchunked",),
        ):
            answer = send(server.url, "POST /mcp HTTP/1.1", *json_headers, *ambiguous, body=b"0\r\n\r\n" + smuggled)
            assert answer in {b"400", b"501", b""}, ambiguous
        counted = access_failures(metrics_port, "mcp")
        # Nothing on the way is believed about where a client is.
        for number in range(8):
            spoofed = {**bearer(wrong), "X-Forwarded-For": f"192.0.2.{number}"}
            assert post(server.url, "initialize", INITIALIZE, spoofed).status == 401
        assert post(server.url, "initialize", INITIALIZE, bearer(valid)).status == 200
        assert access_failures(metrics_port, "mcp") == counted + 8
        assert "a client at 127.0.0.1, which has failed 8 times" in server.logs()
        assert "192.0.2." not in server.logs()
        assert valid not in server.logs()


def test_a_trusted_proxy_names_the_client(tmp_path: Path, tokens: TokenStore) -> None:
    create(tokens, "valid")
    options = ("--tokens", str(tokens.path), "--trusted-proxy", "127.0.0.1")
    with serving(tmp_path, write_config(tmp_path), *options) as server:
        headers = {**bearer("wrong"), "X-Forwarded-For": "203.0.113.9, 192.0.2.7"}
        assert post(server.url, "initialize", INITIALIZE, headers).status == 401
        wait_until(lambda: "a client at 192.0.2.7, " in server.logs(), what="the log")
