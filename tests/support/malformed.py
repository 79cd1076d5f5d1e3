"""Puts handmade messages into a queue, without a client."""

from __future__ import annotations

import base64
import json
from typing import Any

from redis import Redis

#: The body of a valid ``kv_set`` message.
VALID_BODY: list[Any] = [[], {"namespace": "n", "key": "k", "value": "the-secret"}, {}]


def push(client: Redis, changes: dict[str, Any]) -> None:
    """Push a ``kv_set`` message that is valid except for the given headers, body and content type."""
    headers = {"task": "kvworker.kv_set", "id": "by-hand", "lang": "py", **changes.get("headers", {})}
    message = {
        "body": base64.b64encode(changes.get("body", json.dumps(VALID_BODY).encode())).decode(),
        "content-type": changes.get("content-type", "application/json"),
        "content-encoding": "utf-8",
        "headers": headers,
        "properties": {
            "body_encoding": "base64",
            "delivery_tag": "by-hand",
            "delivery_info": {"exchange": "", "routing_key": "kv"},
        },
    }
    client.lpush("kv", json.dumps(message))
