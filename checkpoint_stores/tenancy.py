"""One tenant's view of a store: other tenants' runs are not found, whatever is asked and however well their ids are guessed.

Every operation that names a run asks first whose it is; what lists runs lists
the tenant's.  Knows no database: it stands before any store.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, Self

from checkpoint_stores.carrying import RunImage
from checkpoint_stores.errors import AmbiguousRunError, ArgumentError, RunNotFoundError, TenantError, UnknownGrantError
from checkpoint_stores.fold import RunState
from checkpoint_stores.protocol import CheckpointStore, Decides, Standing, Transaction, Watch, folds, takes_up
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

_REMEMBERED: Final = 100_000
"""How many of the tenant's runs are remembered to be its own."""

_ALL_GRANTS: Final = 1_000_000
"""How many of the tenant's grants are looked through for one that is to be taken back."""


class TenantStore:
    """A `CheckpointStore` that knows one tenant.  Made by ``store.for_tenant("acme")``; closing it closes nothing.

    Graphs' definitions are shared by all tenants: whoever knows a graph's hash can read its definition, which holds no run's data.
    """

    def __init__(self, store: CheckpointStore, tenant: str) -> None:
        if not isinstance(tenant, str) or not tenant:
            raise ArgumentError("tenant", tenant, "a text that is not empty")
        self._store = store
        self.tenant = tenant
        self.url = store.url
        self.chain = store.chain
        self._own: set[str] = set()
        if folds(store):
            self._folding = store
            self.folded = self._folded
        if takes_up(store):
            self._taking = store
            self.standing, self.take_up = self._standing, self._take_up

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Nothing: the store belongs to whoever opened it."""

    def for_tenant(self, tenant: str) -> TenantStore:
        """This view; TenantError for another tenant."""
        if tenant != self.tenant:
            raise TenantError(self.tenant, f"it is no door to tenant {tenant!r}")
        return self

    async def _check(self, run_id: str) -> None:
        """Raise RunNotFoundError where the run is not this tenant's."""
        if run_id not in self._own:
            self._remember(await self._store.run(run_id), run_id)

    def _remember(self, record: RunRecord, asked: str) -> RunRecord:
        if record.tenant != self.tenant:
            raise RunNotFoundError(asked)
        if len(self._own) >= _REMEMBERED:
            self._own.clear()
        self._own.add(record.run_id)
        return record

    def _tenant(self, tenant: str) -> str:
        if tenant not in ("", self.tenant):
            raise TenantError(self.tenant, f"it is no door to tenant {tenant!r}")
        return self.tenant

    # --- the owner's side -------------------------------------------------------------------------------------------
    async def now(self) -> int:
        return await self._store.now()

    @property
    def worker_id(self) -> str:
        return self._store.worker_id

    def lease_is_fresh(self) -> bool:
        return self._store.lease_is_fresh()

    def holds(self, run_id: str) -> bool:
        return run_id in self._own and self._store.holds(run_id)

    async def heartbeat(self) -> None:
        await self._store.heartbeat()

    async def create(self, run: NewRun, first: Row) -> Lease:
        if run.parent_run_id is not None:
            await self._check(run.parent_run_id)
        if run.supersedes is not None:
            await self._check(run.supersedes)
        lease = await self._store.create(run._replace(tenant=self._tenant(run.tenant)), first)
        self._remember(lease.run, run.run_id)
        return lease

    async def due(self, *, flows: Collection[str] | None = None, limit: int = 50, aside: Collection[str] = ()) -> list[RunRecord]:
        found: list[RunRecord] = []
        seen = list(aside)
        while len(found) < limit and (page := await self._store.due(flows=flows, limit=limit, aside=tuple(seen))):
            seen += [record.run_id for record in page]
            found += [self._remember(record, record.run_id) for record in page if record.tenant == self.tenant]
        return found[:limit]

    async def next_due(self) -> int:
        return await self._store.next_due()

    def watch_due(self) -> Watch:
        return self._store.watch_due()

    async def acquire(self, run_id: str, *, details: Mapping[str, Any] | None = None, takeover: bool = False) -> Lease:
        await self._check(run_id)
        return await self._store.acquire(run_id, details=details, takeover=takeover)

    async def commit(self, commit: Commit, *, within: Transaction | None = None) -> Receipt:
        await self._check(commit.run_id)
        return await (self._store.commit(commit) if within is None else self._store.commit(commit, within=within))

    async def _take_up(self, resumption: Resumption) -> Receipt:
        await self._check(resumption.commit.run_id)
        return await self._taking.take_up(resumption)

    async def _standing(self, run_id: str, *, wanted: Callable[[Standing], bool] | None = None) -> Standing:
        if run_id not in self._own:
            run_id = (await self.run(run_id)).run_id  # of a run of others nothing is read, and nothing said
        return await self._taking.standing(run_id, wanted=wanted)

    async def change_over(self, changeover: Changeover) -> Receipt:
        await self._check(changeover.run_id)
        return await self._store.change_over(changeover)

    def transaction(
        self, *, limit: timedelta | None, begin: Callable[[], Awaitable[None]], ended: Callable[[], None], check: Callable[[], None]
    ) -> Transaction:
        return self._store.transaction(limit=limit, begin=begin, ended=ended, check=check)

    async def put_snapshot(self, snapshot: Snapshot, epoch: int) -> None:
        await self._check(snapshot.run_id)
        await self._store.put_snapshot(snapshot, epoch)

    async def release(self, run_id: str, epoch: int) -> None:
        await self._check(run_id)
        await self._store.release(run_id, epoch)

    async def begin_effect(self, effect: EffectRecord, epoch: int, *, again: bool = False) -> tuple[EffectRecord, bool]:
        await self._check(effect.run_id)
        return await self._store.begin_effect(effect, epoch, again=again)

    async def end_effect(self, effect: EffectRecord, epoch: int) -> EffectRecord:
        await self._check(effect.run_id)
        return await self._store.end_effect(effect, epoch)

    # --- reading ----------------------------------------------------------------------------------------------------
    async def run(self, run_id: str) -> RunRecord:
        try:
            record = await self._store.run(run_id)
        except AmbiguousRunError:
            # Whose runs fit is not told; a whole id always names its run.
            raise RunNotFoundError(run_id) from None
        return self._remember(record, run_id)

    async def run_by_key(self, flow: str, run_key: str, *, tenant: str = "") -> RunRecord | None:
        return await self._store.run_by_key(flow, run_key, tenant=self._tenant(tenant))

    async def runs(
        self, *, flow: str | None = None, status: str | None = None, tenant: str = "", limit: int = 50, before: str | None = None
    ) -> list[RunRecord]:
        if before is not None:
            await self.run(before)
        return await self._store.runs(flow=flow, status=status, tenant=self._tenant(tenant), limit=limit, before=before)

    async def load(self, run_id: str, upto: int | None = None) -> tuple[Snapshot | None, list[Row]]:
        await self._check(run_id)
        return await self._store.load(run_id, upto)

    async def _folded(self, run_id: str, upto: int | None = None) -> RunState:
        await self._check(run_id)
        return await self._folding.folded(run_id, upto)

    async def head(self, run_id: str) -> int:
        await self._check(run_id)
        return await self._store.head(run_id)

    async def history(self, run_id: str, *, after: int = -1) -> AsyncIterator[Row]:
        await self._check(run_id)
        async for row in self._store.history(run_id, after=after):
            yield row

    async def inbox(self, run_id: str) -> Inbox:
        await self._check(run_id)
        return await self._store.inbox(run_id)

    async def graph(self, graph_hash: str) -> str | None:
        return await self._store.graph(graph_hash)

    async def put_graph(self, graph_hash: str, definition: str) -> None:
        await self._store.put_graph(graph_hash, definition)

    async def verify(self, run_id: str) -> list[Problem]:
        await self._check(run_id)
        return await self._store.verify(run_id)

    async def stats(self) -> dict[str, Any]:
        """Raises TenantError: they count everybody's runs."""
        raise TenantError(self.tenant, "its store's stats count the runs of all tenants; ask the store itself")

    # --- the outsider's side ----------------------------------------------------------------------------------------
    async def barriers(
        self, *, run_id: str | None = None, status: str | None = "open", tenant: str = "", limit: int = 100
    ) -> list[BarrierRecord]:
        if run_id is not None:
            await self._check(run_id)
        return await self._store.barriers(run_id=run_id, status=status, tenant=self._tenant(tenant), limit=limit)

    async def decisions(self, run_id: str) -> list[DecisionRecord]:
        await self._check(run_id)
        return await self._store.decisions(run_id)

    async def decide(self, run_id: str, barrier: str, decision: Decides) -> DecisionRecord:
        await self._check(run_id)
        return await self._store.decide(run_id, barrier, decision)

    async def allow(
        self, barrier: str, decision: Decides, *, uses: int, until: datetime | timedelta, flow: str | None = None,
        run_id: str | None = None, tenant: str = "", path: str | None = None,
    ) -> Grant:  # fmt: skip
        if run_id is not None:
            await self._check(run_id)
        return await self._store.allow(
            barrier, decision, uses=uses, until=until, flow=flow, run_id=run_id, tenant=self._tenant(tenant), path=path
        )

    async def delegate(
        self, barrier: str, *, to: str, by: str, roles: Sequence[str] = (), reason: str = "", source: str = "api",
        until: datetime | timedelta | None = None, flow: str | None = None, run_id: str | None = None, tenant: str = "",
        path: str | None = None,
    ) -> Grant:  # fmt: skip
        if run_id is not None:
            await self._check(run_id)
        return await self._store.delegate(
            barrier, to=to, by=by, roles=roles, reason=reason, source=source, until=until, flow=flow, run_id=run_id,
            tenant=self._tenant(tenant), path=path,
        )  # fmt: skip

    async def grants(
        self, *, flow: str | None = None, run_id: str | None = None, tenant: str = "", live: bool = True, limit: int = 100
    ) -> list[Grant]:
        if run_id is not None:
            await self._check(run_id)
        return await self._store.grants(flow=flow, run_id=run_id, tenant=self._tenant(tenant), live=live, limit=limit)

    async def revoke(self, grant_id: str, *, by: str, reason: str = "") -> Grant:
        own = await self._store.grants(tenant=self.tenant, live=False, limit=_ALL_GRANTS)
        if all(grant.id != grant_id for grant in own):
            raise UnknownGrantError(grant_id)
        return await self._store.revoke(grant_id, by=by, reason=reason)

    async def signal(self, run_id: str, name: str, payload: Any = None, *, by: str = "", signal_id: str | None = None) -> SignalRecord:
        await self._check(run_id)
        return await self._store.signal(run_id, name, payload, by=by, signal_id=signal_id)

    async def signals(self, run_id: str) -> list[SignalRecord]:
        await self._check(run_id)
        return await self._store.signals(run_id)

    async def effects(self, run_id: str) -> list[EffectRecord]:
        await self._check(run_id)
        return await self._store.effects(run_id)

    async def resolve_effect(self, run_id: str, effect: str, *, done: bool, outcome: Any = None, by: str, reason: str = "") -> EffectRecord:
        await self._check(run_id)
        return await self._store.resolve_effect(run_id, effect, done=done, outcome=outcome, by=by, reason=reason)

    async def request_cancel(self, run_id: str, *, actor: str, reason: str = "") -> RunRecord:
        await self._check(run_id)
        return await self._store.request_cancel(run_id, actor=actor, reason=reason)

    async def amend(self, amendment: Amendment) -> Receipt:
        await self._check(amendment.row.run_id)
        return await self._store.amend(amendment)

    # --- the operator's side ----------------------------------------------------------------------------------------
    async def delete(self, run_id: str) -> RunRecord:
        await self._check(run_id)
        self._own.discard(run_id)
        return await self._store.delete(run_id)

    async def drop_before(self, snapshot: Snapshot) -> int:
        await self._check(snapshot.run_id)
        return await self._store.drop_before(snapshot)

    async def image(self, run_id: str) -> RunImage:
        await self._check(run_id)
        return await self._store.image(run_id)

    async def admit(self, image: RunImage) -> RunRecord:
        """Raises TenantError where the run is another tenant's."""
        if image.run.tenant != self.tenant:
            raise TenantError(self.tenant, f"run {image.run.run_id} is not its own")
        return self._remember(await self._store.admit(image), image.run.run_id)

    async def vacuum(self) -> tuple[int, int]:
        """Raises TenantError: it packs everybody's runs."""
        raise TenantError(self.tenant, "its store holds the runs of all tenants; ask the store itself")

    def watch(self, run_id: str, *, steps: bool = False) -> Watch:
        """Of a run that was asked for before (`run`), since nothing can be looked up here.  Raises RunNotFoundError."""
        if run_id not in self._own:
            raise RunNotFoundError(run_id)
        return self._store.watch(run_id, steps=steps)
