"""The JSON lines of an export and an import.

A line is an entry, ``{"namespace": …, "key": …, "value": …, "ttl_seconds": …}``, or the own quota of a namespace,
``{"namespace": …, "quota_bytes": …}``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import IO, Any

from kvworker.errors import InvalidRequestError
from kvworker.model import GetResult, LedgerUsage, escaped_json
from kvworker.tools import check_arguments, find_tool
from kvworker.wording import did_you_mean

_CHUNK_BYTES = 1 << 20
_NOT_LINES = {
    b"\x1f\x8b": "it is compressed; unpack it first: `gunzip -c FILE | kvworker import -`",
    b"\xff\xfe": "it is UTF-16; convert it to UTF-8 first",
    b"\xfe\xff": "it is UTF-16; convert it to UTF-8 first",
}
_FIELDS = ("namespace", "key", "value", "ttl_seconds")
_QUOTA_FIELDS = ("namespace", "quota_bytes")


def parse_line(line: bytes, max_bytes: int) -> dict[str, Any]:
    """Parse a line into the arguments of ``kv_set``, or of ``kv_set_quota`` if it has ``quota_bytes``.

    Raises:
        InvalidRequestError: The line is not a JSON object with these fields, or has more than ``max_bytes``.
    """
    if len(line) > max_bytes:
        raise InvalidRequestError(f"the line has more than {max_bytes} bytes, which is queue.max_message_bytes")
    try:
        data = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InvalidRequestError(f"not JSON: {getattr(error, 'msg', None) or error}") from None
    if not isinstance(data, dict):
        raise InvalidRequestError(f"a line must be an object, not a {type(data).__name__}")
    is_quota = "quota_bytes" in data
    fields = _QUOTA_FIELDS if is_quota else _FIELDS
    if unknown := [name for name in data if name not in fields]:
        hint = f"{did_you_mean(unknown[0], fields)} the fields are {', '.join(fields)}".lstrip()
        raise InvalidRequestError(f"unknown field {unknown[0]!r}; {hint}")
    return check_arguments(find_tool("kv_set_quota" if is_quota else "kv_set"), data)


def read_lines(file: IO[bytes], max_bytes: int) -> Iterator[bytes]:
    """Yield the lines of a file from its start. Several of these can read the same file.

    Args:
        file: The file, which can seek.
        max_bytes: A longer line is cut, so that memory holds no more, and is ``max_bytes + 1`` bytes long then.
    """
    position = 0
    while True:
        file.seek(position)
        line = file.readline(max_bytes + 1)
        if not line:
            return
        if len(line) > max_bytes:
            while (rest := file.readline(_CHUNK_BYTES)) and not rest.endswith(b"\n"):
                pass
            position = file.tell()
        else:
            position += len(line)
        yield line


def check_is_text(file: IO[bytes]) -> None:
    """Check that a file may hold lines, by its first bytes.

    Raises:
        InvalidRequestError: It is compressed, or in another encoding.
    """
    file.seek(0)
    head = file.read(2)
    file.seek(0)
    if head in _NOT_LINES:
        raise InvalidRequestError(f"the file holds no JSON lines: {_NOT_LINES[head]}")


def superseded_lines(lines: Iterable[bytes], max_bytes: int) -> frozenset[int]:
    """Return the numbers of the lines whose key a later line writes again, counted from 1.

    Lines that ``parse_line`` refuses write nothing.
    """
    last: dict[int, int] = {}
    superseded = set()
    for number, line in enumerate(lines, start=1):
        try:
            arguments = parse_line(line, max_bytes)
        except InvalidRequestError:
            continue
        if "quota_bytes" in arguments:
            continue
        name = hash((arguments["namespace"], arguments["key"]))
        if name in last:
            superseded.add(last[name])
        last[name] = number
    return frozenset(superseded)


def format_line(entry: GetResult) -> str:
    """Format an entry as a line, with its newline."""
    data = {"namespace": entry.namespace, "key": entry.key, "value": entry.value}
    if entry.ttl_seconds is not None:
        data["ttl_seconds"] = entry.ttl_seconds
    return _dump(data)


def format_quota(namespace: str, quota_bytes: int) -> str:
    """Format a namespace's own quota as a line, with its newline."""
    return _dump({"namespace": namespace, "quota_bytes": quota_bytes})


def quotas_around_entries(
    quotas: Mapping[str, int], usages: Iterable[LedgerUsage]
) -> tuple[dict[str, int], dict[str, int]]:
    """Return the own quotas to write before the entries, and those to write after them, by namespace.

    A quota may be below what its namespace holds. An import then needs room for all of that before the quota applies.
    """
    used = {usage.namespace: usage.used_bytes for usage in usages}
    too_low = {name: quota_bytes for name, quota_bytes in quotas.items() if quota_bytes < used.get(name, 0)}
    return {**quotas, **{name: used[name] for name in too_low}}, too_low


def content_id(file: IO[bytes]) -> str:
    """Compute an id of a file's content from its current position on, and restore that position."""
    start = file.tell()
    digest = hashlib.sha256()
    while chunk := file.read(_CHUNK_BYTES):
        digest.update(chunk)
    file.seek(start)
    return digest.hexdigest()[:32]


def _dump(data: dict[str, Any]) -> str:
    return escaped_json(json.dumps(data, ensure_ascii=False, separators=(",", ":"))) + "\n"
