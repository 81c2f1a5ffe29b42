"""What the promises of a store are told with: runs as their owners see them, what people say to them, and a clock.

It makes and moves runs through the protocol alone, as the engine would; it knows neither which store it speaks to nor
what is promised of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from checkpoint_stores.codec import encode
from checkpoint_stores.ids import new_id
from checkpoint_stores.protocol import CheckpointStore
from checkpoint_stores.records import BarrierRecord, Commit, Lease, NewRun, Receipt, Row, RunChange

StoreFactory = Callable[..., CheckpointStore]

DEFINITION = (
    '{"flow": "invoice", "barriers": {"review": {"approvers": [], "early": true}, "sealed": {"early": false}, "board": {"approvers": ["ana"]}},'
    ' "signals": {"paid": {"type": "integer"}, "ping": null}}'
)
LEASE = timedelta(seconds=30)
SECOND = 1_000_000


class SetClock:
    """A clock that moves when it is told to."""

    def __init__(self, now: int = 1_800_000_000 * SECOND) -> None:
        self.now = now

    def __call__(self) -> int:
        return self.now

    def advance(self, by: timedelta) -> None:
        self.now += by // timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Verdict:
    """The plainest decision there is; fits `protocol.Decides`."""

    action: str = "approve"
    by: str = "ana"
    reason: str = ""
    source: str = "api"
    roles: Sequence[str] = ()
    edits: Mapping[str, Any] | None = None
    target: str | None = None
    approves: bool = True
    seen: str | None = None
    on_behalf_of: str | None = None


def reject(by: str = "ana") -> Verdict:
    return Verdict("reject", by, approves=False)


class OwnedRun:
    """A run as its owner sees it: knows the head, so that the next row can be sealed."""

    def __init__(self, store: CheckpointStore, lease: Lease) -> None:
        self.store = store
        self.run_id = lease.run.run_id
        self.epoch = lease.epoch
        self.seq = lease.head_seq
        self.digest = lease.head_digest
        self.step_count = 1

    def row(self, kind: str = "step", node: str = "work", payload: bytes | None = None) -> Row:
        """Seal the next row and believe that it will be committed."""
        self.seq += 1
        self.step_count += 1
        sealed = self.store.chain.seal(
            self.digest, self.run_id, self.seq, self.epoch, self.step_count, kind, "", node, "next",
            encode([["set", "n", self.seq]]) if payload is None else payload, 7,
        )  # fmt: skip
        self.digest = sealed.digest
        return sealed

    def next_commit(self, **parts: Any) -> Commit:
        return Commit(self.run_id, self.epoch, (self.row(),), **parts)

    async def step(self, payload: bytes | None = None) -> Receipt:
        return await self.store.commit(Commit(self.run_id, self.epoch, (self.row(payload=payload),)))

    async def open_barrier(self, ticket: str = "review#1", *, park: bool = True, **parts: Any) -> BarrierRecord:
        record = barrier(self.run_id, ticket, opened_seq=self.seq + 1, **parts)
        change = RunChange(status="waiting", release=True) if park else None
        await self.store.commit(self.next_commit(change=change, opened=(record,)))
        return record

    async def end(self, status: str = "completed") -> None:
        await self.store.commit(self.next_commit(change=RunChange(status=status, release=True)))  # type: ignore[arg-type]


def barrier(run_id: str, ticket: str = "review#1", **parts: Any) -> BarrierRecord:
    name = ticket.partition("#")[0] if "." not in ticket else ticket.rpartition(".")[2].partition("#")[0]
    path = ticket.rpartition(".")[0]
    stated: dict[str, Any] = {"status": "open", "prompt": "Pay?", "payload": {"amount": 900.5}, "digest": "d" * 64}
    return BarrierRecord(run_id=run_id, ticket=ticket, node=name, path=path, **{**stated, **parts})


async def new_run(store: CheckpointStore, **parts: Any) -> OwnedRun:
    """Create a run and hold it."""
    run_id = parts.pop("run_id", None) or new_id(await store.now())
    stated: dict[str, Any] = {"flow": "invoice", "flow_version": "1", "graph_hash": "g" * 64, "max_steps": 50, "definition": DEFINITION}
    run = NewRun(run_id=run_id, **{**stated, **parts})
    epoch = int(run.hold)
    first = store.chain.seal(store.chain.genesis(run_id), run_id, 1, epoch, 0, "start", "", "", "work", encode([["set", "n", 0]]), 0)
    return OwnedRun(store, await store.create(run, first))


def replace_epoch(run: OwnedRun, epoch: int) -> Row:
    """The next row of a run, made under another epoch."""
    run.epoch = epoch
    row = run.row("edit", node="")
    run.epoch = epoch - 1
    return row


async def all_rows(store: CheckpointStore, run_id: str, *, after: int = -1) -> list[Row]:
    return [row async for row in store.history(run_id, after=after)]
