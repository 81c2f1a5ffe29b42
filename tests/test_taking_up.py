"""A run that is gone on with as it was read: who decides, takes it and goes on does so in one commit, and loses to nobody unseen."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from checkpoint_stores.codec import encode
from checkpoint_stores.errors import (
    CheckpointCorruptError,
    DecisionConflictError,
    LeaseHeldError,
    NotAnApproverError,
    RunEndedError,
    RunNotFoundError,
    StoreUnavailableError,
)
from checkpoint_stores.memory import MemoryCheckpointStore, MemoryDatabase
from checkpoint_stores.protocol import CheckpointStore, Standing, folds, takes_up
from checkpoint_stores.records import Commit, Receipt, Resumption, RunChange
from checkpoint_stores.sql.lines import key_of
from checkpoint_stores.sql.store import SQLCheckpointStore
from checkpoint_stores.tenancy import TenantStore
from engine.decisions import Decision
from engine.errors import WrongFlowError
from engine.executor import GraphExecutor
from engine.flow import Flow
from engine.graph import FlowGraph
from engine.loading import load_state
from engine.observing import Committed
from engine.plan import END
from trailmark.checkpoint_stores import open_store
from trailmark.testing.clock import VirtualClock, settled

APPROVE = Decision.approve(by="ana", reason="seen")


def asking(reached: Callable[[], object] = lambda: None, **barrier: Any) -> FlowGraph:
    """A barrier, and a node behind it that says when it begins."""
    flow = Flow("asking", {"n": int}).add_signal("news")

    @flow.node
    async def behind(state: Any) -> dict[str, Any]:
        reached()
        return {"n": state["n"] + 1}

    flow.add_barrier("ask", show=["n"], **barrier).set_entry("ask")
    return flow.add_edge("ask", "behind").add_edge("behind", END).compile()


class Overtaken(MemoryCheckpointStore):
    """A store whose process is held up between reading a run and taking it."""

    meanwhile: Callable[[], Awaitable[Any]] | None = None
    taken = 0

    async def take_up(self, resumption: Resumption) -> Receipt:
        if self.meanwhile is not None:
            meanwhile, self.meanwhile = self.meanwhile, None
            await meanwhile()
        receipt = await super().take_up(resumption)
        self.taken += 1
        return receipt


class InParts:
    """A store as it was written before there was anything to take a run up with."""

    def __init__(self, store: MemoryCheckpointStore) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        if name in ("folded", "standing", "take_up"):
            raise AttributeError(name)
        return getattr(self._store, name)


# --- what it costs ----------------------------------------------------------------------------------------------------
def commits_in(told: list[str]) -> int:
    """How many write transactions there are among what SQLite was told: an ordinary step is one without a word."""
    number, is_open = 0, False
    for text in told:
        begins = text.startswith("BEGIN IMMEDIATE")
        number += begins or (text.startswith("INSERT INTO checkpoints") and not is_open)
        is_open = begins or (is_open and not text.startswith("COMMIT"))
    return number


async def test_from_a_decision_to_the_next_node_is_one_commit(sqlite_url: str, told_to_sqlite: list[str]) -> None:
    at: list[int] = []
    async with (
        SQLCheckpointStore(sqlite_url) as store,
        GraphExecutor(asking(lambda: at.append(commits_in(told_to_sqlite))), store=store) as executor,
    ):
        for _ in range(2):
            run = await executor.start({"n": 1})
            assert (await run.result()).status == "waiting"
            before = commits_in(told_to_sqlite)
            await run.decide("ask", APPROVE)
            assert (await run.result()).status == "completed"
            assert (at[-1] - before, commits_in(told_to_sqlite) - before) == (1, 2)


async def test_a_run_decided_by_anybody_is_taken_and_gone_on_with_in_one_commit(sqlite_url: str, told_to_sqlite: list[str]) -> None:
    at: list[int] = []
    async with (
        SQLCheckpointStore(sqlite_url) as store,
        GraphExecutor(asking(lambda: at.append(commits_in(told_to_sqlite))), store=store) as executor,
    ):
        run = await executor.execute({"n": 1})
        before = commits_in(told_to_sqlite)
        await store.decide(run.run_id, "ask", APPROVE)
        assert commits_in(told_to_sqlite) - before == 1
        assert (await executor.resume(run.run_id)).status == "completed"
        assert (at[-1] - before, commits_in(told_to_sqlite) - before) == (2, 3)


# --- what it leaves ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("in_parts", [False, True])
async def test_what_is_stored_is_the_same_however_many_commits_it_took(in_parts: bool) -> None:
    memory = MemoryCheckpointStore()
    store: Any = InParts(memory) if in_parts else memory
    assert takes_up(store) is not in_parts
    executor = GraphExecutor(asking(form=["n"]), store=store)
    run = await executor.start({"n": 1})
    await run.result()
    record = await run.decide("ask", Decision.modify(by="ana", edits={"n": 5}, reason="five"))
    result = await run.result()
    assert (result.status, result.values, result.attempt) == ("completed", {"n": 6}, 2)
    assert [row.kind async for row in memory.history(run.run_id)] == ["start", "barrier", "attempt", "decision", "step"]
    (decided,) = await memory.decisions(run.run_id)
    assert (decided.id, decided.actor, decided.edits, decided.consumed_seq) == (record.id, "ana", {"n": 5}, 4)
    assert decided.payload_digest is not None
    assert [barrier.status for barrier in await memory.barriers(run_id=run.run_id, status=None)] == ["resolved"]
    assert await memory.verify(run.run_id) == []


@pytest.mark.parametrize("in_parts", [False, True])
async def test_what_was_said_to_a_run_at_its_step_limit_is_used_before_it_stops_there_again(in_parts: bool) -> None:
    memory = MemoryCheckpointStore()
    store: Any = InParts(memory) if in_parts else memory
    asks, works = Flow("asks", {"n": int}).add_barrier("ask").set_entry("ask").add_edge("ask", END), Flow("works", {"n": int})

    @works.node
    async def work(state: Any) -> None:
        pass

    works.set_entry("work").add_edge("work", END, when=lambda state: state["n"] > 1, name="enough").add_edge("work", "work")
    flow = Flow("both", {"n": int}).add_parallel("both", {"asks": asks, "works": works}).set_entry("both").add_edge("both", END)
    executor = GraphExecutor(flow.compile(), store=store, max_steps=4)
    run = await executor.execute({"n": 1})
    assert run.status == "limit_reached"
    await store.decide(run.run_id, "ask", APPROVE)
    assert (await executor.resume(run.run_id)).status == "limit_reached"
    assert [each.status for each in await store.barriers(run_id=run.run_id, status=None)] == ["resolved"]
    kinds = [row.kind async for row in memory.history(run.run_id)]
    assert kinds[-3:] == ["attempt", "decision", "limit"]


@pytest.mark.parametrize("in_parts", [False, True])
async def test_a_decision_names_its_run_by_the_whole_id_however_many_commits_it_takes(in_parts: bool) -> None:
    memory = MemoryCheckpointStore()
    store: Any = InParts(memory) if in_parts else memory
    executor = GraphExecutor(asking(), store=store)
    run_id = (await executor.execute({"n": 1})).run_id
    with pytest.raises(RunNotFoundError):
        await executor.open(run_id[:-4]).decide("ask", APPROVE)
    assert ((await store.run(run_id)).status, await store.decisions(run_id)) == ("waiting", [])


async def test_an_observer_is_told_what_happened_and_nothing_of_who_took_the_run() -> None:
    told: list[Committed] = []
    executor = GraphExecutor(asking(), store=MemoryCheckpointStore(), observers=[told.append])
    run = await executor.start({"n": 1})
    await run.result()
    await run.decide("ask", APPROVE)
    await run.result()
    assert [each.row.kind for each in told] == ["barrier", "decision", "step"]
    assert all(each.took is not None for each in told)


def in_branches(*names: str) -> FlowGraph:
    """A barrier in each branch, and one behind them."""
    flow = Flow("asking", {"n": int})
    branches = {name: Flow(name, {"n": int}).add_barrier("ask").set_entry("ask").add_edge("ask", END) for name in names}
    flow.add_parallel("checks", branches).add_barrier("last").set_entry("checks")
    return flow.add_edge("checks", "last").add_edge("last", END).compile()


@pytest.mark.parametrize("kind", ["memory", "sqlite_url", "postgres_url"])
async def test_a_ticket_says_which_checkpoint_opened_it_and_its_name_means_the_latest_on_every_store(
    kind: str, request: pytest.FixtureRequest
) -> None:
    clock = VirtualClock()
    store: Any = (
        MemoryCheckpointStore(now=clock.now) if kind == "memory" else SQLCheckpointStore(request.getfixturevalue(kind), now=clock.now)
    )
    async with store:
        run = await GraphExecutor(in_branches("one", "two", "three"), store=store, clock=clock).start({"n": 1})
        await run.result()
        opened = {row.path: row.seq async for row in store.history(run.run_id) if row.kind == "barrier"}
        assert {each.path: each.opened_seq for each in await store.barriers(run_id=run.run_id)} == opened
        people = ("ana", "ben", "cid")
        for index, person in enumerate(people):
            await run.decide(f"checks[{index}].ask", Decision.approve(by=person))
        again = await run.decide("ask", Decision.approve(by="cid"))
        assert again.ticket == "checks[2].ask#1"
        with pytest.raises(DecisionConflictError):
            await run.decide("ask", APPROVE)


# --- somebody else was there --------------------------------------------------------------------------------------------
async def test_of_two_decisions_the_one_that_comes_between_reading_and_taking_wins() -> None:
    database = MemoryDatabase()
    store, other = Overtaken(database=database), MemoryCheckpointStore(database=database)
    run = await GraphExecutor(asking(), store=store).start({"n": 1})
    await run.result()
    store.meanwhile = lambda: other.decide(run.run_id, "ask", Decision.reject(by="ben"))
    with pytest.raises(DecisionConflictError):
        await run.decide("ask", APPROVE)
    assert [each.actor for each in await store.decisions(run.run_id)] == ["ben"]
    assert (await store.run(run.run_id)).status == "waiting"
    assert store.taken == 0


async def test_a_run_that_somebody_else_takes_between_reading_and_taking_is_theirs() -> None:
    database = MemoryDatabase()
    store, other = Overtaken(database=database), MemoryCheckpointStore(database=database)
    executor = GraphExecutor(asking(), store=store)
    run_id = (await executor.execute({"n": 1})).run_id
    store.meanwhile = lambda: other.acquire(run_id)
    with pytest.raises(LeaseHeldError):
        await executor.resume(run_id)
    assert ((await store.run(run_id)).owner, executor.is_driving(run_id)) == (other.worker_id, False)


async def test_of_many_that_decide_at_once_one_decides_and_the_run_goes_on_once() -> None:
    reached: list[int] = []
    database = MemoryDatabase()
    executors = [GraphExecutor(asking(lambda: reached.append(1)), store=MemoryCheckpointStore(database=database)) for _ in range(3)]
    run_id = (await executors[0].execute({"n": 1})).run_id
    said = [executor.open(run_id).decide("ask", Decision.approve(by=f"person {n}")) for n, executor in enumerate(executors)]
    answers = await asyncio.gather(*said, return_exceptions=True)
    assert sorted(isinstance(answer, DecisionConflictError | RunEndedError) for answer in answers) == [False, True, True]
    assert (await executors[0].open(run_id).result()).status == "completed"
    assert len(reached) == 1


@pytest.mark.parametrize("kind", ["sqlite_url", "postgres_url"])
async def test_a_decision_that_leads_to_the_next_question_has_moved_the_inbox(kind: str, request: pytest.FixtureRequest) -> None:
    """Whoever watches the run from another process would not know of the new question's deadline else: the run waits as before."""
    flow = Flow("asking", {"n": int}).add_barrier("ask").add_barrier("then", timeout=timedelta(days=1), on_timeout="reject")
    graph = flow.set_entry("ask").add_edge("ask", "then").add_edge("then", END).compile()
    async with SQLCheckpointStore(request.getfixturevalue(kind)) as store:
        run = await GraphExecutor(graph, store=store).start({"n": 1})
        await run.result()
        before = await store.run(run.run_id)
        await run.decide("ask", APPROVE)
        assert (await run.result()).waiting_for == ("then#1",)
        after = await store.run(run.run_id)
        assert (before.status, after.status, after.owner, after.inbox_rev) == ("waiting", "waiting", None, before.inbox_rev + 1)
        assert after.wake_at is not None
        assert await store.verify(run.run_id) == []


