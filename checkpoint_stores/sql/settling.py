"""Telling those who wait for a writer what became of their work.  Knows no database."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, Final, TypeAlias

Outcome: TypeAlias = "tuple[asyncio.Future[Any], Any, BaseException | None]"
"""Who waits, what it gets, or what it is told instead."""

JOBS_AT_ONCE: Final = 1_000
"""The most work in one batch, so that the first of it does not wait for thousands."""


def settle(outcomes: Iterable[Outcome]) -> None:
    """Tell everybody who still waits; to be called on the loop."""
    for future, result, error in outcomes:
        if future.done():
            continue  # the caller was cancelled; what it asked for was done all the same
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)
