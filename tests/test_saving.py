"""Save policies: what each one lets a crash take, exactly, and that nothing else about a run changes."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Annotated, Any

import pytest

from checkpoint_stores.errors import ArgumentError, LeaseLostError, StoreUnavailableError
from checkpoint_stores.memory import MemoryCheckpointStore, MemoryDatabase
from checkpoint_stores.records import Commit, Receipt
from engine.conditions import approved
from engine.decisions import Decision
from engine.executor import GraphExecutor
from engine.flow import Flow
from engine.graph import FlowGraph
from engine.loading import load_state
from engine.notices import NotSavedWarning
from engine.plan import END
from engine.saving import SavePolicy
from reducers.builtin import append
from trailmark.testing import VirtualClock
from trailmark.testing.clock import settled


class CountingStore(MemoryCheckpointStore):
    """Counts commits; does not take the ones it is told to refuse, or dies with one for good."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.commits: list[list[int]] = []
        self.refuses: set[int] = set()

    async def commit(self, commit: Commit) -> Receipt:
        number = len(self.commits)
        self.commits.append([row.seq for row in commit.rows])
        if number in self.refuses:
            raise StoreUnavailableError(self.url, "it is away")
        return await super().commit(commit)


def line(length: int = 9) -> FlowGraph:
    """Counts up to ``length``; every third step calls a tool; then asks."""
    flow = Flow("saved", {"n": int, "log": Annotated[list[int], append]})

    @flow.node
    async def count(state: Any, ctx: Any) -> dict[str, Any]:
        if state["n"] % 3 == 2:
            ctx.emit_tool_call("bell", "ring")
        return {"n": state["n"] + 1, "log": [state["n"]]}

    flow.add_barrier("gate", on_reject="continue")
    flow.set_entry("count")
    flow.add_edge("count", "count", when=lambda state: state["n"] < length, name="more")
    flow.add_edge("count", "gate").add_edge("gate", "count", when=approved).add_edge("gate", END)
    return flow.compile()


POLICIES = {
    "every_step": (SavePolicy(), [[2], [3], [4], [5], [6], [7], [8], [9], [10, 11]]),
    "every_n": (SavePolicy(when="every_n", n=4), [[2, 3, 4, 5], [6, 7, 8, 9], [10, 11]]),
    "on_side_effect": (SavePolicy(when="on_side_effect"), [[2, 3, 4], [5, 6, 7], [8, 9, 10, 11]]),
    "adaptive": (SavePolicy(when="adaptive", threshold=1, per_ms=0, per_tool_call=0.5), [[2, 3, 4, 5, 6, 7], [8, 9, 10, 11]]),
    "on_barrier": (SavePolicy(when="on_barrier"), [list(range(2, 12))]),
    "on_completion": (SavePolicy(when="on_completion"), [list(range(2, 12))]),
    "manual": (SavePolicy(when="manual"), [list(range(2, 12))]),
}


NOTHING_COUNTS = SavePolicy(when="adaptive", threshold=1, per_ms=0, per_token=0, per_tool_call=0)


@pytest.mark.parametrize(
    "policy",
    [replace(NOTHING_COUNTS, per_ms=1 / 250), replace(NOTHING_COUNTS, per_token=0.5), replace(NOTHING_COUNTS, per_tool_call=0.5)],
    ids=["per_ms", "per_token", "per_tool_call"],
)
async def test_each_weight_alone_brings_a_checkpoint_about(policy: SavePolicy) -> None:
    """Each step takes 125 ms of the store's time, says a token and calls a tool: whichever counts, two steps are due together."""
    clock = VirtualClock()
    flow = Flow("weighed", {"n": int})

    @flow.node
    async def count(state: Any, ctx: Any) -> dict[str, Any]:
        ctx.emit_token("tick")
        ctx.emit_tool_call("bell", "ring")
        await clock.advance(timedelta(milliseconds=125))
        return {"n": state["n"] + 1}

    flow.set_entry("count")
    flow.add_edge("count", "count", when=lambda state: state["n"] < 5, name="more").add_edge("count", END)
    async with CountingStore(now=clock.now) as store, GraphExecutor(flow.compile(), store=store, clock=clock, saving=policy) as executor:
        assert (await executor.execute({"n": 0})).status == "completed"
        assert store.commits == [[2, 3], [4, 5], [6]]