# --- who asked has gone away --------------------------------------------------------------------------------------------
@pytest.mark.parametrize("by", ["attach", "decide"])
async def test_who_is_cancelled_as_the_run_begins_to_be_driven_comes_back_and_others_have_the_run(by: str) -> None:
    """The body begins before who asked for the run has heard of it."""
    database = MemoryDatabase()
    store, other = MemoryCheckpointStore(database=database), MemoryCheckpointStore(database=database)
    flow = Flow("asking", {"n": int}).add_barrier("ask").set_entry("ask")
    asks: list[asyncio.Task[Any]] = []

    @flow.node
    async def behind(state: Any) -> None:
        asks[0].cancel()
        await asyncio.Event().wait()

    executor = GraphExecutor(flow.add_edge("ask", "behind").add_edge("behind", END).compile(), store=store)
    run = await executor.start({"n": 1})
    await run.result()
    if by == "attach":
        await other.decide(run.run_id, "ask", APPROVE)
        asks.append(asyncio.create_task(executor.attach(run.run_id)))
    else:
        asks.append(asyncio.create_task(run.decide("ask", APPROVE)))
    async with asyncio.timeout(5):
        await asyncio.wait(asks)
    assert asks[0].cancelled()
    assert not executor.is_driving(run.run_id)
    assert [each.consumed_seq for each in await store.decisions(run.run_id)] == [4]
    assert (await other.acquire(run.run_id)).run.owner == other.worker_id


