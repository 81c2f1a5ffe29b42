"""Times that lie ahead, as far as anybody can write them down.  Pure; knows no clock."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

LATEST: Final = 253_402_300_799_999_999
"""The last microsecond of the year 9999: no calendar of Python's names a later one, and a database's integers end soon after."""

_MICROSECOND: Final = timedelta(microseconds=1)


def ahead(now: int, span: timedelta) -> int:
    """When ``span`` will have passed since ``now`` (microseconds since the epoch): at most `LATEST`, and not before the epoch.

    >>> ahead(5, timedelta(seconds=1)), ahead(5, timedelta.max) == LATEST, ahead(5, timedelta.min)
    (1000005, True, 0)
    """
    return max(0, min(now + span // _MICROSECOND, LATEST))
