"""The owner's side of the SQL store: creating runs, taking them, committing to them, giving them back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, cast

from checkpoint_stores.errors import LeaseLostError, RunNotFoundError, StoreUnavailableError
from checkpoint_stores.protocol import Transaction
from checkpoint_stores.records import ENDED, Changeover, Commit, Lease, NewRun, Receipt, Resumption, Row, Snapshot
from checkpoint_stores.sql import faults, transactions
from checkpoint_stores.sql.database import Database
from checkpoint_stores.sql.holding import Holding
from checkpoint_stores.sql.lines import id_of, key_of
from checkpoint_stores.sql.matters import Taking
from checkpoint_stores.sql.transitions import creation_of, resumption_of, transition_of

if TYPE_CHECKING:
    from checkpoint_stores.sql.step_transaction import StepTransaction

_ATTEMPTS: Final = 100
"""How often a run is tried to be taken from an owner that goes on committing without a pause."""


class Owning:
    """What only the holder of a lease does, and how one comes to hold it."""

    def __init__(self, database: Database, holding: Holding) -> None:
        self._database = database
        self._holding = holding
        self._known_graphs: set[str] = set()
        """Hashes of the graphs that are certainly kept."""

    async def create(self, run: NewRun, first: Row) -> Lease:
        if run.hold:
            await self._holding.register()
        store_graph = run.graph_hash not in self._known_graphs
        lease = await self._create_at_once(run, first, store_graph=store_graph)
        if lease is None:
            lease = await self._database.transact(transactions.create, run, first, store_graph=store_graph)
        if run.definition:
            self._known_graphs.add(run.graph_hash)
        if run.hold:
            return self._held(lease)
        self._database.outside.watches.wake(run.run_id)
        return lease

    async def _create_at_once(self, run: NewRun, first: Row, *, store_graph: bool) -> Lease | None:
        database = self._database
        if run.parent_run_id is not None or run.supersedes is not None:
            return None
        if not database.is_open:
            await database.open()
        genesis = database.scribe.chain.genesis(run.run_id)
        new = creation_of(run, first, genesis=genesis, owner=database.scribe.worker_id, store_graph=store_graph)
        created_at = await database.create_at_once(new)
        return None if created_at is None else transactions.lease_of(new.line, first, created_at)

    async def acquire(self, run_id: str, *, details: Mapping[str, Any] | None, takeover: bool) -> Lease:
        await self._holding.register()
        with self._holding.coming(id_of(key_of(run_id))):
            lease: Lease | None = await self._database.at_once(Taking(key_of(run_id), run_id, details or {}))
            if lease is None:
                lease = await self._take(run_id, details or {}, takeover=takeover)
            lease = self._held(lease)
        self._database.outside.watches.wake(lease.run.run_id)
        return lease

    def _held(self, lease: Lease) -> Lease:
        self._holding.hold(lease.run.run_id)
        # Its record was made for this very lease, and nobody else has it yet.
        object.__setattr__(lease.run, "lease_expires_at", self._holding.expires_at)
        return lease

    async def _take(self, run_id: str, details: Mapping[str, Any], *, takeover: bool) -> Lease:
        for _ in range(_ATTEMPTS):
            try:
                return await self._database.transact(transactions.acquire, run_id, details, takeover=takeover)
            except StoreUnavailableError as error:
                if error.__cause__ is None or not faults.is_taken(error.__cause__):
                    raise
                # The old owner's last row got in first: it is part of the run, look again.
        raise StoreUnavailableError(self._database.url, f"run {run_id} kept changing under {_ATTEMPTS} attempts to take it")

    async def commit(self, commit: Commit, within: Transaction | None = None) -> Receipt:
        database = self._database
        if not database.is_open:
            await database.open()
        try:
            work = transition_of(commit, key_of(commit.run_id))
            receipt: Receipt
            if within is not None:
                receipt = await cast("StepTransaction", within).commit(work)  # this store has made it
            else:
                receipt = await database.commit(work)
        except RunNotFoundError:
            raise LeaseLostError(commit.run_id, commit.epoch) from None
        except LeaseLostError:
            self._holding.drop(commit.run_id)
            raise
        except Exception as error:
            with faults.typed_errors(database.url):
                raise
            raise AssertionError from error  # typed_errors always raises
        if commit.run_id in database.outside.rung:
            database.outside.tell(commit.run_id)
        change = commit.change
        if change is not None and change.release_at_rev in (None, receipt.inbox_rev):
            if change.release or change.status in ENDED:
                self._holding.drop(commit.run_id)
            if change.status is not None:
                database.outside.watches.wake(commit.run_id)
        return receipt

    async def take_up(self, resumption: Resumption) -> Receipt:
        await self._holding.register()
        database, commit = self._database, resumption.commit
        with self._holding.coming(commit.run_id):
            with faults.typed_errors(database.url):
                receipt = await database.commit(resumption_of(resumption, key_of(commit.run_id), database.scribe.worker_id))
            change = commit.change
            if change is None or not (change.release or change.status in ENDED):
                self._holding.hold(commit.run_id)
        database.outside.watches.wake(commit.run_id)
        if commit.run_id in database.outside.rung:
            database.outside.tell(commit.run_id)
        return receipt

    async def change_over(self, changeover: Changeover) -> Receipt:
        database = self._database
        try:
            receipt = await database.transact(transactions.change_over, changeover)
        except LeaseLostError:
            self._holding.drop(changeover.run_id)
            raise
        except StoreUnavailableError as error:
            if error.__cause__ is None or not faults.is_taken(error.__cause__):
                raise
            self._holding.drop(changeover.run_id)
            raise LeaseLostError(changeover.run_id, changeover.epoch) from error  # another owner's row stands there
        self._known_graphs.add(changeover.graph_hash)
        database.outside.watches.wake(changeover.run_id)
        return receipt

    async def put_snapshot(self, snapshot: Snapshot, epoch: int) -> None:
        await self._database.transact(transactions.put_snapshot, snapshot, epoch)

    async def put_graph(self, graph_hash: str, definition: str) -> None:
        if graph_hash not in self._known_graphs:
            await self._database.transact(transactions.put_graph, graph_hash, definition)
            self._known_graphs.add(graph_hash)

    async def release(self, run_id: str, epoch: int) -> None:
        await self._database.transact(transactions.release, run_id, epoch)
        self._holding.drop(run_id)
        self._database.outside.watches.wake(run_id)
