"""The row by which a process takes a run: one text for all stores, and for an engine that takes a run with what it makes of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from checkpoint_stores.chain import Chain
from checkpoint_stores.codec import pack
from checkpoint_stores.records import Row


def attempt_row(chain: Chain, run_id: str, head: tuple[int, bytes, int], epoch: int, attempt: int, details: Mapping[str, Any]) -> Row:
    """The ``attempt`` behind ``head`` (seq, digest, step of the newest row), under its own ``epoch``; ``details`` name the owner.

    Raises UnserialisableError where the details hold no data.
    """
    seq, digest, step = head
    payload = pack([["status", "running"], ["attempt", attempt, dict(details)]])[0]
    return chain.seal(digest, run_id, seq + 1, epoch, step, "attempt", "", "", "", payload, 0)
