"""Where decisions and takings are judged together on PostgreSQL: read, judge, write only where nothing changed meanwhile.

Two statements for a batch, each its own transaction: nobody's lock is held
while Python thinks, and nothing is waited for while a lock is held, so no
deadlock can come of deciding many at once.  What changed between the two, is
held by somebody else, or is out of the ordinary in any way is handed back
with None: whoever asked then goes the long way of `transactions`, alone.
Runs, inboxes and the clock are read here too, and side effects begun and
ended, by one statement for all who ask at once.  Judges by `deciding` and
knows no rule itself.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from checkpoint_stores.deciding import find_ticket, judge, needs_delegations, node_of, tickets_counting_for
from checkpoint_stores.errors import RunEndedError, RunNotFoundError
from checkpoint_stores.ids import new_id
from checkpoint_stores.protocol import Decides
from checkpoint_stores.records import ENDED, BarrierRecord, BarrierStatus, DecisionRecord, Lease, Row, RunRecord
from checkpoint_stores.sql import faults, postgres_statements
from checkpoint_stores.sql.database import Found
from checkpoint_stores.sql.lines import (
    BarrierLine,
    DecisionLine,
    RunLine,
    WatchedLine,
    barrier_of,
    decision_line,
    decision_of,
    id_of,
    inbox_of,
    run_of,
)
from checkpoint_stores.sql.matters import Asked, AskingTime, Ending, Finding, Looking, Matter, Starting, Surveying, Taking
from checkpoint_stores.sql.places import POSTGRES_CLOCK
from checkpoint_stores.sql.postgres_queue import Job, PostgresQueue
from checkpoint_stores.sql.settling import Answer, Outcome
from checkpoint_stores.sql.statements import BARRIERS, DECISIONS, ROW_COLUMNS
from checkpoint_stores.sql.transactions import Scribe, attempt_row

_AT_ONCE: Final = 250
"""Judging takes the loop's time: no batch may take it for long."""

_READING_SECONDS: Final = 3.0
"""So long a connection may take to say how a run stands; many wait behind it who could ask over others."""

_SURVEYED_AT_ONCE: Final = 50
"""Of so many runs all that there is of them comes in one answer."""

_STARTED_AT_ONCE: Final = 16
"""So many effects, begun and not carried out, are in doubt at the most where the connection breaks behind the statement and before its
answer: somebody has to look after each."""

_STANDING: Final = len(WatchedLine._fields)
_LARGE: Final = (-1, ROW_COLUMNS.index("payload") - 1, BARRIERS.index("details"), DECISIONS.index("details"))
"""Where snapshots, rows, tickets and decisions hold what may be large."""


