"""Corrects the stamps of records that are ahead of the clock."""

from __future__ import annotations

from kvworker.adapters.sql.dialect import Dialect, DriverConnection
from kvworker.adapters.sql.record_ids import is_ahead, record_id
from kvworker.adapters.sql.write import Write


def correct_stamp(dialect: Dialect, connection: DriverConnection, write: Write, *, stamp: int, now: float) -> None:
    """Stamp a write's record by the clock if its stamp, the version that was written, is ahead of that.

    If the process dies before, the record is only kept for too long.
    """
    if is_ahead(stamp, now):
        names = {"namespace": write.namespace, "id": record_id(write.operation_id), "stamp": str(stamp)}
        dialect.run(connection, "stamp_by_clock", names)
