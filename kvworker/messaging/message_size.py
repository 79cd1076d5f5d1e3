"""The bound on a message's size, as a caller checks it before it sends. A worker drops a larger message unread."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from kombu.utils.json import dumps

from kvworker.errors import InvalidRequestError
from kvworker.model import EncodedValue

#: The most bytes of a message for one character of a value: JSON escapes it in 12, and base64 adds a third.
_MAX_BYTES_PER_CHARACTER: Final = 16
#: The most bytes of a message for everything but values in a call or in an operation of a batch. Keys are the most.
_MAX_OTHER_BYTES: Final = 16 * 1024


def check_message_size(arguments: Mapping[str, Any], payload: Mapping[str, Any], max_bytes: int) -> None:
    """Check that workers accept the message of a call. Only one that may be too large is encoded to measure it.

    Args:
        arguments: The tool's arguments, checked.
        payload: The message's payload.
        max_bytes: The largest message that workers accept.

    Raises:
        InvalidRequestError: The message is larger.
    """
    if _most_bytes(arguments) <= max_bytes:
        return
    size = _MAX_OTHER_BYTES + len(dumps(payload)) * 4 // 3
    if size > max_bytes:
        raise InvalidRequestError(
            f"the message would have {size} bytes, more than queue.max_message_bytes ({max_bytes});"
            " send smaller values, or fewer operations at a time"
        )


def _most_bytes(arguments: Mapping[str, Any]) -> int:
    operations = arguments.get("operations", ())
    characters = sum(
        len(argument.text)
        for each in (arguments, *operations)
        for argument in each.values()
        if isinstance(argument, EncodedValue)
    )
    return characters * _MAX_BYTES_PER_CHARACTER + (1 + len(operations)) * _MAX_OTHER_BYTES
