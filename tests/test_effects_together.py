"""Side effects of many runs, begun and ended at once: each as if it were alone, and all of them in a few statements."""

from __future__ import annotations

import asyncio
import hashlib
import io
import random
import re
import struct
from collections.abc import AsyncIterator, Coroutine
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import asyncpg
import pytest
from pydantic import BaseModel

from checkpoint_stores.codec import register_type
from checkpoint_stores.errors import CodecError, LeaseLostError, RunNotFoundError
from checkpoint_stores.ids import new_id
from checkpoint_stores.memory import MemoryCheckpointStore
from checkpoint_stores.protocol import CheckpointStore
from checkpoint_stores.records import EffectRecord, Lease
from checkpoint_stores.sql import postgres_statements
from checkpoint_stores.sql.store import SQLCheckpointStore
from trailmark.testing.contract import OwnedRun, SetClock, new_run

RUNS, NAMES = 5, ("debit", "credit")


@register_type(name="receipt of the bank")
class Receipt(BaseModel):
    """What a state may hold because it is registered."""

    number: int


def effect_of(run_id: str, name: str = "debit") -> EffectRecord:
    return EffectRecord(run_id, hashlib.sha256(f"{run_id} {name}".encode()).hexdigest(), name, "pay", "", 1)


@pytest.fixture
def clock() -> SetClock:
    return SetClock()


@pytest.fixture(params=["sqlite", "postgres"])
async def store(request: pytest.FixtureRequest, clock: SetClock) -> AsyncIterator[SQLCheckpointStore]:
    async with SQLCheckpointStore(request.getfixturevalue(f"{request.param}_url"), now=clock) as opened:
        yield opened


async def test_many_are_begun_and_ended_at_once(store: SQLCheckpointStore) -> None:
    runs = [await new_run(store) for _ in range(300)]
    begun = await asyncio.gather(*(store.begin_effect(effect_of(run.run_id), run.epoch) for run in runs))
    assert all(may_run for _, may_run in begun)
    done = [replace(record, status="done", outcome={"receipt": number}) for number, (record, _) in enumerate(begun)]
    ended = await asyncio.gather(*(store.end_effect(each, run.epoch) for run, each in zip(runs, done, strict=True)))
    assert [record.outcome["receipt"] for record in ended] == list(range(300))
    assert [(await store.effects(run.run_id)) for run in runs[::50]] == [[record] for record in ended[::50]]


async def test_what_is_out_of_the_ordinary_harms_nobody_beside_it(store: SQLCheckpointStore) -> None:
    runs = [await new_run(store) for _ in range(6)]
    await store.begin_effect(effect_of(runs[1].run_id), runs[1].epoch)
    known, _ = await store.begin_effect(effect_of(runs[2].run_id), runs[2].epoch)
    known = await store.end_effect(replace(known, status="done", outcome=7), runs[2].epoch)
    asked = [store.begin_effect(effect_of(run.run_id), run.epoch + (run is runs[3])) for run in runs]
    answers = await asyncio.gather(*asked, store.begin_effect(effect_of(new_id(1)), 1), return_exceptions=True)
    assert [answer[1] for answer in (answers[0], answers[4], answers[5])] == [True] * 3  # type: ignore[index]
    assert (answers[1][0].status, answers[1][1]) == ("in_doubt", False)  # type: ignore[index, union-attr]
    assert answers[2] == (known, False)
    assert [type(answer) for answer in answers[3::3]] == [LeaseLostError, RunNotFoundError]
    assert [len(await store.effects(run.run_id)) for run in runs] == [1, 1, 1, 0, 1, 1]


async def test_of_those_who_begin_one_at_once_one_may_carry_it_out_whatever_is_begun_beside_it(store: SQLCheckpointStore) -> None:
    runs = [await new_run(store) for _ in range(8)]
    answers = await asyncio.gather(*(store.begin_effect(effect_of(run.run_id), run.epoch) for _ in range(3) for run in runs))
    assert [sum(may_run for _, may_run in answers[place :: len(runs)]) for place in range(len(runs))] == [1] * len(runs)


async def test_branches_of_one_run_begin_theirs_at_once(store: SQLCheckpointStore) -> None:
    run = await new_run(store)
    names = [f"branch {number}" for number in range(30)]
    answers = await asyncio.gather(*(store.begin_effect(effect_of(run.run_id, name), run.epoch) for name in names))
    assert all(may_run for _, may_run in answers)
    assert sorted(effect.name for effect in await store.effects(run.run_id)) == sorted(names)


