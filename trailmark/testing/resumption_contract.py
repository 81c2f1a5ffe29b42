"""Every promise of the optional protocols `Folds` and `TakesUp`: a run folded where it is read, and taken with what is made of it.

A further base beside `StoreContract`, for a store that offers them::

    class TestMyStore(StoreContract, ResumptionContract):
        ...
"""

# ruff: noqa: S101 - a test asserts
from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from checkpoint_stores.attempts import attempt_row
from checkpoint_stores.codec import encode
from checkpoint_stores.errors import (
    CheckpointCorruptError,
    CheckpointNotFoundError,
    LeaseHeldError,
    LeaseLostError,
    RunMovedError,
    RunNotFoundError,
)
from checkpoint_stores.fold import RunState
from checkpoint_stores.folding import folded
from checkpoint_stores.ids import new_id
from checkpoint_stores.protocol import Standing, TakesUp
from checkpoint_stores.records import Commit, DecisionRecord, Receipt, Resumption, Row, RunChange, Snapshot
from trailmark.testing.owned_runs import OwnedRun, Verdict, all_rows, barrier, new_run


def resumption(
    store: TakesUp,
    standing: Standing,
    *kinds: str,
    max_steps: int | None = None,
    said: int = 0,
    details: dict[str, Any] | None = None,
    **parts: Any,
) -> Resumption:
    """Take the run as it stands: an attempt, rows of these kinds behind it, and what else the commit holds."""
    run, head = standing.run, state_of(standing)
    epoch = run.epoch + 1
    given = {**(details or {}), "owner": store.worker_id}
    rows: list[Row] = [attempt_row(store.chain, run.run_id, (head.seq, head.digest, head.step), epoch, run.attempt + 1, given)]
    for kind in kinds:
        last = rows[-1]
        payload = encode([["set", "n", last.seq]])
        rows.append(store.chain.seal(last.digest, run.run_id, last.seq + 1, epoch, last.step + 1, kind, "", "review", "next", payload, 7))
    return Resumption(Commit(run.run_id, epoch, tuple(rows), **parts), run.inbox_rev, max_steps, said, head.digest)


def state_of(standing: Standing) -> RunState:
    assert standing.state is not None
    return standing.state


async def waiting_run(store: TakesUp) -> OwnedRun:
    """A run that waits for a decision; nobody holds it."""
    run = await new_run(store)
    await run.open_barrier()
    return run


async def kinds_of(store: TakesUp, run_id: str) -> list[str]:
    return [row.kind for row in await all_rows(store, run_id)]


