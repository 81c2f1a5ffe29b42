"""Names that stay the same over retries, resumes and processes."""

from __future__ import annotations

import hashlib


def idempotency_key(run_id: str, path: str, node: str, visit: int) -> str:
    """The key of one node entry: 64 hex digits, the same for every attempt and every process.

    >>> idempotency_key("r", "", "pay", 1) == idempotency_key("r", "", "pay", 1)
    True
    >>> idempotency_key("r", "", "pay", 1) == idempotency_key("r", "", "pay", 2)
    False
    """
    return hashlib.sha256(f"{run_id}\0{path}\0{node}\0{visit}".encode()).hexdigest()


def ticket_name(path: str, node: str, visit: int) -> str:
    """The name of a barrier's ticket: ``review#1``, nested ``checks[1].review#1``.

    >>> ticket_name("checks[1]", "review", 2)
    'checks[1].review#2'
    """
    return f"{path}.{node}#{visit}" if path else f"{node}#{visit}"
