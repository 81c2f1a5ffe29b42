"""Names that stay the same over retries, resumes and processes."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from checkpoint_stores.fold import RunState


def idempotency_key(run_id: str, path: str, node: str, visit: int) -> str:
    """The key of one node entry: 64 hex digits, the same for every attempt and every process.

    >>> idempotency_key("r", "", "pay", 1) == idempotency_key("r", "", "pay", 1)
    True
    >>> idempotency_key("r", "", "pay", 1) == idempotency_key("r", "", "pay", 2)
    False
    """
    return hashlib.sha256(f"{run_id}\0{path}\0{node}\0{visit}".encode()).hexdigest()


def effect_key(key: str, name: str) -> str:
    """The key of one side effect of the node entry with this idempotency key: 64 hex digits, the same for every attempt and every process.

    >>> effect_key("k", "debit") == effect_key("k", "debit"), effect_key("k", "debit") == effect_key("k", "credit")
    (True, False)
    """
    return hashlib.sha256(f"{key}\0{name}".encode()).hexdigest()


def part_key(key: str, part: str) -> str:
    """The key of one part of the work of the node entry with this idempotency key; see `StepContext.fork`.

    >>> part_key("k", "page 1") == part_key("k", "page 1"), part_key("k", "page 1") == effect_key("k", "page 1")
    (True, False)
    """
    return hashlib.sha256(f"{key}\0part\0{part}".encode()).hexdigest()


def ticket_name(path: str, node: str, visit: int) -> str:
    """The name of a barrier's ticket: ``review#1``, nested ``checks[1].review#1``.

    >>> ticket_name("checks[1]", "review", 2)
    'checks[1].review#2'
    """
    return f"{path}.{node}#{visit}" if path else f"{node}#{visit}"


def key_of(state: RunState, path: str, node: str, visit: int) -> str:
    """The idempotency key of an entry that is under way: the one it had before a migration renamed its place."""
    kept = state.details.get("keys")
    if kept and (key := kept.get(ticket_name(path, node, visit))) is not None:
        return str(key)
    return idempotency_key(state.run_id, path, node, visit)
