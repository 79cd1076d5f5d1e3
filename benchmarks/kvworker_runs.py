"""The run of three durable steps on kvworker. The end of a step and the beginning of the next are one message."""

from __future__ import annotations

import psycopg
from sqlalchemy.engine import make_url

from benchmarks.trip import PLACE, book, choose, search
from kvworker.client.base import KeyValueOperations

NAMESPACE = "runs"
_TIMEOUT_SECONDS = 20
_RECORDED = (
    "SELECT count(DISTINCT split_part(key, '/', 1)), count(*) FROM kv_entries"
    " WHERE namespace = %s AND value::json ->> 'state' = 'done'"
)


def run_trip(store: KeyValueOperations, run_id: str) -> dict[str, str]:
    """Run the three steps, each reserved before it runs and recorded afterwards."""
    with store.run(run_id, namespace=NAMESPACE, timeout=_TIMEOUT_SECONDS) as run:
        offers = run.step("search", search, PLACE)
        offer = run.step("choose", choose, offers)
        booked: dict[str, str] = run.step("book", book, offer)
    return booked


def recorded(url: str) -> tuple[int, int]:
    """Count the runs and the steps that the database holds as done."""
    parsed = make_url(url)
    with psycopg.connect(host=str(parsed.query["host"]), user=parsed.username, dbname=parsed.database) as connection:
        (counts,) = connection.execute(_RECORDED, (NAMESPACE,)).fetchall()
        return counts