class PostgresDesk(PostgresQueue[Matter]):
    """Takes a `Matter`, each answered as its class says; None as an answer means: not here, go the long way.

    Args:
        connect: opens an asyncpg connection.
        scribe: who takes runs, by which clock and chain.
    """

    def __init__(self, url: str, connect: Callable[[], Awaitable[Any]], scribe: Scribe) -> None:
        # No patience: the long way has its own.
        super().__init__(url, connect, patience=0)
        self._scribe = scribe
        self._carry_out: dict[type, Callable[[list[Job[Any]]], Awaitable[list[Outcome]]]] = {
            Asked: self._judge,
            Taking: self._transfer,
            Looking: self._look,
            Finding: self._find,
            Surveying: self._survey,
            AskingTime: self._tell_time,
            Starting: self._start,
            Ending: self._end,
        }

    async def _prepare_statements(self, connection: Any) -> None:
        self._read_cases = await connection.prepare(postgres_statements.READ_CASES)
        self._decide = await connection.prepare(postgres_statements.DECIDE)
        self._read_free = await connection.prepare(postgres_statements.READ_FREE)
        self._take = await connection.prepare(postgres_statements.TAKE)
        self._read_inboxes = await connection.prepare(postgres_statements.READ_INBOXES)
        self._read_runs = await connection.prepare(postgres_statements.READ_RUNS)
        self._read_standings = await connection.prepare(postgres_statements.READ_STANDINGS)
        self._start_effects = await connection.prepare(postgres_statements.START_EFFECTS)
        self._end_effects = await connection.prepare(postgres_statements.END_EFFECTS)

    def _batches(self) -> list[list[Job[Matter]]]:
        """Take what waits: the decisions, the takings (these each run at most once), the inboxes, side effects (each at most once)."""
        taken: dict[type, list[Job[Matter]]] = {kind: [] for kind in self._carry_out}
        alone: set[tuple[Any, ...]] = set()
        rest = []
        number = 0
        for job in self._waiting:
            work, future = job
            if future.done():
                continue  # whoever asked has gone, and nothing was done yet
            name = _name_of(work)
            if number >= _AT_ONCE or name in alone or (type(work) is Starting and len(taken[Starting]) >= _STARTED_AT_ONCE):
                rest.append(job)
                continue
            number += 1
            taken[type(work)].append(job)
            if name is not None:
                alone.add(name)
        self._waiting = rest
        return [batch for batch in taken.values() if batch]

    async def _write(self, batch: list[Job[Any]]) -> list[Outcome]:
        try:
            await self._prepare()
            return await self._carry_out[type(batch[0][0])](batch)
        except TimeoutError:
            # Nobody is there any more, and nobody has said so: to close it in order would take its time as well.
            if self._connection is not None:
                self._connection.terminate()
            return _the_long_way(batch)
        except Exception as error:
            if not faults.is_of_a_driver(error):
                raise
            if faults.is_connection_lost(error):
                await self._disconnect()
            return _the_long_way(batch)

    # --- decisions --------------------------------------------------------------------------------------------------
    async def _judge(self, batch: list[Job[Asked]]) -> list[Outcome]:
        wanted = dict.fromkeys((work.key, node_of(work.barrier), work.barrier) for work, _ in batch)
        cases = _cases_of(await self._read_cases.fetch(self._scribe.time(), *zip(*wanted, strict=True)))
        outcomes: list[tuple[bytes, Answer, tuple[DecisionRecord, bool] | None, Exception | None]] = []
        for work, future in batch:
            try:
                outcomes.append((work.key, future, _heard(cases, work), None))
            except Exception as error:  # noqa: BLE001 - a refusal refuses this decision alone
                # Delegations are not read here: whoever may need one goes the long way.
                outcomes.append((work.key, future, None, None if needs_delegations(error, work.decision) else error))
        accepted = {key: case for key, case in cases.items() if case.lines}
        done: set[bytes] = set()
        if accepted:
            written = await self._decide.fetch(self._scribe.time(), *_arrays_of(accepted))
            done = {line[0] for line in written}
        # Where a run changed meanwhile all its decisions are judged again, also those that were refused for the sake of another.
        undone = accepted.keys() - done
        return [(future, None, None) if key in undone else (future, result, error) for key, future, result, error in outcomes]

    # --- takings ----------------------------------------------------------------------------------------------------
    async def _transfer(self, batch: list[Job[Taking]]) -> list[Outcome]:
        found = {line[0]: tuple(line) for line in await self._read_free.fetch([work.key for work, _ in batch])}
        width = len(RunLine._fields)
        refused: dict[bytes, Exception] = {}
        rows: dict[bytes, Row] = {}
        given: list[tuple[Any, ...]] = []
        for work, _ in batch:
            line = found.get(work.key)
            if line is None:
                refused[work.key] = RunNotFoundError(work.run_id)
                continue
            run, (version, *head) = RunLine(*line[:width]), line[width:]
            if run.status in ENDED:
                refused[work.key] = RunEndedError(work.run_id, run.status)
            elif run.owner is None and head[0] is not None:
                try:
                    rows[work.key], details = attempt_row(self._scribe, run, head, work.details)
                except Exception as error:  # noqa: BLE001 - details that hold no data refuse this taking alone
                    refused[work.key] = error
                else:
                    row = rows[work.key]
                    given.append((work.key, version, details.get("max_steps"), details.get("graph_hash"), row.seq, row.digest))
        taken = {line[0]: RunLine(*line) for line in await self._take_free(given, rows)} if given else {}
        return [
            (future, _lease_of(taken[work.key], rows[work.key]) if work.key in taken else None, refused.get(work.key))
            for work, future in batch
        ]

    async def _take_free(self, given: Sequence[tuple[Any, ...]], rows: Mapping[bytes, Row]) -> list[Sequence[Any]]:
        lines = [(key, *row[1:11]) for key, row in rows.items()]
        try:
            found = await self._take.fetch(
                self._scribe.time(), self._scribe.worker_id, *zip(*given, strict=True), *zip(*lines, strict=True)
            )
        except Exception as error:
            if not faults.is_connection_lost(error):
                raise
            # It may be in; nobody is told anything before that is known.
            await self._disconnect()
            await self._prepare()
            found = await self._connection.fetch(postgres_statements.TAKEN, list(rows), [row.digest for row in rows.values()])
        return [line[: len(RunLine._fields)] for line in map(tuple, found)]

    async def _find(self, batch: list[Job[Finding]]) -> list[Outcome]:
        lines = await self._read_runs.fetch(self._scribe.time(), list({work.key for work, _ in batch}), timeout=_READING_SECONDS)
        found = {line[0]: tuple(line) for line in lines}
        return [(future, found.get(work.key), None) for work, future in batch]

    async def _survey(self, batch: list[Job[Surveying]]) -> list[Outcome]:
        keys = list({work.key for work, _ in batch})
        found: dict[bytes, Found] = {}
        for first in range(0, len(keys), _SURVEYED_AT_ONCE):
            lines = await self._read_standings.fetch(self._scribe.time(), keys[first : first + _SURVEYED_AT_ONCE], timeout=_READING_SECONDS)
            found.update((line[0], parts) for line in lines if (parts := _parts_of(tuple(line))) is not None)
        return [(future, found.get(work.key), None) for work, future in batch]

    # --- side effects -----------------------------------------------------------------------------------------------
    async def _start(self, batch: list[Job[Starting]]) -> list[Outcome]:
        found = await self._start_effects.fetch(self._scribe.time(), *zip(*(work.line for work, _ in batch), strict=True))
        return _written(batch, found)

    async def _end(self, batch: list[Job[Ending]]) -> list[Outcome]:
        lines = ((*work.line, work.epoch, work.held) for work, _ in batch)
        found = await self._end_effects.fetch(self._scribe.time(), *zip(*lines, strict=True))
        return _written(batch, found)

    # --- the clock and inboxes ----------------------------------------------------------------------------------------------------
    async def _tell_time(self, batch: list[Job[AskingTime]]) -> list[Outcome]:
        now = await self._connection.fetchval(f"SELECT {POSTGRES_CLOCK}", timeout=_READING_SECONDS)
        return [(future, now, None) for _, future in batch]

    async def _look(self, batch: list[Job[Looking]]) -> list[Outcome]:
        found = {line[0]: line[1:] for line in await self._read_inboxes.fetch([work.key for work, _ in batch], timeout=_READING_SECONDS)}
        return [
            (future, inbox_of(*found[work.key]), None) if work.key in found else (future, None, RunNotFoundError(work.run_id))
            for work, future in batch
        ]


