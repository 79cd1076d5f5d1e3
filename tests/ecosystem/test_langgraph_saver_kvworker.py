"""The LangGraph checkpointer beyond LangGraph's contract: messages, growth, TTLs, quotas and threads in use."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any, cast
from uuid import uuid4

import pytest
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import CheckpointMetadata, CheckpointTuple
from langgraph.checkpoint.base.id import uuid6
from langgraph.checkpoint.serde.base import CipherProtocol
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer

from kvworker import (
    AsyncKeyValueStore,
    InvalidKeyError,
    InvalidRequestError,
    InvalidTTLError,
    NamespaceQuotaExceededError,
    Settings,
    VersionConflictError,
)
from kvworker.integrations.langgraph import KvworkerSaver, StaleWriterError
from kvworker.integrations.langgraph.checkpoints.records import IncompleteCheckpointError
from tests.support.counting import CountingStore
from tests.support.processes import wait_until

_IN_MEMORY = {"tools": {"kv_store": {"default_adapter": "sqlite", "adapters": {"sqlite": {"url": "sqlite://"}}}}}


@pytest.fixture
def kv_store() -> Iterator[CountingStore]:
    with CountingStore() as store:
        yield store


@pytest.fixture
def saver(kv_store: CountingStore) -> KvworkerSaver:
    return KvworkerSaver(kv_store)


def config(thread_id: str = "7", **configurable: Any) -> RunnableConfig:
    return {"configurable": {"thread_id": thread_id, "checkpoint_ns": "", **configurable}}


def put(saver: KvworkerSaver, base: RunnableConfig, values: dict[str, Any], **metadata: Any) -> RunnableConfig:
    """Put a checkpoint on top of another one. Each value is new."""
    versions: dict[str, str | int | float] = {channel: saver.get_next_version(None, None) for channel in values}
    return put_versions(saver, base, values, versions, versions, **metadata)


def put_versions(
    saver: KvworkerSaver,
    base: RunnableConfig,
    values: dict[str, Any],
    versions: dict[str, str | int | float],
    new_versions: dict[str, str | int | float],
    **metadata: Any,
) -> RunnableConfig:
    return saver.put(
        base,
        {
            "v": 4,
            "id": str(uuid6()),
            "ts": "2026-11-30T12:00:00+00:00",
            "channel_values": values,
            "channel_versions": versions,
            "versions_seen": {},
            "updated_channels": None,
        },
        cast(CheckpointMetadata, {"source": "loop", "step": 0, "parents": {}, **metadata}),
        new_versions,
    )


def got(saver: KvworkerSaver, base: RunnableConfig) -> CheckpointTuple:
    found = saver.get_tuple(base)
    assert found is not None
    return found


def values(saver: KvworkerSaver, base: RunnableConfig) -> dict[str, Any]:
    return got(saver, base).checkpoint["channel_values"]


class TestMessages:
    def test_a_put_and_the_writes_of_a_task_are_one_message_each(
        self, kv_store: CountingStore, saver: KvworkerSaver
    ) -> None:
        first = put(saver, config(), {"a": 1, "b": [1, 2], "c": {"x": None}})
        second = put(saver, first, {"a": 2})
        saver.put_writes(second, [("a", 1), ("b", 2), ("__interrupt__", "?")], "task")
        assert kv_store.sent == ["kv_batch"] * 3
        kv_store.sent.clear()
        assert got(saver, config()).pending_writes == [
            ("task", "__interrupt__", "?"),
            ("task", "a", 1),
            ("task", "b", 2),
        ]
        assert len(kv_store.sent) == 4

    def test_a_put_that_is_repeated_after_a_lost_answer_is_no_conflict(
        self, kv_store: CountingStore, saver: KvworkerSaver
    ) -> None:
        first = put(saver, config(), {"a": 1})
        now = got(saver, config())
        checkpoint = {**now.checkpoint, "id": str(uuid6())}
        for each in (saver, saver, KvworkerSaver(kv_store)):
            each.put(now.config, checkpoint, now.metadata, {})  # type: ignore[arg-type]
        assert [each.parent_config for each in saver.list(config())][1:] == [None]
        with pytest.raises(StaleWriterError):
            put(saver, first, {"a": 2})

    def test_a_write_that_exists_stays_unless_its_channel_is_special(self, saver: KvworkerSaver) -> None:
        base = put(saver, config(), {})
        saver.put_writes(base, [("a", "first")], "t")
        saver.put_writes(base, [("a", "second"), ("b", "added"), ("__resume__", 1)], "t")
        saver.put_writes(base, [("a", "third"), ("__resume__", 2)], "t")
        assert got(saver, base).pending_writes == [("t", "__resume__", 2), ("t", "a", "first"), ("t", "b", "added")]

    def test_writes_are_in_the_order_in_which_langgraph_applies_them(self, saver: KvworkerSaver) -> None:
        base = put(saver, config(), {})
        saver.put_writes(base, [("c", number) for number in range(12)], "z", "a")
        saver.put_writes(base, [("c", "last")], "a", "b")
        pending = got(saver, base).pending_writes
        assert pending is not None
        assert [value for _, _, value in pending] == [*range(12), "last"]


class TestNames:
    def test_names_of_every_kind_are_kept_apart(self, saver: KvworkerSaver) -> None:
        names = ["", "a", "a/b", "a%2Fb", "a:b|c", "ü😀", "/", "a\x00"]
        for name in names:
            base = put(saver, config(checkpoint_ns=name), {name: name})
            saver.put_writes(base, [(name, name)], name)
        for name in names:
            found = got(saver, config(checkpoint_ns=name))
            assert found.checkpoint["channel_values"] == {name: name}
            assert found.pending_writes == [(name, name, name)]
            assert found.config["configurable"]["checkpoint_ns"] == name
        assert len(list(saver.list(config(checkpoint_ns=None)))) == len(names)

    def test_a_thread_is_a_namespace(self, kv_store: CountingStore) -> None:
        saver = KvworkerSaver(kv_store, prefix="graphs")
        put(saver, config("user:1"), {"a": 1})
        put(saver, {"configurable": {"thread_id": 12}}, {"a": 1})
        kv_store.set("graphs", "other", 1)
        assert {usage.namespace for usage in kv_store.list_namespaces().namespaces} == {
            "graphs",
            "graphs:12",
            "graphs:user:1",
        }
        threads = [each.config["configurable"]["thread_id"] for each in saver.list(None)]
        assert threads == ["12", "user:1"]
        assert list(KvworkerSaver(kv_store).list(None)) == []

    @pytest.mark.parametrize("thread_id", ["x" * 300, "a\x00", "\ud800"])
    def test_a_thread_that_is_no_namespace_is_refused(self, saver: KvworkerSaver, thread_id: str) -> None:
        with pytest.raises(InvalidKeyError, match="cannot name a thread"):
            saver.get_tuple(config(thread_id))

    def test_a_config_without_a_thread_or_a_checkpoint_is_refused(self, saver: KvworkerSaver) -> None:
        with pytest.raises(InvalidRequestError, match="names no thread"):
            saver.get_tuple({"configurable": {}})
        with pytest.raises(InvalidRequestError, match="need the checkpoint_id"):
            saver.put_writes(config(), [("a", 1)], "t")

    @pytest.mark.parametrize("prefix", ["a:b", "", " "])
    def test_a_prefix_that_is_invalid_or_holds_a_colon_is_refused(self, kv_store: CountingStore, prefix: str) -> None:
        with pytest.raises(InvalidKeyError):
            KvworkerSaver(kv_store, prefix=prefix)


class TestGrowth:
    def test_a_value_that_checkpoints_share_is_stored_once(self, kv_store: CountingStore, saver: KvworkerSaver) -> None:
        document, versions = "x" * 10_000, {"document": saver.get_next_version(None, None)}
        base = put_versions(saver, config(), {"document": document}, dict(versions), dict(versions))
        used = kv_store.usage("checkpoints:7").used_bytes
        for _ in range(20):
            base = put_versions(saver, base, {"document": document}, dict(versions), {})
        assert kv_store.usage("checkpoints:7").used_bytes - used < 10_000
        assert [each.checkpoint["channel_values"] for each in saver.list(config())] == [{"document": document}] * 21

    def test_a_prune_leaves_what_the_latest_checkpoints_need(
        self, kv_store: CountingStore, saver: KvworkerSaver
    ) -> None:
        for graph in ("", "child"):
            base = config(checkpoint_ns=graph)
            for number in range(5):
                base = put(saver, base, {"a": number})
                saver.put_writes(base, [("a", number + 1)], "t")
        saver.prune(["7", "missing"])
        entries = [entry.key.partition("/")[0] for entry in kv_store.list_keys("checkpoints:7").entries]
        assert entries == ["checkpoint"] * 2 + ["head"] * 2 + ["thread"] + ["value"] * 2 + ["writes"] * 2
        for graph in ("", "child"):
            found = got(saver, config(checkpoint_ns=graph))
            assert found.checkpoint["channel_values"] == {"a": 4}
            assert found.pending_writes == [("t", "a", 5)]
        with pytest.raises(InvalidRequestError, match="keep_latest"):
            saver.prune(["7"], strategy="keep_all")

    def test_a_run_that_is_under_way_survives_a_prune(self, saver: KvworkerSaver) -> None:
        versions = {"a": saver.get_next_version(None, None)}
        first = put_versions(saver, config(), {"a": "kept"}, dict(versions), dict(versions))
        put_versions(saver, first, {"a": "kept"}, dict(versions), {})
        running, forking = got(saver, config()), got(saver, first)
        saver.prune(["7"])
        put_versions(saver, running.config, {"a": "kept"}, dict(versions), {})
        assert values(saver, config()) == {"a": "kept"}
        # The checkpoint from which this one forks is gone, so its values may be gone as well.
        with pytest.raises(StaleWriterError):
            put_versions(saver, forking.config, {"a": "kept"}, dict(versions), {})

    def test_a_prune_does_not_delete_what_a_fork_needs(
        self, kv_store: CountingStore, saver: KvworkerSaver, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first = put(saver, config(), {"a": "past"})
        put(saver, first, {"a": "latest"})
        past = got(saver, first)
        versions = past.checkpoint["channel_versions"]
        submit = kv_store.submit

        def fork_before_the_first_deletion(tool: str, arguments: Any, **options: Any) -> Any:
            if tool == "kv_batch" and arguments["operations"][0]["tool"] == "kv_delete":
                monkeypatch.undo()
                put_versions(saver, past.config, {"a": "past"}, versions, {})
            return submit(tool, arguments, **options)

        monkeypatch.setattr(kv_store, "submit", fork_before_the_first_deletion)
        with pytest.raises(VersionConflictError):
            KvworkerSaver(kv_store).prune(["7"])
        assert values(saver, config()) == {"a": "past"}
        saver.prune(["7"])
        assert [each.checkpoint["channel_values"] for each in saver.list(config())] == [{"a": "past"}]

    def test_the_checkpoints_of_a_run_are_deleted_and_the_latest_other_one_counts(
        self, kv_store: CountingStore, saver: KvworkerSaver
    ) -> None:
        base = put(saver, config(), {"a": 1}, run_id="one")
        put(saver, base, {"a": 2}, run_id="two")
        put(saver, config("8"), {"a": 3}, run_id="two")
        running = got(saver, config())
        saver.delete_for_runs(["two"])
        assert values(saver, config()) == {"a": 1}
        with pytest.raises(StaleWriterError):
            put(saver, running.config, {"a": 3})
        assert kv_store.list_keys("checkpoints:8").entries == ()
        put(saver, got(saver, config()).config, {"a": 4})
        put(saver, config("8"), {"a": 5})

    def test_a_thread_is_not_copied_onto_another(self, saver: KvworkerSaver) -> None:
        put(saver, config("1"), {"a": 1})
        put(saver, config("2"), {"a": 2})
        with pytest.raises(InvalidRequestError, match="thread '2' exists"):
            saver.copy_thread("1", "2")
        saver.copy_thread("1", "3")
        put(saver, got(saver, config("3")).config, {"a": 3})
        assert [values(saver, config(thread)) for thread in "123"] == [{"a": 1}, {"a": 2}, {"a": 3}]

    def test_a_long_thread_is_listed_copied_and_pruned(self, saver: KvworkerSaver) -> None:
        base = config()
        for number in range(120):
            base = put(saver, base, {"a": f"{number}" + "x" * 3_000})
        assert [each.metadata["step"] for each in saver.list(config(), limit=50)] == [0] * 50
        before = got(saver, base).parent_config
        assert before is not None
        assert len(list(saver.list(config(), before=before))) == 118
        saver.copy_thread("7", "8")
        assert [each.checkpoint for each in saver.list(config("8"))] == [
            each.checkpoint for each in saver.list(config())
        ]
        saver.prune(["8"])
        assert [each.checkpoint for each in saver.list(config("8"))] == [got(saver, config()).checkpoint]


class TestLimits:
    def test_a_thread_has_a_quota_and_a_put_that_exceeds_it_changes_nothing(
        self, kv_store: CountingStore, saver: KvworkerSaver
    ) -> None:
        kv_store.set_quota("checkpoints:7", 3_000)
        base = put(saver, config(), {"a": "small"})
        used = kv_store.usage("checkpoints:7").used_bytes
        with pytest.raises(NamespaceQuotaExceededError) as caught:
            put(saver, base, {"a": "x" * 3_000})
        assert caught.value.__notes__ == ["thread '7' has no room: prune it, or set a larger quota for 'checkpoints:7'"]
        with pytest.raises(NamespaceQuotaExceededError, match="quota of 3000 bytes"):
            saver.put_writes(base, [("a", "x" * 3_000)], "t")
        assert kv_store.usage("checkpoints:7").used_bytes == used
        assert values(saver, config()) == {"a": "small"}
        put(saver, base, {"a": "small"})

    def test_a_large_checkpoint_is_read_in_several_messages(
        self, kv_store: CountingStore, saver: KvworkerSaver
    ) -> None:
        kv_store.set_quota("checkpoints:7", 100_000_000)
        large = {f"c{number}": bytes(2_000_000) for number in range(4)}
        put(saver, config(), large)
        assert values(saver, config()) == large

    def test_what_another_program_wrote_or_deleted_is_named(
        self, kv_store: CountingStore, saver: KvworkerSaver
    ) -> None:
        put(saver, config(), {"a": 1})
        (key,) = [entry.key for entry in kv_store.list_keys("checkpoints:7", prefix="value/").entries]
        kv_store.set("checkpoints:7", key, "foreign")
        with pytest.raises(InvalidRequestError, match="not written by a LangGraph checkpointer"):
            saver.get_tuple(config())
        kv_store.delete("checkpoints:7", key)
        with pytest.raises(IncompleteCheckpointError, match="lacks values"):
            saver.get_tuple(config())
        kv_store.set("checkpoints:7", "head/", 1)
        with pytest.raises(InvalidRequestError, match="not written by a LangGraph checkpointer"):
            saver.get_tuple(config())


class TestTTL:
    @staticmethod
    def _lives_on(kv_store: CountingStore, seconds: float) -> bool:
        entries = kv_store.list_keys("checkpoints:7").entries
        return all(entry.ttl_seconds and entry.ttl_seconds > seconds for entry in entries if entry.key != "renewal")

    def test_every_put_renews_the_whole_thread(self, kv_store: CountingStore) -> None:
        saver = KvworkerSaver(kv_store, ttl_seconds=100)
        base = put(saver, config(), {"a": 1})
        saver.put_writes(base, [("a", 1)], "t")
        for entry in kv_store.list_keys("checkpoints:7").entries:
            kv_store.touch("checkpoints:7", entry.key, 60)
        kv_store.delete("checkpoints:7", "renewal")
        kv_store.sent.clear()
        # Another process does not know when the thread was renewed.
        base = put(KvworkerSaver(kv_store, ttl_seconds=100), base, {"a": 2})
        assert self._lives_on(kv_store, 95)
        kv_store.sent.clear()
        base = put(saver, base, {"a": 3})
        assert kv_store.sent == ["kv_batch"]
        # A longer TTL holds for the whole thread at once, and none for ever.
        base = put(KvworkerSaver(kv_store, ttl_seconds=1000), base, {"a": 4})
        assert self._lives_on(kv_store, 995)
        lasting = KvworkerSaver(kv_store)
        put(lasting, got(lasting, config()).config, {"a": 5})
        entries = kv_store.list_keys("checkpoints:7").entries
        assert [entry.ttl_seconds for entry in entries if entry.key != "renewal"] == [None] * (len(entries) - 1)

    def test_a_thread_expires_as_a_whole_and_can_begin_again(self, kv_store: CountingStore) -> None:
        saver = KvworkerSaver(kv_store, ttl_seconds=100)
        base = put(saver, put(saver, config(), {"a": 1}), {"b": 1})
        running = got(saver, config())
        kv_store.delete("checkpoints:7", "thread")  # as if 100 seconds had passed
        for each in (saver, KvworkerSaver(kv_store), KvworkerSaver(kv_store, ttl_seconds=5)):
            assert each.get_tuple(config()) is None
            assert each.get_tuple(base) is None
            assert list(each.list(config())) == list(each.list(None)) == []
            each.prune(["7"])
            each.copy_thread("7", "8")
            assert each.get_tuple(config("8")) is None
        with pytest.raises(StaleWriterError, match="it was deleted or has expired"):
            put(KvworkerSaver(kv_store, ttl_seconds=100), running.config, {"a": 2})
        for lasting in (KvworkerSaver(kv_store, ttl_seconds=100), KvworkerSaver(kv_store)):
            assert lasting.get_tuple(config()) is None
            put(lasting, config(), {"c": 1})
            assert [each.checkpoint["channel_values"] for each in lasting.list(config())] == [{"c": 1}]
            kv_store.delete("checkpoints:7", "thread")

    def test_it_expires_by_itself(self, kv_store: CountingStore) -> None:
        saver = KvworkerSaver(kv_store, ttl_seconds=0.2)
        put(saver, config(), {"a": 1})
        wait_until(lambda: saver.get_tuple(config()) is None)
        wait_until(lambda: kv_store.list_keys("checkpoints:7").entries == ())

    @pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf"), True, "5"])
    def test_an_invalid_ttl_is_refused(self, kv_store: CountingStore, seconds: Any) -> None:
        with pytest.raises(InvalidTTLError, match="ttl_seconds"):
            KvworkerSaver(kv_store, ttl_seconds=seconds)


class _Reversing(CipherProtocol):
    def encrypt(self, plaintext: bytes) -> tuple[str, bytes]:
        return "reversed", plaintext[::-1]

    def decrypt(self, ciphername: str, ciphertext: bytes) -> bytes:
        assert ciphername == "reversed"
        return ciphertext[::-1]


def test_a_serializer_that_encrypts(kv_store: CountingStore) -> None:
    saver = KvworkerSaver(kv_store, serde=EncryptedSerializer(_Reversing()))
    base = put(saver, config(), {"a": uuid4()})
    saver.put_writes(base, [("a", {1, 2})], "t")
    assert values(saver, config()).keys() == {"a"}
    for entry in kv_store.list_keys("checkpoints:7", include_values=True).entries:
        assert entry.key in ("thread", "head/") or "reversed" in str(entry.value)


def test_a_synchronous_call_over_an_asynchronous_store_does_not_block_the_loop() -> None:
    saver = KvworkerSaver(AsyncKeyValueStore(Settings.from_mapping(_IN_MEMORY)))

    async def call() -> None:
        saver.get_tuple(config())

    with pytest.raises(asyncio.InvalidStateError, match="ainvoke"):
        asyncio.run(call())
