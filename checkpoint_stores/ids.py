"""Names that sort by time: UUIDv7, and the readable name of this process.

Knows no database.  The clock's value comes in as an argument; chance does not:
ids must differ even under a virtual clock.
"""

from __future__ import annotations

import os
import secrets
import socket
from typing import Final


def new_id(now: int) -> str:
    """Return a UUIDv7 in canonical text for the time ``now`` (microseconds since the epoch).

    >>> len(new_id(1_700_000_000_000_000)), new_id(0)[14]
    (36, '7')
    """
    millis, micros = divmod(now, 1000)
    chance = int.from_bytes(os.urandom(8))
    # The 12 bits beside the milliseconds hold the microseconds, so that ids made within one millisecond sort as well.
    high = (millis & 0xFFFF_FFFF_FFFF) << 16 | 0x7000 | micros << 2 | chance >> 62
    return dashed(f"{high:016x}{0b10 << 62 | chance & _LOW:016x}")


_LOW: Final = (1 << 62) - 1


def dashed(digits: str) -> str:
    """A UUID's 32 hexadecimal digits in canonical text."""
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def new_worker_id() -> str:
    """Return a name for this process that a person can read and no other process has: ``host:pid:random``."""
    return f"{_process_name()}:{secrets.token_hex(4)}"


def of_this_process(worker_id: str) -> bool:
    """Whether `new_worker_id` made this name here.

    >>> of_this_process(new_worker_id()), of_this_process("elsewhere:1:00000000")
    (True, False)
    """
    return worker_id.rpartition(":")[0] == _process_name()


def _process_name() -> str:
    return f"{socket.gethostname()}:{os.getpid()}"