class ResumptionContract:
    """The promises.  Shares the fixtures of `StoreContract`."""

    async def test_a_run_is_folded_where_it_is_read_as_it_is_where_it_is_loaded(self, store: TakesUp, other: TakesUp) -> None:
        run = await new_run(store)
        digests = {run.seq: run.digest}
        for number in range(150):
            await run.step(encode([["append", "log", [number]]]))
            digests[run.seq] = run.digest
            if run.seq in (40, 90):
                await store.put_snapshot(
                    Snapshot(run.run_id, run.seq, encode((await store.folded(run.run_id)).dump()), run.digest), run.epoch
                )
        for upto in (None, 1, 2, 39, 40, 41, 89, 90, 91, 104, 150, 151):
            state, loaded = await other.folded(run.run_id, upto), folded(run.run_id, *await other.load(run.run_id, upto))
            assert (state.run_id, state.dump(), state.digest, state.weight) == (run.run_id, loaded.dump(), loaded.digest, loaded.weight)
            assert state.digest == digests[(151 if upto is None else upto)]
            assert len(state.root.values.get("log", ())) == (151 if upto is None else upto) - 1
        for upto in (0, 152):
            with pytest.raises(CheckpointNotFoundError):
                await other.folded(run.run_id, upto)
        with pytest.raises(RunNotFoundError):
            await other.folded(new_id(0))

    async def test_what_is_folded_belongs_to_who_asked(self, store: TakesUp) -> None:
        run = await new_run(store)
        await run.step(encode([["append", "log", [[1]]]]))
        for state in (await store.folded(run.run_id), state_of(await store.standing(run.run_id))):
            state.root.values["log"][0].append(2)
        assert (await store.folded(run.run_id)).root.values == {"n": 0, "log": [[1]]}

    async def test_a_run_that_cannot_be_folded_says_where(self, store: TakesUp) -> None:
        unheard = await new_run(store)
        await unheard.step()
        await unheard.step(encode([["unheard-of"]]))
        await unheard.step()
        broken = await new_run(store)
        await broken.step()
        broken.digest = b"y" * 32
        await broken.step()
        for run in (unheard, broken):
            for ask in (store.folded, store.standing):
                with pytest.raises(
                    CheckpointCorruptError, match="its payload cannot be folded" if run is unheard else "its digest"
                ) as caught:
                    await ask(run.run_id)
                assert (caught.value.run_id, caught.value.seq) == (run.run_id, 3)
            assert (await store.folded(run.run_id, 2)).root.values == {"n": 2}

    async def test_a_run_whose_snapshot_cannot_be_read_says_so(self, store: TakesUp) -> None:
        run = await new_run(store)
        await run.step()
        await store.put_snapshot(Snapshot(run.run_id, run.seq, encode([]), run.digest), run.epoch)
        await run.step()
        with pytest.raises(CheckpointCorruptError, match="its snapshot cannot be read") as caught:
            await store.folded(run.run_id)
        assert (caught.value.run_id, caught.value.seq) == (run.run_id, 2)

    async def test_a_standing_tells_what_its_parts_tell(self, store: TakesUp, other: TakesUp) -> None:
        run = await waiting_run(store)
        await store.decide(run.run_id, "review", Verdict(reason="seen"))
        for asked in (run.run_id, run.run_id[:-4]):
            standing = await other.standing(asked)
            assert (standing.run, standing.inbox) == (await other.run(run.run_id), await other.inbox(run.run_id))
            loaded = folded(run.run_id, *await other.load(run.run_id))
            assert (state_of(standing).dump(), state_of(standing).digest) == (loaded.dump(), loaded.digest)
            assert abs(standing.clock - await other.now()) < 60_000_000
        with pytest.raises(RunNotFoundError):
            await store.standing(new_id(0))

    async def test_a_state_that_is_not_wanted_is_not_read(self, store: TakesUp, other: TakesUp) -> None:
        run = await waiting_run(store)
        await run.step(encode([["unheard-of"]]))
        told: list[Standing] = []

        def unwanted(standing: Standing) -> bool:
            told.append(standing)
            return False

        standing = await other.standing(run.run_id, wanted=unwanted)
        assert (standing.run, standing.state, standing.inbox) == (await other.run(run.run_id), None, await other.inbox(run.run_id))
        assert told == [standing]
        with pytest.raises(CheckpointCorruptError):
            await other.standing(run.run_id, wanted=lambda _standing: True)

        for refusal, told_as in ((LookupError("not this one"), LookupError), (OSError("a disk"), OSError), (StopIteration(), RuntimeError)):

            def refuses(_standing: Standing, refusal: Exception = refusal) -> bool:
                raise refusal

            with pytest.raises(told_as) as caught:
                await asyncio.wait_for(other.standing(run.run_id, wanted=refuses), 60)
            assert refusal in (caught.value, caught.value.__cause__)

    async def test_a_standing_begins_at_the_newest_snapshot(self, store: TakesUp) -> None:
        run = await new_run(store)
        await run.step()
        kept = state_of(await store.standing(run.run_id))
        kept.root.values["n"] = "as the snapshot has it"
        await store.put_snapshot(Snapshot(run.run_id, run.seq, encode(kept.dump()), run.digest), run.epoch)
        await run.step(encode([["set", "m", 1]]))
        await run.step(encode([["set", "m", 2]]))
        state = state_of(await store.standing(run.run_id))
        assert (state.seq, state.digest, state.root.values) == (4, run.digest, {"n": "as the snapshot has it", "m": 2})

    async def test_a_run_is_taken_with_all_that_is_made_of_it_at_once(self, store: TakesUp, other: TakesUp) -> None:
        run = await waiting_run(store)
        made = await store.decide(run.run_id, "review", Verdict())
        standing = await other.standing(run.run_id)
        assert standing.run.wake_at is not None
        seq = state_of(standing).seq + 2
        taking = resumption(other, standing, "decision", max_steps=77, closed=(("review#1", "resolved"),), consumed=((made.id, seq),))
        receipt = await other.take_up(taking)
        record = await store.run(run.run_id)
        assert (record.status, record.owner, record.epoch, record.attempt) == ("running", other.worker_id, 2, 2)
        assert (record.wake_at, record.max_steps, record.head_seq) == (None, 77, seq)
        assert (receipt.inbox_rev, other.holds(run.run_id), store.holds(run.run_id)) == (1, True, False)
        assert await kinds_of(store, run.run_id) == ["start", "step", "attempt", "decision"]
        assert [each.consumed_seq for each in await store.decisions(run.run_id)] == [seq]
        assert [each.status for each in await store.barriers(run_id=run.run_id, status=None)] == ["resolved"]
        assert await store.verify(run.run_id) == []
        with pytest.raises(LeaseLostError):
            await run.step()
        with pytest.raises(LeaseHeldError):
            await store.acquire(run.run_id)

    async def test_a_run_is_taken_with_its_attempt_alone(self, store: TakesUp, other: TakesUp) -> None:
        run = await new_run(store, hold=False, status="created")
        standing = await other.standing(run.run_id)
        await other.take_up(resumption(other, standing, details={"why": "a test"}))
        record = await store.run(run.run_id)
        assert (record.status, record.owner, record.attempt, record.wake_at) == ("running", other.worker_id, 1, None)
        state = state_of(await other.standing(run.run_id))
        run.epoch, run.seq, run.digest, run.store = record.epoch, state.seq, state.digest, other
        assert isinstance(await run.step(), Receipt)

    async def test_a_decision_may_come_with_the_taking_that_uses_it(self, store: TakesUp, other: TakesUp) -> None:
        run = await waiting_run(store)
        standing = await other.standing(run.run_id)
        seq = state_of(standing).seq + 2
        made = DecisionRecord(
            new_id(standing.clock), run.run_id, "review#1", "approve", "ana", approves=True, payload_digest="d" * 64,
            decided_at=standing.clock,
        )  # fmt: skip
        taking = resumption(other, standing, "decision", closed=(("review#1", "resolved"),), consumed=((made.id, seq),), voted=(made,))
        receipt = await other.take_up(taking._replace(said=1))
        assert (receipt.inbox_rev, (await store.run(run.run_id)).inbox_rev) == (1, 1)
        assert await store.decisions(run.run_id) == [replace(made, consumed_seq=seq)]
        # The same again is not taken up once more, and counts once.
        with pytest.raises(RunMovedError):
            await other.take_up(taking)
        assert len(await store.decisions(run.run_id)) == 1

    async def test_a_run_that_ends_or_parks_as_it_is_taken_is_nobodys(self, store: TakesUp) -> None:
        ends, parks = await waiting_run(store), await waiting_run(store)
        standing = await store.standing(ends.run_id)
        await store.take_up(resumption(store, standing, "step", change=RunChange(status="completed", clear_wake_at=True, release=True)))
        standing = await store.standing(parks.run_id)
        asked = barrier(parks.run_id, "review#2", opened_seq=4)
        change = RunChange(status="waiting", wake_at=9, release=True, release_at_rev=1)
        await store.take_up(resumption(store, standing, "barrier", change=change, opened=(asked,), said=1))
        records = [await store.run(run.run_id) for run in (ends, parks)]
        assert [(each.status, each.owner, each.wake_at, each.epoch) for each in records] == [
            ("completed", None, None, 2),
            ("waiting", None, 9, 2),
        ]
        assert not any(store.holds(run.run_id) for run in (ends, parks))
        assert {each.ticket for each in await store.barriers(run_id=parks.run_id)} == {"review#1", "review#2"}
        for run in (ends, parks):
            assert await store.verify(run.run_id) == []

    async def test_of_many_that_take_a_run_up_at_once_one_does(self, store: TakesUp, other: TakesUp) -> None:
        run = await waiting_run(store)
        standing = await store.standing(run.run_id)
        asked = [each.take_up(resumption(each, standing, "step", details={"n": n})) for n, each in enumerate((store, other) * 3)]
        answers = await asyncio.gather(*asked, return_exceptions=True)
        assert sorted(type(answer).__name__ for answer in answers) == ["Receipt", *["RunMovedError"] * 5]
        assert await kinds_of(store, run.run_id) == ["start", "step", "attempt", "step"]
        assert store.holds(run.run_id) + other.holds(run.run_id) == 1
        assert await store.verify(run.run_id) == []

    async def test_of_taking_up_and_acquiring_at_once_one_does(self, store: TakesUp, other: TakesUp) -> None:
        for _ in range(5):
            run = await waiting_run(store)
            standing = await store.standing(run.run_id)
            taken, acquired = await asyncio.gather(
                store.take_up(resumption(store, standing, "step")), other.acquire(run.run_id), return_exceptions=True
            )
            assert isinstance(taken, RunMovedError) != isinstance(acquired, LeaseHeldError)
            assert (await kinds_of(store, run.run_id)).count("attempt") == 1
            assert await store.verify(run.run_id) == []

    @pytest.mark.parametrize("moved", ["decided", "taken and given back", "written to", "ended", "held"])
    async def test_a_run_that_is_not_as_it_was_read_is_not_taken_up(self, store: TakesUp, other: TakesUp, moved: str) -> None:
        run = await waiting_run(store)
        if moved == "held":
            run = await new_run(store)
        standing = await other.standing(run.run_id)
        match moved:
            case "decided":
                await store.decide(run.run_id, "review", Verdict())
            case "taken and given back":
                await store.release(run.run_id, (await store.acquire(run.run_id)).epoch)
            case "written to":
                await run.step()  # by an owner who has given it back, and does not know yet
            case "ended":
                await run.end()
        before = (await store.run(run.run_id), await all_rows(store, run.run_id), await store.decisions(run.run_id))
        made = DecisionRecord(new_id(standing.clock), run.run_id, "review#1", "approve", "ben", decided_at=standing.clock)
        seq = state_of(standing).seq + 2
        taking = resumption(other, standing, "decision", closed=(("review#1", "resolved"),), consumed=((made.id, seq),), voted=(made,))
        with pytest.raises(RunMovedError):
            await other.take_up(taking)
        assert (await store.run(run.run_id), await all_rows(store, run.run_id), await store.decisions(run.run_id)) == before
        assert not other.holds(run.run_id)
        assert await store.verify(run.run_id) == []

    async def test_another_run_that_was_made_under_the_same_id_is_not_taken_up_for_it(self, store: TakesUp, other: TakesUp) -> None:
        async def waiting(run_id: str | None, what: bytes) -> OwnedRun:
            run = await new_run(store, run_id=run_id)
            await run.step(what)
            await run.open_barrier()
            return run

        run = await waiting(None, encode([["set", "n", 1]]))
        standing = await other.standing(run.run_id)
        lease = await store.acquire(run.run_id)
        await OwnedRun(store, lease).end()
        await store.delete(run.run_id)
        await waiting(run.run_id, encode([["set", "n", 2]]))
        with pytest.raises(RunMovedError):
            await other.take_up(resumption(other, standing, "decision"))
        assert (await store.run(run.run_id)).status == "waiting"
        assert await store.verify(run.run_id) == []

    async def test_many_are_taken_up_at_once_and_one_that_cannot_be_harms_nobody(self, store: TakesUp, other: TakesUp) -> None:
        runs = [await waiting_run(store) for _ in range(12)]
        standings = [await other.standing(run.run_id) for run in runs]
        await store.decide(runs[3].run_id, "review", Verdict())
        answers = await asyncio.gather(
            *(other.take_up(resumption(other, standing, "step")) for standing in standings), return_exceptions=True
        )
        assert [isinstance(answer, Receipt) for answer in answers] == [n != 3 for n in range(12)]
        for n, run in enumerate(runs):
            assert (await store.run(run.run_id)).owner == (None if n == 3 else other.worker_id)
            assert await store.verify(run.run_id) == []
