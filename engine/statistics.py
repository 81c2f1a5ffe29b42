"""What an executor can tell of itself at one moment: frozen data, made on request, costing nothing between."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class MiddlewareStatistics:
    """One middleware at one node, since this executor began."""

    node: str
    """"" where it is shared by several."""
    name: str
    kind: str
    """Name of its class."""
    waiting: int = 0
    """Bodies that wait here now."""
    waits: int = 0
    """How often a body had to wait."""
    waited: float = 0.0
    """Seconds waited in all, by those who wait no longer."""
    inside: int = 0
    """Of a Bulkhead: places taken now."""
    refused: int = 0
    """Of a CircuitBreaker or Bulkhead: calls refused."""
    state: str = ""
    """Of a CircuitBreaker: closed, open or trying (open until the next call comes to try)."""


@dataclass(frozen=True, slots=True)
class ExecutorStatistics:
    """One executor at one moment."""

    driving: int
    """Runs it drives."""
    threads: int
    """Synchronous node functions that have not returned."""
    strays: int
    """Bodies whose attempt is over (timed out or cancelled) and that still run: threads, and async bodies that ignored their cancellation."""
    middleware: tuple[MiddlewareStatistics, ...] = ()
