"""Who is woken by which message."""

from __future__ import annotations

from typing import Any

from kvworker.client.transport.wake_ups import WakeUps
from kvworker.messaging.wake_ups import freed_by, freed_name
from kvworker.model import BatchResult, DeleteResult, ReleasePermitResult


class Connection:
    def __init__(self) -> None:
        self.sent: list[tuple[Any, ...]] = []

    def send_command(self, *command: Any, check_health: bool) -> None:
        assert not check_health
        self.sent.append(command)


def test_each_message_wakes_the_next_waiter_of_its_channel() -> None:
    wake_ups, woken = WakeUps("freed.*"), list[str]()
    first = wake_ups.watch("freed.a", lambda: woken.append("first"))
    wake_ups.watch("freed.a", lambda: woken.append("second"))
    wake_ups.watch("freed.b", lambda: woken.append("other"))
    for channel in (b"freed.a", b"freed.a", b"freed.a", b"freed.c"):
        wake_ups.wake(channel)
    assert woken == ["first", "second", "first"]
    first.close()
    first.close()
    wake_ups.wake(b"freed.a")
    assert woken[3:] == ["second"]


def test_it_subscribes_once_for_each_connection_and_only_if_somebody_waits() -> None:
    wake_ups, connections, woken = WakeUps("freed.*"), [Connection(), Connection()], list[int]()
    wake_ups.subscribe(connections[0])
    watch = wake_ups.watch("freed.a", lambda: woken.append(1))
    for connection in connections:
        wake_ups.subscribe(connection)
        wake_ups.subscribe(connection)
        states = [watch.is_listening]
        wake_ups.subscribed()
        states.append(watch.is_listening)
        wake_ups.disconnected()
        assert [*states, watch.is_listening] == [False, True, False]
    assert [connection.sent for connection in connections] == [[("PSUBSCRIBE", b"freed.*")]] * 2
    assert woken == [1, 1]


def test_only_permits_that_were_given_back_are_told() -> None:
    freed, late = ReleasePermitResult("n", "k", released=True), ReleasePermitResult("n", "other", released=False)
    assert list(freed_by(freed)) == [freed_name("n", "k")]
    batch = BatchResult("n", (DeleteResult("n", "k", deleted=True), late, freed))
    assert list(freed_by(batch)) == [freed_name("n", "k")]
    assert list(freed_by(late)) == []
    assert len({freed_name("a", "bc"), freed_name("ab", "c"), freed_name("a", "b")}) == 3
