"""Arguments of commands that are JSON."""

from __future__ import annotations

import json
import sys
from typing import Any

from kvworker.errors import ValueSerializationError


def parse_json(text: str, name: str) -> Any:
    """Parse an argument, or standard input if it is ``-``.

    Args:
        text: The argument.
        name: Its name in the command's help.

    Raises:
        ValueSerializationError: The text is not JSON.
    """
    try:
        return json.loads(sys.stdin.buffer.read() if text == "-" else text)
    except (ValueError, RecursionError) as error:
        reason = getattr(error, "msg", None) or str(error) or type(error).__name__
        raise ValueSerializationError(
            f"""{name} is not JSON: {reason}. Quote it for the shell: a string is '"text"', an object '{{"a": 1}}'"""
        ) from None