@pytest.mark.parametrize("name", POLICIES)
async def test_a_policy_delays_rows_and_changes_none_of_them(name: str) -> None:
    policy, commits = POLICIES[name]
    async with CountingStore() as store, GraphExecutor(line(), store=store, saving=policy) as executor:
        run = await executor.execute({"n": 0, "log": []})
        assert store.commits == commits
        assert (run.status, run.values["log"]) == ("waiting", list(range(9)))
        assert [row.seq async for row in store.history(run.run_id)] == list(range(1, 12))
        assert await store.verify(run.run_id) == []
        assert (await load_state(store, run.run_id)).root.values["log"] == list(range(9))
        await store.decide(run.run_id, "gate", Decision.reject(by="ana"))
        assert (await executor.resume(run.run_id)).status == "completed"


@pytest.mark.parametrize(("name", "durable"), [("every_step", 8), ("every_n", 5), ("on_side_effect", 7), ("adaptive", 7), ("manual", 1)])
async def test_a_crash_takes_what_the_policy_lets_it_and_nothing_more(name: str, durable: int) -> None:
    """The process is gone while the body behind checkpoint 8 runs."""
    policy, _commits = POLICIES[name]
    reached, stands = asyncio.Event(), asyncio.Event()
    bodies: list[int] = []
    flow = Flow("saved_crash", {"n": int, "log": Annotated[list[int], append]})

    @flow.node
    async def count(state: Any, ctx: Any) -> dict[str, Any]:
        bodies.append(state["n"])
        if len(bodies) == 8:
            reached.set()
            await stands.wait()
        if state["n"] % 3 == 2:
            ctx.emit_tool_call("bell", "ring")
        return {"n": state["n"] + 1, "log": [state["n"]]}

    flow.set_entry("count")
    flow.add_edge("count", "count", when=lambda state: state["n"] < 9).add_edge("count", END)
    async with CountingStore() as store:
        first = GraphExecutor(flow.compile(), store=store, saving=policy)
        handle = await first.start({"n": 0, "log": []})
        await reached.wait()
        assert (await load_state(store, handle.run_id)).seq == durable

        async with GraphExecutor(flow.compile(), store=store, saving=policy) as second:
            done = await second.resume(handle.run_id, takeover=True)
        lost = 8 - durable
        assert bodies == [*range(8), *range(7 - lost, 9)]
        stands.set()
        with pytest.raises(LeaseLostError):
            await handle.result()
        await first.aclose()
    assert (done.status, done.values["log"]) == ("completed", list(range(9)))


async def test_a_checkpoint_that_is_asked_for_is_made_under_every_policy() -> None:
    for policy in (None, SavePolicy(when="manual")):
        reached, stands = asyncio.Event(), asyncio.Event()
        flow = Flow("asked", {"n": int})

        @flow.node
        async def count(state: Any) -> dict[str, Any]:
            if state["n"] == 3:
                reached.set()  # noqa: B023
                await stands.wait()  # noqa: B023
            return {"n": state["n"] + 1}

        flow.set_entry("count").add_edge("count", "count", when=lambda state: state["n"] < 5).add_edge("count", END)
        async with CountingStore() as store, GraphExecutor(flow.compile(), store=store, saving=policy) as executor:
            handle = await executor.start({"n": 0})
            await reached.wait()
            seq = await handle.checkpoint()
            assert (seq, (await load_state(store, handle.run_id)).seq) == (4, 4)
            assert await handle.checkpoint() == 4
            stands.set()
            result = await handle.result()
            assert await handle.checkpoint() == result.seq
            assert await store.verify(handle.run_id) == []


async def test_an_outage_is_told_and_lasts_until_the_store_is_back() -> None:
    policy = SavePolicy(if_unavailable="degrade")
    async with CountingStore() as store, GraphExecutor(line(), store=store, saving=policy) as executor:
        store.refuses = {2, 3}
        with pytest.warns(NotSavedWarning, match="kept for the next try"):
            run = await executor.execute({"n": 0, "log": []})
        assert [type(warning) for warning in run.warnings] == [NotSavedWarning] * 2
        assert store.commits[2:5] == [[4], [4, 5], [4, 5, 6]]
        assert await store.verify(run.run_id) == []
        assert (await load_state(store, run.run_id)).root.values["log"] == list(range(9))