async def test_a_run_somebody_else_has_locked_holds_up_only_its_own_effect(postgres_url: str) -> None:
    async with SQLCheckpointStore(postgres_url) as store:
        runs = [await new_run(store) for _ in range(4)]
        connection = await asyncpg.connect(postgres_url.replace("+asyncpg", ""))
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute("SELECT 1 FROM runs WHERE run_id = $1 FOR UPDATE", bytes.fromhex(runs[2].run_id.replace("-", "")))
        asked = [asyncio.ensure_future(store.begin_effect(effect_of(run.run_id), run.epoch)) for run in runs]
        try:
            async with asyncio.timeout(10):
                for place in (0, 1, 3):
                    record, may_run = await asked[place]
                    assert may_run
                    await store.end_effect(replace(record, status="done"), runs[place].epoch)
            assert not asked[2].done()
        finally:
            await transaction.rollback()
            await connection.close()
        assert (await asked[2])[1]


async def test_effects_are_begun_over_a_connection_that_broke_while_it_rested(postgres_url: str) -> None:
    async with SQLCheckpointStore(postgres_url) as store:
        runs = [await new_run(store) for _ in range(3)]
        first, _ = await store.begin_effect(effect_of(runs[0].run_id), runs[0].epoch)
        connection = await asyncpg.connect(postgres_url.replace("+asyncpg", ""))
        await connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        await connection.close()
        ending = store.end_effect(replace(first, status="done"), runs[0].epoch)
        answers = await asyncio.gather(ending, *(store.begin_effect(effect_of(run.run_id), run.epoch) for run in runs[1:]))
        assert [answers[0].status, *(may_run for _, may_run in answers[1:])] == ["done", True, True]  # type: ignore[union-attr, misc]


async def test_an_outcome_that_cannot_be_read_back_harms_no_other_effect_that_ends_beside_it(store: SQLCheckpointStore) -> None:
    runs = [await new_run(store) for _ in range(6)]
    begun = [(await store.begin_effect(effect_of(run.run_id), run.epoch))[0] for run in runs]
    outcomes = [0, 1, nowhere(), 3, 4, 5]
    done = [replace(record, status="done", outcome=outcome) for record, outcome in zip(begun, outcomes, strict=True)]
    ends = (store.end_effect(record, run.epoch) for run, record in zip(runs, done, strict=True))
    answers = await asyncio.gather(*ends, return_exceptions=True)
    assert isinstance(answers.pop(2), CodecError)
    assert [record.outcome for record in answers] == [0, 1, 3, 4, 5]  # type: ignore[union-attr]
    assert [each.status for run in runs for each in await store.effects(run.run_id)] == [*2 * ["done"], "started", *3 * ["done"]]


def nowhere() -> datetime:
    """A time in a zone that this machine does not know by its name."""
    head = b"TZif2" + bytes(15) + struct.pack(">6l", 0, 0, 0, 0, 1, 4) + struct.pack(">lbb", 0, 0, 0) + b"UTC\0"
    return datetime(2020, 1, 1, tzinfo=ZoneInfo.from_file(io.BytesIO(2 * head + b"\nUTC0\n"), key="Mars/Base"))


class LosesItsAnswer:
    """A prepared statement whose connection breaks once, behind the commit and before its answer."""

    def __init__(self, statement: Any) -> None:
        self._statement = statement
        self.asked: list[int] = []

    async def fetch(self, clock: int | None, *arrays: Any) -> Any:
        found = await self._statement.fetch(clock, *arrays)
        self.asked.append(len(arrays[0]))
        if len(self.asked) == 2:
            raise asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation")
        return found


async def test_a_connection_that_breaks_leaves_few_effects_of_many_in_doubt(postgres_url: str) -> None:
    async with SQLCheckpointStore(postgres_url) as store:
        runs = [await new_run(store) for _ in range(100)]
        await store.inbox(runs[0].run_id)
        desk = store._database.desk
        statement = desk._start_effects = LosesItsAnswer(desk._start_effects)
        answers = await asyncio.gather(*(store.begin_effect(effect_of(run.run_id), run.epoch) for run in runs))
        in_doubt = [record for record, may_run in answers if not may_run]
        assert 0 < len(in_doubt) == statement.asked[1] <= 16
        assert {record.status for record in in_doubt} == {"in_doubt"}


