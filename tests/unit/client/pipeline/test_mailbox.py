"""The mailbox that a pipeline waits on."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from kvworker.client.pipeline.mailbox import Mailbox


def test_a_mailbox_loses_no_item_of_any_thread() -> None:
    mailbox: Mailbox[int] = Mailbox()
    count, received = 2000, 0
    with ThreadPoolExecutor(4) as threads:
        for number in range(count):
            threads.submit(mailbox.put, number)
        while received < count:
            mailbox.next_arrival().result(timeout=10)
            received += len(mailbox.pop_all())
    assert received == count
    assert not mailbox.next_arrival().done()
