"""A token with a namespace prefix opens the dashboard, and shows and changes nothing outside of it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast, get_args
from urllib.parse import quote

import pytest

from kvworker import InlineKeyValueStore
from kvworker.access import TokenStore
from kvworker.adapters import create_kv_store_adapter, register_kv_store_adapter, registry
from kvworker.model import UsageOrder, UsagePage, UsageQuery
from tests.unit.ops.dashboard.conftest import ORIGIN, Browser, Open

#: Names that are close to those below the prefix ``a*``, in which the star is no wildcard.
FOREIGN = ("a", "a*", "a*b/secret", "ab/secret", "A*/secret", "secret", "x/a*/secret", " a*/secret")
MINE = ("a*/notes", "a*/tasks")


@pytest.fixture
def filled(store: InlineKeyValueStore) -> InlineKeyValueStore:
    for namespace in (*FOREIGN, *MINE):
        store.set(namespace, "hidden" if namespace in FOREIGN else "shown", f"value of {namespace}")
    return store


def sign_in(open_dashboard: Open, directory: Path, persona: str | None = None, **options: Any) -> Browser:
    file = directory / "tokens.jsonl"
    token = TokenStore(file).create("ann", persona=persona, namespace_prefix="a*", expires_at=None)
    browser = open_dashboard(tokens=file, **options)
    assert browser.submit("/sign-in", "/sign-in", token=token).status_code == 200
    return browser


def listed(browser: Browser, **parameters: str) -> list[str]:
    page = browser.get("/namespaces", params=parameters)
    assert page.status_code == 200
    return re.findall(r'<a href="/namespace\?name=[^"]+"><bdi class="name">(.*?)</bdi>', page.text)


@pytest.mark.usefixtures("filled")
def test_only_the_namespaces_below_the_prefix_are_listed(open_dashboard: Open, tmp_path: Path) -> None:
    browser = sign_in(open_dashboard, tmp_path)
    for order_by in get_args(UsageOrder):
        for order in ("asc", "desc"):
            assert sorted(listed(browser, sort=order_by, order=order)) == list(MINE)
    page = browser.get("/namespaces").text
    assert "2 namespaces" in page
    assert "namespaces a*/*" in page
    assert listed(browser, page="2") == []
    for search, found in (
        ("", list(MINE)),
        ("secret", []),
        ("a*/", list(MINE)),
        ("tasks", ["a*/tasks"]),
        ("*", list(MINE)),
    ):
        assert sorted(listed(browser, search=search)) == found
    # Parameters that no form has change nothing.
    assert sorted(listed(browser, prefix="", patterns="*", limit="1000", offset="0")) == list(MINE)


@pytest.mark.usefixtures("filled")
def test_nothing_of_the_whole_store_is_shown(open_dashboard: Open, tmp_path: Path) -> None:
    browser = sign_in(open_dashboard, tmp_path)
    answer = browser.get("/", follow_redirects=False)
    assert (answer.status_code, answer.headers["location"], answer.text) == (303, "/namespaces", "")
    assert 'href="/"' not in browser.get("/namespaces").text


@pytest.mark.usefixtures("filled")
@pytest.mark.parametrize("namespace", [*FOREIGN, "missing", "a*/../secret\0", ""])
def test_another_namespace_is_refused_whether_it_exists_or_not(
    open_dashboard: Open, tmp_path: Path, namespace: str
) -> None:
    browser = sign_in(open_dashboard, tmp_path, allows_writes=True)
    for path in ("/namespace?name={}", "/entry?namespace={}&key=hidden", "/namespace/clear?name={}"):
        answer = browser.get(path.format(quote(namespace)))
        is_below = namespace.startswith("a*/")
        assert answer.status_code == (400 if is_below else 403)
        assert "value of" not in answer.text
        assert is_below or "only for namespaces that begin with" in answer.text
    again = browser.get("/namespace", params={"name": namespace, "prefix": "h", "cursor": "hid"})
    assert again.status_code in {400, 403}


def test_entries_below_the_prefix_are_shown(open_dashboard: Open, tmp_path: Path, filled: InlineKeyValueStore) -> None:
    browser = sign_in(open_dashboard, tmp_path)
    assert "shown" in browser.get("/namespace", params={"name": "a*/notes"}).text
    assert "value of a*/notes" in browser.get("/entry", params={"namespace": "a*/notes", "key": "shown"}).text
    # The first of two parameters, or the second one: only the one that is checked may count.
    twice = browser.get("/namespace?name=a*%2Fnotes&name=secret")
    assert ("hidden" in twice.text, twice.status_code) == (False, 403)


def test_forms_change_nothing_outside_of_the_prefix(
    open_dashboard: Open, tmp_path: Path, filled: InlineKeyValueStore
) -> None:
    browser = sign_in(open_dashboard, tmp_path, allows_writes=True)
    page = browser.get("/namespace", params={"name": "a*/notes"}).text
    form_token = re.search(r'name="form_token" value="([^"]+)"', page)
    assert form_token is not None
    before = {name: (filled.get(name, "hidden").version, filled.usage(name).quota_bytes) for name in FOREIGN}
    for name in FOREIGN:
        common = {"form_token": form_token[1], "operation_id": "o", "namespace": name}
        for path, fields in (
            ("/entry/delete", {"key": "hidden", "version": str(before[name][0])}),
            ("/namespace/quota", {"quota": "1 GiB"}),
            ("/namespace/clear", {"typed": name}),
        ):
            answer = browser.post(path, data={**common, **fields}, headers={"Origin": ORIGIN})
            assert answer.status_code == 403, (path, name)
    assert {name: (filled.get(name, "hidden").version, filled.usage(name).quota_bytes) for name in FOREIGN} == before
    done = browser.submit("/entry?namespace=a*/notes&key=shown", "/entry/delete")
    assert "The entry was deleted." in done.text
    assert not filled.get("a*/notes", "shown").found


@pytest.mark.usefixtures("filled")
def test_policies_limit_it_further(open_dashboard: Open, tmp_path: Path, mapping: dict[str, Any]) -> None:
    flags = ["type.system.kv_store_access"]
    reader = {"flags": flags, "namespaces": {"a*/notes": ["read"], "secret": ["read"]}}
    mapping["policies"] = {"personas": {"reader": reader}}
    browser = sign_in(open_dashboard, tmp_path, persona="reader")
    assert listed(browser) == ["a*/notes"]
    for name, status in (("a*/notes", 200), ("a*/tasks", 403), ("secret", 403)):
        assert browser.get("/namespace", params={"name": name}).status_code == status


def test_pages_count_only_the_namespaces_below_the_prefix(
    open_dashboard: Open, tmp_path: Path, store: InlineKeyValueStore
) -> None:
    for number in range(101):
        store.set(f"a*/{number:03}", "k", 1)
        store.set(f"b/{number:03}", "k", 1)
    browser = sign_in(open_dashboard, tmp_path)
    assert "Page 1 of 2" in browser.get("/namespaces?sort=namespace").text
    names = [*listed(browser, sort="namespace"), *listed(browser, sort="namespace", page="2")]
    assert names == [f"a*/{number:03}" for number in range(101)]
    assert listed(browser, page="3") == []


class OlderAdapter:
    """An adapter of a host, made before queries had a prefix."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._inner = create_kv_store_adapter("sqlite", config)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def rank_usage(self, query: UsageQuery) -> UsagePage:
        """Ignore the prefix."""
        return self._inner.rank_usage(replace(query, prefix=""))


@pytest.mark.usefixtures("filled")
def test_an_adapter_without_prefixes_tells_nothing_of_other_namespaces(
    open_dashboard: Open, tmp_path: Path, mapping: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "_factories", dict(registry._factories))
    register_kv_store_adapter("older", cast(Any, OlderAdapter))
    adapters = mapping["tools"]["kv_store"]["adapters"]
    mapping["tools"]["kv_store"] = {"default_adapter": "older", "adapters": {"older": adapters["sqlite"]}}
    browser = sign_in(open_dashboard, tmp_path)
    for parameters in ({}, {"search": "notes"}, {"sort": "namespace"}, {"search": "secret"}):
        names = listed(browser, **parameters)
        counted = f"{len(names)} {'namespace' if len(names) == 1 else 'namespaces'}<"
        assert counted in browser.get("/namespaces", params=parameters).text
    assert listed(browser, sort="namespace") == list(MINE)