@pytest.mark.parametrize("name", ["START_EFFECTS", "END_EFFECTS"])
async def test_effects_go_by_keys_where_the_tables_were_counted_while_they_were_small(postgres_url: str, name: str) -> None:
    async with SQLCheckpointStore(postgres_url) as store:
        run = await new_run(store)
        await store.begin_effect(effect_of(run.run_id), run.epoch)
    connection = await asyncpg.connect(postgres_url.replace("+asyncpg", ""))
    await connection.execute("ANALYZE")
    await connection.execute(postgres_statements.PLANNING)
    text = getattr(postgres_statements, name)
    await connection.execute(f"PREPARE its AS {text}")
    places = max(int(place) for place in re.findall(r"\$(\d+)", text))
    plan = "\n".join(line[0] for line in await connection.fetch(f"EXPLAIN EXECUTE its({', '.join(['NULL'] * places)})"))
    await connection.close()
    assert "Index Cond: (run_id = g.run_id)" in plan, plan


# --- as if each were alone ------------------------------------------------------------------------------------------
class Told:
    """What one store says to a script: its runs, and the newest record that it gave for each effect."""

    def __init__(self, store: CheckpointStore, runs: list[OwnedRun]) -> None:
        self.store = store
        self.runs = runs
        self.epochs = [run.epoch for run in runs]
        self.records: dict[tuple[int, str], EffectRecord] = {}

    def asks(self, act: tuple[Any, ...]) -> Coroutine[Any, Any, Any]:
        kind, place, name, behind, detail = act
        run_id, epoch = self.runs[place].run_id, self.epochs[place] - behind
        if kind == "begin":
            return self.store.begin_effect(effect_of(run_id, name), epoch, again=detail)
        status, outcome, earlier = detail
        record = self.records.get((place, name)) or replace(effect_of(run_id, name), started_at=5)
        begun = max(1, record.begun - earlier)
        return self.store.end_effect(replace(record, status=status, outcome=outcome, reason=status, begun=begun), epoch)

    def heard(self, act: tuple[Any, ...], answer: Any) -> Any:
        """The answer, without what differs from store to store: the ids of runs."""
        if isinstance(answer, BaseException):
            return type(answer)
        record, may_run = answer if isinstance(answer, tuple) else (answer, None)
        if may_run:
            self.records[act[1], act[2]] = record
        return replace(record, run_id="", key=""), may_run


def batch(pick: random.Random) -> list[tuple[Any, ...]]:
    """What is asked at once, nothing of it twice about one effect."""
    acts: list[tuple[Any, ...]] = []
    for place, name in pick.sample([(place, name) for place in range(RUNS) for name in NAMES], pick.randrange(1, 8)):
        behind = int(pick.random() < 0.15)
        if pick.random() < 0.5:
            acts.append(("begin", place, name, behind, pick.random() < 0.3))
        else:
            status = pick.choice(["done", "not_done", "in_doubt"])
            outcome = pick.choice([None, 7, {"receipt": [1, "2"]}, Receipt(number=7)]) if status == "done" else None
            acts.append(("end", place, name, behind, (status, outcome, int(pick.random() < 0.2))))
    return acts


async def nothing_at_once(_matter: object) -> None: ...


@pytest.mark.parametrize("way", ["together", "the long way"])
@pytest.mark.parametrize("seed", range(10))
async def test_effects_that_are_asked_for_at_once_get_what_each_would_get_alone(
    store: SQLCheckpointStore, clock: SetClock, seed: int, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if way == "the long way":
        monkeypatch.setattr(store._database, "at_once", nothing_at_once)
    pick = random.Random(seed)
    both = [Told(each, [await new_run(each) for _ in range(RUNS)]) for each in (MemoryCheckpointStore(now=clock), store)]
    for _ in range(25):
        clock.advance(timedelta(seconds=1))
        acts = batch(pick)
        one_by_one = []
        for act in acts:
            try:
                one_by_one.append(await both[0].asks(act))
            except Exception as error:  # noqa: BLE001 - it is compared
                one_by_one.append(error)
        at_once = await asyncio.gather(*map(both[1].asks, acts), return_exceptions=True)
        assert [both[1].heard(*each) for each in zip(acts, at_once, strict=True)] == [
            both[0].heard(*each) for each in zip(acts, one_by_one, strict=True)
        ], acts
        if pick.random() < 0.2:
            place = pick.randrange(RUNS)
            for told in both:
                lease: Lease = await told.store.acquire(told.runs[place].run_id, takeover=True)
                told.epochs[place] = lease.epoch
    for place in range(RUNS):
        left = [
            sorted(
                (replace(each, run_id="", key="") for each in await told.store.effects(told.runs[place].run_id)), key=lambda each: each.name
            )
            for told in both
        ]
        assert left[0] == left[1]
