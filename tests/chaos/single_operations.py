"""Operations on one entry, each made at random for a caller."""

from __future__ import annotations

from collections.abc import Callable

from kvworker import SetResult
from tests.chaos.history import Answer, Call, Step
from tests.chaos.request import CallerState, Request, Response

COUNTERS = ("hits", "bytes")
#: A counter that callers increment by compare-and-set.
REGISTER = "register"

_CROWD_KEYS = 6


def set_own(state: CallerState) -> Request:
    """Set a key that is never overwritten."""
    operation_id = key = state.new_id("set")
    step = Step("put", key, state.value(operation_id))

    def send(timeout: float) -> Response:
        return set_response(
            state.store.set(state.group.main, key, step.value, idempotency_key=operation_id, timeout=timeout)
        )

    return Request("set", state.group.main, (step,), send, operation_id, lambda _: state.kept.append(key))


def overwrite(state: CallerState) -> Request:
    """Overwrite the caller's own register."""
    operation_id, key = state.new_id("overwrite"), state.own_register
    step = Step("put", key, state.value(operation_id))

    def send(timeout: float) -> Response:
        return set_response(
            state.store.set(state.group.main, key, step.value, idempotency_key=operation_id, timeout=timeout)
        )

    return Request("overwrite", state.group.main, (step,), send, operation_id)


def increment(state: CallerState) -> Request:
    """Add to a counter that all callers share."""
    operation_id, key = state.new_id("increment"), state.rng.choice(COUNTERS)
    step = Step("add", key, state.rng.randint(1, 9))

    def send(timeout: float) -> Response:
        result = state.store.increment(
            state.group.main, key, delta=step.value, idempotency_key=operation_id, timeout=timeout
        )
        return Response((Answer(result.value, result.version),), result.replayed)

    return Request("increment", state.group.main, (step,), send, operation_id)


def swap(state: CallerState) -> Request:
    """Add 1 to the register by compare-and-set, based on the caller's last read."""
    if state.seen.version is None:
        return read_register(state)
    operation_id, seen = state.new_id("swap"), state.seen

    def send(timeout: float) -> Response:
        return set_response(
            state.store.set(
                state.group.main,
                REGISTER,
                seen.value + 1,
                expected_version=seen.version,
                idempotency_key=operation_id,
                timeout=timeout,
            )
        )

    def on_success(call: Call) -> None:
        state.seen = call.answers[0]

    return Request("swap", state.group.main, (Step("add", REGISTER, 1),), send, operation_id, on_success)


def read_register(state: CallerState) -> Request:
    """Read the register, as the base of the next swap."""

    def on_success(call: Call) -> None:
        state.seen = call.answers[0]

    return _read(state, "read counter", REGISTER, on_success)


def read_counter(state: CallerState) -> Request:
    """Read a counter that all callers share."""
    return _read(state, "read counter", state.rng.choice(COUNTERS))


def read_own(state: CallerState) -> Request:
    """Read a key that only this caller writes or deletes."""
    keys = [state.own_register, *state.kept, *state.removed]
    return _read(state, "read own", state.rng.choice(keys))


def claim(state: CallerState) -> Request:
    """Set a key if no other caller has set it."""
    operation_id, key = state.new_id("claim"), state.group.claim()
    step = Step("put", key, operation_id)

    def send(timeout: float) -> Response:
        return set_response(
            state.store.set(
                state.group.main, key, operation_id, if_absent=True, idempotency_key=operation_id, timeout=timeout
            )
        )

    return Request("claim", state.group.main, (step,), send, operation_id)


def delete(state: CallerState) -> Request:
    """Delete a key that this caller has set."""
    if not state.kept:
        return set_own(state)
    operation_id, key = state.new_id("delete"), state.kept.popleft()

    def send(timeout: float) -> Response:
        result = state.store.delete(state.group.main, key, idempotency_key=operation_id, timeout=timeout)
        return Response((Answer(result.deleted),), result.replayed)

    steps = (Step("remove", key),)
    return Request("delete", state.group.main, steps, send, operation_id, lambda _: state.removed.append(key))


def set_expiring(state: CallerState) -> Request:
    """Set a key that expires soon."""
    operation_id = key = state.new_id("expiring")
    step = Step("put", key, state.value(operation_id), ttl_seconds=state.rng.uniform(0.2, 2.0))

    def send(timeout: float) -> Response:
        return set_response(
            state.store.set(
                state.group.main,
                key,
                step.value,
                ttl_seconds=step.ttl_seconds,
                idempotency_key=operation_id,
                timeout=timeout,
            )
        )

    return Request("expiring", state.group.main, (step,), send, operation_id, lambda _: state.expiring.append(key))


def read_expiring(state: CallerState) -> Request:
    """Read a key that expires soon, or has expired."""
    if not state.expiring:
        return set_expiring(state)
    return _read(state, "read expiring", state.rng.choice(state.expiring))


def crowd(state: CallerState) -> Request:
    """Set a value of random size in the namespace with the small quota."""
    operation_id, key = state.new_id("crowd"), f"place-{state.rng.randrange(_CROWD_KEYS)}"
    step = Step("put", key, [operation_id, "x" * state.rng.randrange(500)])

    def send(timeout: float) -> Response:
        return set_response(
            state.store.set(state.group.crowd, key, step.value, idempotency_key=operation_id, timeout=timeout)
        )

    return Request("crowd", state.group.crowd, (step,), send, operation_id)


def leave_crowd(state: CallerState) -> Request:
    """Delete an entry from the namespace with the small quota."""
    operation_id, key = state.new_id("leave"), f"place-{state.rng.randrange(_CROWD_KEYS)}"

    def send(timeout: float) -> Response:
        result = state.store.delete(state.group.crowd, key, idempotency_key=operation_id, timeout=timeout)
        return Response((Answer(result.deleted),), result.replayed)

    return Request("leave", state.group.crowd, (Step("remove", key),), send, operation_id)


def _read(state: CallerState, kind: str, key: str, on_success: Callable[[Call], None] = lambda _: None) -> Request:
    def send(timeout: float) -> Response:
        result = state.store.get(state.group.main, key, timeout=timeout)
        return Response((Answer(result.value, result.version),))

    return Request(kind, state.group.main, (Step("read", key),), send, on_success=on_success)


def set_response(result: SetResult) -> Response:
    """Convert the result of a set."""
    return Response((Answer(result.value, result.version),), result.replayed)
