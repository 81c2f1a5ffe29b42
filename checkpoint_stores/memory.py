"""A store that forgets when the process ends, and the plainest reading of the store's promises.

Everything is a dict, a list or an append.  No method ever suspends before its
work is done, so each one is a transaction by itself.  Two stores over one
`MemoryDatabase` behave like two processes over one database.  Knows no SQL, no
codec: bytes are kept as they come.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Self

from checkpoint_stores import effects, granting
from checkpoint_stores.attempts import attempt_row
from checkpoint_stores.carrying import RunImage
from checkpoint_stores.chain import Chain
from checkpoint_stores.codec import decode, encode
from checkpoint_stores.deciding import check_asked, find_ticket, judge, node_of, tickets_counting_for
from checkpoint_stores.errors import (
    LeaseHeldError,
    LeaseLostError,
    RunEndedError,
    RunExistsError,
    RunMovedError,
    RunNotEndedError,
    StoreUnavailableError,
    TransactionUnavailableError,
    UnknownEffectError,
    UnknownGrantError,
)
from checkpoint_stores.fold import RunState
from checkpoint_stores.folding import folded
from checkpoint_stores.grants import is_live
from checkpoint_stores.ids import new_id, new_worker_id
from checkpoint_stores.memory_database import HeldRun, MemoryDatabase, due_at, found_run, held_run, stats_of
from checkpoint_stores.protocol import DEFAULT_LEASE, Decides, Standing, Transaction, check_lease
from checkpoint_stores.records import (
    ENDED,
    ROWS_ALONE,
    UNDRIVEN,
    Amendment,
    BarrierRecord,
    CancelRequest,
    Changeover,
    Commit,
    DecisionRecord,
    EffectRecord,
    Grant,
    Inbox,
    Lease,
    NewRun,
    Problem,
    Receipt,
    Resumption,
    Row,
    RunRecord,
    SignalRecord,
    Snapshot,
    new_tuple,
)
from checkpoint_stores.signalling import apart, id_of_signal, judge_signal, signal_of
from checkpoint_stores.soundness import problems_of, sound_part
from checkpoint_stores.tenancy import TenantStore
from checkpoint_stores.watching import EVERY_RUN, LocalWatch


class MemoryCheckpointStore:
    """A `CheckpointStore` in this process's memory.

    Args:
        now: the clock, microseconds since the epoch; None is this machine's.
        lease: how long a silent process keeps its runs.
        database: shared with other stores to play several processes; None is a new one.
        chain_key: makes the digests HMACs.

    Several stores over one database are several processes that share it:

    >>> import asyncio
    >>> database = MemoryDatabase()
    >>> async def main():
    ...     async with MemoryCheckpointStore(database=database) as one, MemoryCheckpointStore(database=database) as other:
    ...         return one.worker_id == other.worker_id, await other.runs()
    >>> asyncio.run(main())
    (False, [])
    """

    def __init__(
        self,
        *,
        now: Callable[[], int] | None = None,
        lease: timedelta = DEFAULT_LEASE,
        database: MemoryDatabase | None = None,
        chain_key: bytes | None = None,
    ) -> None:
        check_lease(lease)
        self.url = "memory://"
        self.chain = Chain(chain_key)
        self.database = database or MemoryDatabase()
        self._runs = self.database.runs
        self._watches = self.database.watches
        self._now = now or _machine_time
        self._lease = lease // timedelta(microseconds=1)
        self._worker_id = new_worker_id()
        self._held: set[str] = set()
        self._fresh_until = float("-inf")
        """By this process's own clock."""
        self._timer: asyncio.TimerHandle | None = None
        self._is_closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    async def close(self) -> None:
        if self._is_closed:
            return
        for run_id in tuple(self._held):
            held = self._runs[run_id]
            if held.record.owner == self._worker_id:
                self._give_back(held)
        self._held.clear()
        self._stop_beating()
        self.database.workers.pop(self._worker_id, None)
        self._is_closed = True

    def for_tenant(self, tenant: str) -> TenantStore:
        """This store as one tenant sees it: runs of others are not found.  Raises ArgumentError."""
        return TenantStore(self, tenant)

    # --- the owner's side -------------------------------------------------------------------------------------------
    async def now(self) -> int:
        return self._now()

    @property
    def worker_id(self) -> str:
        return self._worker_id

    def lease_is_fresh(self) -> bool:
        return time.monotonic() < self._fresh_until

    def holds(self, run_id: str) -> bool:
        return run_id in self._held

    async def heartbeat(self) -> None:
        self._beat()

    async def create(self, run: NewRun, first: Row) -> Lease:
        self._check_usable()
        if run.run_id in self._runs:
            raise RunExistsError(run.run_key or run.run_id, run.run_id)
        key = (run.tenant, run.flow, run.run_key) if run.run_key is not None else None
        if key in self.database.keys:
            named = self._runs[self.database.keys[key]]
            if named.record.run_id != run.supersedes or named.record.status not in ENDED:
                raise RunExistsError(key[2], named.record.run_id)
            named.record = replace(named.record, run_key=None, updated_at=self._now())
        now = self._now()
        epoch = attempt = int(run.hold)
        record = RunRecord(
            run_id=run.run_id, flow=run.flow, flow_version=run.flow_version, graph_hash=run.graph_hash, status=run.status,
            max_steps=run.max_steps, tenant=run.tenant, run_key=run.run_key, head_seq=first.seq, head_digest=first.digest,
            attempt=attempt, epoch=epoch, owner=self._worker_id if run.hold else None, parent_run_id=run.parent_run_id,
            forked_at_seq=run.forked_at_seq, labels=dict(run.labels), created_at=now, updated_at=now,
            wake_at=first.started_at if run.status in UNDRIVEN and not run.hold else None,
        )  # fmt: skip
        created = HeldRun(record, self._genesis(run))
        created.rows.append(first)
        created.times.append(now)
        for barrier in run.barriers:
            created.barriers[barrier.ticket] = replace(barrier, opened_at=barrier.opened_at or now)
        self._runs[run.run_id] = created
        if key is not None:
            self.database.keys[key] = run.run_id
        if run.definition:
            self.database.graphs.setdefault(run.graph_hash, run.definition)
        if run.hold:
            self._hold(run.run_id)
        else:
            self._watches.wake(run.run_id)
        return Lease(self._record(created), epoch, first.seq, first.digest, first)

    def _genesis(self, run: NewRun) -> bytes:
        if run.parent_run_id is None:
            return self.chain.genesis(run.run_id)
        parent = self._runs.get(run.parent_run_id)
        standing_on = next((row for row in parent.rows if row.seq == run.forked_at_seq), None) if parent else None
        return self.chain.genesis(run.run_id, standing_on.digest) if standing_on else b""

    async def acquire(self, run_id: str, *, details: Mapping[str, Any] | None = None, takeover: bool = False) -> Lease:
        held = held_run(self.database, run_id)
        record = held.record
        if record.status in ENDED:
            raise RunEndedError(run_id, record.status)
        now = self._now()
        if record.owner is not None and not takeover:
            expires_at = self.database.workers.get(record.owner, 0)
            if expires_at > now:
                raise LeaseHeldError(run_id, record.owner, datetime.fromtimestamp(expires_at / 1_000_000, UTC))
        given = {**(details or {}), "owner": self._worker_id}
        attempt = record.attempt + 1
        head = held.rows[-1]
        row = attempt_row(self.chain, run_id, (head.seq, head.digest, head.step), held.epoch + 1, attempt, given)
        held.epoch += 1
        held.rows.append(row)
        held.times.append(now)
        held.record = replace(
            record, status="running", wake_at=None, attempt=attempt, owner=self._worker_id, head_seq=row.seq, head_digest=row.digest, updated_at=now,
            max_steps=given.get("max_steps", record.max_steps), graph_hash=given.get("graph_hash", record.graph_hash),
        )  # fmt: skip
        self._hold(run_id)
        self._watches.wake(run_id)
        return Lease(self._record(held), held.epoch, row.seq, row.digest, row)

    def transaction(
        self, *, limit: timedelta | None, begin: Callable[[], Awaitable[None]], ended: Callable[[], None], check: Callable[[], None]
    ) -> Transaction:
        raise TransactionUnavailableError(self.url)

    async def commit(self, commit: Commit, *, within: Transaction | None = None) -> Receipt:
        held = self._runs.get(commit.run_id)
        if held is None or held.epoch != commit.epoch:
            raise self._lost(commit)
        added = commit[2]
        rows = held.rows
        seq = rows[-1].seq
        for row in added:
            seq += 1
            if row.seq != seq:
                raise self._lost(commit)
        now = self._now()
        rows += added
        held.times += (now,) * len(added)
        if commit[3:] != ROWS_ALONE:
            uses = self._uses(held, commit, now) if commit.opened and self.database.grants else []
            held.change(commit, now, uses)
            if held.record.owner is None:
                self._drop(commit.run_id)
            if commit.change is not None and commit.change.status is not None:
                self._watches.wake(commit.run_id)
        if self._watches.followed:
            self._watches.step(commit.run_id)
        return new_tuple(Receipt, (held.inbox_rev, now))

    async def take_up(self, resumption: Resumption) -> Receipt:
        commit = resumption.commit
        held = self._runs.get(commit.run_id)
        if held is None or not held.is_still(resumption):
            raise RunMovedError(commit.run_id)
        held.take_up(resumption, owner=self._worker_id, now=self._now())
        self._hold(commit.run_id)
        self._watches.wake(commit.run_id)
        return await self.commit(commit)

    async def change_over(self, changeover: Changeover) -> Receipt:
        held = self._runs.get(changeover.run_id)
        if held is None or held.epoch != changeover.epoch or held.rows[-1].seq + 1 != changeover.row.seq:
            raise self._lost(changeover)
        now = self._now()
        held.change_over(changeover, now)
        self.database.graphs.setdefault(changeover.graph_hash, changeover.definition)
        self._watches.wake(changeover.run_id)
        return Receipt(held.inbox_rev, now)

    async def put_snapshot(self, snapshot: Snapshot, epoch: int) -> None:
        held = self._runs.get(snapshot.run_id)
        if held is not None and held.epoch == epoch and held.rows[0].seq <= snapshot.seq:
            held.snapshots = sorted([*(kept for kept in held.snapshots if kept.seq != snapshot.seq), snapshot], key=lambda kept: kept.seq)

    async def release(self, run_id: str, epoch: int) -> None:
        held = self._runs.get(run_id)
        if held is not None and held.epoch == epoch and held.record.owner == self._worker_id:
            self._give_back(held)

    async def begin_effect(self, effect: EffectRecord, epoch: int, *, again: bool = False) -> tuple[EffectRecord, bool]:
        held = self._owned(effect.run_id, epoch)
        record, may_run = effects.begin(held.effects.get(effect.key), effect, epoch, self._now(), again=again)
        held.effects[effect.key] = record
        return record, may_run

    async def end_effect(self, effect: EffectRecord, epoch: int) -> EffectRecord:
        held = self._owned(effect.run_id, epoch)
        stored = held.effects.get(effect.key)
        if stored is None:
            raise UnknownEffectError(effect.run_id, effect.name, tuple(each.name for each in held.effects.values()))
        ended = effects.end(stored, replace(effect, outcome=decode(encode(effect.outcome))), self._now())
        if ended is not None:
            held.effects[effect.key] = ended
        return ended or stored

    def _owned(self, run_id: str, epoch: int) -> HeldRun:
        held = held_run(self.database, run_id)
        if held.epoch != epoch:
            self._drop(run_id)
            raise LeaseLostError(run_id, epoch, owner=held.record.owner, current_epoch=held.epoch)
        return held

    # --- reading ----------------------------------------------------------------------------------------------------
    async def run(self, run_id: str) -> RunRecord:
        return self._record(found_run(self.database, run_id))

    async def run_by_key(self, flow: str, run_key: str, *, tenant: str = "") -> RunRecord | None:
        run_id = self.database.keys.get((tenant, flow, run_key))
        return self._record(self._runs[run_id]) if run_id is not None else None

    async def runs(
        self, *, flow: str | None = None, status: str | None = None, tenant: str = "", limit: int = 50, before: str | None = None
    ) -> list[RunRecord]:
        newest_first = sorted(self._runs.values(), key=lambda held: (held.record.created_at, held.record.run_id), reverse=True)
        if before is not None:
            last = (await self.run(before)).run_id
            newest_first = newest_first[[held.record.run_id for held in newest_first].index(last) + 1 :]
        fitting = (
            self._record(held)
            for held in newest_first
            if held.record.tenant == tenant and flow in (None, held.record.flow) and status in (None, held.record.status)
        )
        return [record for record, _ in zip(fitting, range(limit), strict=False)]

    async def due(self, *, flows: Collection[str] | None = None, limit: int = 50, aside: Collection[str] = ()) -> list[RunRecord]:
        asked = [
            self._record(held)
            for run_id, held in self._runs.items()
            if (flows is None or held.record.flow in flows) and run_id not in aside and held.record.owner != self._worker_id
        ]
        now = self._now()
        orphans = [record for record in asked if record.orphaned]
        others = sorted((record for record in asked if (at := due_at(record)) is not None and at <= now), key=due_at)  # type: ignore[arg-type]
        return [*orphans, *others][:limit]

    async def next_due(self) -> int:
        now = self._now()
        times = [at for held in self._runs.values() if (at := due_at(held.record)) is not None]
        times += [expires_at for worker, expires_at in self.database.workers.items() if worker != self._worker_id]
        return min([at for at in times if at > now] + [now + self._lease])

    async def load(self, run_id: str, upto: int | None = None) -> tuple[Snapshot | None, list[Row]]:
        return sound_part(self.chain, held_run(self.database, run_id).stored(), upto)

    async def folded(self, run_id: str, upto: int | None = None) -> RunState:
        return folded(run_id, *await self.load(run_id, upto))

    async def standing(self, run_id: str, *, wanted: Callable[[Standing], bool] | None = None) -> Standing:
        held = found_run(self.database, run_id)
        run_id = held.record.run_id
        standing = Standing(self._record(held), None, await self.inbox(run_id), self._now())
        return standing if wanted is not None and not wanted(standing) else standing._replace(state=await self.folded(run_id))

    async def head(self, run_id: str) -> int:
        return held_run(self.database, run_id).rows[-1].seq

    async def history(self, run_id: str, *, after: int = -1) -> AsyncIterator[Row]:
        held = held_run(self.database, run_id)
        seq = after
        while True:
            position = max(seq + 1 - held.rows[0].seq, 0)
            if position >= len(held.rows):
                return
            row = held.rows[position]
            seq = row.seq
            yield row._replace(committed_at=held.times[position])

    async def inbox(self, run_id: str) -> Inbox:
        held = held_run(self.database, run_id)
        return Inbox(
            held.inbox_rev,
            held.cancel,
            tuple(barrier for barrier in held.barriers.values() if barrier.status in ("open", "decided")),
            *apart(decision for decision in held.decisions.values() if decision.consumed_seq is None),
        )

    async def graph(self, graph_hash: str) -> str | None:
        return self.database.graphs.get(graph_hash)

    async def put_graph(self, graph_hash: str, definition: str) -> None:
        self.database.graphs.setdefault(graph_hash, definition)

    async def verify(self, run_id: str) -> list[Problem]:
        return problems_of(self.chain, held_run(self.database, run_id).stored())

    async def stats(self) -> dict[str, Any]:
        return stats_of(self.database)

    # --- the outsider's side ----------------------------------------------------------------------------------------
    async def barriers(
        self, *, run_id: str | None = None, status: str | None = "open", tenant: str = "", limit: int = 100
    ) -> list[BarrierRecord]:
        chosen = (
            [held_run(self.database, run_id)]
            if run_id is not None
            else [held for held in self._runs.values() if held.record.tenant == tenant]
        )
        fitting = [barrier for held in chosen for barrier in held.barriers.values() if status in (None, barrier.status)]
        return sorted(fitting, key=lambda barrier: (barrier.opened_at, barrier.run_id, barrier.opened_seq, barrier.ticket))[:limit]

    async def decisions(self, run_id: str) -> list[DecisionRecord]:
        return list(apart(held_run(self.database, run_id).decisions.values())[0])

    async def decide(self, run_id: str, barrier: str, decision: Decides) -> DecisionRecord:
        check_asked(barrier, decision)
        held = held_run(self.database, run_id)
        node = node_of(barrier)
        known = [record for record in held.barriers.values() if record.node == node or record.ticket == barrier]
        ticket = find_ticket(held.record, barrier, known, self.database.graphs.get(held.record.graph_hash))
        counting = tickets_counting_for(ticket.ticket if isinstance(ticket, BarrierRecord) else ticket.name)
        votes = [vote for vote in held.decisions.values() if vote.ticket in counting]
        now = self._now()
        delegations = [grant for grant in self.database.grants.values() if grant.to == decision.by]
        verdict = judge(held.record, ticket, votes, decision, now=now, decision_id=new_id(now), delegations=delegations)
        if verdict.is_new:
            # Through the codec like everywhere else: what is no data is refused, and nobody can change it afterwards.
            held.decisions[verdict.record.id] = replace(verdict.record, edits=decode(encode(verdict.record.edits)))
            if isinstance(ticket, BarrierRecord):
                held.set_barrier(ticket.ticket, verdict.status)
            held.told(now, moves=isinstance(ticket, BarrierRecord) and verdict.status == "decided")
            self._watches.wake(run_id)
        return held.decisions[verdict.record.id]

    async def signal(self, run_id: str, name: str, payload: Any = None, *, by: str = "", signal_id: str | None = None) -> SignalRecord:
        held = held_run(self.database, run_id)
        now = self._now()
        known = id_of_signal(run_id, signal_id) if signal_id is not None else new_id(now)
        definition = self.database.graphs.get(held.record.graph_hash)
        record, is_new = judge_signal(held.record, name, payload, definition, held.decisions.get(known), by=by, signal_id=known, now=now)
        if is_new:
            held.decisions[record.id] = record
            held.told(now, moves=True)
            self._watches.wake(run_id)
        return signal_of(record)

    async def signals(self, run_id: str) -> list[SignalRecord]:
        return list(apart(held_run(self.database, run_id).decisions.values())[1])

    async def effects(self, run_id: str) -> list[EffectRecord]:
        held = held_run(self.database, run_id)
        run = self._record(held)
        return [effects.seen(run, effect) for effect in sorted(held.effects.values(), key=lambda each: (each.started_at, each.key))]

    async def resolve_effect(self, run_id: str, effect: str, *, done: bool, outcome: Any = None, by: str, reason: str = "") -> EffectRecord:
        held = held_run(self.database, run_id)
        found = effects.find(run_id, await self.effects(run_id), effect)
        given = decode(encode(outcome))
        settled = effects.settle(
            self._record(held), held.effects[found.key], done=done, outcome=given, by=by, reason=reason, now=self._now()
        )
        held.effects[found.key] = settled
        return settled

    # --- rights given in advance ------------------------------------------------------------------------------------
    async def allow(
        self, barrier: str, decision: Decides, *, uses: int, until: datetime | timedelta, flow: str | None = None,
        run_id: str | None = None, tenant: str = "", path: str | None = None,
    ) -> Grant:  # fmt: skip
        return self._grant(
            granting.allowance_asked(barrier, decision, uses=uses, until=until, flow=flow, run_id=run_id, tenant=tenant, path=path)
        )

    async def delegate(
        self, barrier: str, *, to: str, by: str, roles: Sequence[str] = (), reason: str = "", source: str = "api",
        until: datetime | timedelta | None = None, flow: str | None = None, run_id: str | None = None, tenant: str = "",
        path: str | None = None,
    ) -> Grant:  # fmt: skip
        asked = granting.delegation_asked(
            barrier,
            to=to,
            by=by,
            roles=roles,
            reason=reason,
            source=source,
            until=until,
            flow=flow,
            run_id=run_id,
            tenant=tenant,
            path=path,
        )
        return self._grant(asked)

    def _grant(self, asked: granting.GrantAsked) -> Grant:
        now = self._now()
        if asked.run_id is None:
            grant = granting.given_for_flow(asked, self.database.graphs.values(), now=now, grant_id=new_id(now))
        else:
            held = held_run(self.database, asked.run_id)
            known = [record for record in held.barriers.values() if record.node == node_of(asked.barrier)]
            definition = self.database.graphs.get(held.record.graph_hash)
            grant = granting.given_for_run(asked, held.record, known, definition, now=now, grant_id=new_id(now))
        self.database.grants[grant.id] = grant
        return grant

    async def grants(
        self, *, flow: str | None = None, run_id: str | None = None, tenant: str = "", live: bool = True, limit: int = 100
    ) -> list[Grant]:
        now = self._now()
        return [
            grant
            for grant in sorted(self.database.grants.values(), key=lambda grant: (grant.made_at, grant.id))
            if grant.tenant == tenant
            and flow in (None, grant.flow)
            and run_id in (None, grant.run_id)
            and (is_live(grant, now) or not live)
        ][:limit]

    async def revoke(self, grant_id: str, *, by: str, reason: str = "") -> Grant:
        if grant_id not in self.database.grants:
            raise UnknownGrantError(grant_id)
        grant = granting.revoked(self.database.grants[grant_id], by=by, reason=reason, now=self._now())
        self.database.grants[grant_id] = grant
        return grant

    def _uses(self, held: HeldRun, commit: Commit, now: int) -> list[granting.Use]:
        """Use the allowances that decide what this commit opens."""
        over = {ticket for ticket, _ in commit.closed}
        opened = [barrier for barrier in commit.opened if barrier.ticket not in over]
        consumed = {decision_id for decision_id, _ in commit.consumed}
        pending = [each for each in held.decisions.values() if each.consumed_seq is None and each.id not in consumed]
        grants = self.database.grants
        uses = granting.uses_of(held.record, opened, list(grants.values()), pending, now=now, new_id=lambda: new_id(now))
        for record, _ in uses:
            grant = grants[record.grant or ""]
            grants[grant.id] = replace(grant, used=grant.used + 1)
        return uses

    async def request_cancel(self, run_id: str, *, actor: str, reason: str = "") -> RunRecord:
        held = held_run(self.database, run_id)
        if held.record.status in ENDED:
            raise RunEndedError(run_id, held.record.status)
        if held.cancel is None:
            held.cancel = CancelRequest(actor, reason, self._now())
            held.told(held.cancel.requested_at, moves=True)
            self._watches.wake(run_id)
        return self._record(held)

    async def amend(self, amendment: Amendment) -> Receipt:
        row, now = amendment.row, self._now()
        held = held_run(self.database, row.run_id)
        self._check_free(held, now)
        if (held.epoch + 1, held.inbox_rev, held.rows[-1].seq + 1) != (row.epoch, amendment.inbox_rev, row.seq):
            raise RunMovedError(row.run_id)
        held.epoch += 1
        held.rows.append(row)
        held.times.append(now)
        held.give_back(now)
        for barrier in amendment.reworded:
            asked = held.barriers[barrier.ticket]
            held.barriers[barrier.ticket] = replace(asked, prompt=barrier.prompt, payload=barrier.payload, digest=barrier.digest)
        self._watches.wake(row.run_id)
        return Receipt(held.inbox_rev, now)

    def _check_free(self, held: HeldRun, now: int) -> None:
        """Raises RunEndedError, LeaseHeldError."""
        record = held.record
        if record.status in ENDED:
            raise RunEndedError(record.run_id, record.status)
        if record.owner is not None and (expires_at := self.database.workers.get(record.owner, 0)) > now:
            raise LeaseHeldError(record.run_id, record.owner, datetime.fromtimestamp(expires_at / 1_000_000, UTC))

    # --- the operator's side ----------------------------------------------------------------------------------------
    async def delete(self, run_id: str) -> RunRecord:
        record = self._record(held_run(self.database, run_id))
        if record.status not in ENDED:
            raise RunNotEndedError(run_id, record.status)
        del self._runs[run_id]
        if record.run_key is not None:
            del self.database.keys[record.tenant, record.flow, record.run_key]
        return record

    async def drop_before(self, snapshot: Snapshot) -> int:
        held = held_run(self.database, snapshot.run_id)
        number = snapshot.seq + 1 - held.rows[0].seq
        if not 0 < number < len(held.rows) or held.rows[number - 1].digest != snapshot.digest:
            return 0
        held.snapshots = [snapshot, *(kept for kept in held.snapshots if kept.seq > snapshot.seq)]
        del held.rows[:number], held.times[:number]
        return number

    async def image(self, run_id: str) -> RunImage:
        held = held_run(self.database, run_id)
        return RunImage(
            self._record(held), held.genesis, self.database.graphs.get(held.record.graph_hash, ""), held.cancel,
            tuple(held.stored().rows), tuple(held.snapshots), tuple(held.barriers.values()), tuple(held.decisions.values()),
            tuple(held.effects.values()),
        )  # fmt: skip

    async def admit(self, image: RunImage) -> RunRecord:
        run = image.run
        if run.run_id in self._runs:
            raise RunExistsError(run.run_id, run.run_id)
        if run.run_key is not None and (named := self.database.keys.get((run.tenant, run.flow, run.run_key))):
            raise RunExistsError(run.run_key, named)
        held = HeldRun(replace(run, owner=None, lease_expires_at=None, orphaned=False), image.genesis)
        held.inbox_rev, held.cancel = run.inbox_rev, image.cancel
        held.rows += image.rows
        held.times += (row.committed_at for row in image.rows)
        held.snapshots += image.snapshots
        held.barriers.update((barrier.ticket, barrier) for barrier in image.barriers)
        held.decisions.update((decision.id, decision) for decision in image.decisions)
        held.effects.update((effect.key, effect) for effect in image.effects)
        self._runs[run.run_id] = held
        if run.run_key is not None:
            self.database.keys[run.tenant, run.flow, run.run_key] = run.run_id
        if image.definition:
            self.database.graphs.setdefault(run.graph_hash, image.definition)
        self._watches.wake(run.run_id)
        return self._record(held)

    async def vacuum(self) -> tuple[int, int]:
        size = int(stats_of(self.database)["bytes"])
        return size, size

    def watch(self, run_id: str, *, steps: bool = False) -> LocalWatch:
        return self._watches.watch(run_id, steps=steps)

    def watch_due(self) -> LocalWatch:
        return self._watches.watch(EVERY_RUN)

    # --- inside -----------------------------------------------------------------------------------------------------
    def _record(self, held: HeldRun) -> RunRecord:
        return held.current(self.database.workers, self._now())

    def _lost(self, commit: Commit | Changeover) -> LeaseLostError:
        self._drop(commit.run_id)
        held = self._runs.get(commit.run_id)
        if held is None:
            return LeaseLostError(commit.run_id, commit.epoch)
        return LeaseLostError(commit.run_id, commit.epoch, owner=held.record.owner, current_epoch=held.epoch)

    def _check_usable(self) -> None:
        if self._is_closed:
            raise StoreUnavailableError(self.url, "this store is closed")

    def _give_back(self, held: HeldRun) -> None:
        held.give_back(self._now())
        self._drop(held.record.run_id)
        self._watches.wake(held.record.run_id)

    def _hold(self, run_id: str) -> None:
        if not self._held or not self.lease_is_fresh() or self.database.workers.get(self._worker_id, 0) <= self._now():
            self._beat()
        self._held.add(run_id)

    def _drop(self, run_id: str) -> None:
        self._held.discard(run_id)
        if not self._held:
            self._stop_beating()

    def _beat(self) -> None:
        self._fresh_until = time.monotonic() + self._lease / 1_000_000 * 2 / 3
        self.database.workers[self._worker_id] = self._now() + self._lease
        self._stop_beating()
        self._timer = asyncio.get_running_loop().call_later(self._lease / 3_000_000, self._beat_again)

    def _beat_again(self) -> None:
        if self._held:
            self._beat()

    def _stop_beating(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _machine_time() -> int:
    return time.time_ns() // 1000
