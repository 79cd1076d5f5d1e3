"""The coalescer: it holds back the right calls, and gives each its own result."""

from __future__ import annotations

import gc
import time
import weakref
from typing import Any

import pytest

from kvworker.client.coalescing import CoalescedMessage, Coalescer, GroupReply, is_coalescable
from kvworker.client.pending_reply import PendingReply
from kvworker.client.transport.message import Message
from kvworker.messaging.wire import decode_many
from kvworker.tools import TOOLS, check_arguments


def reply(task_id: str, seconds: float = 60.0) -> PendingReply:
    payload = {"v": 1, "namespace": "n", "key": task_id}
    message = Message("kvworker.kv_get", task_id, payload, f"kv_get({task_id})", time.monotonic() + seconds)
    return PendingReply(TOOLS["kv_get"], task_id, message)


def replies(*task_ids: str) -> list[PendingReply]:
    return [reply(task_id) for task_id in task_ids]


class Scene:
    """A coalescer and everything that it sent."""

    def __init__(self) -> None:
        self.sent: list[list[str]] = []
        self.alone: list[str] = []
        self.coalescer = Coalescer(self._send)
        self.messages: list[Message] = []

    def _send(self, replies: list[PendingReply]) -> None:
        self.sent.append([one.message.task_id for one in replies])
        message = CoalescedMessage(f"group {len(self.sent)}", replies)
        self.messages.append(message)
        self.coalescer.track(
            GroupReply(message, replies, self._send_individually, self.coalescer.record_outcome), len(replies)
        )

    def _send_individually(self, message: Message) -> None:
        self.alone.append(message.task_id)

    def call(self, *calls: PendingReply) -> list[bool]:
        return [self.coalescer.hold(call) for call in calls]

    def answer(self, results: object, status: str = "SUCCESS") -> None:
        gc.collect()
        group, _ = self.coalescer._in_flight[self.messages[-1].task_id]
        group.future.set_result({"status": status, "result": {"results": results}})


def answered(call: PendingReply) -> None:
    call.future.set_result({"status": "SUCCESS", "result": None})


def test_few_calls_are_never_held() -> None:
    scene = Scene()
    for _ in range(10):
        calls = replies("a", "b", "c")
        assert scene.call(*calls) == [False] * 3
        for call in calls:
            answered(call)
    assert scene.sent == []


def test_the_first_answer_sends_the_held_calls() -> None:
    scene = Scene()
    calls = replies("a", "b", "c", "d", "e")
    assert scene.call(*calls) == [False, False, False, True, True]
    answered(calls[1])
    assert scene.sent == [["d", "e"]]
    assert scene.call(*replies("f", "g")) == [True, True]
    scene.answer({"d": {"namespace": "n"}, "e": {"namespace": "n"}})
    assert scene.sent == [["d", "e"], ["f", "g"]]
    assert calls[3].future.result(0) == {"status": "SUCCESS", "result": {"namespace": "n"}}


def test_a_call_that_finds_nothing_in_flight_is_never_held() -> None:
    scene = Scene()
    calls = replies("a", "b", "c", "d")
    scene.call(*calls)
    for call in calls[:3]:
        answered(call)
    scene.answer({"d": {}})
    assert scene.call(reply("e")) == [False]


def test_a_flush_sends_the_held_calls() -> None:
    scene = Scene()
    scene.call(*replies(*"abcdefg"))
    scene.coalescer.flush()
    assert scene.sent == [["d", "e", "f", "g"]]
    scene.coalescer.flush()
    assert len(scene.sent) == 1


def test_a_message_without_an_answer_stops_counting_at_its_deadline() -> None:
    scene = Scene()
    calls = [reply(task_id, seconds=0.0) for task_id in "abc"]
    scene.call(*calls)
    assert scene.call(reply("d")) == [False]


@pytest.mark.parametrize(
    ("results", "status"), [({}, "SUCCESS"), (None, "SUCCESS"), ([1], "SUCCESS"), ({"d": {}}, "FAILURE")]
)
def test_calls_that_were_not_applied_are_sent_individually_and_so_are_others_for_a_while(
    results: object, status: str
) -> None:
    scene = Scene()
    scene.call(*replies("a", "b", "c", "d", "e"))
    scene.coalescer.flush()
    scene.answer(results, status)
    assert scene.alone == ["d", "e"]
    assert scene.call(*replies("f", "g", "h", "i")) == [False] * 4
    scene.coalescer._breaker._open_until = 0.0
    assert scene.call(*replies("j")) == [True]


