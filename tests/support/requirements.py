"""The packages that pip installs with kvworker: its requirements, and theirs."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from importlib.metadata import requires

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.support.documents import ROOT


def _required_by(distribution: str, extras: frozenset[str]) -> Iterator[Requirement]:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    for text in declared if distribution == "kvworker" else requires(distribution) or ():
        requirement = Requirement(text)
        environments: list[dict[str, str]] = [{"extra": extra} for extra in extras or {""}]
        if requirement.marker is None or any(map(requirement.marker.evaluate, environments)):
            yield requirement


def installed_with_kvworker() -> set[str]:
    """The distributions that its requirements bring, and theirs."""
    found, waiting = set[tuple[str, frozenset[str]]](), [("kvworker", frozenset[str]())]
    while waiting:
        item = waiting.pop()
        if item not in found:
            found.add(item)
            waiting += [(canonicalize_name(one.name), frozenset(one.extras)) for one in _required_by(*item)]
    return {name for name, _ in found}
