"""When a failed node is tried again.  Pure: time and chance come in as arguments."""

from __future__ import annotations

import hashlib

from engine.ahead import LATEST
from engine.plan import Retry

_SECOND = 1_000_000


def retry_due(policy: Retry | None, error: BaseException, failed: int, now: int, key: str) -> int | None:
    """When to try again (microseconds), or None to give up.

    ``failed`` counts attempts that failed, this one included, from 1.  The jitter is drawn from ``key`` (the step's
    idempotency key) and ``failed``, so that the same failure always gets the same answer.

    >>> from datetime import timedelta
    >>> retry_due(Retry(attempts=2, first=timedelta(seconds=1), jitter=0.0), ValueError(), 1, 0, "k")
    1000000
    >>> retry_due(Retry(attempts=2), ValueError(), 2, 0, "k") is None
    True
    """
    if policy is None or failed >= policy.attempts or not isinstance(error, policy.on):
        return None
    try:
        wait = min(policy.first.total_seconds() * float(policy.factor) ** (failed - 1), policy.longest.total_seconds())
    except OverflowError:  # after so many failures no number is large enough
        wait = policy.longest.total_seconds() if policy.first else 0.0
    wait *= 1.0 - policy.jitter * chance(key, failed)
    return min(now + int(wait * _SECOND), LATEST)


def chance(key: str, failed: int) -> float:
    """A number in [0, 1) that depends on its arguments alone."""
    return int.from_bytes(hashlib.sha256(f"{key}\0{failed}".encode()).digest()[:8]) / 2**64