def test_a_worker_may_apply_some_of_the_calls() -> None:
    scene = Scene()
    calls = replies("a", "b", "c", "d", "e")
    scene.call(*calls)
    scene.coalescer.flush()
    answered(calls[3])  # by an individual copy
    scene.answer({"d": {}})
    assert scene.alone == ["e"]
    assert scene.call(*replies("f")) == [True]


def test_calls_of_different_providers_are_sent_separately() -> None:
    scene = Scene()
    calls = replies("a", "b", "c", "d", "e", "f")
    calls[4].provider = "other"
    scene.call(*calls)
    answered(calls[0])
    assert scene.sent == [["d", "f"], ["e"]]


def test_an_interrupted_flush_keeps_the_calls_of_other_callers() -> None:
    def interrupted(_replies: list[PendingReply]) -> None:
        raise KeyboardInterrupt

    scene = Scene()
    scene.call(*replies("a", "b", "c", "d", "e"))
    scene.coalescer._send = interrupted
    with pytest.raises(KeyboardInterrupt):
        scene.coalescer.flush()
    scene.coalescer._send = scene._send
    scene.coalescer.flush()
    assert scene.sent == [["d", "e"]]


def test_answered_calls_are_freed_without_the_garbage_collector() -> None:
    gc.collect()
    gc.disable()
    try:
        scene = Scene()
        calls = replies("a", "b", "c", "d", "e")
        kept = weakref.WeakSet(calls)
        scene.call(*calls)
        scene.coalescer.flush()
        group, _ = scene.coalescer._in_flight[scene.messages[-1].task_id]
        group.future.set_result({"status": "SUCCESS", "result": {"results": {"d": {}, "e": {}}}})
        for call in calls[:3]:
            answered(call)
        del group, calls, call, scene.messages[:]
        assert not kept
    finally:
        gc.enable()


def test_a_message_contains_the_calls_that_were_not_abandoned() -> None:
    calls = replies("a", "b", "c")
    message = CoalescedMessage("group", calls)
    assert calls[1].message.abandon()
    assert message.begin_write()
    assert set(decode_many(message.body())) == {"a", "c"}
    assert [call.message.copies for call in calls] == [1, 0, 1]
    assert calls[0].message.claim_resend()
    message.undo_write()
    message.record_problem("no broker")
    assert [call.message.copies for call in calls] == [0, 0, 0]
    assert [call.message.last_problem for call in calls] == ["no broker"] * 3
    for call in calls:
        call.message.abandon()
    assert not message.begin_write()


@pytest.mark.parametrize(
    ("tool", "arguments", "expected"),
    [
        ("kv_get", {}, True),
        ("kv_delete", {}, True),
        ("kv_increment", {"delta": 5}, True),
        ("kv_set", {"value": {"a": [1, "x" * 1000, None]}, "ttl_seconds": 5}, True),
        ("kv_set", {"value": "x" * 5000}, False),
        ("kv_set", {"value": [["x" * 1000] * 5]}, False),
        ("kv_set", {"value": {"x" * 5000: 1}}, False),
        ("kv_set", {"value": list(range(5000))}, False),
        ("kv_set", {"value": 1, "if_absent": True}, False),
        ("kv_set", {"value": 1, "keep_ttl": True}, False),
        ("kv_delete", {"expected_version": 5}, False),
        ("kv_touch", {"ttl_seconds": 5}, False),
        ("kv_list_keys", {}, False),
    ],
)
def test_small_calls_on_one_key_are_coalescable(tool: str, arguments: dict[str, Any], expected: bool) -> None:
    names = {"namespace": "n"} if tool == "kv_list_keys" else {"namespace": "n", "key": "k"}
    assert is_coalescable(TOOLS[tool], check_arguments(TOOLS[tool], {**names, **arguments})) is expected


@pytest.mark.parametrize(
    "payload",
    [
        {},
        {"v": 2, "calls": {"a": {"tool": "kv_get", "payload": {}}}},
        {"v": 1, "calls": []},
        {"v": 1, "calls": {"a": None, "b": {}, "c": {"tool": []}, "d": {"tool": "kv_got", "payload": {}}}},
        {"v": 1, "calls": {"a": {"tool": "kv_get", "payload": []}, "b": {"tool": "kv_get"}}},
    ],
)
def test_calls_that_cannot_be_decoded_are_left_out(payload: dict[str, Any]) -> None:
    assert decode_many(payload) == {}
