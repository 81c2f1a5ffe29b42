"""What a grant reaches: pure questions about one grant.

A grant is a right given in advance: an *allowance* decides tickets that are yet to open, a *delegation* lets somebody else decide.
Knows no decision, no database and no clock.
"""

from __future__ import annotations

import re
from functools import cache

from checkpoint_stores.records import Grant, RunRecord


def is_live(grant: Grant, now: int) -> bool:
    """Whether it can still be used: not revoked, not over, not used up."""
    if grant.revoked_at is not None or (grant.expires_at is not None and grant.expires_at <= now):
        return False
    return grant.uses is None or grant.used < grant.uses


def reaches_run(grant: Grant, run: RunRecord) -> bool:
    """Whether it is for this run, or for every run of its flow."""
    if grant.tenant != run.tenant:
        return False
    return grant.run_id == run.run_id if grant.run_id is not None else grant.flow == run.flow


def covers(grant: Grant, run: RunRecord, *, ticket: str, node: str, path: str) -> bool:
    """Whether the ticket is one it was given for.  Does not ask whether it is live."""
    if not reaches_run(grant, run) or grant.barrier != node:
        return False
    if grant.ticket is not None and grant.ticket != ticket:
        return False
    return grant.path is None or fits_path(grant.path, path)


def fits_path(pattern: str, path: str) -> bool:
    """Whether a branch path fits a pattern, in which ``*`` stands for anything within one part.  Visits are not looked at.

    >>> fits_path("orders[*]", "orders[17]"), fits_path("orders[*]", "orders#2[17]"), fits_path("orders[*]", "orders[1].checks[0]")
    (True, True, False)
    """
    return _pattern(pattern).fullmatch(_VISIT.sub("", path)) is not None


_VISIT = re.compile(r"#\d+(?=\[)")


@cache
def _pattern(pattern: str) -> re.Pattern[str]:
    return re.compile(re.escape(_VISIT.sub("", pattern)).replace(r"\*", "[^.]*"))
