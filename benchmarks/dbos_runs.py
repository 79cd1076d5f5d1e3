"""The peer of the runs' figures: the same three steps as a workflow of DBOS, which runs in the caller's process too."""

from __future__ import annotations

import psycopg
from dbos import DBOS, DBOSConfig, SetWorkflowID
from sqlalchemy.engine import make_url

from benchmarks.trip import PLACE, book, choose, search

_RECORDED = (
    "SELECT (SELECT count(*) FROM dbos.workflow_status WHERE status = 'SUCCESS'),"
    " (SELECT count(*) FROM dbos.operation_outputs WHERE error IS NULL)"
)
_search = DBOS.step()(search)
_choose = DBOS.step()(choose)
_book = DBOS.step()(book)


@DBOS.workflow()
def _trip(place: str) -> dict[str, str]:
    return _book(_choose(_search(place)))


def launch(url: str, number: int) -> None:
    """Start DBOS in this process, with its defaults."""
    # Processes of one executor would take over each other's workflows when they start.
    config: DBOSConfig = {
        "name": "kvworker-bench",
        "system_database_url": url,
        "executor_id": f"executor-{number}",
        "log_level": "WARNING",
    }
    DBOS(config=config)
    DBOS.launch()


def run_trip(run: str) -> dict[str, str]:
    """Run the three steps durably."""
    with SetWorkflowID(run):
        return _trip(PLACE)


def recorded(url: str) -> tuple[int, int]:
    """Count the runs and the steps that the database holds as done."""
    parsed = make_url(url)
    with psycopg.connect(host=str(parsed.query["host"]), user=parsed.username, dbname=parsed.database) as connection:
        (counts,) = connection.execute(_RECORDED).fetchall()
        return counts
