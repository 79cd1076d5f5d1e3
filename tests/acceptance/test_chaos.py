"""The fault suite in short: every scenario of ``make chaos`` for a moment, with the same load and the same verdict.

Scenarios that need the same stand share one. Left to ``make chaos``: the soak.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.chaos.run import run
from tests.chaos.scenarios import SCENARIOS
from tests.chaos.scene import Scenario
from tests.chaos.stand import Needs, Stand, chaos_postgres, standing
from tests.support.servers import PostgresServer

SECONDS = 1.0
SEED = 1
BRIEF = sorted((scenario for scenario in SCENARIOS if scenario.is_brief), key=lambda scenario: repr(scenario.needs))


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    with chaos_postgres() as server:
        yield server


@pytest.fixture(scope="module")
def stand_for(postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Needs], Stand]]:
    """The stand that a scenario needs; the one before it is gone once another is needed."""
    current: dict[Needs, Stand] = {}
    with ExitStack() as standing_now:

        def stand_for(needs: Needs) -> Stand:
            if needs not in current:
                standing_now.close()
                current.clear()
                directory: Path = tmp_path_factory.mktemp("chaos")
                current[needs] = standing_now.enter_context(standing(directory, needs, postgres))
            return current[needs]

        yield stand_for


@pytest.mark.parametrize("scenario", BRIEF, ids=lambda scenario: scenario.name)
def test_what_callers_are_told_holds_under_faults(scenario: Scenario, stand_for: Callable[[Needs], Stand]) -> None:
    if scenario.needs.lacking:
        pytest.skip(scenario.needs.lacking)
    report = run(scenario, stand_for(scenario.needs), seed=SEED, seconds=SECONDS)
    assert report.violations == []
    assert report.faults > 0
    assert report.operations > 0
