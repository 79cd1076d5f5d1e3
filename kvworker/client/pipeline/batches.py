"""The operations of a pipeline, grouped into batches that may be sent. Pure.

The batches of a namespace are sent one after the other, since of two that are under way at once either may be applied
first. A batch only reads or only writes: what a batch reads beside its writes is part of its record, so a few
kilobytes of values would refuse the writes with it. And reads alone change nothing, so that one which is too large
may be halved and sent again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, Final, Generic, TypeVar, cast

from kvworker.errors import InvalidRequestError, KVStoreError
from kvworker.model import MAX_BATCH_STEPS, MAX_READ_BYTES
from kvworker.tools import Tool

#: Of the keys and values of a group, so that neither its message nor the answer is larger than one that reads.
MAX_GROUP_BYTES: Final = MAX_READ_BYTES

_Result = TypeVar("_Result")


class PipelinedResult(Generic[_Result]):
    """An operation of a pipeline, which has its result, or its error, once the pipeline was flushed."""

    __slots__ = ("arguments", "is_told", "outcome", "tool")

    def __init__(self, tool: Tool, arguments: Mapping[str, Any]) -> None:
        self.tool = tool
        self.arguments = arguments
        self.outcome: object = None
        #: Whether the caller has met its error.
        self.is_told = False

    def result(self) -> _Result:
        """The operation's result, as the facade's method of the same name gives it. It never waits.

        Raises:
            InvalidRequestError: there is none yet, because its pipeline was not flushed.
            OperationNotSentError: it was never sent, so it was not applied.
            KVStoreError: whatever that method raises. An ``operation_id`` in it is the pipeline's ``idempotency_key``.
        """
        if self.outcome is None:
            raise InvalidRequestError(
                f"this {self.tool.name} has no result yet: it comes by flush(), or at the end of the with block"
            )
        if isinstance(self.outcome, KVStoreError):
            self.is_told = True
            raise self.outcome
        return cast(_Result, self.outcome)

    @property
    def step(self) -> dict[str, Any]:
        """The operation as one of a batch."""
        step = {"tool": self.tool.name, **self.arguments}
        del step["namespace"]
        return step


class Batch:
    """Operations of one namespace that one message takes."""

    def __init__(self, namespace: str, handles: Sequence[PipelinedResult[Any]], name: str | None) -> None:
        self.namespace = namespace
        self.handles = handles
        #: What tells its operation id from that of the pipeline's other batches; None: it only reads.
        self.name = name

    def call(self, idempotency_key: str) -> tuple[str, dict[str, Any]]:
        """The tool and the arguments that do it; a lone read is no batch, since its value may be of any size."""
        if self.name is None and len(self.handles) == 1:
            return self.handles[0].tool.name, dict(self.handles[0].arguments)
        arguments = {
            "namespace": self.namespace,
            "operations": [handle.step for handle in self.handles],
            "atomic": False,
            "idempotency_key": None if self.name is None else f"{idempotency_key}{self.name}",
        }
        return "kv_batch", arguments

    def halves(self) -> list[Batch]:
        """The batch as two, if it only reads and can be halved."""
        middle = len(self.handles) // 2
        if self.name is not None or middle == 0:
            return []
        return [Batch(self.namespace, part, None) for part in (self.handles[:middle], self.handles[middle:])]


class Group:
    """What a pipeline has for one namespace: what is collected, and the batches that wait to be sent.

    The collected are on stages, which are sent one after the other: those of even number read, those of odd number
    write. Writes keep their order. A read stands as early as the writes of its own key before it let it, so that it
    sees these and none that come after it, and all reads of other keys share one message.
    """

    def __init__(self, namespace: str) -> None:
        self.namespace = namespace
        self.waiting: deque[Batch] = deque()
        #: Why nothing more is sent.
        self.failure: KVStoreError | None = None
        self._batches_written = 0
        self._clear()

    def add(self, handle: PipelinedResult[Any], size_bytes: int) -> None:
        """Collect an operation, and close what is collected before it, or with it, if that is all a message takes."""
        if self._count and self._bytes + size_bytes > MAX_GROUP_BYTES:
            self.close()
        key = handle.arguments["key"]
        stage = self._stage_of_write(key) if handle.tool.writes else self._stage_of_read(key)
        self._stages.setdefault(stage, []).append(handle)
        self._count += 1
        self._bytes += size_bytes
        if self._count == MAX_BATCH_STEPS:
            self.close()

    def close(self) -> None:
        """Make batches of what is collected: by the operations alone, so that they come out the same when repeated."""
        for stage, handles in sorted(self._stages.items()):
            self.waiting.append(Batch(self.namespace, handles, self._next_name() if stage % 2 else None))
        self._clear()

    def take_waiting(self) -> list[PipelinedResult[Any]]:
        """All that is not sent, which then is no longer to be."""
        self.close()
        handles = [handle for batch in self.waiting for handle in batch.handles]
        self.waiting.clear()
        return handles

    def _clear(self) -> None:
        self._stages: dict[int, list[PipelinedResult[Any]]] = {}
        self._read: dict[str, int] = {}
        self._written: dict[str, int] = {}
        self._writing = 1
        self._count = self._bytes = 0

    def _stage_of_read(self, key: str) -> int:
        stage = self._written.get(key, -1) + 1
        self._read[key] = stage
        return stage

    def _stage_of_write(self, key: str) -> int:
        self._writing = max(self._writing, self._read.get(key, 0) + 1)
        self._written[key] = self._writing
        return self._writing

    def _next_name(self) -> str:
        self._batches_written += 1
        return f"#{self._batches_written}"
