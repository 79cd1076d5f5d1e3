"""The stored form of checkpoints, channel values and pending writes: JSON, with LangGraph's bytes in base64."""

from __future__ import annotations

import binascii
from base64 import b64decode, b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from langgraph.checkpoint.base import Checkpoint, CheckpointMetadata
from langgraph.checkpoint.serde.base import SerializerProtocol

from kvworker.errors import InvalidRequestError, KVStoreError


class IncompleteCheckpointError(KVStoreError):
    """Values of a checkpoint are missing. Another program deleted them, or lets them expire."""


@dataclass(frozen=True, slots=True)
class Codec:
    """Encodes what LangGraph stores by its serializer, which may encrypt it.

    Raises:
        InvalidRequestError: Another program wrote the stored value.
    """

    serializer: SerializerProtocol

    def encode(self, value: Any) -> list[str]:
        """Return the serializer's name of the type, and its bytes in base64."""
        kind, data = self.serializer.dumps_typed(value)
        return [kind, b64encode(data).decode("ascii")]

    def decode(self, stored: Any) -> Any:
        """Return the value that ``encode`` was given."""
        try:
            kind, text = stored
            data = b64decode(text, validate=True)
        except (TypeError, ValueError, binascii.Error):
            raise _foreign() from None
        return self.serializer.loads_typed((kind, data))


@dataclass(frozen=True, slots=True)
class StoredCheckpoint:
    """A checkpoint as the store holds it. ``values`` has the version of each channel that has a value."""

    checkpoint: Any
    metadata: Any
    parent_id: str | None
    run_id: str | None
    values: Mapping[str, str]

    @classmethod
    def put(
        cls, codec: Codec, checkpoint: Checkpoint, metadata: CheckpointMetadata, parent_id: str | None
    ) -> StoredCheckpoint:
        """Encode a checkpoint without the values of its channels."""
        versions, values = checkpoint["channel_versions"], checkpoint["channel_values"]
        run_id = metadata.get("run_id")
        return cls(
            codec.encode({name: part for name, part in checkpoint.items() if name != "channel_values"}),
            codec.encode(metadata),
            parent_id,
            run_id if isinstance(run_id, str) else None,
            {channel: str(version) for channel, version in versions.items() if channel in values},
        )

    @classmethod
    def from_json(cls, stored: Any) -> StoredCheckpoint:
        """Rebuild it from its stored value.

        Raises:
            InvalidRequestError: Another program wrote the value.
        """
        try:
            return cls(
                stored["checkpoint"],
                stored["metadata"],
                stored["parent_id"],
                stored["run_id"],
                dict(stored["values"]),
            )
        except (KeyError, TypeError, ValueError):
            raise _foreign() from None

    def to_json(self) -> dict[str, Any]:
        """Return the value to store."""
        return {
            "checkpoint": self.checkpoint,
            "metadata": self.metadata,
            "parent_id": self.parent_id,
            "run_id": self.run_id,
            "values": dict(self.values),
        }


@dataclass(frozen=True, slots=True)
class StoredWrite:
    """A pending write as the store holds it. Its key has its task and its index."""

    channel: str
    value: Any
    task_path: str

    @classmethod
    def from_json(cls, stored: Any) -> StoredWrite:
        """Rebuild it from its stored value.

        Raises:
            InvalidRequestError: Another program wrote the value.
        """
        try:
            return cls(stored["channel"], stored["value"], stored["task_path"])
        except (KeyError, TypeError):
            raise _foreign() from None

    def to_json(self) -> dict[str, Any]:
        """Return the value to store."""
        return {"channel": self.channel, "value": self.value, "task_path": self.task_path}


def head_id(value: Any) -> str:
    """Return the latest checkpoint's id from the value of a head entry.

    Raises:
        InvalidRequestError: Another program wrote the value.
    """
    try:
        return str(value["checkpoint_id"])
    except (KeyError, TypeError):
        raise _foreign() from None


def _foreign() -> InvalidRequestError:
    return InvalidRequestError(
        "an entry of the thread was not written by a LangGraph checkpointer: use a prefix that no other program uses"
    )
