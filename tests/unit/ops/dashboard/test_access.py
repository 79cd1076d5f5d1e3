"""Viewers' rights to see and to change data, and the exclusion of other sites."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest

from kvworker import ConfigurationError, InlineKeyValueStore
from kvworker.access import TokenStore
from kvworker.ops.dashboard.guard import HEADERS
from tests.unit.ops.dashboard.conftest import ORIGIN, Open

FLAGS = ["type.system.kv_store_access"]
WRITE = [*FLAGS, "type.system.kv_store_write"]


@pytest.fixture
def personas(mapping: dict[str, Any]) -> None:
    """Three personas: one reads some namespaces, one writes all, one may do nothing."""
    mapping["policies"] = {
        "personas": {
            "reader": {"flags": FLAGS, "namespaces": {"team/*": ["read"]}},
            "writer": {"flags": WRITE},
            "nothing": {"flags": []},
        }
    }


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    return tmp_path / "tokens.jsonl"


def token(file: Path, name: str, persona: str | None = None, prefix: str | None = None) -> str:
    return TokenStore(file).create(name, persona=persona, namespace_prefix=prefix, expires_at=None)


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "127.0.0.1@evil.example", "", "a b", "[::2]"]
)
def test_a_request_under_another_name_is_refused(open_dashboard: Open, host: str) -> None:
    assert open_dashboard().get("/", headers={"Host": host}).status_code == 421


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost:9810", "LOCALHOST", "[::1]:9810"])
def test_a_request_under_a_name_of_this_machine_is_answered(open_dashboard: Open, host: str) -> None:
    assert open_dashboard().get("/", headers={"Host": host}).status_code == 200


def test_a_probe_is_answered_under_any_name_and_learns_nothing_else(open_dashboard: Open) -> None:
    browser = open_dashboard(signed_in=False)
    alive = browser.get("/healthz", headers={"Host": "10.0.0.7:9810"})
    assert (alive.status_code, alive.json()) == (200, {"status": "alive"})
    # No broker runs.
    ready = browser.get("/readyz", headers={"Host": "10.0.0.7:9810"})
    assert (ready.status_code, ready.json()) == (503, {"status": "not ready"})


def test_every_answer_tells_browsers_to_trust_nothing_else(open_dashboard: Open) -> None:
    browser = open_dashboard()
    for path in ("/", "/missing", "/static/dashboard.css", "/healthz", "/entry?namespace=n&key=k"):
        answer = browser.get(path)
        for name, value in HEADERS.items():
            assert answer.headers[name] == value
    policy = HEADERS["Content-Security-Policy"]
    assert "unsafe" not in policy
    assert "default-src 'none'" in policy


def test_it_is_read_only_unless_told_otherwise(open_dashboard: Open, store: InlineKeyValueStore) -> None:
    store.set("n", "k", 1)
    browser = open_dashboard()
    for path in ("/entry/delete", "/namespace/quota", "/namespace/clear"):
        answer = browser.post(path, data={"namespace": "n", "key": "k"}, headers={"Origin": ORIGIN})
        assert answer.status_code == 404
        assert "only --allow-writes" in answer.text
    forms = re.findall(r'<form method="post" action="(.+?)"', browser.get("/entry?namespace=n&key=k").text)
    assert forms == ["/sign-out"]
    assert store.get("n", "k").found


def test_an_entry_is_deleted_only_as_it_was_shown(open_dashboard: Open, store: InlineKeyValueStore) -> None:
    browser = open_dashboard(allows_writes=True)
    first = store.set("n", "k", 1).version or 0
    stale = browser.submit("/entry?namespace=n&key=k", "/entry/delete", version=str(first - 1))
    assert (stale.status_code, store.get("n", "k").found) == (409, True)
    done = browser.submit("/entry?namespace=n&key=k", "/entry/delete")
    assert done.url.path == "/namespace"
    assert "The entry was deleted." in done.text
    assert not store.get("n", "k").found


def test_a_quota_is_set_and_reset(open_dashboard: Open, store: InlineKeyValueStore) -> None:
    browser = open_dashboard(allows_writes=True)
    store.set("n", "k", 1)
    assert "The quota was set." in browser.submit("/namespace?name=n", "/namespace/quota", quota="2 KiB").text
    assert store.usage("n").quota_bytes == 2048
    assert browser.submit("/namespace?name=n", "/namespace/quota", quota="much").status_code == 400
    assert "quota applies again" in browser.submit("/namespace?name=n", "/namespace/quota", quota="").text
    assert store.usage("n").quota_bytes == 1_048_576


def test_a_namespace_is_cleared_once_its_name_was_typed(open_dashboard: Open, store: InlineKeyValueStore) -> None:
    browser = open_dashboard(allows_writes=True)
    store.set("n", "k", 1)
    page = "/namespace/clear?name=n"
    assert browser.submit(page, "/namespace/clear", typed="m").status_code == 400
    assert store.get("n", "k").found
    assert "The namespace was cleared." in browser.submit(page, "/namespace/clear", typed="n").text
    assert not store.get("n", "k").found


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:9999"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "none"},
    ],
    ids=str,
)
def test_a_form_of_another_site_is_refused(
    open_dashboard: Open, store: InlineKeyValueStore, headers: dict[str, str]
) -> None:
    browser = open_dashboard(allows_writes=True)
    version = store.set("n", "k", 1).version
    browser.get("/")
    data = {"namespace": "n", "key": "k", "version": str(version), "operation_id": "o"}
    assert browser.post("/entry/delete", data=data, headers=headers).status_code == 403
    assert store.get("n", "k").found


def test_a_form_without_the_sessions_token_is_refused(open_dashboard: Open, store: InlineKeyValueStore) -> None:
    browser = open_dashboard(allows_writes=True)
    version = store.set("n", "k", 1).version
    browser.get("/")
    data = {"namespace": "n", "key": "k", "version": str(version), "operation_id": "o"}
    for form_token in ({}, {"form_token": "guess"}, {"form_token": "ü"}):
        assert browser.post("/entry/delete", data={**data, **form_token}).status_code == 400
    assert browser.post("/entry/delete", content=b"x" * 20_000).status_code == 400
    assert browser.post("/entry/delete", content="ü".encode()).status_code == 400
    assert store.get("n", "k").found


@pytest.mark.usefixtures("personas")
def test_a_persona_sees_only_its_namespaces(open_dashboard: Open, store: InlineKeyValueStore) -> None:
    store.set("team/a", "k", "secret a")
    store.set("other", "k", "secret b")
    browser = open_dashboard(persona="reader", allows_writes=True)
    listed = browser.get("/namespaces").text
    assert ("team/a" in listed, "other" in listed) == (True, False)
    assert "77 bytes" not in browser.get("/").text
    assert "secret a" in browser.get("/entry?namespace=team/a&key=k").text
    for path in ("/entry?namespace=other&key=k", "/namespace?name=other"):
        denied = browser.get(path)
        assert denied.status_code == 403
        assert "secret b" not in denied.text
    assert browser.submit("/entry?namespace=team/a&key=k", "/entry/delete").status_code == 403
    assert store.get("team/a", "k").found


@pytest.mark.usefixtures("personas")
@pytest.mark.parametrize("persona", [None, "nothing"])
def test_without_the_right_no_namespace_is_shown(
    open_dashboard: Open, store: InlineKeyValueStore, persona: str | None
) -> None:
    store.set("team/a", "k", "secret")
    browser = open_dashboard(persona=persona)
    overview = browser.get("/").text
    assert "Policies hide the namespaces" in overview
    assert 'href="/namespaces"' not in overview
    for path in ("/namespaces", "/namespace?name=team/a", "/entry?namespace=team/a&key=k"):
        assert browser.get(path).status_code == 403


def test_an_unknown_persona_is_a_wrong_configuration(open_dashboard: Open, personas: None) -> None:
    with pytest.raises(ConfigurationError, match="no persona is named 'nobody'"):
        open_dashboard(persona="nobody")


@pytest.mark.usefixtures("personas")
def test_a_token_opens_it_with_its_persona(open_dashboard: Open, store: InlineKeyValueStore, tokens: Path) -> None:
    store.set("team/a", "k", 1)
    reader = token(tokens, "ann", "reader")
    browser = open_dashboard(tokens=tokens)
    for path in ("/", "/namespaces", "/entry?namespace=team/a&key=k"):
        closed = browser.get(path)
        assert closed.status_code == 401
        assert "Access token" in closed.text
        assert "team/a" not in closed.text
    assert browser.get("/healthz").json() == {"status": "alive"}
    wrong = browser.submit("/sign-in", "/sign-in", token="kvw_" + "x" * 43)
    assert wrong.status_code == 401
    assert "This token opens nothing." in wrong.text
    opened = browser.submit("/sign-in", "/sign-in", token=reader)
    assert opened.status_code == 200
    assert "persona reader" in opened.text
    cookie = opened.history[0].headers["set-cookie"]
    assert all(part in cookie for part in ("HttpOnly", "SameSite=strict", "Path=/"))
    assert reader not in cookie
    assert "Secure" not in cookie
    assert "team/a" in browser.get("/namespaces").text
    TokenStore(tokens).revoke("ann")
    assert browser.get("/namespaces").status_code == 401


def test_without_tokens_the_key_opens_it(open_dashboard: Open) -> None:
    browser = open_dashboard(signed_in=False)
    assert browser.get("/").status_code == 401
    for key in ("guess", "ü"):
        assert browser.get("/sign-in", params={"key": key}).status_code == 401
    assert browser.get("/").status_code == 401
    opened = open_dashboard()
    assert opened.get("/").status_code == 200
    assert opened.cookies["kvworker_9810"]


def test_a_token_in_an_address_opens_nothing(open_dashboard: Open, tokens: Path) -> None:
    mine, other = token(tokens, "ann"), token(tokens, "eve")
    browser = open_dashboard(tokens=tokens)
    assert "Access token" in browser.get("/sign-in", params={"key": mine}).text
    assert browser.get("/").status_code == 401
    browser.submit("/sign-in", "/sign-in", token=mine)
    browser.get("/sign-in", params={"key": other})
    assert "Sign out ann" in browser.get("/").text


def test_behind_a_proxy_with_tls_the_cookie_needs_tls_too(open_dashboard: Open, tokens: Path) -> None:
    full = token(tokens, "ann")
    browser = open_dashboard(tokens=tokens)
    headers = {"Origin": ORIGIN.replace("http:", "https:"), "Sec-Fetch-Site": "same-origin"}
    opened = browser.post("/sign-in", data={"token": full}, headers=headers, follow_redirects=False)
    assert opened.status_code == 303
    assert "Secure" in opened.headers["set-cookie"]


def test_signing_out_ends_the_session(open_dashboard: Open, tokens: Path) -> None:
    browser = open_dashboard(tokens=tokens if token(tokens, "ann") else None)
    browser.submit("/sign-in", "/sign-in", token=token(tokens, "ben"))
    cookies = dict(browser.cookies)
    assert browser.get("/").status_code == 200
    browser.submit("/", "/sign-out")
    browser.cookies.update(cookies)
    assert browser.get("/").status_code == 401


def test_while_the_file_of_tokens_is_wrong_nobody_is_let_in(open_dashboard: Open, tokens: Path) -> None:
    full = token(tokens, "ben")
    browser = open_dashboard(tokens=tokens)
    browser.submit("/sign-in", "/sign-in", token=full)
    assert browser.get("/").status_code == 200
    with tokens.open("a") as file:
        file.write("wrong\n")
    os.utime(tokens)
    assert browser.get("/").status_code == 503
