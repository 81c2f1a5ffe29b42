"""What is promised of creating a run: its id is given once, its key names one run, and what it begins with is there at once.

How a run that is there is found and listed is `finding`; who may go on with it, `leases`.
"""

# ruff: noqa: S101 - a test asserts
from __future__ import annotations

import asyncio
from typing import Any

import pytest

from checkpoint_stores.errors import RunExistsError
from checkpoint_stores.ids import new_id
from checkpoint_stores.protocol import CheckpointStore
from trailmark.testing.owned_runs import DEFINITION, OwnedRun, barrier, new_run


class CreationContract:
    """A run is created whole, once, and for whoever asked first."""

    async def test_a_created_run_is_held_by_its_creator(self, store: CheckpointStore) -> None:
        run = await new_run(store, labels={"team": "finance"}, run_key="4711")
        record = await store.run(run.run_id)
        assert (record.owner, record.epoch, record.attempt, record.status) == (store.worker_id, 1, 1, "running")
        assert (record.labels, record.run_key, record.max_steps, record.inbox_rev) == ({"team": "finance"}, "4711", 50, 0)
        assert (record.head_seq, record.head_digest) == (1, run.digest)
        assert record.updated_at >= record.created_at > 0

    async def test_a_run_created_without_a_lease_belongs_to_nobody(self, store: CheckpointStore) -> None:
        run = await new_run(store, hold=False, status="ready")
        record = await store.run(run.run_id)
        assert (record.owner, record.epoch, record.attempt, record.status) == (None, 0, 0, "ready")
        assert (await store.acquire(run.run_id)).epoch == 1

    async def test_a_run_key_names_one_run_of_a_flow(self, store: CheckpointStore) -> None:
        run = await new_run(store, run_key="4711")
        with pytest.raises(RunExistsError) as caught:
            await new_run(store, run_key="4711")
        assert (caught.value.run_id, caught.value.run_key) == (run.run_id, "4711")
        found = await store.run_by_key("invoice", "4711")
        assert found is not None
        assert found.run_id == run.run_id
        assert len(await store.runs()) == 1

    async def test_a_run_key_is_free_in_another_flow_and_tenant(self, store: CheckpointStore) -> None:
        await new_run(store, run_key="4711")
        elsewhere = await new_run(store, run_key="4711", tenant="acme")
        await new_run(store, run_key="4711", flow="refund")
        assert (await store.run_by_key("invoice", "4711", tenant="acme")).run_id == elsewhere.run_id  # type: ignore[union-attr]
        assert await store.run_by_key("refund", "4712") is None

    async def test_a_run_id_is_given_once(self, store: CheckpointStore) -> None:
        run = await new_run(store)
        with pytest.raises(RunExistsError):
            await new_run(store, run_id=run.run_id)

    async def test_a_run_that_ended_gives_its_key_up_to_the_run_that_supersedes_it(self, store: CheckpointStore) -> None:
        old = await new_run(store, run_key="4711")
        with pytest.raises(RunExistsError):
            await new_run(store, run_key="4711", supersedes=old.run_id)  # it has not ended
        await old.end("cancelled")
        new = await new_run(store, run_key="4711", supersedes=old.run_id)
        found = await store.run_by_key("invoice", "4711")
        assert found is not None
        assert (found.run_id, (await store.run(old.run_id)).run_key) == (new.run_id, None)
        with pytest.raises(RunExistsError) as caught:
            await new_run(store, run_key="4711", supersedes=old.run_id)  # somebody else was faster
        assert caught.value.run_id == new.run_id

    async def test_of_two_creators_of_one_run_key_one_wins(self, store: CheckpointStore, other: CheckpointStore) -> None:
        both = await asyncio.gather(new_run(store, run_key="k"), new_run(other, run_key="k"), return_exceptions=True)
        won = [run for run in both if isinstance(run, OwnedRun)]
        lost = [error for error in both if isinstance(error, RunExistsError)]
        assert (len(won), len(lost)) == (1, 1)
        assert lost[0].run_id == won[0].run_id

    async def test_of_many_created_at_once_a_taken_name_refuses_only_its_own(self, store: CheckpointStore, other: CheckpointStore) -> None:
        before = await new_run(store, run_key="before")
        again = new_id(await store.now())
        asked: list[dict[str, Any]] = [{"run_key": f"k{number}"} for number in range(40)]
        asked += [{"run_key": "before"}, {"run_key": "k7"}, {"run_id": again}, {"run_id": again}]
        makers = [new_run((store, other)[number % 2], **parts) for number, parts in enumerate(asked)]
        answers = await asyncio.gather(*makers, return_exceptions=True)
        made = [run for run in answers if isinstance(run, OwnedRun)]
        refused = [error for error in answers if not isinstance(error, OwnedRun)]
        assert [type(error) for error in refused] == [RunExistsError] * 3
        assert isinstance(answers[40], RunExistsError)
        assert answers[40].run_id == before.run_id
        assert len(made) == 41
        assert {run.run_id for run in await store.runs(limit=100)} == {run.run_id for run in [before, *made]}
        for run in made:
            assert (await run.step()).inbox_rev == 0
            assert await store.verify(run.run_id) == []
        named = {error.run_key: error.run_id for error in refused if isinstance(error, RunExistsError)}
        taken = await store.run_by_key("invoice", "k7")
        assert taken is not None
        assert named["k7"] == taken.run_id

    async def test_each_of_many_created_at_once_has_its_own_barriers(self, store: CheckpointStore) -> None:
        run_ids = [new_id(await store.now()) for _ in range(6)]
        waiting = {run_id: (barrier(run_id, payload={"of": run_id}),) for run_id in run_ids[::2]}
        parts = {"hold": False, "status": "waiting", "tenant": "acme"}
        await asyncio.gather(*(new_run(store, run_id=run_id, barriers=waiting.get(run_id, ()), **parts) for run_id in run_ids))
        found = await store.barriers(tenant="acme")
        assert {ticket.run_id: ticket.payload for ticket in found} == {run_id: {"of": run_id} for run_id in waiting}

    async def test_a_graph_is_kept_with_its_first_run(self, store: CheckpointStore, other: CheckpointStore) -> None:
        await new_run(store)
        await new_run(other, definition='{"other": 1}')
        assert await store.graph("g" * 64) == DEFINITION
        assert await store.graph("h" * 64) is None

    async def test_a_graph_can_be_kept_without_a_run(self, store: CheckpointStore, other: CheckpointStore) -> None:
        await store.put_graph("h" * 64, DEFINITION)
        await other.put_graph("h" * 64, "{}")
        assert await store.graph("h" * 64) == DEFINITION

    async def test_barriers_open_at_creation_are_in_the_inbox(self, store: CheckpointStore) -> None:
        run_id = new_id(await store.now())
        await new_run(store, run_id=run_id, hold=False, status="waiting", barriers=(barrier(run_id),))
        (found,) = await store.barriers()
        assert (found.run_id, found.ticket) == (run_id, "review#1")
        assert found.opened_at > 0
