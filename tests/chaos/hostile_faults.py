"""Faults of someone who reaches the broker: bytes that raise when they are decoded, and decompression bombs."""

from __future__ import annotations

import base64
import json
import zlib
from functools import cache
from pathlib import Path
from typing import Any

from tests.chaos.message_faults import INJECTED, queue_held
from tests.chaos.scenario import FaultContext
from tests.support.hostile import TAGS
from tests.support.processes import WorkerNode, wait_until

_BOMB_BYTES = 200_000_000
_MOST_GROWTH_KILOBYTES = 100_000

UNDECODABLE: tuple[bytes, ...] = (
    *(json.dumps({"__type__": tag, "__value__": [INJECTED]}).encode() for tag in TAGS),
    b"[" * 200_000,
    b'{"headers": ' + b"[" * 900 + b"]" * 900 + b"}",
    b"\xff",
)


def use_undecodable_bytes(context: FaultContext) -> None:
    """Write the same undecodable bytes to the queue, to workers' control channel and to the record of deliveries."""
    data = context.next_of(UNDECODABLE)
    tag = f"{INJECTED}-{context.next_number()}"
    with queue_held(context) as (client, items):
        client.lpush("kv", data)
        client.publish("/0.celery.pidbox", data)
        client.hset("kvworker.unacked", tag, data)
        client.zadd("kvworker.unacked_index", {tag: 1})
    with context.cluster.valkey.client() as client:
        wait_until(lambda: not client.hexists("kvworker.unacked", tag), what="the record being dropped")
        wait_until(lambda: client.llen("kv") < len(items), what="the queue being consumed")


@cache
def _bomb() -> str:
    return base64.b64encode(zlib.compress(b"[" + b" " * _BOMB_BYTES + b"]")).decode()


def use_decompression_bomb(context: FaultContext) -> None:
    """Queue messages that are small, and would be large once they are decoded."""
    before = {worker.name: _peak_kilobytes(worker) for worker in context.cluster.workers}
    hostile: dict[str, Any] = context.next_of(
        (
            {"content-type": "application/json", "content-encoding": "utf-8", "compression": "gzip"},
            {"content-type": "application/text", "content-encoding": "zlib", "compression": None},
        )
    )
    compression = hostile["compression"]
    kind = {name: value for name, value in hostile.items() if name != "compression"}
    body = _bomb()
    with queue_held(context) as (client, items):
        for item in items[: len(context.cluster.workers)]:
            message = {**json.loads(item), **kind, "body": body}
            message["headers"].update({"id": f"{INJECTED}-{message['headers']['id']}", "compression": compression})
            client.rpush("kv", json.dumps(message))
    with context.cluster.valkey.client() as client:
        wait_until(lambda: client.llen("kv") < len(items), what="the queue being consumed")
    for worker in context.cluster.workers:
        growth = _peak_kilobytes(worker) - before[worker.name]
        assert growth < _MOST_GROWTH_KILOBYTES, f"{worker.name} took {growth} KB to decode a message"


def _peak_kilobytes(worker: WorkerNode) -> int:
    """Return the most memory that a worker's main process has used (Linux only)."""
    status = Path(f"/proc/{worker.pid}/status")
    lines = status.read_text(encoding="ascii").splitlines() if status.exists() else []
    return next((int(line.split()[1]) for line in lines if line.startswith("VmHWM")), 0)
