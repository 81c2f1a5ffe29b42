"""What operators do to whole runs of the SQL store: delete them, drop their old checkpoints, carry them elsewhere; and pack the file.

One transaction for each run, so that a process that is killed in between leaves every run whole.  What is kept is for whoever
asks to say; this knows only what must never go.
"""

from __future__ import annotations

from checkpoint_stores.carrying import RunImage
from checkpoint_stores.errors import RunExistsError, RunNotEndedError, RunNotFoundError
from checkpoint_stores.records import ENDED, RunRecord, Snapshot
from checkpoint_stores.sql import statements
from checkpoint_stores.sql.database import Database
from checkpoint_stores.sql.lines import (
    BarrierLine,
    DecisionLine,
    EffectLine,
    RunLine,
    admitted_line,
    barrier_line,
    barrier_of,
    cancel_of,
    decision_line,
    decision_of,
    effect_line,
    effect_of,
    id_of,
    key_of,
    run_of,
    stored_of,
)
from checkpoint_stores.sql.transactions import Scribe, locked, put_graph
from checkpoint_stores.sql.wires import Wire


class Upkeep:
    """Deletes and packs."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def delete(self, run_id: str) -> RunRecord:
        return await self._database.transact(_delete, run_id)

    async def drop_before(self, snapshot: Snapshot) -> int:
        return await self._database.transact(_drop_before, snapshot)

    async def image(self, run_id: str) -> RunImage:
        key = key_of(run_id)
        texts = (statements.WHOLE_RUN, statements.GRAPH_OF_RUN, statements.ALL_BARRIERS, statements.ALL_DECISIONS, statements.EFFECTS_OF)
        whole = statements.whole_part(key, statements.NEWEST)
        runs, graphs, barriers, decisions, effects, *rest = await self._database.fetch([*((text, (key,)) for text in texts), *whole])
        if not runs:
            raise RunNotFoundError(run_id)
        line = RunLine(*runs[0])
        stored, _unsound = stored_of(key, rest, self._database.scribe.chain)
        return RunImage(
            run_of(line), stored.genesis, str(graphs[0][0]) if graphs else "", cancel_of(line.cancel), tuple(stored.rows),
            tuple(stored.snapshots), tuple(barrier_of(BarrierLine(*each)) for each in barriers),
            tuple(decision_of(DecisionLine(*each)) for each in decisions), tuple(effect_of(EffectLine(*each)) for each in effects),
        )  # fmt: skip

    async def admit(self, image: RunImage) -> RunRecord:
        record = await self._database.transact(_admit, image)
        self._database.outside.watches.wake(record.run_id)
        return record

    async def vacuum(self) -> tuple[int, int]:
        before = await self._size()
        await self._database.vacuum()
        return before, await self._size()

    async def _size(self) -> int:
        return await self._database.bytes_taken()


def _delete(wire: Wire, scribe: Scribe, run_id: str) -> RunRecord:
    """Delete a run that has ended, and all that is kept of it.  Raises RunNotFoundError, RunNotEndedError."""
    line, _clock = locked(wire, scribe, run_id)
    if line.status not in ENDED:
        raise RunNotEndedError(run_id, line.status)
    for delete in statements.DELETE_RUN:
        wire.fetch(delete, line.run_id)
    return run_of(line)


def _admit(wire: Wire, scribe: Scribe, image: RunImage) -> RunRecord:
    """Insert a run as it was elsewhere.  Raises RunExistsError."""
    run, line = image.run, admitted_line(image.run, genesis=image.genesis, cancel=image.cancel)
    taken = wire.fetch(statements.NAME_TAKEN, line.run_id, run.tenant, run.flow, run.run_key)
    if taken:
        there = id_of(taken[0][0])
        raise RunExistsError(run.run_id if there == run.run_id else run.run_key or run.run_id, there)
    wire.fetch(statements.ADMIT_RUN, *line)
    if image.definition:
        put_graph(wire, scribe, run.graph_hash, image.definition)
    for row in image.rows:
        wire.fetch(statements.ADMIT_ROW, line.run_id, *row[1:])
    for snapshot in image.snapshots:
        seal = scribe.chain.seal_snapshot(snapshot)
        wire.fetch(statements.PUT_SNAPSHOT, line.run_id, snapshot.seq, snapshot.digest, seal, snapshot.payload, run.epoch)
    for barrier in image.barriers:
        values = barrier_line(barrier, tenant=run.tenant)
        wire.fetch(statements.INSERT_BARRIER, *(values[name] for name in BarrierLine._fields))
    for decision in image.decisions:
        values = decision_line(decision)
        wire.fetch(statements.INSERT_DECISION, *(values[name] for name in DecisionLine._fields))
    for effect in image.effects:
        wire.fetch(statements.PUT_EFFECT, *effect_line(effect))
    wire.tell(line.run_id)
    return run_of(line)


def _drop_before(wire: Wire, scribe: Scribe, snapshot: Snapshot) -> int:
    """Keep the snapshot and delete the rows it stands for; return how many.  Raises RunNotFoundError."""
    line, _clock = locked(wire, scribe, snapshot.run_id)
    key = line.run_id
    there = wire.fetch(statements.ROW_DIGEST, key, snapshot.seq)
    heads = wire.fetch(statements.HEAD, key)
    if not there or bytes(there[0][0]) != snapshot.digest or heads[0][0] <= snapshot.seq:
        return 0
    seal = scribe.chain.seal_snapshot(snapshot)
    wire.fetch(statements.PUT_SNAPSHOT, key, snapshot.seq, snapshot.digest, seal, snapshot.payload, line.epoch)
    dropped = wire.fetch(statements.DROP_ROWS, key, snapshot.seq)
    wire.fetch(statements.DROP_SNAPSHOTS, key, snapshot.seq)
    return len(dropped)