@pytest.mark.parametrize("policy", [None, SavePolicy(when="every_n", n=2), SavePolicy(if_unavailable="degrade")])
async def test_a_run_that_must_be_saved_and_cannot_stops(policy: SavePolicy | None) -> None:
    async with CountingStore() as store, GraphExecutor(line(1), store=store, saving=policy) as executor:
        store.refuses = {0}  # the ticket of the barrier opens with it
        with pytest.raises(StoreUnavailableError):
            await executor.execute({"n": 0, "log": []})
        (run,) = await store.runs()
        store.refuses = set()
        assert (await executor.resume(run.run_id)).status == "waiting"


async def test_who_suspends_or_cancels_loses_nothing() -> None:
    for end in ("suspend", "cancel"):
        reached = asyncio.Event()
        flow = Flow("stopped", {"n": int})

        @flow.node
        async def count(state: Any) -> dict[str, Any]:
            if state["n"] == 3:
                reached.set()  # noqa: B023
                await asyncio.Event().wait()
            return {"n": state["n"] + 1}

        flow.set_entry("count").add_edge("count", "count", when=lambda state: state["n"] < 5).add_edge("count", END)
        async with CountingStore() as store, GraphExecutor(flow.compile(), store=store, saving=SavePolicy(when="manual")) as executor:
            handle = await executor.start({"n": 0})
            await reached.wait()
            result = await (handle.suspend("now") if end == "suspend" else handle.cancel(by="ana"))
            assert result.values == {"n": 3}
            assert await store.verify(handle.run_id) == []


@pytest.mark.parametrize("options", [{"when": "sometimes"}, {"when": "every_n", "n": 0}, {"if_unavailable": "ignore"}, {"threshold": -1.0}])
def test_a_policy_that_makes_no_sense_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError):
        SavePolicy(**options)


async def test_who_saves_a_run_again_and_again_does_not_keep_it_from_hearing_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is saved beside the steps tells the drive nothing of who wrote to the inbox."""
    monkeypatch.setattr("engine.driver.WATCH_AFTER", timedelta(days=1))
    database = MemoryDatabase()
    store, another = MemoryCheckpointStore(database=database), MemoryCheckpointStore(database=database)
    begun: asyncio.Queue[int] = asyncio.Queue()
    may_end = asyncio.Semaphore(0)
    flow = Flow("saved", {"n": int})

    @flow.node
    async def count(state: Any) -> dict[str, Any]:
        begun.put_nowait(state["n"])
        await may_end.acquire()
        return {"n": state["n"] + 1}

    flow.set_entry("count").add_edge("count", "count", when=lambda state: state["n"] < 5, name="more").add_edge("count", END)
    executor = GraphExecutor(flow.compile(), store=store, saving=SavePolicy(when="manual"))
    handle = await executor.start({"n": 0})
    driver = executor._drives.driver(handle.run_id)
    assert driver is not None
    await another.request_cancel(handle.run_id, actor="ana")
    while not handle.done() and await begun.get() < 4:
        may_end.release()
        await settled()
        await handle.checkpoint()
        driver._begin_to_listen(timedelta(0))  # as often as anybody saves
        await settled()
    may_end.release()
    assert (await handle.result()).status == "cancelled"


async def test_an_effect_is_never_known_of_without_the_steps_before_it() -> None:
    seen: list[int] = []
    flow = Flow("with_effects", {"n": int})

    @flow.node
    async def count(state: Any, ctx: Any) -> dict[str, Any]:
        if state["n"] == 3:

            async def ring() -> str:
                seen.append((await load_state(ctx_store, ctx.run_id)).seq)
                return "rung"

            await ctx.once("bell", ring)
        return {"n": state["n"] + 1}

    flow.set_entry("count").add_edge("count", "count", when=lambda state: state["n"] < 5).add_edge("count", END)
    async with CountingStore() as ctx_store, GraphExecutor(flow.compile(), store=ctx_store, saving=SavePolicy(when="manual")) as executor:
        result = await executor.execute({"n": 0})
        assert seen == [4]
        assert ctx_store.commits == [[2, 3, 4], [5, 6]]
        assert await ctx_store.verify(result.run_id) == []