class EndedWithTheLoop(SQLCheckpointStore):
    """A store of which the task that takes a run up is cancelled meanwhile."""

    async def take_up(self, resumption: Resumption) -> Receipt:
        task = asyncio.current_task()
        assert task is not None
        asyncio.get_running_loop().call_soon(task.cancel)
        return await super().take_up(resumption)


async def test_a_run_whose_taking_is_cancelled_from_outside_is_given_back(sqlite_url: str) -> None:
    async with EndedWithTheLoop(sqlite_url) as store, SQLCheckpointStore(sqlite_url) as other:
        executor = GraphExecutor(asking(), store=store)
        run_id = (await executor.execute({"n": 1})).run_id
        await store.decide(run_id, "ask", APPROVE)
        with pytest.raises(asyncio.CancelledError):
            await executor.attach(run_id)
        assert (await other.run(run_id)).owner is None
        assert (await GraphExecutor(asking(), store=other).resume(run_id)).status == "completed"


class EndedBehindAnother(EndedWithTheLoop):
    """Of two runs that it takes up, the task of the second is cancelled, and what was begun first keeps the database busy."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.asked = asyncio.Event()
        self.given_back: list[str] = []
        self.first: str | None = None

    async def take_up(self, resumption: Resumption) -> Receipt:
        asyncio.get_running_loop().call_soon(self.asked.set)
        if self.first is None:
            self.first = resumption.commit.run_id
            return await SQLCheckpointStore.take_up(self, resumption)
        return await super().take_up(resumption)

    async def release(self, run_id: str, epoch: int) -> None:
        self.given_back.append(run_id)
        await super().release(run_id, epoch)


@pytest.mark.parametrize("is_overtaken", [False, True])
async def test_on_postgresql_a_run_whose_taking_is_cancelled_is_given_back_behind_its_own_commit(
    postgres_url: str, is_overtaken: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Else it would be taken after it was given back, and nobody drove it for as long as this process lives."""
    async with EndedBehindAnother(postgres_url) as store, SQLCheckpointStore(postgres_url) as other:
        executor = GraphExecutor(asking(), store=store)
        first, second = [(await executor.execute({"n": 1})).run_id for _ in range(2)]
        for run_id in (first, second):
            await store.decide(run_id, "ask", APPROVE)
        somebody = await asyncpg.connect(postgres_url.replace("+asyncpg", ""))
        holding = somebody.transaction()
        await holding.start()
        await somebody.execute("SELECT 1 FROM runs WHERE run_id = $1 FOR UPDATE", key_of(first))
        asks = []
        for run_id in (first, second):
            asks.append(asyncio.create_task(executor.attach(run_id)))
            await store.asked.wait()
            await settled()
            store.asked.clear()
        too_early = list(store.given_back)
        if is_overtaken:
            await other.signal(second, "news")
        await holding.rollback()
        await somebody.close()
        await asyncio.wait(asks)
        assert asks[1].cancelled()
        assert (too_early, store.given_back) == ([], [second])
        left = await other.run(second)
        assert (left.status, left.owner) == ("waiting" if is_overtaken else "ready", None)
        assert (await GraphExecutor(asking(), store=other).resume(second)).status == "completed"
        asks.clear()
        gc.collect()
        assert not caplog.records  # what nobody waited for any more is nobody's failure


