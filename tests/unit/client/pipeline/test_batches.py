"""The batches that a pipeline's operations become."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from kvworker import PipelinedResult
from kvworker.client.pipeline.batches import NamespaceBatches
from kvworker.tools import find_tool


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.booleans()), max_size=60))
def test_batches_keep_the_order_of_writes_and_of_each_key(work: list[tuple[str, bool]]) -> None:
    """Writes keep their order, and so do a read and the writes of its key. A batch only reads or only writes."""
    namespace = NamespaceBatches("n")
    handles: list[PipelinedResult[Any]] = []
    for key, is_write in work:
        handle: PipelinedResult[Any] = PipelinedResult(
            find_tool("kv_increment" if is_write else "kv_get"), {"namespace": "n", "key": key}
        )
        handles.append(handle)
        namespace.add(handle, 1)
    namespace.make_batches()
    for batch in namespace.ready:
        assert {handle.tool.writes for handle in batch.handles} == {batch.name is not None}
    sent = [handle for batch in namespace.ready for handle in batch.handles]
    assert sorted(map(id, sent)) == sorted(map(id, handles))
    place = {id(handle): index for index, handle in enumerate(sent)}
    for index, one in enumerate(handles):
        for later in handles[index + 1 :]:
            same_key = one.arguments["key"] == later.arguments["key"]
            if (one.tool.writes and later.tool.writes) or (same_key and one.tool.writes != later.tool.writes):
                assert place[id(one)] < place[id(later)]