def _parts_of(line: tuple[Any, ...]) -> Found | None:
    """What `statements.standing` asks for; None where it is much."""
    parts = line[_STANDING:]
    is_much = any(
        len(lines) > postgres_statements.FEW or None in [each[place] for each in lines] for lines, place in zip(parts, _LARGE, strict=True)
    )
    return None if is_much else ([line[:_STANDING]], *parts)


def _name_of(work: Matter) -> tuple[Any, ...] | None:
    """What may be in a batch once only."""
    if isinstance(work, Taking):
        return (work.key,)
    return (type(work), *work.key) if isinstance(work, Starting | Ending) else None


def _written(batch: Iterable[Job[Any]], found: Iterable[Sequence[Any]]) -> list[Outcome]:
    """The records of effects with the times at which they were written; of the others None."""
    times = {(line[0], line[1]): line[2] for line in found}
    return [(future, work.at(times[work.key]) if work.key in times else None, None) for work, future in batch]


def _the_long_way(batch: Iterable[Job[Any]]) -> list[Outcome]:
    return [(future, None, None) for _, future in batch]


def _lease_of(line: Any, row: Row) -> Lease:
    return Lease(run_of(line), line.epoch, row.seq, row.digest, row)


class _Case:
    """One run as it was read, and what the decisions of this batch make of it, one after the other."""

    def __init__(self, run: RunRecord, version: str, clock: int) -> None:
        self.run = run
        self.version = version
        self.clock = clock
        self.known: dict[str, BarrierRecord] = {}
        self.votes: dict[str, DecisionRecord] = {}
        self.definition: str | None = None
        self.lines: list[dict[str, Any]] = []
        """Of the decisions accepted."""
        self.settled: dict[str, BarrierStatus] = {}

    def hear(self, barrier: str, decision: Decides) -> tuple[DecisionRecord, bool]:
        """Judge a decision; raises what `deciding` raises."""
        node = node_of(barrier)
        known = [record for record in self.known.values() if record.node == node or record.ticket == barrier]
        ticket = find_ticket(self.run, barrier, known, self.definition)
        counting = tickets_counting_for(ticket.ticket if isinstance(ticket, BarrierRecord) else ticket.name)
        cast = [vote for vote in self.votes.values() if vote.ticket in counting]
        # Each of one run a microsecond later than the one before, so that their order is kept.
        now = self.clock + len(self.lines)
        verdict = judge(self.run, ticket, cast, decision, now=now, decision_id=new_id(now))
        if not verdict.is_new:
            return verdict.record, False
        line = decision_line(verdict.record)
        self.lines.append(line)
        self.votes[verdict.record.id] = decision_of(DecisionLine(**line))
        if isinstance(ticket, BarrierRecord) and verdict.status != ticket.status:
            self.settled[ticket.ticket] = verdict.status
            self.known[ticket.ticket] = replace(ticket, status=verdict.status)
        return verdict.record, True


