"""`SQLCheckpointStore`: the promises of the protocol on SQLite and PostgreSQL.

One door, nothing behind it but the parts: who holds runs (`holding`), what an
owner does (`owning`), what can be read (`reading`), what is to be driven
(`dues`), what people are asked and say (`asking`), what they allow in advance
(`granting`), side effects (`effecting`), over a `database`.  An operation is added to a part (or a new
one), and named here.  Holds no rule and no statement.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Coroutine, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, Self

from checkpoint_stores.carrying import RunImage
from checkpoint_stores.chain import Chain
from checkpoint_stores.errors import ArgumentError
from checkpoint_stores.fold import RunState
from checkpoint_stores.ids import new_worker_id
from checkpoint_stores.protocol import DEFAULT_LEASE, Decides, Standing, Transaction, check_lease
from checkpoint_stores.records import (
    Amendment,
    BarrierRecord,
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
)
from checkpoint_stores.sql import statements, transactions
from checkpoint_stores.sql.addresses import Address, address_of
from checkpoint_stores.sql.asking import Asking
from checkpoint_stores.sql.database import Database
from checkpoint_stores.sql.dues import Dues
from checkpoint_stores.sql.effecting import Effecting
from checkpoint_stores.sql.granting import Granting
from checkpoint_stores.sql.holding import Holding
from checkpoint_stores.sql.matters import AskingTime
from checkpoint_stores.sql.owning import Owning
from checkpoint_stores.sql.reading import Reading
from checkpoint_stores.sql.sqlite_database import SQLiteDatabase, Synchronous, checked_synchronous
from checkpoint_stores.sql.transactions import Scribe
from checkpoint_stores.sql.upkeep import Upkeep
from checkpoint_stores.tenancy import TenantStore
from checkpoint_stores.watching import LocalWatch

DEFAULT_STEP: Final = timedelta(seconds=2)
"""How long a step's own transaction may take where nothing is said (less where the lease is short)."""

LONGEST_STEP: Final = timedelta(seconds=4)
"""The most that can be said: below the five seconds for which other writers of a SQLite file wait."""