class CutOff(MemoryCheckpointStore):
    """A store to which the line is lost once, before it has taken a run up or before it could say so."""

    cut: str | None = None

    async def take_up(self, resumption: Resumption) -> Receipt:
        cut, self.cut = self.cut, None
        if cut == "before":
            raise StoreUnavailableError(self.url, "the line is lost")
        receipt = await super().take_up(resumption)
        if cut == "after":
            raise StoreUnavailableError(self.url, "the line is lost")
        return receipt


@pytest.mark.parametrize("cut", ["before", "after"])
@pytest.mark.parametrize("ends", [False, True])
async def test_a_decision_of_which_it_is_unknown_whether_it_is_in_counts_once_and_the_run_goes_on(ends: bool, cut: str) -> None:
    store = CutOff()
    graph = Flow("asking", {"n": int}).add_barrier("ask").set_entry("ask").add_edge("ask", END).compile() if ends else asking()
    executor = GraphExecutor(graph, store=store)
    run = await executor.start({"n": 1})
    await run.result()
    store.cut = cut
    record = await run.decide("ask", APPROVE)
    assert (await run.result()).status == "completed"
    assert [(each.id, each.consumed_seq) for each in await store.decisions(run.run_id)] == [(record.id, 4)]


# --- what cannot be done at once ----------------------------------------------------------------------------------------
async def test_a_vote_that_is_not_enough_leaves_the_run_waiting() -> None:
    store = Overtaken()
    run = await GraphExecutor(asking(quorum=2), store=store).start({"n": 1})
    await run.result()
    await run.decide("ask", APPROVE)
    assert ((await store.run(run.run_id)).status, store.taken) == ("waiting", 0)
    await run.decide("ask", Decision.approve(by="ben"))
    assert (await run.result()).status == "completed"
    assert store.taken == 1
    assert [each.consumed_seq for each in await store.decisions(run.run_id)] == [4, 4]


