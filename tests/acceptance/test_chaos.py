"""The fault suite in brief: every scenario of ``make chaos`` for a second, with the same load and the same verdict.

Scenarios with the same needs share a cluster. Only ``make chaos`` runs the soak,
and all but one of the scenarios of durable steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.chaos.cluster import Cluster, running_cluster
from tests.chaos.effects.run import EffectsScenario
from tests.chaos.needs import Needs, chaos_postgres
from tests.chaos.run import run
from tests.chaos.scenario import Scenario
from tests.chaos.scenarios import SCENARIOS
from tests.support.servers import PostgresServer

SECONDS = 1.0
SEED = 1
BRIEF = sorted((scenario for scenario in SCENARIOS if scenario.is_brief), key=lambda scenario: repr(scenario.needs))


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    with chaos_postgres() as server:
        yield server


@pytest.fixture(scope="module")
def cluster_for(
    postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[Needs], Cluster]]:
    """Gives the cluster that a scenario needs. It stops the previous one when the needs change."""
    current: dict[Needs, Cluster] = {}
    with ExitStack() as active:

        def cluster_for(needs: Needs) -> Cluster:
            if needs not in current:
                active.close()
                current.clear()
                directory: Path = tmp_path_factory.mktemp("chaos")
                current[needs] = active.enter_context(running_cluster(directory, needs, postgres))
            return current[needs]

        yield cluster_for


@pytest.mark.parametrize("scenario", BRIEF, ids=lambda scenario: scenario.name)
def test_all_promises_hold_under_faults(
    scenario: Scenario | EffectsScenario, cluster_for: Callable[[Needs], Cluster]
) -> None:
    if scenario.needs.unmet_need:
        pytest.skip(scenario.needs.unmet_need)
    report = run(scenario, cluster_for(scenario.needs), seed=SEED, seconds=SECONDS)
    assert report.violations == []
    assert report.faults > 0
    assert report.operations > 0
