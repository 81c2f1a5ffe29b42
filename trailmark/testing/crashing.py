"""A process that dies at a commit, without killing anything: a store that stops answering.

What a dead process had not committed is gone; what it had committed stays; its lease stays held until somebody takes
it over.  Knows no graph.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, cast

from checkpoint_stores.protocol import CheckpointStore, TakesUp
from checkpoint_stores.records import Changeover, Commit, Lease, NewRun, Receipt, Resumption, Row, Snapshot
from reducers.errors import TrailmarkError

Moment = Literal["before", "after"]


class SimulatedCrash(TrailmarkError):  # noqa: N818 - it is no error of anybody's: the test wants it
    """The process died here, as a test asked it to."""

    def __init__(self, commit: int, moment: Moment) -> None:
        self.commit = commit
        self.moment = moment
        super().__init__(f"simulated crash {moment} commit {commit}")


@dataclass(frozen=True, slots=True)
class Death:
    """When a process dies."""

    commit: int
    """The how-manieth commit of this process, from 1; creating the run is one."""
    moment: Moment = "after"
    """``before`` the commit reaches the database, or ``after`` it is durable and before anybody is told."""


class Process:
    """What one process sees of a store: everything, until it dies."""

    def __init__(self, store: CheckpointStore, death: Death | None = None) -> None:
        self._store = store
        self._death = death
        self.is_dead = False
        self.commits: list[tuple[Row, ...]] = []
        """The rows of each commit that became durable."""
        self._begun = 0

    @property
    def store(self) -> CheckpointStore:
        """This process's store, to hand to an executor."""
        return cast("CheckpointStore", self)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def create(self, run: NewRun, first: Row) -> Lease:
        self._may_die("before")
        lease = await self._store.create(run, first)
        self.commits.append((first,))
        self._may_die("after")
        return lease

    async def commit(self, commit: Commit, **options: Any) -> Receipt:
        self._may_die("before")
        receipt = await self._store.commit(commit, **options)
        self.commits.append(commit.rows)
        self._may_die("after")
        return receipt

    async def take_up(self, resumption: Resumption) -> Receipt:
        self._may_die("before")
        receipt = await cast("TakesUp", self._store).take_up(resumption)
        self.commits.append(resumption.commit.rows)
        self._may_die("after")
        return receipt

    async def change_over(self, changeover: Changeover) -> Receipt:
        self._may_die("before")
        receipt = await self._store.change_over(changeover)
        self.commits.append((changeover.row,))
        self._may_die("after")
        return receipt

    async def put_snapshot(self, snapshot: Snapshot, epoch: int) -> None:
        if not self.is_dead:
            await self._store.put_snapshot(snapshot, epoch)

    async def release(self, run_id: str, epoch: int) -> None:
        # The dead give nothing back.
        if not self.is_dead:
            await self._store.release(run_id, epoch)

    def _may_die(self, moment: Moment) -> None:
        if moment == "before":
            self._begun += 1
        death = self._death
        if self.is_dead or (death is not None and death.commit == self._begun and death.moment == moment):
            self.is_dead = True
            raise SimulatedCrash(self._begun, moment)
