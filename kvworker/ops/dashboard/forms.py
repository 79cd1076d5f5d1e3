"""Reads the fields of a form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final
from urllib.parse import parse_qsl

from starlette.requests import ClientDisconnect, Request

#: A name has at most 1024 bytes, each of which a form sends as three.
_MOST_BYTES: Final = 16_384


class FormError(Exception):
    """A form is not one of ours, or too large."""


async def read_form(request: Request) -> Mapping[str, str]:
    """Read the fields of a form.

    Raises:
        FormError: It is too large or not readable.
    """
    body = b""
    try:
        async for part in request.stream():
            body += part
            if len(body) > _MOST_BYTES:
                raise FormError("the form is too large")
    except ClientDisconnect:
        # There is no one to read the answer. An exception would be logged with a traceback.
        raise FormError("the form did not arrive") from None
    try:
        return dict(parse_qsl(body.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=20))
    except ValueError:
        raise FormError("the form cannot be read") from None