async def test_a_decision_that_does_not_count_is_refused_and_nothing_is_taken() -> None:
    store = Overtaken()
    run = await GraphExecutor(asking(approvers={"finance"}), store=store).start({"n": 1})
    await run.result()
    with pytest.raises(NotAnApproverError):
        await run.decide("ask", APPROVE)
    assert ((await store.run(run.run_id)).attempt, await store.decisions(run.run_id), store.taken) == (1, [], 0)


async def test_one_tenants_view_takes_runs_up_where_its_store_does() -> None:
    store = Overtaken()
    view: CheckpointStore = store.for_tenant("acme")
    executor = GraphExecutor(asking(), store=view)
    run = await executor.start({"n": 1})
    await run.result()
    await run.decide("ask", APPROVE)
    assert ((await run.result()).status, store.taken) == ("completed", 1)
    in_parts: Any = InParts(store)
    assert takes_up(view)
    assert not takes_up(TenantStore(in_parts, "acme"))
    assert not folds(TenantStore(in_parts, "acme"))


async def unfoldable(store: CheckpointStore, run_id: str) -> None:
    """Give a run that nobody holds a last row that this version cannot fold, as a newer one might."""
    lease = await store.acquire(run_id)
    row = store.chain.seal(
        lease.head_digest, run_id, lease.head_seq + 1, lease.epoch, 2, "step", "", "ask", "ask", encode([["unheard-of"]]), 0
    )
    await store.commit(Commit(run_id, lease.epoch, (row,), RunChange(status="waiting", release=True)))


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_a_run_that_cannot_be_gone_on_with_is_refused_before_its_rows_are_looked_at(
    kind: str, request: pytest.FixtureRequest
) -> None:
    url = "memory://" if kind == "memory" else request.getfixturevalue("sqlite_url")
    async with open_store(url) as store, GraphExecutor(asking(), store=store) as executor:
        run = await executor.start({"n": 1})
        await run.result()
        await unfoldable(store, run.run_id)
        other = Flow("other", {"n": int}).add_node("only", lambda state: {}).set_entry("only").add_edge("only", END).compile()
        with pytest.raises(WrongFlowError):
            await GraphExecutor(other, store=store).attach(run.run_id)
        with pytest.raises(CheckpointCorruptError):
            await executor.attach(run.run_id)
        rival = TenantStore(store, "rival")
        for ask in (rival.standing, rival.folded, rival.load, GraphExecutor(asking(), store=rival).attach):
            with pytest.raises(RunNotFoundError):
                await ask(run.run_id)
        lease = await store.acquire(run.run_id)
        await store.commit(Commit(run.run_id, lease.epoch, (), RunChange(status="completed", release=True)))
        with pytest.raises(RunEndedError):
            await executor.attach(run.run_id)


