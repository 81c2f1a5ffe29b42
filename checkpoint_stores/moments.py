"""Times that are to come, in microseconds since the epoch, as rows and tables hold them.  Pure."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

MICROSECOND: Final = timedelta(microseconds=1)

LAST: Final = (datetime.max.replace(tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)) // MICROSECOND
"""The last microsecond that a calendar has; a database has no room for many more, and no datetime can show them."""


def later(now: int, span: timedelta | int) -> int:
    """When ``span`` (an int is microseconds) is over; what reaches beyond every calendar (``timedelta.max``) ends with the last one.

    Not before the epoch, either.

    >>> later(5, timedelta(seconds=1)), later(5, timedelta.max) == LAST, later(5, timedelta.min)
    (1000005, True, 0)
    """
    return max(0, min(now + (span // MICROSECOND if isinstance(span, timedelta) else span), LAST))
