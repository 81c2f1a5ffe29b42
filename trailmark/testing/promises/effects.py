"""What is promised of side effects: begun once, ended once, in doubt when their process is gone, and settled by a person then.

What an effect does stands nowhere here: a store knows its key, its name and how it ended.
"""

# ruff: noqa: S101 - a test asserts
from __future__ import annotations

import asyncio
import hashlib
from dataclasses import replace

import pytest

from checkpoint_stores.errors import (
    AmbiguousEffectError,
    EffectNotInDoubtError,
    LeaseLostError,
    RunNotFoundError,
    UnknownEffectError,
    UnserialisableError,
)
from checkpoint_stores.ids import new_id
from checkpoint_stores.protocol import CheckpointStore
from checkpoint_stores.records import EffectRecord
from trailmark.testing.owned_runs import OwnedRun, new_run


def effect(run: OwnedRun, name: str = "debit", *, visit: int = 1) -> EffectRecord:
    """A side effect of the node ``pay``."""
    key = hashlib.sha256(f"{run.run_id} {name} {visit}".encode()).hexdigest()
    return EffectRecord(run.run_id, key, name, "pay", "", visit)


class EffectContract:
    """A side effect is carried out at most once, and nobody guesses how it ended."""

    async def test_of_two_that_begin_an_effect_one_may_carry_it_out(self, store: CheckpointStore) -> None:
        run = await new_run(store)
        answers = await asyncio.gather(*(store.begin_effect(effect(run), run.epoch) for _ in range(4)))
        assert sorted(may_run for _, may_run in answers) == [False, False, False, True]
        assert {record.status for record, may_run in answers if not may_run} == {"in_doubt"}

    async def test_an_effect_tells_its_outcome_to_whoever_begins_it_again(self, store: CheckpointStore, other: CheckpointStore) -> None:
        run = await new_run(store)
        started, may_run = await store.begin_effect(effect(run), run.epoch)
        assert (may_run, started.status, started.begun) == (True, "started", 1)
        done = replace(started, status="done", outcome={"receipt": [1, None, 2.5]})
        ended = await store.end_effect(done, run.epoch)
        assert (ended.status, ended.outcome, ended.ended_at is not None) == ("done", {"receipt": [1, None, 2.5]}, True)
        assert await store.end_effect(done, run.epoch) == ended
        assert await store.begin_effect(effect(run), run.epoch, again=True) == (ended, False)
        assert await other.effects(run.run_id) == [ended]

    async def test_an_outcome_of_none_is_an_outcome(self, store: CheckpointStore) -> None:
        run = await new_run(store)
        started, _ = await store.begin_effect(effect(run), run.epoch)
        ended = await store.end_effect(replace(started, status="done"), run.epoch)
        assert await store.begin_effect(effect(run), run.epoch) == (ended, False)

    async def test_an_effect_that_was_not_done_may_be_begun_again(self, store: CheckpointStore) -> None:
        run = await new_run(store)
        first, _ = await store.begin_effect(effect(run), run.epoch)
        await store.end_effect(replace(first, status="not_done", reason="refused"), run.epoch)
        second, may_run = await store.begin_effect(effect(run), run.epoch)
        assert (may_run, second.begun, second.reason) == (True, 2, "")
        # What the first one's process brings now comes too late.
        assert (await store.end_effect(replace(first, status="done", outcome=1), run.epoch)).status == "started"

    async def test_an_effect_whose_process_is_gone_is_in_doubt(self, store: CheckpointStore, other: CheckpointStore) -> None:
        run = await new_run(store)
        started, _ = await store.begin_effect(effect(run), run.epoch)
        assert [each.status for each in await other.effects(run.run_id)] == ["started"]
        lease = await other.acquire(run.run_id, takeover=True)
        assert [each.status for each in await store.effects(run.run_id)] == ["in_doubt"]
        with pytest.raises(LeaseLostError):
            await store.end_effect(replace(started, status="done", outcome=1), run.epoch)
        with pytest.raises(LeaseLostError):
            await store.begin_effect(effect(run, "other"), run.epoch)
        record, may_run = await other.begin_effect(effect(run), lease.epoch)
        assert (record.status, may_run) == ("in_doubt", False)
        record, may_run = await other.begin_effect(effect(run), lease.epoch, again=True)
        assert (record.status, may_run, record.begun, record.epoch) == ("started", True, 2, lease.epoch)

    async def test_a_person_settles_an_effect_that_is_in_doubt(self, store: CheckpointStore, other: CheckpointStore) -> None:
        run = await new_run(store)
        for name in ("debit", "credit"):
            await store.begin_effect(effect(run, name), run.epoch)
        await store.release(run.run_id, run.epoch)
        done = await other.resolve_effect(run.run_id, "debit", done=True, outcome={"receipt": 7}, by="ana", reason="on the statement")
        assert (done.status, done.outcome, done.by, done.reason) == ("done", {"receipt": 7}, "ana", "on the statement")
        assert await store.resolve_effect(run.run_id, "debit", done=True, outcome={"receipt": 7}, by="ana") == done
        for by, is_done in (("ben", True), ("ana", False)):
            with pytest.raises(EffectNotInDoubtError):
                await store.resolve_effect(run.run_id, "debit", done=is_done, outcome={"receipt": 7}, by=by)
        key = effect(run, "credit").key
        await store.resolve_effect(run.run_id, key[:10], done=False, by="ana")
        assert {each.name: each.status for each in await store.effects(run.run_id)} == {"debit": "done", "credit": "not_done"}
        lease = await other.acquire(run.run_id)
        assert await other.begin_effect(effect(run, "debit"), lease.epoch) == (done, False)
        assert (await other.begin_effect(effect(run, "credit"), lease.epoch))[1]

    async def test_an_effect_that_is_going_on_or_unknown_cannot_be_settled(self, store: CheckpointStore) -> None:
        run = await new_run(store)
        await store.begin_effect(effect(run), run.epoch)
        with pytest.raises(EffectNotInDoubtError):
            await store.resolve_effect(run.run_id, "debit", done=False, by="ana")
        with pytest.raises(UnknownEffectError):
            await store.resolve_effect(run.run_id, "unheard", done=False, by="ana")
        await store.begin_effect(effect(run, visit=2), run.epoch)
        await store.release(run.run_id, run.epoch)
        with pytest.raises(AmbiguousEffectError):
            await store.resolve_effect(run.run_id, "debit", done=False, by="ana")
        with pytest.raises(ValueError, match="by must be"):
            await store.resolve_effect(run.run_id, effect(run).key, done=False, by="")
        with pytest.raises(RunNotFoundError):
            await store.resolve_effect(new_id(await store.now()), "debit", done=False, by="ana")
        with pytest.raises(RunNotFoundError):
            await store.effects(new_id(await store.now()))

    async def test_an_effect_that_was_never_begun_has_no_end(self, store: CheckpointStore) -> None:
        run = await new_run(store)
        await store.begin_effect(effect(run), run.epoch)
        with pytest.raises(UnknownEffectError, match="debit"):
            await store.end_effect(replace(effect(run, "credit"), status="done"), run.epoch)
        assert [each.name for each in await store.effects(run.run_id)] == ["debit"]

    async def test_an_end_changes_nothing_but_what_became_of_the_effect(self, store: CheckpointStore) -> None:
        run = await new_run(store)
        begun, _ = await store.begin_effect(effect(run), run.epoch)
        said = replace(begun, status="done", outcome=1, node="other", visit=9, name="credit", by="ana", started_at=5, epoch=7)
        ended = await store.end_effect(said, run.epoch)
        assert ended == replace(begun, status="done", outcome=1, ended_at=ended.ended_at)
        assert await store.effects(run.run_id) == [ended]

    async def test_an_outcome_that_is_no_data_is_refused(self, store: CheckpointStore) -> None:
        run = await new_run(store)
        started, _ = await store.begin_effect(effect(run), run.epoch)
        with pytest.raises(UnserialisableError):
            await store.end_effect(replace(started, status="done", outcome=object()), run.epoch)
        assert [each.status for each in await store.effects(run.run_id)] == ["started"]
