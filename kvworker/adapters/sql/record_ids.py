"""Short digests that a record keeps instead of an operation id and a request.

An id takes 9 bytes. The last 8 are a digest of the whole operation id. The first is one of the operation id's stem, its
beginning. Ids that are made at about the same time share a stem: those of a caller's process, which count up, and those
that begin with the time, as UUIDv7s do. So the index is written in few places at a time.

Two different operation ids of a namespace that share a stem get the same id with a probability of 2**-64, and others
with 2**-72. With 1000 writes a second in one namespace, 65,536 of which share a stem, that happens once in 12,000 years
among records that are kept for an hour, and once in 1,500 years among those that are kept for a day. Even then the
second operation is refused as a conflict, and is not taken for the first one, unless the digests of their requests are
the same too (2**-32).
"""

from __future__ import annotations

import math
from functools import lru_cache
from hashlib import sha256

#: The length of a record's id.
ID_BYTES = 9
#: A process's ids count up in hexadecimal digits at their end.
_COUNTING_DIGITS = 4
_UUID_LENGTH = 36
#: The first digits of a UUIDv7 change about once a minute.
_UUID_STEM_LENGTH = 8
_MAX_KEPT_SECONDS = 32_767
_LONG_UNIT_SECONDS = 14_400
_MAX_AHEAD_SECONDS = 60.0


def record_id(operation_id: str) -> bytes:
    """Return the id of the record of an operation id."""
    is_uuid7 = len(operation_id) == _UUID_LENGTH and operation_id[14] == "7"
    stem = operation_id[:_UUID_STEM_LENGTH] if is_uuid7 else operation_id[:-_COUNTING_DIGITS]
    return _stem_digest(stem) + sha256(operation_id.encode()).digest()[:8]


def request_digest(operation_id: str, fingerprint: str) -> int:
    """Return the digest of an operation id and its request, a signed 32-bit integer."""
    digest = sha256(f"{operation_id} {fingerprint}".encode()).digest()
    return int.from_bytes(digest[:4], signed=True)


def kept_code(seconds: float) -> int:
    """Return for how long a record is kept: seconds, or if that does not fit 16 bits, -1 for each 4 hours."""
    whole = math.ceil(seconds)
    return whole if whole <= _MAX_KEPT_SECONDS else -math.ceil(whole / _LONG_UNIT_SECONDS)


def is_ahead(version: int, now: float) -> bool:
    """Return whether a version is ahead of the clock, so that it is no instant for a record to expire after.

    Where the clock was ahead once, the versions of the entries that were written stay ahead.
    """
    return version > (now + _MAX_AHEAD_SECONDS) * 1_000_000


@lru_cache(maxsize=1024)
def _stem_digest(stem: str) -> bytes:
    return sha256(stem.encode()).digest()[:1]
