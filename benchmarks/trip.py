"""A run of three steps, each of which needs the result of the previous one. They do nothing that takes time."""

from __future__ import annotations

from typing import Final

PLACE: Final = "Rome"
STEPS: Final = 3


def search(place: str) -> list[str]:
    """Find offers."""
    return [f"{place} {'x' * 20} {number}" for number in range(3)]


def choose(offers: list[str]) -> str:
    """Choose the first offer."""
    return offers[0]


def book(offer: str) -> dict[str, str]:
    """Book an offer."""
    return {"booked": offer, "reference": "b-7"}
