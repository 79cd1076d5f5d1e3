"""Reads deploy/kubernetes/ as `kubectl apply` would."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

import yaml

from tests.support.documents import ROOT

DIRECTORY = ROOT / "deploy" / "kubernetes"

#: A Kubernetes object.
Manifest: TypeAlias = dict[str, Any]


def files() -> list[Path]:
    """Every file of manifests, those to copy included."""
    return sorted([*DIRECTORY.rglob("*.yaml"), *DIRECTORY.rglob("*.yaml.example")])


def manifests() -> Iterator[Manifest]:
    """Every object of every file."""
    for file in files():
        yield from yaml.safe_load_all(file.read_text())


def find(kind: str, name: str) -> Manifest:
    """The object of a kind and name."""
    (found,) = (one for one in manifests() if one["kind"] == kind and one["metadata"]["name"] == name)
    return found


def pods() -> dict[str, Manifest]:
    """The pod of each Deployment and Job, by the name of its container."""
    templates = (one["spec"]["template"] for one in manifests() if one["kind"] in ("Deployment", "Job"))
    return {template["spec"]["containers"][0]["name"]: template["spec"] for template in templates}
