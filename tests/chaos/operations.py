"""The mix of operations that makes up the load, and the requests that prepare its namespaces."""

from __future__ import annotations

from collections.abc import Callable

from tests.chaos.batch_operations import TEXT, mixed, pipeline, read_twins, twins
from tests.chaos.history import Answer, Step
from tests.chaos.request import CallerState, Request, Response
from tests.chaos.single_operations import (
    REGISTER,
    claim,
    crowd,
    delete,
    increment,
    leave_crowd,
    overwrite,
    read_counter,
    read_expiring,
    read_own,
    read_register,
    set_expiring,
    set_own,
    set_response,
    swap,
)

CROWD_QUOTA_BYTES = 1500


#: The relative frequency of each operation.
MIX: dict[Callable[[CallerState], Request], int] = {
    set_own: 10,
    overwrite: 8,
    increment: 14,
    swap: 8,
    read_register: 5,
    read_counter: 4,
    read_own: 10,
    claim: 6,
    delete: 5,
    twins: 8,
    mixed: 4,
    read_twins: 4,
    pipeline: 4,
    set_expiring: 5,
    read_expiring: 4,
    crowd: 10,
    leave_crowd: 4,
}


def next_request(state: CallerState) -> Request:
    """Make a random operation."""
    (make,) = state.rng.choices(list(MIX), list(MIX.values()))
    return make(state)


def setup_requests(state: CallerState) -> list[Request]:
    """Make the requests that prepare a group before the load begins."""
    quota_id, text_id, register_id = state.new_id("quota"), state.new_id("text"), state.new_id("register")
    group, store = state.group, state.store

    def set_quota(timeout: float) -> Response:
        result = store.set_quota(group.crowd, CROWD_QUOTA_BYTES, idempotency_key=quota_id, timeout=timeout)
        return Response((), result.replayed)

    def set_text(timeout: float) -> Response:
        return set_response(store.set(group.main, TEXT, "text", idempotency_key=text_id, timeout=timeout))

    def make_register(timeout: float) -> Response:
        result = store.increment(group.main, REGISTER, delta=0, idempotency_key=register_id, timeout=timeout)
        return Response((Answer(result.value, result.version),), result.replayed)

    return [
        Request("quota", group.crowd, (), set_quota, quota_id),
        Request("set", group.main, (Step("put", TEXT, "text"),), set_text, text_id),
        Request("increment", group.main, (Step("add", REGISTER, 0),), make_register, register_id),
    ]
