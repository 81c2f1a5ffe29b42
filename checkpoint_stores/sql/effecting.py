"""Side effects that are carried out once, in the SQL store: begun and ended by the owner, settled by people."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from checkpoint_stores import effects
from checkpoint_stores.codec import decode, encode
from checkpoint_stores.errors import LeaseLostError
from checkpoint_stores.records import EffectRecord
from checkpoint_stores.sql import statements, transactions
from checkpoint_stores.sql.database import Database
from checkpoint_stores.sql.holding import Holding
from checkpoint_stores.sql.lines import EffectLine, details_of, effect_line, effect_of, key_of, outcome_of
from checkpoint_stores.sql.matters import Ending, Starting
from checkpoint_stores.sql.reading import Reading


class Effecting:
    """What `StepContext.once` asks, and what people say about it."""

    def __init__(self, database: Database, holding: Holding, reading: Reading) -> None:
        self._database = database
        self._holding = holding
        self._reading = reading

    async def begin(self, effect: EffectRecord, epoch: int, *, again: bool) -> tuple[EffectRecord, bool]:
        # Nearly every effect is asked for once, by the owner of its run, and then all it takes is a new line.
        first, _ = effects.begin(None, effect, epoch, 0, again=again)
        line = effect_line(first)
        started = await self._database.at_once(Starting(line[:2], line, first))
        if started is not None:
            return started, True
        try:
            return await self._database.transact(transactions.begin_effect, effect, epoch, again=again)
        except LeaseLostError:
            self._holding.drop(effect.run_id)
            raise

    async def end(self, effect: EffectRecord, epoch: int) -> EffectRecord:
        encode(effect.outcome, "outcome")  # what is no data is refused before anybody waits
        line = effect_line(replace(effect, by=None))
        # Read back here: what cannot be read back is its own node's trouble, and nobody's whose effect ends at the same moment.
        record = replace(effect, by=None, outcome=outcome_of(line))
        held = details_of(replace(effect, by=None, reason=""))
        ended: EffectRecord | None = await self._database.at_once(Ending(line[:2], line, record, epoch, held))
        if ended is not None:
            return ended
        try:
            return await self._database.transact(transactions.end_effect, effect, epoch)
        except LeaseLostError:
            self._holding.drop(effect.run_id)
            raise

    async def of_run(self, run_id: str) -> list[EffectRecord]:
        found = (await self._database.fetch([(statements.EFFECTS_OF, (key_of(run_id),))]))[0]
        run = await self._reading.run(run_id)
        return [effects.seen(run, effect_of(EffectLine(*line))) for line in found]

    async def resolve(self, run_id: str, effect: str, *, done: bool, outcome: Any, by: str, reason: str) -> EffectRecord:
        given = decode(encode(outcome, "outcome"))
        return await self._database.transact(transactions.resolve_effect, run_id, effect, done=done, outcome=given, by=by, reason=reason)
