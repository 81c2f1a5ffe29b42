"""What is promised of many decisions at the same moment, which a store may judge and write together: each fares as if it came alone.

What one decision does is `decisions`.
"""

# ruff: noqa: S101 - a test asserts
from __future__ import annotations

import asyncio

from checkpoint_stores.errors import (
    DecisionConflictError,
    InvalidDecisionError,
    NotAnApproverError,
    RunNotFoundError,
    StalePayloadError,
    UnknownBarrierError,
    UnserialisableError,
)
from checkpoint_stores.ids import new_id
from checkpoint_stores.protocol import CheckpointStore
from checkpoint_stores.records import DecisionRecord, RunChange
from trailmark.testing.owned_runs import OwnedRun, Verdict, new_run


class DecisionsTogetherContract:
    """Of many decisions at once each has the answer that it would have had alone."""

    async def test_many_decisions_at_once_are_all_kept(self, store: CheckpointStore, other: CheckpointStore) -> None:
        runs = [await new_run(store) for _ in range(20)]
        await asyncio.gather(*(run.open_barrier() for run in runs))
        await asyncio.gather(*((store, other)[n % 2].decide(run.run_id, "review", Verdict(by="ana")) for n, run in enumerate(runs)))
        assert await store.barriers() == []
        assert len(await store.barriers(status="decided")) == 20

    async def test_of_many_decisions_at_once_the_refused_harm_nobody(self, store: CheckpointStore, other: CheckpointStore) -> None:
        runs = [await new_run(store) for _ in range(24)]
        await asyncio.gather(*(run.open_barrier(form={}, approvers=("ana",)) for run in runs))
        ended = runs[3]
        await other.acquire(ended.run_id)
        wrong = {
            3: (Verdict(seen="e" * 64), StalePayloadError),
            8: (Verdict(by="ben"), NotAnApproverError),
            13: (Verdict("wave"), InvalidDecisionError),
            18: (Verdict("modify", edits={"file": object()}), UnserialisableError),
        }
        decided = [
            (store, other)[number % 2].decide(run.run_id, "review", wrong.get(number, (Verdict(reason=str(number)),))[0])
            for number, run in enumerate(runs)
        ]
        missing = store.decide(new_id(await store.now()), "review", Verdict())
        unknown = store.decide(runs[0].run_id, "reviev", Verdict())
        answers = await asyncio.gather(*decided, missing, unknown, return_exceptions=True)
        assert [type(answer) for answer in answers[24:]] == [RunNotFoundError, UnknownBarrierError]
        for number, run in enumerate(runs):
            answer = answers[number]
            if number in wrong:
                assert isinstance(answer, wrong[number][1])
                assert await store.decisions(run.run_id) == []
            else:
                assert isinstance(answer, DecisionRecord)
                assert answer.reason == str(number)
                assert await store.decisions(run.run_id) == [answer]
            assert (await store.run(run.run_id)).inbox_rev == int(number not in wrong)

    async def test_of_many_decisions_at_once_on_one_ticket_one_wins(self, store: CheckpointStore, other: CheckpointStore) -> None:
        run = await new_run(store)
        await run.open_barrier()
        people = [f"p{number}" for number in range(20)]
        asked = [(store, other)[number % 2].decide(run.run_id, "review", Verdict(by=by)) for number, by in enumerate(people)]
        answers = await asyncio.gather(*asked, return_exceptions=True)
        (won,) = [answer for answer in answers if isinstance(answer, DecisionRecord)]
        lost = [answer for answer in answers if isinstance(answer, DecisionConflictError)]
        assert {error.winner for error in lost} == {won.actor}
        assert len(lost) == 19
        assert await store.decisions(run.run_id) == [won]
        assert (await store.run(run.run_id)).inbox_rev == 1

    async def test_votes_of_one_run_at_the_same_time_are_counted_one_after_the_other(
        self, store: CheckpointStore, other: CheckpointStore
    ) -> None:
        run = await new_run(store)
        await run.open_barrier("score[0].review#1", park=False, quorum=3)
        await run.open_barrier("score[1].review#1", park=False, quorum=3)
        asked = [
            (store, other)[number % 2].decide(run.run_id, f"score[{branch}].review#1", Verdict(by=by))
            for number, by in enumerate(("ana", "ben", "ana", "eve", "kim"))
            for branch in (0, 1)
        ]
        answers = await asyncio.gather(*asked, return_exceptions=True)
        for branch in (0, 1):
            kept = [vote for vote in await store.decisions(run.run_id) if vote.ticket == f"score[{branch}].review#1"]
            assert len({vote.actor for vote in kept}) == len(kept) == 3
            said = {answer.id: answer for answer in answers[branch::2] if isinstance(answer, DecisionRecord)}
            assert said == {vote.id: vote for vote in kept}
        assert {found.status for found in await store.barriers(status=None)} == {"decided"}
        assert (await store.run(run.run_id)).inbox_rev == 6

    async def test_decisions_and_commits_of_the_same_runs_go_on_side_by_side(self, store: CheckpointStore, other: CheckpointStore) -> None:
        runs = [await new_run(store) for _ in range(10)]
        await asyncio.gather(*(run.open_barrier(park=False, quorum=5) for run in runs))

        async def walk(run: OwnedRun) -> None:
            for _ in range(5):
                await store.commit(run.next_commit(change=RunChange(status="running")))
                await run.step()

        async def vote(run: OwnedRun, number: int) -> None:
            await (store, other)[number % 2].decide(run.run_id, "review", Verdict(by=f"p{number}"))

        async with asyncio.timeout(30):
            await asyncio.gather(*(walk(run) for run in runs), *(vote(run, number) for number in range(5) for run in runs))
        for run in runs:
            assert (await store.run(run.run_id)).inbox_rev == 5
            assert len(await store.decisions(run.run_id)) == 5
            assert [found.status for found in await store.barriers(run_id=run.run_id, status=None)] == ["decided"]
            assert await store.verify(run.run_id) == []
