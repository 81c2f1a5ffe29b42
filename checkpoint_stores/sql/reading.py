"""What the SQL store tells of runs: which there are, what is written of one, whether that is sound."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any, Final, TypeVar

from checkpoint_stores.addressing import the_one
from checkpoint_stores.errors import SHORTEST_ID, CheckpointCorruptError, RunNotFoundError
from checkpoint_stores.fold import RunState
from checkpoint_stores.folding import folded, folded_as_read
from checkpoint_stores.protocol import Standing
from checkpoint_stores.records import Problem, Row, RunRecord, Snapshot
from checkpoint_stores.soundness import Stored, problems_of, sound_part, usable_snapshot
from checkpoint_stores.sql import listings, stamp, statements
from checkpoint_stores.sql.database import Database, Found
from checkpoint_stores.sql.lines import WatchedLine, id_of, inbox_of, key_of, rows_of, span_of, stored_of, tail_of, watched_run_of
from checkpoint_stores.sql.matters import Finding, Surveying
from checkpoint_stores.sql.places import Question

T = TypeVar("T")

_PAGE: Final = 500


class _Wish:
    """Whether whoever asks how a run stands wants its state, once he has heard the rest."""

    def __init__(self, wanted: Callable[[Standing], bool] | None) -> None:
        self._wanted = wanted
        self.is_for_state = False
        self.raised: Exception | None = None
        """What was raised instead of an answer: to be raised where nobody takes it for the database's."""

    def hears(self, standing: Standing) -> bool:
        try:
            self.is_for_state = self._wanted is None or self._wanted(standing)
        except Exception as error:  # noqa: BLE001 - it is told
            self.raised = error
        return self.is_for_state


