"""Groups the operations of a pipeline into the batches that are sent as messages. Pure.

The batches of a namespace are sent one after the other: of two in flight, either could be applied first.

A batch either only reads or only writes, for two reasons. Values that a batch reads beside its writes become part of
its operation record, so a few kilobytes of them would get the writes refused. And a batch that only reads changes
nothing, so one whose answer would be too large can be split and sent again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, Final, Generic, TypeVar, cast

from kvworker.errors import InvalidRequestError, KVStoreError
from kvworker.model import MAX_BATCH_STEPS, MAX_READ_BYTES
from kvworker.tools import Tool

#: The most bytes of keys and values that are collected for a namespace. It keeps a message below the largest answer.
MAX_COLLECTED_BYTES: Final = MAX_READ_BYTES

_Result = TypeVar("_Result")


class PipelinedResult(Generic[_Result]):
    """The handle of a pipeline's operation. It has a result or an error once the pipeline was flushed."""

    __slots__ = ("arguments", "has_raised", "outcome", "tool")

    def __init__(self, tool: Tool, arguments: Mapping[str, Any]) -> None:
        self.tool = tool
        self.arguments = arguments
        self.outcome: object = None
        #: True once ``result`` has raised the operation's error, so that the caller knows it.
        self.has_raised = False

    def result(self) -> _Result:
        """Return what the facade's method of the same name returns. Never waits.

        Raises:
            InvalidRequestError: The pipeline was not flushed yet.
            OperationNotSentError: The operation was never sent, so it was not applied.
            KVStoreError: Any error that the facade's method raises. If it has an ``operation_id``, that is the
                pipeline's ``idempotency_key``.
        """
        if self.outcome is None:
            raise InvalidRequestError(
                f"this {self.tool.name} has no result yet: call flush(), or wait for the end of the with block"
            )
        if isinstance(self.outcome, KVStoreError):
            self.has_raised = True
            raise self.outcome
        return cast(_Result, self.outcome)

    @property
    def step(self) -> dict[str, Any]:
        """The operation as a step of a batch."""
        step = {"tool": self.tool.name, **self.arguments}
        del step["namespace"]
        return step


class Batch:
    """Operations of one namespace that are sent as one message.

    Args:
        namespace: The namespace of all operations.
        handles: The operations, in order.
        name: Distinguishes its operation id from those of the pipeline's other batches. None for a batch that only
            reads, which needs no operation id.
    """

    def __init__(self, namespace: str, handles: Sequence[PipelinedResult[Any]], name: str | None) -> None:
        self.namespace = namespace
        self.handles = handles
        self.name = name

    def as_call(self, idempotency_key: str) -> tuple[str, dict[str, Any]]:
        """Return the tool's name and the arguments that run this batch.

        A single read becomes a plain call, since a batch limits the size of the values that it reads.
        """
        if self.name is None and len(self.handles) == 1:
            return self.handles[0].tool.name, dict(self.handles[0].arguments)
        arguments = {
            "namespace": self.namespace,
            "operations": [handle.step for handle in self.handles],
            "atomic": False,
            "idempotency_key": None if self.name is None else f"{idempotency_key}{self.name}",
        }
        return "kv_batch", arguments

    def split(self) -> list[Batch]:
        """Return the halves of this batch. Empty if it writes or has only one operation."""
        middle = len(self.handles) // 2
        if self.name is not None or middle == 0:
            return []
        return [Batch(self.namespace, part, None) for part in (self.handles[:middle], self.handles[middle:])]


class NamespaceBatches:
    """A pipeline's operations in one namespace: those still collected, and the batches that are ready to be sent.

    Collected operations are on stages, which become batches in order: even stages read, odd stages write. Writes keep
    their order. A read goes to the earliest stage after the last write of its key, so it sees that write and no later
    one, and reads of other keys share its batch.
    """

    def __init__(self, namespace: str) -> None:
        self.namespace = namespace
        self.ready: deque[Batch] = deque()
        #: Why nothing more may be sent.
        self.failure: KVStoreError | None = None
        self._named_batches = 0
        self._start_collecting()

    def add(self, handle: PipelinedResult[Any], size_bytes: int) -> None:
        """Collect an operation. Make batches before it, or with it, when the limit of a message is reached."""
        if self._count and self._bytes + size_bytes > MAX_COLLECTED_BYTES:
            self.make_batches()
        key = handle.arguments["key"]
        stage = self._stage_of_write(key) if handle.tool.writes else self._stage_of_read(key)
        self._stages.setdefault(stage, []).append(handle)
        self._count += 1
        self._bytes += size_bytes
        if self._count == MAX_BATCH_STEPS:
            self.make_batches()

    def make_batches(self) -> None:
        """Make batches of the collected operations. A repeated pipeline gets the same batches with the same names."""
        for stage, handles in sorted(self._stages.items()):
            self.ready.append(Batch(self.namespace, handles, self._next_name() if stage % 2 else None))
        self._start_collecting()

    def pop_unsent(self) -> list[PipelinedResult[Any]]:
        """Remove and return every operation that was not sent."""
        self.make_batches()
        handles = [handle for batch in self.ready for handle in batch.handles]
        self.ready.clear()
        return handles

    def _start_collecting(self) -> None:
        self._stages: dict[int, list[PipelinedResult[Any]]] = {}
        #: The stages of each key's last read and last write.
        self._read_stages: dict[str, int] = {}
        self._write_stages: dict[str, int] = {}
        self._last_write_stage = 1
        self._count = self._bytes = 0

    def _stage_of_read(self, key: str) -> int:
        stage = self._write_stages.get(key, -1) + 1
        self._read_stages[key] = stage
        return stage

    def _stage_of_write(self, key: str) -> int:
        self._last_write_stage = max(self._last_write_stage, self._read_stages.get(key, 0) + 1)
        self._write_stages[key] = self._last_write_stage
        return self._last_write_stage

    def _next_name(self) -> str:
        self._named_batches += 1
        return f"#{self._named_batches}"