async def test_a_run_is_read_and_gone_on_with_over_a_store_that_only_loads() -> None:
    in_parts: Any = InParts(MemoryCheckpointStore())
    run = await GraphExecutor(asking(), store=in_parts).start({"n": 1})
    await run.result()
    assert (await load_state(in_parts, run.run_id)).root.values == {"n": 1}
    assert (await load_state(in_parts, run.run_id, 1)).seq == 1
    await run.decide("ask", APPROVE)
    assert (await run.result()).values["n"] == 2


# --- what is gone on with, and what is not ----------------------------------------------------------------------------
async def test_a_decision_by_way_of_another_flows_executor_is_recorded_and_drives_nothing() -> None:
    store = Overtaken()
    run = await GraphExecutor(asking(), store=store).start({"n": 1})
    await run.result()
    reached: list[str] = []
    other = Flow("other", {"n": int}).add_barrier("ask", prompt="Go on?").add_node("on", lambda state: reached.append("on"))
    stranger = GraphExecutor(other.set_entry("ask").add_edge("ask", "on").add_edge("on", END).compile(), store=store)
    with pytest.raises(WrongFlowError):
        await stranger.open(run.run_id).decide("ask", APPROVE)
    assert ((await store.run(run.run_id)).status, store.taken, reached) == ("waiting", 0, [])
    assert [record.actor for record in await store.decisions(run.run_id)] == ["ana"]
    assert (await GraphExecutor(asking(), store=store).resume(run.run_id)).values["n"] == 2


async def test_a_decision_does_not_move_a_run_that_somebody_wants_to_end() -> None:
    store = Overtaken()
    executor = GraphExecutor(asking(), store=store)
    run = await executor.start({"n": 1})
    await run.result()
    await store.request_cancel(run.run_id, actor="ben", reason="not wanted")
    await run.decide("ask", APPROVE)
    assert (await run.result()).status == "cancelled"
    assert store.taken == 0
    assert [row.kind async for row in store.history(run.run_id)][-1] == "cancelled"
    assert [each.status for each in await store.barriers(run_id=run.run_id, status=None)] == ["withdrawn"]


class AlwaysGives(MemoryCheckpointStore):
    """A store that does not ask whether a state is wanted."""

    async def standing(self, run_id: str, *, wanted: Callable[[Standing], bool] | None = None) -> Standing:
        return await super().standing(run_id)


class NeverGives(MemoryCheckpointStore):
    """A store that asks, and gives no state whatever it hears."""

    async def standing(self, run_id: str, *, wanted: Callable[[Standing], bool] | None = None) -> Standing:
        standing = await super().standing(run_id, wanted=wanted)
        return standing._replace(state=None)


@pytest.mark.parametrize("kind", [AlwaysGives, NeverGives])
async def test_a_store_that_gives_another_state_than_was_wanted_is_gone_on_with_all_the_same(kind: type[MemoryCheckpointStore]) -> None:
    store = kind()
    executor = GraphExecutor(asking(), store=store)
    run = await executor.start({"n": 1})
    await run.result()
    changed = GraphExecutor(asking(prompt="Really?"), store=store)
    assert changed.graph.graph_hash != executor.graph.graph_hash
    assert (await changed.resume(run.run_id)).status == "waiting"
    assert (await store.run(run.run_id)).graph_hash == changed.graph.graph_hash
    await changed.open(run.run_id).decide("ask", APPROVE)
    result = await changed.resume(run.run_id) if (await store.run(run.run_id)).status == "waiting" else None
    assert result is None or result.status == "completed"
    await settled()
    assert (await store.run(run.run_id)).status == "completed"
    assert len(await store.decisions(run.run_id)) == 1
