"""The outsider's side of the SQL store: what runs ask of people, what these decide, and how the owner hears of it."""

from __future__ import annotations

from typing import Any

from checkpoint_stores.deciding import check_asked
from checkpoint_stores.errors import RunMovedError, RunNotFoundError, StoreUnavailableError
from checkpoint_stores.protocol import Decides
from checkpoint_stores.records import Amendment, BarrierRecord, DecisionRecord, Inbox, Receipt, RunRecord, SignalRecord
from checkpoint_stores.signalling import apart
from checkpoint_stores.sql import faults, listings, statements, transactions
from checkpoint_stores.sql.database import Database
from checkpoint_stores.sql.lines import BarrierLine, DecisionLine, barrier_of, decision_of, id_of, inbox_of, key_of
from checkpoint_stores.sql.matters import Asked, Looking
from checkpoint_stores.sql.reading import Reading
from checkpoint_stores.watching import LocalWatch


class Asking:
    """Tickets, decisions, requests to cancel, and the inbox they end up in."""

    def __init__(self, database: Database, reading: Reading) -> None:
        self._database = database
        self._reading = reading

    async def inbox(self, run_id: str) -> Inbox:
        key = key_of(run_id)
        inbox: Inbox | None = await self._database.at_once(Looking(key, run_id))
        if inbox is not None:
            return inbox
        found, barriers, decisions = await self._database.fetch(
            [(statements.INBOX_REVISION, (key,)), (statements.LIVE_BARRIERS, (key,)), (statements.PENDING_DECISIONS, (key,))]
        )
        if not found:
            raise RunNotFoundError(run_id)
        rev, cancel = found[0]
        return inbox_of(rev, cancel, barriers, decisions)

    async def barriers(self, *, run_id: str | None, status: str | None, tenant: str, limit: int) -> list[BarrierRecord]:
        if run_id is None:
            asked = listings.barriers_oldest_first(status=status, tenant=tenant, limit=limit)
            return [barrier_of(BarrierLine(*line)) for line in (await self._database.listed([asked]))[0]]
        found = (await self._database.fetch([(statements.BARRIERS_OF_RUN, (key_of(run_id), status, limit))]))[0]
        if not found:
            await self._reading.run(run_id)
        return [barrier_of(BarrierLine(*line)) for line in found]

    async def decisions(self, run_id: str) -> list[DecisionRecord]:
        return list((await self._told(run_id))[0])

    async def signals(self, run_id: str) -> list[SignalRecord]:
        return list((await self._told(run_id))[1])

    async def _told(self, run_id: str) -> tuple[tuple[DecisionRecord, ...], tuple[SignalRecord, ...]]:
        found = (await self._database.fetch([(statements.ALL_DECISIONS, (key_of(run_id),))]))[0]
        if not found:
            await self._reading.run(run_id)
        return apart(decision_of(DecisionLine(*line)) for line in found)

    async def decide(self, run_id: str, barrier: str, decision: Decides) -> DecisionRecord:
        check_asked(barrier, decision)
        judged: tuple[DecisionRecord, bool] | None = await self._database.at_once(Asked(key_of(run_id), run_id, barrier, decision))
        if judged is None:
            judged = await self._database.transact(transactions.decide, run_id, barrier, decision)
        record, is_new = judged
        if is_new:
            self._database.outside.watches.wake(record.run_id)
        return record

    async def signal(self, run_id: str, name: str, payload: Any, *, by: str, signal_id: str | None) -> SignalRecord:
        record, is_new = await self._database.transact(transactions.signal, run_id, name, payload, by=by, given_id=signal_id)
        if is_new:
            self._database.outside.watches.wake(record.run_id)
        return record

    async def request_cancel(self, run_id: str, *, actor: str, reason: str) -> RunRecord:
        is_new = await self._database.transact(transactions.request_cancel, run_id, actor, reason)
        if is_new:
            self._database.outside.watches.wake(id_of(key_of(run_id)))
        return await self._reading.run(run_id)

    async def amend(self, amendment: Amendment) -> Receipt:
        try:
            receipt = await self._database.transact(transactions.amend, amendment)
        except StoreUnavailableError as error:
            if error.__cause__ is None or not faults.is_taken(error.__cause__):
                raise
            raise RunMovedError(amendment.row.run_id) from error  # a row of an owner that is gone got in first
        self._database.outside.watches.wake(amendment.row.run_id)
        return receipt

    def watch(self, run_id: str, *, steps: bool = False) -> LocalWatch:
        self._database.check_open()
        return self._database.outside.watches.watch(id_of(key_of(run_id)), steps=steps)
