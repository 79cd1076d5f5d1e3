"""The store that pipelines write to."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.pipelines import CountingStore


@pytest.fixture
def store() -> Iterator[CountingStore]:
    with CountingStore() as store:
        yield store
