"""A run that this process has parked, as it stands: who keeps its handle and decides here need not have it read again.

What was committed last is known here, and so is what came of it; whether anybody has moved the run since is seen by the transaction
that takes it, as ever.  What it is gone on with is a copy, as it would be read: whoever has the result of the drive keeps
what he has seen.  Pure; knows no store.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final, NamedTuple

from checkpoint_stores.codec import decode, encode
from checkpoint_stores.fold import RunState
from checkpoint_stores.protocol import Standing
from checkpoint_stores.records import BarrierRecord, Inbox, RunRecord

MOST_BYTES: Final = 65_536
"""A larger state is read again, in a thread: copying it would hold the loop up."""


class Parked(NamedTuple):
    """What is known of a run behind the commit that parked it."""

    run: RunRecord
    """As it was taken."""
    epoch: int
    state: RunState
    opened: tuple[BarrierRecord, ...]
    """All that people are asked."""
    inbox_rev: int

    def standing(self, now: int) -> Standing:
        """What `TakesUp.standing` would tell if nobody had been there since."""
        state = self.state
        run = replace(
            self.run, status="waiting", owner=None, epoch=self.epoch, attempt=state.attempt, head_seq=state.seq, inbox_rev=self.inbox_rev
        )
        copy = RunState.restored(run.run_id, decode(encode(state.dump())), state.digest)
        copy.weight = state.weight
        return Standing(run, copy, Inbox(self.inbox_rev, None, self.opened, ()), now)
