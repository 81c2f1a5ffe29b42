"""What is promised of changing a run beside its steps: an amendment while nobody drives it, a changeover to another graph.

Either is one row of the chain, fenced as a commit is.  Whether the change makes sense is the engine's to judge.
"""

# ruff: noqa: S101 - a test asserts
from __future__ import annotations

import json
from dataclasses import replace

import pytest

from checkpoint_stores.codec import encode
from checkpoint_stores.errors import LeaseHeldError, LeaseLostError, RunEndedError, RunMovedError, UnknownBarrierError
from checkpoint_stores.protocol import CheckpointStore
from checkpoint_stores.records import Amendment, Changeover, TicketMove
from trailmark.testing.owned_runs import Verdict, all_rows, new_run, replace_epoch


class AmendmentContract:
    """A run is changed beside its steps in one row, and only as it was seen."""

    async def test_an_amendment_is_one_row_of_a_run_that_nobody_drives(self, store: CheckpointStore, other: CheckpointStore) -> None:
        run = await new_run(store)
        asked = await run.open_barrier()
        row = replace_epoch(run, run.epoch + 1)
        reworded = replace(asked, prompt="Pay more?", payload={"amount": 1000}, digest="e" * 64)
        with pytest.raises(RunMovedError):
            await other.amend(Amendment(row, 7, (reworded,)))
        receipt = await other.amend(Amendment(row, 0, (reworded,)))
        record = await store.run(run.run_id)
        assert (record.status, record.epoch, record.owner, record.head_seq) == ("waiting", run.epoch + 1, None, row.seq)
        assert (receipt.inbox_rev, record.head_digest, record.attempt) == (0, row.digest, 1)
        (shown,) = await store.barriers(run_id=run.run_id)
        assert (shown.prompt, shown.payload, shown.digest, shown.status) == ("Pay more?", {"amount": 1000}, "e" * 64, "open")
        assert (shown.opened_at, shown.opened_seq) == ((await store.barriers(run_id=run.run_id))[0].opened_at, asked.opened_seq)
        with pytest.raises(RunMovedError):
            await other.amend(Amendment(row, 0))
        assert await store.verify(run.run_id) == []

    async def test_a_run_that_is_driven_or_has_ended_is_not_amended(self, store: CheckpointStore, other: CheckpointStore) -> None:
        run = await new_run(store)
        with pytest.raises(LeaseHeldError):
            await other.amend(Amendment(replace_epoch(run, run.epoch + 1), 0))
        run.seq, run.digest = 1, (await all_rows(store, run.run_id))[0].digest
        await run.end()
        with pytest.raises(RunEndedError):
            await other.amend(Amendment(replace_epoch(run, run.epoch + 1), 0))

    async def test_a_changeover_takes_the_run_its_tickets_and_unread_votes_to_another_graph_at_once(
        self, store: CheckpointStore, other: CheckpointStore
    ) -> None:
        run = await new_run(store)
        await run.open_barrier("review#1", park=False, quorum=2)
        await run.open_barrier("checks[1].review#1", park=False)
        await run.open_barrier("old#1", park=False)
        first = await other.decide(run.run_id, "review#1", Verdict(by="ana"))
        moves = (
            TicketMove("review#1", "check#1", "check", ""),
            TicketMove("checks[1].review#1", "tests[1].review#1", "review", "tests[1]"),
        )
        row = run.row(kind="migration", payload=encode([["at", "work"]]))
        moved = Changeover(run.run_id, 1, row, "h" * 64, json.dumps({"barriers": {"check": {}}}), moves, {"review": "check"})
        await store.change_over(moved)
        record = await other.run(run.run_id)
        assert (record.graph_hash, record.head_seq, record.head_digest, record.owner) == ("h" * 64, row.seq, row.digest, store.worker_id)
        assert await other.graph("h" * 64) == moved.definition
        found = await other.barriers(run_id=run.run_id)
        assert {(each.ticket, each.node, each.path) for each in found} == {
            ("check#1", "check", ""), ("tests[1].review#1", "review", "tests[1]"), ("old#1", "old", ""),
        }  # fmt: skip
        (vote,) = await other.decisions(run.run_id)
        assert (vote.id, vote.ticket, vote.actor) == (first.id, "check#1", first.actor)
        await other.decide(run.run_id, "check", Verdict(by="ben"))
        assert {each.status for each in (await other.inbox(run.run_id)).barriers if each.ticket == "check#1"} == {"decided"}
        with pytest.raises(UnknownBarrierError):
            await other.decide(run.run_id, "review#1", Verdict(by="ben"))
        assert await other.verify(run.run_id) == []

    async def test_a_changeover_renames_what_was_decided_early(self, store: CheckpointStore) -> None:
        run = await new_run(store)
        await store.decide(run.run_id, "review", Verdict(by="ana"))
        row = run.row(kind="migration", payload=encode([["at", "work"]]))
        await store.change_over(Changeover(run.run_id, 1, row, "h" * 64, json.dumps({"barriers": {"check": {}}}), (), {"review": "check"}))
        assert [vote.ticket for vote in await store.decisions(run.run_id)] == ["check"]

    async def test_a_changeover_is_fenced_as_a_commit_is(self, store: CheckpointStore, other: CheckpointStore) -> None:
        run = await new_run(store)
        before = await store.run(run.run_id)
        row = run.row(kind="migration", payload=encode([["at", "work"]]))
        for refused in (row._replace(seq=row.seq + 1), row._replace(seq=row.seq - 1)):
            with pytest.raises(LeaseLostError):
                await store.change_over(Changeover(run.run_id, 1, refused, "h" * 64, "{}"))
        await other.acquire(run.run_id, takeover=True)
        with pytest.raises(LeaseLostError):
            await store.change_over(Changeover(run.run_id, 1, row, "h" * 64, "{}"))
        after = await other.run(run.run_id)
        assert (after.graph_hash, len(await all_rows(other, run.run_id))) == (before.graph_hash, 2)
        assert await other.graph("h" * 64) is None
