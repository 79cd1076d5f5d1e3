"""Namespaces, keys and operation ids: their limits, their checks, and fresh operation ids."""

from __future__ import annotations

import os
import time

from kvworker.errors import InvalidKeyError, InvalidRequestError
from kvworker.model.quoting import shown_argument

MAX_NAMESPACE_BYTES = 255
MAX_KEY_BYTES = 1024
MAX_OPERATION_ID_BYTES = 255
MAX_HOLDER_BYTES = 255


def check_namespace(namespace: object) -> str:
    """Return the namespace exactly as given.

    Raises:
        InvalidKeyError: It is blank, not a string, not UTF-8, holds a NUL or is over 255 UTF-8 bytes.
    """
    return _check_name("namespace", namespace, MAX_NAMESPACE_BYTES)


def check_key(key: object) -> str:
    """Return the key exactly as given.

    Raises:
        InvalidKeyError: It is blank, not a string, not UTF-8, holds a NUL or is over 1024 UTF-8 bytes.
    """
    return _check_name("key", key, MAX_KEY_BYTES)


def check_operation_id(operation_id: object) -> str:
    """Return the operation id exactly as given.

    Raises:
        InvalidRequestError: It is not a non-blank string of at most 255 UTF-8 bytes without NUL.
    """
    try:
        return _check_name("idempotency_key", operation_id, MAX_OPERATION_ID_BYTES)
    except InvalidKeyError as error:
        raise InvalidRequestError(*error.args) from None


def check_holder(holder: object) -> str:
    """Return the name of a permit's holder exactly as given.

    Raises:
        InvalidRequestError: It is not a non-blank string of at most 255 UTF-8 bytes without NUL.
    """
    try:
        return _check_name("holder", holder, MAX_HOLDER_BYTES)
    except InvalidKeyError as error:
        raise InvalidRequestError(*error.args) from None


def check_cursor(cursor: object) -> str | None:
    """Return the cursor of a page, which is the last name of the previous page. None is the first page.

    Raises:
        InvalidRequestError: It is not a name.
    """
    return None if cursor is None else _check_name("cursor", cursor, MAX_KEY_BYTES)


def check_prefix(name: str, prefix: object, max_bytes: int) -> str:
    """Return a prefix of names exactly as given. The empty prefix matches every name.

    Args:
        name: The argument's name, for the error message.
        prefix: The prefix to check.
        max_bytes: The longest allowed prefix, in UTF-8 bytes.

    Raises:
        InvalidKeyError: It is not a string, not UTF-8, holds a NUL or is too long.
    """
    return _check_text(name, prefix, max_bytes)


class GeneratedOperationId(str):
    """An operation id that no caller chose.

    Its record only has to outlive redeliveries of the message and the caller's next attempt, so it is kept for a
    shorter time.
    """

    __slots__ = ()


def new_operation_id() -> GeneratedOperationId:
    """Return a fresh UUIDv7. Its ids are ordered by time, so consecutive ids share index pages."""
    milliseconds = (time.time_ns() // 1_000_000) & 0xFFFF_FFFF_FFFF
    random_bits = int.from_bytes(os.urandom(10)) & ~((0xF << 76) | (3 << 62))
    version_and_variant = (7 << 76) | (2 << 62)
    digits = f"{(milliseconds << 80) | version_and_variant | random_bits:032x}"
    return GeneratedOperationId(f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}")


def _check_name(argument: str, name: object, max_bytes: int) -> str:
    text = _check_text(argument, name, max_bytes)
    if not text or text.isspace():
        raise InvalidKeyError(f"{argument} must not be blank")
    return text


def _check_text(argument: str, text: object, max_bytes: int) -> str:
    if not isinstance(text, str):
        raise InvalidKeyError(f"{argument} must be a string, not {shown_argument(text)}")
    if "\x00" in text:
        raise InvalidKeyError(f"{argument} must not hold a NUL character")
    try:
        size = len(text.encode("utf-8"))
    except UnicodeEncodeError:
        raise InvalidKeyError(f"{argument} holds a lone surrogate, which UTF-8 cannot hold") from None
    if size > max_bytes:
        raise InvalidKeyError(f"{argument} is {size} bytes of UTF-8; at most {max_bytes} are allowed")
    return str(text)