class Reading:
    """Reads and never writes."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._chain = database.scribe.chain
        self._time = database.scribe.time

    # --- which runs there are ---------------------------------------------------------------------------------------
    async def run(self, run_id: str) -> RunRecord:
        try:
            key = key_of(run_id)
        except RunNotFoundError:
            if len(run_id) < SHORTEST_ID:
                raise
            found = await self._fitting(run_id)
        else:
            line = await self._database.at_once(Finding(key))
            lines = [line] if line is not None else (await self._database.fetch([(statements.RUN_BY_ID, (key, self._time()))]))[0]
            found = [WatchedLine(*line) for line in lines]
        return watched_run_of(the_one(run_id, {id_of(line.run_id): line for line in found}))

    async def _fitting(self, part: str) -> list[Any]:
        """Runs whose id begins with ``part``, or else ends with it."""
        span = span_of(part)
        found = [] if span is None else await self._runs(listings.runs_between(*span, self._time()))
        if not found and (tail := tail_of(part)):
            ending = await self._runs(listings.runs_ending(tail, self._time()))
            found = [line for line in ending if id_of(line.run_id).endswith(part.lower())]
        return found

    async def _runs(self, question: Question) -> list[Any]:
        return [WatchedLine(*line) for line in (await self._database.listed([question]))[0]]

    async def run_by_key(self, flow: str, run_key: str, *, tenant: str) -> RunRecord | None:
        found = (await self._database.fetch([(statements.RUN_BY_KEY, (tenant, self._time(), flow, run_key))]))[0]
        return watched_run_of(WatchedLine(*found[0])) if found else None

    async def runs(self, *, flow: str | None, status: str | None, tenant: str, limit: int, before: str | None) -> list[RunRecord]:
        position = None
        if before is not None:
            last = await self.run(before)
            position = (last.created_at, key_of(last.run_id))
        asked = listings.runs_newest_first(flow=flow, status=status, tenant=tenant, limit=limit, before=position, now=self._time())
        return [watched_run_of(line) for line in await self._runs(asked)]

    # --- what is written of one -------------------------------------------------------------------------------------
    async def load(self, run_id: str, upto: int | None) -> tuple[Snapshot | None, list[Row]]:
        return await self._sound(key_of(run_id), upto, lambda snapshot, rows: (snapshot, rows))

    async def folded(self, run_id: str, upto: int | None) -> RunState:
        key = key_of(run_id)
        part = statements.newest_part(key, statements.NEWEST if upto is None else upto)
        state = await self._database.fetch_through(part, partial(self._folded_as_read, key, upto))
        return state if state is not None else await self._sound(key, upto, partial(folded, id_of(key)))

    def _folded_as_read(self, key: bytes, upto: int | None, found: Found) -> RunState | None:
        """None where something is out of the ordinary: `_sound` tells what."""
        anchors, snapshots, lines = found
        stored, unsound = stored_of(key, (anchors, snapshots, ()), self._chain)
        return None if unsound else folded_as_read(self._chain, stored, rows_of(key, lines), upto)

    async def _sound(self, key: bytes, upto: int | None, made: Callable[[Snapshot | None, list[Row]], T]) -> T:
        """What ``made`` makes, where they are read, of the newest usable snapshot and the rows after it, all of them checked before."""
        last = statements.NEWEST if upto is None else upto
        found = await self._database.fetch_through(statements.newest_part(key, last), partial(self._made, key, upto, _is_enough, made))
        if found is None:
            found = await self._database.fetch_through(statements.whole_part(key, last), partial(self._made, key, upto, _is_there, made))
        if found is None:
            # It was pruned, or cut away: what is left tells which.
            whole = statements.whole_part(key, statements.NEWEST)
            found = await self._database.fetch_through(whole, partial(self._made, key, upto, _is_all, made))
        assert found is not None  # noqa: S101 - all there is is enough
        return found

    def _made(
        self, key: bytes, upto: int | None, is_enough: Callable[[Stored, int | None], bool],
        made: Callable[[Snapshot | None, list[Row]], T], found: Found,
    ) -> T | None:  # fmt: skip
        stored, _ = stored_of(key, found, self._chain)
        return made(*sound_part(self._chain, stored, upto)) if is_enough(stored, upto) else None

    async def standing(self, run_id: str, wanted: Callable[[Standing], bool] | None) -> Standing:
        try:
            key = key_of(run_id)
        except RunNotFoundError:
            key = key_of((await self.run(run_id)).run_id)  # which run is meant by a part of its id
        wish = _Wish(wanted)
        little: Found | None = await self._database.at_once(Surveying(key))
        if little is not None:
            standing = self._standing(key, wish, little)
        else:
            standing = await self._database.fetch_through(statements.standing(key, self._time()), partial(self._standing, key, wish))
        if standing is None:
            raise RunNotFoundError(run_id)
        if wish.raised is not None:
            raise wish.raised
        if wish.is_for_state and standing.state is None:
            standing = standing._replace(state=await self.folded(id_of(key), None))
        return standing

    def _standing(self, key: bytes, wish: _Wish, found: Found) -> Standing | None:
        """How a run stands; its state where that is wanted and nothing of it is out of the ordinary."""
        lines, snapshots, rows, barriers, decisions = found
        values = next(iter(lines), None)
        if values is None:
            return None
        line = WatchedLine(*values)
        standing = Standing(watched_run_of(line), None, inbox_of(line.inbox_rev, line.cancel, barriers, decisions), line.clock)
        if not wish.hears(standing):
            return standing
        anchor = (line.genesis, line.parent_run_id, line.head_seq, line.head_digest)
        return standing._replace(state=self._folded_as_read(key, None, ([anchor], snapshots, rows)))

    async def head(self, run_id: str) -> int:
        key = key_of(run_id)
        found = (await self._database.fetch([(statements.HEAD, (key,))]))[0]
        if not found:
            await self.run(id_of(key))  # says that there is no such run
            raise CheckpointCorruptError(id_of(key), 0, "not one of its checkpoints is left")
        return int(found[0][0])

    async def history(self, run_id: str, *, after: int) -> AsyncIterator[Row]:
        key = key_of(run_id)
        is_known = False
        while True:
            lines = (await self._database.fetch([(statements.LOAD_ROWS, (key, after + 1, statements.NEWEST, _PAGE))]))[0]
            if not lines and not is_known:
                await self.run(id_of(key))
            is_known = True
            for line in lines:
                yield Row(id_of(key), *line)
            if len(lines) < _PAGE:
                return
            after = lines[-1][0]

    async def graph(self, graph_hash: str) -> str | None:
        found = (await self._database.fetch([(statements.GRAPH, (graph_hash,))]))[0]
        return str(found[0][0]) if found else None

    # --- whether it is sound, and how much there is -----------------------------------------------------------------
    async def verify(self, run_id: str) -> list[Problem]:
        key = key_of(run_id)
        return await self._database.fetch_through(statements.whole_part(key, statements.NEWEST), partial(self._problems, key))

    def _problems(self, key: bytes, found: Found) -> list[Problem]:
        stored, unsound = stored_of(key, found, self._chain)
        edited = "its snapshot was edited (or the chain key is another)"
        return [*problems_of(self._chain, stored), *(Problem(stored.run_id, snapshot.seq, edited) for snapshot in unsound)]

    async def stats(self) -> dict[str, Any]:
        by_status, counts = await self._database.listed([listings.RUNS_BY_STATUS, listings.COUNTS])
        counted = dict(zip(listings.COUNTED, counts[0], strict=True))
        return {"runs": dict(map(tuple, by_status)), **counted, "bytes": await self._database.bytes_taken(), "schema": stamp.HEAD}


def _is_enough(stored: Stored, upto: int | None) -> bool:
    """Whether the newest snapshot and what follows it can be used (or there is no snapshot at all)."""
    if stored.snapshots:
        return usable_snapshot(stored.snapshots, stored.rows, statements.NEWEST if upto is None else upto) is not None
    return _is_there(stored, upto) and (not stored.rows or stored.rows[0].seq <= stored.first_seq)


def _is_there(stored: Stored, upto: int | None) -> bool:
    return upto is None or bool(stored.rows or stored.snapshots)


def _is_all(_stored: Stored, _upto: int | None) -> bool:
    return True