def _heard(cases: Mapping[bytes, _Case], work: Asked) -> tuple[DecisionRecord, bool]:
    case = cases.get(work.key)
    if case is None:
        raise RunNotFoundError(work.run_id)
    return case.hear(work.barrier, work.decision)


def _cases_of(found: Iterable[Sequence[Any]]) -> dict[bytes, _Case]:
    cases: dict[bytes, _Case] = {}
    for key, version, flow, flow_version, graph_hash, status, max_steps, clock, _, barriers, decisions, definition in found:
        case = cases.get(key)
        if case is None:
            run = RunRecord(id_of(key), flow, flow_version, graph_hash, status, max_steps)
            case = cases[key] = _Case(run, version, clock)
            case.votes = {line[0]: decision_of(DecisionLine(*line)) for line in decisions}
        case.known.update((record.ticket, record) for record in (barrier_of(BarrierLine(*line)) for line in barriers))
        case.definition = case.definition or definition
    return cases


def _arrays_of(accepted: Mapping[bytes, _Case]) -> list[Any]:
    settled = [(key, *pair) for key, case in accepted.items() for pair in case.settled.items()]
    return [
        *zip(*((key, case.version, len(case.lines), "decided" in case.settled.values()) for key, case in accepted.items()), strict=True),
        *(zip(*settled, strict=True) if settled else [()] * postgres_statements.DECISION_PARTS[1]),
        *zip(*([line[name] for name in DecisionLine._fields] for case in accepted.values() for line in case.lines), strict=True),
    ]
