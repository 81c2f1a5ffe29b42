"""What the database holds of a run, read from outside: no process of the demo needs to tell it.

Reads and records decisions; drives nothing.  Knows the keys of the audit's state, and no screen.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import Any

from checkpoint_stores.fold import RunState
from checkpoint_stores.records import BarrierRecord, DecisionRecord, Problem, Row, RunRecord
from engine.loading import load_state
from reducers.changes import ABSENT
from trailmark import Decision
from trailmark.checkpoint_stores import open_store


@dataclass(frozen=True, slots=True)
class Look:
    """What the database holds of a run at one moment."""

    run: RunRecord
    state: RunState
    rows: list[Row]
    tickets: list[BarrierRecord]
    """Those that nobody has decided yet."""
    decisions: list[DecisionRecord]
    problems: list[Problem]
    """What is wrong with the chain of digests: nothing."""

    def value(self, key: str) -> Any:
        """A value as the branch that verifies files sees it; once that is joined, as the run does."""
        found = self.state.scopes.get("checks[0]", self.state.root).read(key)
        return None if found is ABSENT else found

    @property
    def batches(self) -> tuple[int, int]:
        """How many batches of files are verified, and how many there are."""
        size, all_of_them = self.value("batch") or 1, len(self.value("distributions") or ())
        return ceil((self.value("verified") or 0) / size), max(1, ceil(all_of_them / size))


async def look(store: str, run_id: str) -> Look:
    """Read everything there is to say about a run.  Raises RunNotFoundError, StoreUnavailableError."""
    async with open_store(store) as opened:
        run = await opened.run(run_id)
        rows = [row async for row in opened.history(run.run_id)]
        state = await load_state(opened, run.run_id)
        tickets = await opened.barriers(run_id=run.run_id)
        return Look(run, state, rows, tickets, await opened.decisions(run.run_id), await opened.verify(run.run_id))


async def decide(store: str, ticket: BarrierRecord, decision: Decision) -> None:
    """Record a decision.  Raises what `CheckpointStore.decide` raises."""
    async with open_store(store) as opened:
        await opened.decide(ticket.run_id, ticket.ticket, decision)