class SQLCheckpointStore:
    """A `CheckpointStore` in SQLite or PostgreSQL.

    Opened by ``async with`` or by its first use; belongs to the event loop that opened it.

    Args:
        url: ``sqlite+aiosqlite:///file.db`` or ``postgresql+asyncpg://user@host/database``.
        lease: how long a silent process keeps its runs.
        synchronous: SQLite's PRAGMA; FULL survives a power cut, NORMAL may lose the last commits in one, never the file.
        chain_key: makes the digests HMACs, so that only a holder of the key can write a sound row.
        now: a virtual clock, microseconds since the epoch; None is the database's own.

    Raises:
        StoreUnavailableError: the URL is no such database; later also: it cannot be reached, written or read.
        SchemaVersionError: when opened, its schema is newer, or (PostgreSQL) older; `upgrade` makes it current.

    >>> import asyncio, tempfile
    >>> async def main(folder):
    ...     async with SQLCheckpointStore(f"sqlite+aiosqlite:///{folder}/runs.db") as store:
    ...         return (await store.stats())["checkpoints"]
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     asyncio.run(main(folder))
    0
    """

    def __init__(
        self,
        url: str,
        *,
        lease: timedelta = DEFAULT_LEASE,
        synchronous: Synchronous = "FULL",
        chain_key: bytes | None = None,
        now: Callable[[], int] | None = None,
    ) -> None:
        address = address_of(url)
        check_lease(lease)
        self.chain = Chain(chain_key)
        # SQLite runs in this process, so its clock is this machine's.
        clock = machine_time if address.is_file and now is None else now
        scribe = Scribe(new_worker_id(), lease // timedelta(microseconds=1), self.chain, clock)
        self._database = _database_of(address, scribe, checked_synchronous(synchronous))
        self.url: str = self._database.url
        self._holding = Holding(self._database, is_virtual=now is not None)
        self._owning = Owning(self._database, self._holding)
        self._reading = Reading(self._database)
        self._asking = Asking(self._database, self._reading)
        self._effecting = Effecting(self._database, self._holding, self._reading)
        self._dues = Dues(self._database)
        self._upkeep = Upkeep(self._database)
        self._granting = Granting(self._database)

    # --- opening and closing ----------------------------------------------------------------------------------------
    async def __aenter__(self) -> Self:
        await self._database.open()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    async def upgrade(self) -> None:
        """Bring an older schema up to date (PostgreSQL; SQLite does it by itself when opened).  Idempotent."""
        await self._database.open(may_upgrade=True)

    async def close(self) -> None:
        self._holding.close()
        await self._database.close(transactions.leave)

    def for_tenant(self, tenant: str) -> TenantStore:
        """This store as one tenant sees it: runs of others are not found.  Raises ArgumentError."""
        return TenantStore(self, tenant)

    # --- the owner's side -------------------------------------------------------------------------------------------
    async def now(self) -> int:
        if self._database.scribe.now is not None:
            return self._database.scribe.now()
        now: int | None = await self._database.at_once(AskingTime())
        return now if now is not None else int((await self._database.fetch([(statements.CLOCK, (None,))]))[0][0][0])

    @property
    def worker_id(self) -> str:
        return self._database.scribe.worker_id

    def lease_is_fresh(self) -> bool:
        return self._holding.is_fresh()

    def holds(self, run_id: str) -> bool:
        return self._holding.holds(run_id)

    async def heartbeat(self) -> None:
        await self._holding.beat()

    async def create(self, run: NewRun, first: Row) -> Lease:
        return await self._owning.create(run, first)

    async def acquire(self, run_id: str, *, details: Mapping[str, Any] | None = None, takeover: bool = False) -> Lease:
        return await self._owning.acquire(run_id, details=details, takeover=takeover)

    def commit(self, commit: Commit, *, within: Transaction | None = None) -> Coroutine[Any, Any, Receipt]:
        return self._owning.commit(commit, within)  # no coroutine around another: it is on the path of every step

    def transaction(
        self, *, limit: timedelta | None, begin: Callable[[], Awaitable[None]], ended: Callable[[], None], check: Callable[[], None]
    ) -> Transaction:
        most = min(LONGEST_STEP, timedelta(microseconds=self._database.scribe.lease) / 3)
        if limit is not None and not timedelta(0) < limit <= most:
            raise ArgumentError(
                "limit", limit, f"more than nothing and at most {most.total_seconds():g} s (a third of the lease, at most 4 s)"
            )
        seconds = (min(DEFAULT_STEP, most) if limit is None else limit).total_seconds()
        return self._database.step(seconds=seconds, begin=begin, ended=ended, check=check)

    async def take_up(self, resumption: Resumption) -> Receipt:
        return await self._owning.take_up(resumption)

    async def change_over(self, changeover: Changeover) -> Receipt:
        return await self._owning.change_over(changeover)

    async def put_snapshot(self, snapshot: Snapshot, epoch: int) -> None:
        await self._owning.put_snapshot(snapshot, epoch)

    async def put_graph(self, graph_hash: str, definition: str) -> None:
        await self._owning.put_graph(graph_hash, definition)

    async def release(self, run_id: str, epoch: int) -> None:
        await self._owning.release(run_id, epoch)

    async def begin_effect(self, effect: EffectRecord, epoch: int, *, again: bool = False) -> tuple[EffectRecord, bool]:
        return await self._effecting.begin(effect, epoch, again=again)

    async def end_effect(self, effect: EffectRecord, epoch: int) -> EffectRecord:
        return await self._effecting.end(effect, epoch)

    # --- reading ----------------------------------------------------------------------------------------------------
    async def run(self, run_id: str) -> RunRecord:
        return await self._reading.run(run_id)

    async def run_by_key(self, flow: str, run_key: str, *, tenant: str = "") -> RunRecord | None:
        return await self._reading.run_by_key(flow, run_key, tenant=tenant)

    async def runs(
        self, *, flow: str | None = None, status: str | None = None, tenant: str = "", limit: int = 50, before: str | None = None
    ) -> list[RunRecord]:
        return await self._reading.runs(flow=flow, status=status, tenant=tenant, limit=limit, before=before)

    async def due(self, *, flows: Collection[str] | None = None, limit: int = 50, aside: Collection[str] = ()) -> list[RunRecord]:
        return await self._dues.due(flows=flows, limit=limit, aside=aside)

    async def next_due(self) -> int:
        return await self._dues.next_due()

    async def load(self, run_id: str, upto: int | None = None) -> tuple[Snapshot | None, list[Row]]:
        return await self._reading.load(run_id, upto)

    async def folded(self, run_id: str, upto: int | None = None) -> RunState:
        return await self._reading.folded(run_id, upto)

    async def standing(self, run_id: str, *, wanted: Callable[[Standing], bool] | None = None) -> Standing:
        return await self._reading.standing(run_id, wanted)

    async def head(self, run_id: str) -> int:
        return await self._reading.head(run_id)

    def history(self, run_id: str, *, after: int = -1) -> AsyncIterator[Row]:
        return self._reading.history(run_id, after=after)

    async def graph(self, graph_hash: str) -> str | None:
        return await self._reading.graph(graph_hash)

    async def verify(self, run_id: str) -> list[Problem]:
        return await self._reading.verify(run_id)

    async def stats(self) -> dict[str, Any]:
        return await self._reading.stats()

    # --- the outsider's side ----------------------------------------------------------------------------------------
    async def inbox(self, run_id: str) -> Inbox:
        return await self._asking.inbox(run_id)

    async def barriers(
        self, *, run_id: str | None = None, status: str | None = "open", tenant: str = "", limit: int = 100
    ) -> list[BarrierRecord]:
        return await self._asking.barriers(run_id=run_id, status=status, tenant=tenant, limit=limit)

    async def decisions(self, run_id: str) -> list[DecisionRecord]:
        return await self._asking.decisions(run_id)

    async def decide(self, run_id: str, barrier: str, decision: Decides) -> DecisionRecord:
        return await self._asking.decide(run_id, barrier, decision)

    async def allow(
        self, barrier: str, decision: Decides, *, uses: int, until: datetime | timedelta, flow: str | None = None,
        run_id: str | None = None, tenant: str = "", path: str | None = None,
    ) -> Grant:  # fmt: skip
        return await self._granting.allow(
            barrier, decision, uses=uses, until=until, flow=flow, run_id=run_id, tenant=tenant, path=path
        )  # fmt: skip

    async def delegate(
        self, barrier: str, *, to: str, by: str, roles: Sequence[str] = (), reason: str = "", source: str = "api",
        until: datetime | timedelta | None = None, flow: str | None = None, run_id: str | None = None, tenant: str = "",
        path: str | None = None,
    ) -> Grant:  # fmt: skip
        return await self._granting.delegate(
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

    async def grants(
        self, *, flow: str | None = None, run_id: str | None = None, tenant: str = "", live: bool = True, limit: int = 100
    ) -> list[Grant]:
        return await self._granting.grants(flow=flow, run_id=run_id, tenant=tenant, live=live, limit=limit)

    async def revoke(self, grant_id: str, *, by: str, reason: str = "") -> Grant:
        return await self._granting.revoke(grant_id, by=by, reason=reason)

    async def signal(self, run_id: str, name: str, payload: Any = None, *, by: str = "", signal_id: str | None = None) -> SignalRecord:
        return await self._asking.signal(run_id, name, payload, by=by, signal_id=signal_id)

    async def signals(self, run_id: str) -> list[SignalRecord]:
        return await self._asking.signals(run_id)

    async def effects(self, run_id: str) -> list[EffectRecord]:
        return await self._effecting.of_run(run_id)

    async def resolve_effect(self, run_id: str, effect: str, *, done: bool, outcome: Any = None, by: str, reason: str = "") -> EffectRecord:
        return await self._effecting.resolve(run_id, effect, done=done, outcome=outcome, by=by, reason=reason)

    async def request_cancel(self, run_id: str, *, actor: str, reason: str = "") -> RunRecord:
        return await self._asking.request_cancel(run_id, actor=actor, reason=reason)

    async def amend(self, amendment: Amendment) -> Receipt:
        return await self._asking.amend(amendment)

    # --- the operator's side ----------------------------------------------------------------------------------------
    async def delete(self, run_id: str) -> RunRecord:
        return await self._upkeep.delete(run_id)

    async def drop_before(self, snapshot: Snapshot) -> int:
        return await self._upkeep.drop_before(snapshot)

    async def image(self, run_id: str) -> RunImage:
        return await self._upkeep.image(run_id)

    async def admit(self, image: RunImage) -> RunRecord:
        return await self._upkeep.admit(image)

    async def vacuum(self) -> tuple[int, int]:
        return await self._upkeep.vacuum()

    def watch(self, run_id: str, *, steps: bool = False) -> LocalWatch:
        return self._asking.watch(run_id, steps=steps)

    def watch_due(self) -> LocalWatch:
        return self._dues.watch()


def machine_time() -> int:
    """This machine's clock, microseconds since the epoch."""
    return time.time_ns() // 1000


def _database_of(address: Address, scribe: Scribe, synchronous: str) -> Database:
    if address.is_file:
        return SQLiteDatabase(address, scribe, synchronous=synchronous)
    # What belongs to PostgreSQL alone is imported only for it: the start of a command line over a file is not to wait for that.
    from checkpoint_stores.sql.postgres_database import PostgresDatabase

    return PostgresDatabase(address, scribe)
