"""Runs several statements on PostgreSQL in one round trip."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, TypeAlias

import psycopg
from psycopg.abc import PQGen
from psycopg.generators import send

#: A statement and its parameters.
Call: TypeAlias = tuple[str, Mapping[str, Any]]


def run_pipelined(connection: psycopg.Connection[Any], calls: Sequence[Call]) -> list[psycopg.Cursor[Any]]:
    """Run statements in one round trip, and return their cursors. The pipeline has ended when this returns or raises.

    Raises:
        psycopg.Error: A statement failed, or the connection did. Statements after a failed one do not run.
    """
    failure: psycopg.Error | None = None
    cursors = []
    try:
        with connection.pipeline() as pipeline:
            # psycopg would log a warning about every error that leaves this block.
            try:
                cursors = _run(connection, pipeline, calls)
            except psycopg.Error as error:
                failure = error
    except psycopg.Error as error:
        failure = failure or error
    if failure:
        raise failure
    return cursors


def _run(
    connection: psycopg.Connection[Any], pipeline: psycopg.Pipeline, calls: Sequence[Call]
) -> list[psycopg.Cursor[Any]]:
    methods = vars(pipeline)
    # psycopg would send each statement individually, and wake the server for each.
    methods["_communicate_gen"] = _do_nothing
    try:
        cursors = [connection.execute(*call, binary=True) for call in calls]
    finally:
        methods["_communicate_gen"] = partial(_send_all, pipeline)
    pipeline.sync()
    # There is nothing to wait for. psycopg would send another Sync, and then a Flush. After a Flush PostgreSQL does not
    # count how long the transaction is idle, so a frozen process would keep its locks.
    methods["_exit_gen"] = _do_nothing
    return cursors


def _send_all(pipeline: psycopg.Pipeline) -> PQGen[None]:
    while pipeline.command_queue:
        pipeline.command_queue.popleft()()
    yield from send(pipeline.pgconn)


def _do_nothing() -> PQGen[None]:
    return
    yield


@contextmanager
def rolling_back(connection: psycopg.Connection[Any]) -> Iterator[None]:
    """Roll the transaction of a ``with`` block back if an exception leaves it."""
    try:
        yield
    except BaseException:
        # If the connection broke, that is the error to raise, not the failure to roll back.
        with suppress(psycopg.Error):
            connection.rollback()
        raise
