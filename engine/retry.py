"""When a failed node is tried again.  Pure: time and chance come in as arguments."""

from __future__ import annotations

import hashlib
from math import inf

from checkpoint_stores.moments import later
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
    wait = min(_grown(policy, failed), policy.longest.total_seconds())
    wait *= 1.0 - policy.jitter * chance(key, failed)
    return later(now, int(wait * _SECOND))


def _grown(policy: Retry, failed: int) -> float:
    first = policy.first.total_seconds()
    try:
        return first * policy.factor ** (failed - 1)
    except OverflowError:  # the thousandth failure of a node that is tried for ever
        return inf if first else 0.0


def chance(key: str, failed: int) -> float:
    """A number in [0, 1) that depends on its arguments alone."""
    return int.from_bytes(hashlib.sha256(f"{key}\0{failed}".encode()).digest()[:8]) / 2**64
