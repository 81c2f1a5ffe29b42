"""Replay: what today's flow makes of the decisions that stored runs have recorded."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Annotated, Any

import pytest

from checkpoint_stores.memory import MemoryCheckpointStore
from engine.conditions import approved
from engine.decisions import Decision
from engine.errors import RunFailedError, WrongFlowError
from engine.executor import GraphExecutor
from engine.flow import Flow, branch
from engine.migration import Migration
from engine.outcomes import Goto
from engine.plan import END, Retry
from reducers import append, max_, min_, replace, sum_
from trailmark.testing import replay

STATE: dict[str, Any] = {"amount": int, "log": Annotated[list[str], append], "total": Annotated[int, sum_], "most": Annotated[int, max_]}
START = {"amount": 50, "log": [], "total": 0, "most": 0}


def writes(**update: Any) -> Callable[..., Any]:
    async def write(state: Any) -> dict[str, Any]:
        return dict(update)

    return write


def over(limit: int) -> Callable[[Any], bool]:
    return lambda state: bool(state["amount"] > limit)


def fails(state: Any) -> None:
    raise ConnectionError("down")


async def goes(state: Any) -> Goto:
    return Goto("rescue")


def claim(
    *, limit: int = 10, state: Any = STATE, approvers: tuple[str, ...] = (), attempts: int = 2, rescue: str = "rescue", on: Any = (),
    names: tuple[str, ...] = ("a", "b"), most: Any = max_, goto: tuple[str, ...] = (), read: Any = None, **options: Any,
) -> Flow:  # fmt: skip
    """read -> fan (a, b) -> review -> pay, which fails and falls back to rescue; small claims go to the end at once"""
    flow = Flow("claim", {**state, "most": Annotated[int, most]}, **options)
    flow.add_node("read", read or writes(log=["read"], total=2, most=5), goto=goto)
    branches = {"a": writes(log=["a"], most=7), "b": writes(total=1, most=3), "c": writes(most=1)}
    flow.add_parallel("fan", [branch(branches[name], name=name) for name in names])
    flow.add_barrier("review", show=["log"], approvers=approvers)
    flow.add_node("pay", fails, retry=Retry(attempts=attempts, first=timedelta(0))).add_node("rescue", writes(log=["rescued"]))
    flow.add_node("drop", writes(log=["dropped"])).set_entry("read").add_edge("read", "fan", when=over(limit), name="large")
    flow.add_edge("read", "rescue").add_edge("fan", "review").add_edge("review", "pay", when=approved).add_edge("review", "drop")
    return flow.add_edge("pay", END).add_fallback("pay", rescue, on).add_edge("rescue", END).add_edge("drop", END)


async def recorded(flow: Flow) -> tuple[MemoryCheckpointStore, str]:
    store = MemoryCheckpointStore()
    executor = GraphExecutor(flow.compile(), store=store)
    run_id = (await executor.execute(START)).run_id
    if (await store.run(run_id)).status == "waiting":
        await store.decide(run_id, "review", Decision.approve(by="ana"))
        await executor.resume(run_id)
    return store, run_id


async def test_a_run_matches_the_flow_that_it_was_recorded_with() -> None:
    store, run_id = await recorded(claim())
    (again,) = await replay(claim(), store, run_id)
    assert (again.matches, again.divergences, again.unchecked, again.status) == (True, (), (), "completed")
    rows = [row.kind async for row in store.history(run_id)]
    assert rows == ["start", "step", "parallel", "step", "step", "join", "barrier", "attempt", "decision", "retry", "fallback", "step"]
    assert (again.rows, again.checked) == (12, 11)
    assert "match (11 of 12 checkpoints asked anew)" in str(again)


DIVERGES = {
    "a condition": ({"limit": 100}, "step 1 (checkpoint 2), node 'read': stored next 'fan', today's graph would go to 'rescue'"),
    "a reducer whose updates are known": ({"state": {**STATE, "log": Annotated[list[str], replace]}}, "stored append 'log', today's graph would set it (replace)"),
    "a key": ({"state": {**STATE, "amount": str}}, "the start: stored wrote 'amount', today's graph would refuse it"),
    "a key that is gone": ({"state": {name: kind for name, kind in STATE.items() if name != "total"}}, "stored wrote 'total', today's graph does not declare that key"),
    "a reducer in a branch": ({"most": min_}, "in fan[0]: stored set 'most', today's graph would leave it (min)"),
    "the branches": ({"names": ("b", "a")}, "in fan[0]: stored step -> the end, today's graph has no such node"),
    "fewer branches": ({"names": ("a",)}, "(checkpoint 3), node 'fan': stored parallel -> 'a,b', today's graph would go parallel -> 'a'"),
    "whom a barrier asks": ({"approvers": ("board",)}, "node 'review': stored park review#1, today's graph park review#1"),
    "a fallback": ({"rescue": "drop"}, "stored ConnectionError, then 'rescue', today's graph would go to 'drop'"),
    "what a fallback takes": ({"on": (KeyError,)}, "stored ConnectionError, then 'rescue', today's graph has no fallback that takes it"),
    "how often it is tried": ({"attempts": 1}, "stored tried again after attempt 1 (ConnectionError), today's graph would not try again"),
}  # fmt: skip


@pytest.mark.parametrize("name", DIVERGES)
async def test_what_today_s_flow_decides_otherwise_is_named_with_its_step(name: str) -> None:
    changed, said = DIVERGES[name]
    store, run_id = await recorded(claim())
    before = [row async for row in store.history(run_id)]
    (other,) = await replay(claim(**changed), store, run_id)
    assert not other.matches
    assert any(said in str(each) for each in other.divergences), [str(each) for each in other.divergences]
    assert [row async for row in store.history(run_id)] == before


async def test_what_the_rows_do_not_tell_is_said_to_be_unchecked() -> None:
    store, run_id = await recorded(claim())
    (other,) = await replay(claim(most=min_), store, run_id)
    assert [each.reason for each in other.unchecked] == ["'most' is merged by min now; what the node returned for it is not stored"]


async def test_a_goto_is_known_only_where_it_is_declared() -> None:
    declared, silent = claim(read=goes, goto=("rescue",)), claim(read=goes)
    store, run_id = await recorded(declared)
    (told,) = await replay(declared, store, run_id)
    assert (told.matches, [each.seq for each in told.unchecked]) == (True, [2])
    store, run_id = await recorded(silent)
    (untold,) = await replay(silent, store, run_id)
    assert [str(each).partition(", node")[0] for each in untold.divergences] == ["diverged at step 1 (checkpoint 2)"]


async def test_all_runs_of_a_flow_are_replayed_and_those_of_others_are_not() -> None:
    store, run_id = await recorded(claim())
    other = GraphExecutor(Flow("other", {"n": int}).add_node("x", writes()).set_entry("x").add_edge("x", END).compile(), store=store)
    stranger = (await other.execute({"n": 1})).run_id
    assert [each.run_id for each in await replay(claim(), store)] == [run_id]
    with pytest.raises(WrongFlowError):
        await replay(claim(), store, stranger)


async def test_as_many_runs_are_replayed_as_are_asked_for_the_newest_first() -> None:
    store, _oldest = await recorded(claim())
    newest = (await GraphExecutor(claim().compile(), store=store).execute(START)).run_id
    assert [each.run_id for each in await replay(claim(), store, limit=1)] == [newest]


async def test_rows_of_another_version_are_not_asked() -> None:
    store = MemoryCheckpointStore()
    run_id = (await GraphExecutor(claim().compile(), store=store).execute(START)).run_id
    second = claim(version="2", migrations=[Migration("1")])
    (waiting,) = await replay(second, store, run_id)
    assert (waiting.checked, waiting.matches, len(waiting.unchecked)) == (0, True, 7)
    executor = GraphExecutor(second.compile(), store=store)
    await store.decide(run_id, "review", Decision.approve(by="ana"))
    await executor.resume(run_id)
    (done,) = await replay(second, store, run_id)
    assert (done.checked, done.matches, len(done.unchecked)) == (4, True, 7)


async def test_a_failed_run_and_a_rejection_and_a_deadline_are_decided_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1_000_000]
    store = MemoryCheckpointStore(now=lambda: now[0])
    flow = Flow("late", {"n": int}).add_barrier("wait", timeout=timedelta(days=1)).set_entry("wait").add_edge("wait", END)
    executor = GraphExecutor(flow.compile(), store=store)
    run_id = (await executor.execute({"n": 1})).run_id
    rejected = (await executor.execute({"n": 1})).run_id
    await store.decide(rejected, "wait", Decision.reject(by="ana"))
    now[0] += 90_000_000_000
    executor = GraphExecutor(flow.compile(), store=store)
    for each in (run_id, rejected):
        with pytest.raises(RunFailedError):
            await executor.resume(each)
    assert [each.matches for each in await replay(flow, store)] == [True, True]
