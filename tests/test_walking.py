"""Whole flows, driven by the executor over a store in memory: what a run does, and what it never does."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, field_validator, model_validator

from checkpoint_stores.errors import (
    ArgumentError,
    BarrierClosedError,
    DecisionConflictError,
    LeaseHeldError,
    LeaseLostError,
    RunEndedError,
    StoreUnavailableError,
    UnknownBarrierError,
)
from checkpoint_stores.memory import MemoryCheckpointStore, MemoryDatabase
from checkpoint_stores.protocol import CheckpointStore
from checkpoint_stores.records import Commit, Inbox, Receipt, Snapshot
from engine import operations
from engine.conditions import approved
from engine.context import StepContext
from engine.decisions import Decision
from engine.errors import (
    BranchError,
    EditError,
    ForkError,
    GraphChangedError,
    InputError,
    LoopLimitExceeded,
    NodeCancelledError,
    NodeTimeoutError,
    ReadOnlyStateError,
    RunFailedError,
    StaleContextError,
    UndeclaredKeyError,
    UnroutedError,
    UpdateNotStorableError,
    WrongFlowError,
)
from engine.executor import GraphExecutor
from engine.failures import BranchesFailedError
from engine.flow import Flow, best_effort, branch
from engine.loading import load_state
from engine.notices import ObserverFailedWarning, StrayBodyWarning
from engine.observing import Committed
from engine.outcomes import End, Fallback, Goto
from engine.plan import END, Retry
from reducers import ABSENT, reducer
from reducers.builtin import append, deep_merge, max_, sum_, unique
from trailmark.testing import VirtualClock
from trailmark.testing.clock import settled

STATE = {"n": int, "log": Annotated[list[str], append], "total": Annotated[int, sum_]}
START = {"n": 0, "log": [], "total": 0}


def line(*nodes: Callable[..., Any], state: Any = STATE, name: str = "line", **options: Any) -> Flow:
    """A flow of ``nodes`` one after the other; ``options`` are those of every node."""
    flow = Flow(name, state)
    for node in nodes:
        flow.add_node(None, node, **options)
    flow.set_entry(nodes[0])
    for node, following in zip(nodes, [*nodes[1:], END], strict=True):
        flow.add_edge(node, following)
    return flow


def fan(*branches: Any, state: Any = STATE, **options: Any) -> Flow:
    """A flow of one parallel node, ``fan``."""
    flow = Flow("fanning", state)
    flow.add_parallel("fan", branches, **options)
    return flow.set_entry("fan").add_edge("fan", END)


def review(**options: Any) -> Flow:
    """before -> review -> after."""
    flow = Flow("reviewing", STATE)
    flow.add_node("before", says("before")).add_node("after", says("after"))
    flow.add_barrier("review", prompt="{n}", show=["n"], **options)
    return flow.set_entry("before").add_edge("before", "review").add_edge("review", "after").add_edge("after", END)


def says(word: str) -> Callable[..., Any]:
    async def node(state: Any) -> dict[str, Any]:
        return {"log": [word]}

    node.__name__ = word
    return node


def executor(flow: Flow, **options: Any) -> GraphExecutor:
    return GraphExecutor(flow.compile(), **{"store": MemoryCheckpointStore(), **options})


async def kinds(store: CheckpointStore, run_id: str) -> list[str]:
    return [row.kind async for row in store.history(run_id)]


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


class Broken(Exception):
    pass


class Doors:
    """Lets a test hold node bodies where it wants them: ``arrived`` tells who is inside, ``open`` lets them go."""

    def __init__(self) -> None:
        self.arrived: list[str] = []
        self.left: list[str] = []
        self.changed = asyncio.Event()
        self.open = asyncio.Event()

    async def through(self, name: str) -> None:
        self.arrived.append(name)
        self.changed.set()
        try:
            await self.open.wait()
        finally:
            self.left.append(name)

    async def until(self, count: int) -> None:
        while len(self.arrived) < count:
            self.changed.clear()
            await self.changed.wait()


# --- bodies -----------------------------------------------------------------------------------------------------------
async def test_async_and_sync_nodes_run_one_after_the_other_and_are_counted() -> None:
    loop_thread = threading.get_ident()

    async def one(state: Any) -> dict[str, Any]:
        return {"n": state["n"] + 1, "log": ["loop" if threading.get_ident() == loop_thread else "thread"]}

    def two(state: Any) -> dict[str, Any]:
        return {"n": state["n"] + 1, "log": ["loop" if threading.get_ident() == loop_thread else "thread"]}

    async def three() -> None:
        return None

    result = await executor(line(one, two, three)).execute(START)
    assert (result.status, result.values["n"], result.values["log"], result.steps) == ("completed", 2, ["loop", "thread"], 3)


async def test_mutating_the_state_in_place_reaches_nobody() -> None:
    async def mutate(state: Any) -> None:
        state["log"].append("sneaked in")

    async def look(state: Any) -> dict[str, Any]:
        return {"total": len(state["log"])}

    result = await executor(line(mutate, look)).execute({**START, "log": ["there"]})
    assert (result.values["log"], result.values["total"]) == (["there"], 1)


async def test_the_object_a_node_returned_can_be_changed_afterwards_without_effect() -> None:
    kept: list[list[str]] = []

    async def give(state: Any) -> dict[str, Any]:
        kept.append(["given"])
        return {"log": kept[0]}

    async def spoil(state: Any) -> None:
        kept[0].append("spoilt")

    assert (await executor(line(give, spoil)).execute(START)).values["log"] == ["given"]


async def test_assigning_to_the_state_is_an_error_that_says_what_to_do_instead() -> None:
    async def assign(state: Any) -> None:
        state["n"] = 3

    with pytest.raises(RunFailedError) as failed:
        await executor(line(assign)).execute(START)
    assert isinstance(failed.value.__cause__, ReadOnlyStateError)


async def test_what_a_context_shows_cannot_be_used_to_change_the_run() -> None:
    async def fail(state: Any) -> None:
        raise ValueError("first")

    async def rescue(state: Any, ctx: Any) -> dict[str, Any]:
        ctx.error["message"] = "forged"
        ctx.decisions["review"].edits["n"] = 99
        return {"log": [ctx.error["message"], str(ctx.decisions["review"].edits)]}

    flow = Flow("shown", STATE).add_node("fail", fail).add_node("rescue", rescue)
    flow.add_barrier("review", form=["n"], show=["n"]).set_entry("review").add_edge("review", "fail").add_edge("fail", END)
    flow.add_fallback("fail", "rescue").add_edge("rescue", END)
    run = executor(flow)
    waiting = await run.execute(START)
    await run.store.decide(waiting.run_id, "review", Decision.modify(by="ana", edits={"n": 5}))
    assert (await run.resume(waiting.run_id)).values["log"] == ["first", "{'n': 5}"]


async def test_an_async_node_that_takes_too_long_fails_with_its_time() -> None:
    clock = VirtualClock()

    async def slow(state: Any) -> None:
        await asyncio.Event().wait()

    run = executor(line(slow, timeout=timedelta(hours=2)), clock=clock)
    handle = await run.start(START)
    await clock.advance(await clock.wait_for_timer())
    with pytest.raises(RunFailedError, match="still running after 7200 s") as failed:
        await handle.result()
    assert isinstance(failed.value.__cause__, NodeTimeoutError)


async def test_a_sync_node_that_outlives_its_timeout_can_do_nothing_and_its_fallback_does_not_wait_for_it() -> None:
    clock, release, told, returned = VirtualClock(), threading.Event(), asyncio.Event(), asyncio.Event()
    seen: list[str] = []
    loop = asyncio.get_running_loop()

    def stuck(state: Any, ctx: Any) -> dict[str, Any]:
        loop.call_soon_threadsafe(told.set)
        release.wait(20)
        try:
            seen.append(ctx.idempotency_key)
        except StaleContextError as stale:
            seen.append(str(stale))
        loop.call_soon_threadsafe(returned.set)
        return {"log": ["too late"]}

    def rescue(state: Any) -> dict[str, Any]:
        return {"log": ["rescued"]}

    flow = line(stuck, timeout=timedelta(seconds=3))
    flow.add_node(None, rescue).add_fallback(stuck, rescue, on=TimeoutError).add_edge(rescue, END)
    run = executor(flow, clock=clock)
    handle = await run.start(START)
    await told.wait()
    await clock.advance(timedelta(seconds=3))
    result = await handle.result()
    assert result.values["log"] == ["rescued"]
    assert not returned.is_set(), "the fallback waited for the thread"
    release.set()
    await returned.wait()
    await run.aclose()
    assert seen == ["this attempt of node 'stuck' is over (timed out); its result will not be used"]


async def test_a_retry_waits_for_the_thread_of_the_attempt_that_timed_out() -> None:
    clock, release, told = VirtualClock(), threading.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    inside = 0
    most = 0

    def slow(state: Any, ctx: Any) -> dict[str, Any]:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        if ctx.attempt == 1:
            loop.call_soon_threadsafe(told.set)
            release.wait(20)
        inside -= 1
        return {"n": ctx.attempt if not ctx.ended else -1}

    flow = line(slow, timeout=timedelta(seconds=3), retry=Retry(attempts=2, first=timedelta(seconds=1), jitter=0))
    handle = await executor(flow, clock=clock).start(START)
    await told.wait()
    await clock.advance(timedelta(seconds=3))
    await clock.advance(timedelta(seconds=1))
    assert not handle.done()
    release.set()
    result = await handle.result()
    assert (result.values["n"], most) == (2, 1)


async def test_a_failed_node_is_tried_again_with_the_same_key_and_the_next_number() -> None:
    seen: list[tuple[int, str]] = []

    async def flaky(state: Any, ctx: Any) -> dict[str, Any]:
        seen.append((ctx.attempt, ctx.idempotency_key))
        if ctx.attempt < 3:
            raise ConnectionError("no")
        return {"n": ctx.attempt}

    flow = line(flaky, retry=Retry(attempts=3, first=timedelta(microseconds=1)))
    run = executor(flow)
    result = await run.execute(START)
    assert (result.values["n"], result.steps) == (3, 1)
    assert [number for number, _key in seen] == [1, 2, 3]
    assert len({key for _number, key in seen}) == 1
    assert await kinds(run.store, result.run_id) == ["start", "retry", "retry", "step"]


async def test_a_retry_far_away_parks_the_run_and_a_later_process_makes_it() -> None:
    clock = VirtualClock()
    store = MemoryCheckpointStore(now=clock.now)

    async def flaky(state: Any, ctx: Any) -> dict[str, Any]:
        if ctx.attempt == 1:
            raise ConnectionError("no")
        return {"n": ctx.attempt}

    flow = line(flaky, retry=Retry(attempts=2, first=timedelta(minutes=1), jitter=0))
    due = clock.now() + 60_000_000
    waiting = await executor(flow, store=store, clock=clock).execute(START)
    assert (waiting.status, (await store.run(waiting.run_id)).wake_at) == ("waiting", due)
    (retry,) = waiting.retries
    assert (retry.node, retry.path, retry.failed, retry.due_at) == ("flaky", "", 1, due)
    assert (retry.error["type"], retry.error["message"]) == ("ConnectionError", "no")
    assert retry.due == datetime.fromtimestamp(due / 1_000_000, UTC)
    early = await executor(flow, store=store, clock=clock).resume(waiting.run_id)
    assert (early.status, early.attempt, early.retries) == ("waiting", 2, (retry,))
    await clock.advance(timedelta(minutes=1))
    result = await executor(flow, store=store, clock=clock).resume(waiting.run_id)
    assert (result.status, result.values["n"], result.retries) == ("completed", 2, ())


async def test_somebody_who_waits_through_is_there_when_the_time_of_a_retry_comes() -> None:
    clock = VirtualClock()

    async def flaky(state: Any, ctx: Any) -> dict[str, Any]:
        if ctx.attempt < 3:
            raise ConnectionError("no")
        return {"n": ctx.attempt}

    flow = line(flaky, retry=Retry(attempts=3, first=timedelta(minutes=1), jitter=0))
    run = executor(flow, store=MemoryCheckpointStore(now=clock.now), clock=clock)
    waits = asyncio.create_task(run.execute(START, through_barriers=True))
    await clock.advance(timedelta(minutes=1))
    await clock.advance(timedelta(minutes=2))
    result = await waits
    assert (result.values["n"], result.attempt) == (3, 3)


async def test_an_error_that_the_retry_does_not_name_is_not_tried_again() -> None:
    async def wrong(state: Any) -> None:
        raise ValueError("no use")

    run = executor(line(wrong, retry=Retry(attempts=5, on=(ConnectionError,))))
    with pytest.raises(RunFailedError) as failed:
        await run.execute(START)
    assert await kinds(run.store, failed.value.result.run_id) == ["start", "failure"]


def cancels_itself(how: str) -> Callable[..., Any]:
    """A node in which CancelledError comes up without anybody having cancelled anything."""

    async def odd(state: Any) -> None:
        task = asyncio.current_task()
        assert task is not None
        if how == "raises it":
            raise asyncio.CancelledError
        if how == "cancels its task":
            task.cancel()
        elif how == "has a callback cancel its task":
            asyncio.get_running_loop().call_soon(task.cancel)
        elif how == "has a task cancel its task":
            helper = asyncio.create_task(asyncio.sleep(0))
            helper.add_done_callback(lambda _: task.cancel())
        await asyncio.Event().wait()

    def odd_in_a_thread(state: Any) -> None:
        raise asyncio.CancelledError

    return odd_in_a_thread if how == "raises it in a thread" else odd


CANCELS_ITSELF = ["raises it", "cancels its task", "has a callback cancel its task", "has a task cancel its task", "raises it in a thread"]


@pytest.mark.parametrize("in_branch", [False, True])
@pytest.mark.parametrize("how", CANCELS_ITSELF)
async def test_a_node_that_cancels_itself_has_failed_and_the_run_has_not_been_cancelled(how: str, in_branch: bool) -> None:
    odd = cancels_itself(how)
    run = executor(fan(odd, says("b")) if in_branch else line(odd))
    with pytest.raises(RunFailedError, match="cancelled itself: CancelledError came up in it") as failed:
        await run.execute(START)
    cause = failed.value.__cause__
    assert isinstance(cause.__cause__ if in_branch and cause else cause, NodeCancelledError)
    assert (await run.store.run(failed.value.result.run_id)).status == "failed"


@pytest.mark.parametrize("how", CANCELS_ITSELF)
async def test_a_node_that_cancels_itself_is_tried_again_and_then_takes_its_fallback(how: str) -> None:
    odd = cancels_itself(how)
    flow = line(odd, retry=Retry(attempts=2, first=timedelta(microseconds=1)))
    flow.add_node("rescue", says("rescued")).add_fallback(odd, "rescue", on=NodeCancelledError).add_edge("rescue", END)
    run = executor(flow)
    result = await run.execute(START)
    assert result.values["log"] == ["rescued"]
    assert await kinds(run.store, result.run_id) == ["start", "retry", "fallback", "step"]


async def test_what_concurrent_futures_raise_in_a_thread_keeps_its_type() -> None:
    def odd(state: Any) -> None:
        raise concurrent.futures.CancelledError

    with pytest.raises(RunFailedError) as failed:
        await executor(line(odd)).execute(START)
    assert isinstance(failed.value.__cause__, concurrent.futures.CancelledError)


class Beyond(BaseException):
    """What libraries raise that nobody is to catch."""


class MuteBeyond(BaseException):
    def __str__(self) -> str:
        raise RuntimeError("no words")


@pytest.mark.parametrize("in_branch", [False, True])
@pytest.mark.parametrize("in_thread", [False, True])
async def test_whatever_a_node_raises_is_its_failure(in_thread: bool, in_branch: bool) -> None:
    def odd(state: Any) -> dict[str, Any]:
        raise Beyond("enough")

    async def odd_async(state: Any) -> dict[str, Any]:
        raise Beyond("enough")

    flow = fan(odd if in_thread else odd_async) if in_branch else line(odd if in_thread else odd_async)
    with pytest.raises(RunFailedError) as failed:
        async with asyncio.timeout(5):  # a branch that nobody hears of any more would be waited for for ever
            await executor(flow).execute(START)
    cause = failed.value.__cause__
    if in_branch:
        assert isinstance(cause, BranchError)
        cause = cause.__cause__
    assert repr(cause) == "RuntimeError('the node function raised Beyond: enough')"
    assert isinstance(cause.__cause__, Beyond)


async def test_what_a_thread_raises_and_cannot_say_is_a_failure_too() -> None:
    def odd(state: Any) -> dict[str, Any]:
        raise MuteBeyond

    with pytest.raises(RunFailedError, match="MuteBeyond"):
        async with asyncio.timeout(5):
            await executor(line(odd)).execute(START)


@pytest.mark.parametrize("in_branch", [False, True])
async def test_a_cancellation_that_a_node_asked_for_and_never_met_harms_nobody(in_branch: bool) -> None:
    async def hasty(state: Any) -> dict[str, Any]:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        return {"log": ["hasty"]}

    flow = line(hasty, says("after"), state=None if in_branch else STATE)
    assert (await executor(fan(flow) if in_branch else flow).execute(START)).values["log"] == ["hasty", "after"]


async def test_timeouts_within_a_node_are_its_own_business() -> None:
    async def patient(state: Any) -> dict[str, Any]:
        try:
            async with asyncio.timeout(0.001):
                await asyncio.Event().wait()
        except TimeoutError:
            return {"log": ["gave up waiting"]}
        return {}

    assert (await executor(line(patient, says("after"))).execute(START)).values["log"] == ["gave up waiting", "after"]


@pytest.mark.parametrize("in_branch", [False, True])
@pytest.mark.parametrize("turns_it_into", [asyncio.CancelledError, ConnectionError])
def test_the_end_of_the_loop_is_no_failure_of_a_node(turns_it_into: type[BaseException], in_branch: bool) -> None:
    store, held = MemoryCheckpointStore(), True

    async def hold(state: Any) -> dict[str, Any]:
        try:
            if held:
                await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise turns_it_into from None
        return {"log": ["done"]}

    async def leave() -> str:
        handle = await executor(fan(hold) if in_branch else line(hold), store=store).start(START)
        await settled()
        return handle.run_id

    run_id = asyncio.run(leave())
    held = False
    result = asyncio.run(executor(fan(hold) if in_branch else line(hold), store=store).resume(run_id))
    assert (result.status, result.values["log"]) == ("completed", ["done"])


# --- those who look on ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("error", [ValueError("no"), asyncio.CancelledError("no")])
async def test_an_observer_that_raises_is_told_nothing_more_and_the_run_goes_on(error: BaseException) -> None:
    told: dict[str, list[int]] = {"faulty": [], "sound": []}

    def faulty(committed: Committed) -> None:
        told["faulty"].append(committed.row.seq)
        if committed.row.seq == 3:
            raise error

    def sound(committed: Committed) -> None:
        told["sound"].append(committed.row.seq)

    run = executor(line(says("a"), says("b"), says("c")), observers=[faulty, sound])
    with pytest.warns(ObserverFailedWarning, match=r"observer test_an_observer.*faulty raised \w+: no when told of checkpoint 3 of run"):
        result = await run.execute(START)
    assert (result.status, result.values["log"]) == ("completed", ["a", "b", "c"])
    assert told == {"faulty": [2, 3], "sound": [2, 3, 4]}
    (warning,) = result.warnings
    assert isinstance(warning, ObserverFailedWarning)
    assert (warning.run_id, warning.seq, warning.observer, warning.error) == (result.run_id, 3, faulty, error)


async def test_an_observer_that_fails_in_one_run_is_told_of_the_next() -> None:
    told: list[str] = []

    def faulty(committed: Committed) -> None:
        told.append(committed.row.run_id)
        raise ValueError("no")

    run = executor(line(says("a"), says("b")), observers=[faulty])
    with pytest.warns(ObserverFailedWarning):
        results = [await run.execute(START) for _ in range(2)]
    assert told == [result.run_id for result in results]


async def test_a_faulty_observer_stops_no_run_where_warnings_are_errors() -> None:
    def faulty(_committed: Committed) -> None:
        raise ValueError("no")

    said: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: said.append(context["exception"]))
    result = await executor(line(says("a"), says("b")), observers=[faulty]).execute(START)
    assert (result.status, said) == ("completed", list(result.warnings))


async def test_an_async_observer_is_refused() -> None:
    async def late(_committed: Committed) -> None: ...

    with pytest.raises(ArgumentError, match="it is called, not awaited"):
        executor(line(says("a")), observers=[late])


async def test_what_a_condition_does_to_the_outcome_it_is_given_is_not_committed() -> None:
    def spoils(state: Any, outcome: Any) -> bool:
        outcome["held"].append(7)
        return False

    flow = Flow("spoilt", {"held": Any}).add_node("one", lambda state: {"held": [1]}).set_entry("one")
    flow.add_edge("one", "one", when=spoils, name="spoils").add_edge("one", END)
    assert (await executor(flow).execute({"held": None})).values == {"held": [1]}


async def test_what_a_validator_of_the_authors_raises_over_an_input_is_told_as_such_and_makes_no_run() -> None:
    class Coded(BaseModel):
        code: str

        @field_validator("code")
        @classmethod
        def known(cls, code: str) -> str:
            return {"a": "A"}[code]

    run = executor(Flow("coded", Coded).add_node("one", says("one")).set_entry("one").add_edge("one", END))
    with pytest.raises(InputError, match="flow 'coded': a validator raised KeyError: 'b'") as refused:
        await run.start({"code": "b"})
    assert isinstance(refused.value.__cause__, KeyError)
    assert await run.store.runs() == []


# --- what goes wrong --------------------------------------------------------------------------------------------------
async def test_input_that_does_not_fit_names_every_problem_and_creates_no_run() -> None:
    run = executor(line(says("a")))
    with pytest.raises(InputError) as wrong:
        await run.execute({"n": "x", "what": 1})
    assert len(wrong.value.problems) == 2
    assert await run.store.runs() == []


async def test_a_failed_run_raises_with_its_result_and_its_cause() -> None:
    async def fail(state: Any) -> None:
        raise Broken("it is")

    run = executor(line(says("a"), fail))
    with pytest.raises(RunFailedError, match="Broken: it is") as failed:
        await run.execute(START)
    result = failed.value.result
    assert isinstance(failed.value.__cause__, Broken)
    assert (result.status, result.values["log"], result.error and result.error["node"]) == ("failed", ["a"], "fail")
    with pytest.raises(RunFailedError, match="Broken: it is"):
        await run.resume(result.run_id)
    record = await run.store.run(result.run_id)
    assert (record.status, record.error and record.error["type"], record.owner) == ("failed", "Broken", None)


@pytest.mark.parametrize(
    ("returned", "error", "says_what"),
    [
        ({"nobody": 1}, UndeclaredKeyError, "undeclared key 'nobody'"),
        ({"log": [1, 2, 3]}, Exception, "log"),
        (7, Exception, "returned an int"),
        ({"free": {"items": [1, {"fh": object()}]}}, UpdateNotStorableError, r"free.items\[1\].fh"),
    ],
)
async def test_an_update_that_cannot_be_used_fails_the_node_with_key_and_path(
    returned: Any, error: type[Exception], says_what: str
) -> None:
    async def give(state: Any) -> Any:
        return returned

    with pytest.raises(RunFailedError, match=says_what) as failed:
        await executor(line(give, state={**STATE, "free": dict[str, Any]})).execute(START)
    assert isinstance(failed.value.__cause__, error)
    assert failed.value.result.steps == 1


async def test_a_value_that_cannot_be_stored_takes_the_fallback() -> None:
    async def give(state: Any) -> Any:
        return {"free": object()}

    async def rescue(state: Any, ctx: Any) -> Any:
        return {"log": [ctx.error["type"]]}

    flow = line(give, state={**STATE, "free": Any}).add_node(None, rescue).add_fallback("give", "rescue").add_edge("rescue", END)
    assert (await executor(flow).execute(START)).values["log"] == ["UpdateNotStorableError"]


async def test_a_value_that_cannot_be_stored_is_the_nodes_fault_and_not_that_of_the_condition_that_looks() -> None:
    async def give(state: Any) -> Any:
        return {"free": object()}

    flow = Flow("looks", {**STATE, "free": Any}).add_node(None, give).set_entry("give").add_edge("give", END)
    flow.add_edge("give", "give", when=lambda state: state["free"] == 1, name="looks")
    with pytest.raises(RunFailedError) as failed:
        await executor(flow).execute(START)
    assert isinstance(failed.value.__cause__, UpdateNotStorableError)


async def test_no_way_on_names_every_condition_each_asked_once() -> None:
    asked: list[str] = []

    def big(state: Any) -> bool:
        asked.append("big")
        return False

    def huge(state: Any) -> bool:
        asked.append("huge")
        return False

    flow = Flow("lost", STATE).add_node("a", says("a")).set_entry("a").add_edge("a", END, when=big).add_edge("a", "a", when=huge)
    with pytest.raises(RunFailedError, match=r"big -> __end__: False, huge -> a: False") as failed:
        await executor(flow).execute(START)
    assert isinstance(failed.value.__cause__, UnroutedError)
    assert asked == ["big", "huge"]


async def test_whatever_the_authors_validators_raise_fails_the_node_and_not_the_engine() -> None:
    class Strict(BaseModel):
        n: int = 0

        @field_validator("n")
        @classmethod
        def check(cls, value: int) -> int:
            if value == 1:
                raise KeyError("a validator with a bug")
            return value

        @model_validator(mode="after")
        def check_all(self) -> Strict:
            if self.n == 2:
                raise ZeroDivisionError("another one")
            return self

    for number, kind in ((1, "UpdateTypeError"), (2, "FinalStateError")):

        async def give(state: Any, number: int = number) -> dict[str, Any]:
            return {"n": number}

        with pytest.raises(RunFailedError) as failed:
            await executor(line(give, state=Strict)).execute({})
        assert failed.value.result.error is not None
        assert failed.value.result.error["type"] == kind


async def test_an_exception_that_cannot_even_be_printed_fails_its_node() -> None:
    async def fail(state: Any) -> None:
        raise Mute

    with pytest.raises(RunFailedError, match="Mute") as failed:
        await executor(line(fail)).execute(START)
    assert isinstance(failed.value.__cause__, Mute)


async def test_capped_nodes_that_fall_back_to_one_another_end_at_the_step_limit() -> None:
    flow = Flow("pingpong", STATE)
    flow.add_node("a", says("a"), max_visits=1).add_node("b", says("b"), max_visits=1)
    flow.set_entry("a").add_edge("a", "b").add_edge("b", "a").add_fallback("a", "b").add_fallback("b", "a").add_edge(
        "a", END, when=lambda state: False, name="never"
    )
    result = await executor(flow, max_steps=3000).execute(START)
    assert (result.status, result.steps, result.values["log"]) == ("limit_reached", 3000, ["a", "b"])


async def test_what_a_node_gives_with_its_fallback_is_kept() -> None:
    async def tired(state: Any) -> Fallback:
        return Fallback("tired", {"log": ["so far"]})

    async def rest(state: Any, ctx: Any) -> dict[str, Any]:
        return {"log": [ctx.error["message"]]}

    flow = line(tired).add_node(None, rest).add_fallback("tired", "rest").add_edge("rest", END)
    assert (await executor(flow).execute(START)).values["log"] == ["so far", "node 'tired' gave up: tired"]


class Whereabouts(BaseModel):
    x: int


@reducer("walking_farthest")
def farthest(current: Any, update: Any) -> Any:
    return update if current is ABSENT or update.x > current.x else current


async def test_conditions_and_reducers_are_given_the_authors_own_classes() -> None:
    class Board(BaseModel):
        at: Whereabouts = Whereabouts(x=0)
        far: Annotated[Whereabouts, farthest] = Whereabouts(x=0)
        seen: Annotated[list[Whereabouts], append] = []

        @model_validator(mode="after")
        def check(self) -> Board:
            assert isinstance(self.at, Whereabouts)
            return self

    def is_far(state: Board) -> bool:
        return state.at.x > 1 and state.seen[-1].x == state.at.x

    def moving(x: int) -> Callable[..., Any]:
        async def move(state: Board) -> dict[str, Any]:
            return {"at": Whereabouts(x=x), "far": Whereabouts(x=x), "seen": [Whereabouts(x=x)]}

        return move

    async def branch_move(state: Board) -> dict[str, Any]:
        return {"far": Whereabouts(x=9)}

    async def other_move(state: Board) -> dict[str, Any]:
        return {"far": Whereabouts(x=5)}

    flow = Flow("board", Board).add_node("near", moving(1)).add_node("away", moving(2)).add_parallel("fan", [branch_move, other_move])
    flow.set_entry("near").add_edge("near", END, when=is_far).add_edge("near", "away")
    flow.add_edge("away", "fan", when=is_far).add_edge("away", END).add_edge("fan", END)
    result = await executor(flow).execute({})
    assert (result.values["at"], result.values["far"], result.values["seen"]) == (
        Whereabouts(x=2),
        Whereabouts(x=9),
        [Whereabouts(x=1), Whereabouts(x=2)],
    )


# --- limits -----------------------------------------------------------------------------------------------------------
def counting(limit: int) -> Flow:
    async def count(state: Any) -> dict[str, Any]:
        return {"n": state["n"] + 1}

    flow = Flow("counting", STATE).add_node("count", count).set_entry("count")
    return flow.add_edge("count", "count", when=lambda state: state["n"] < limit, name="more").add_edge("count", END)


@pytest.mark.parametrize(
    ("limit", "status", "steps"), [(1, "limit_reached", 1), (4, "limit_reached", 4), (5, "completed", 5), (6, "completed", 5)]
)
async def test_exactly_as_many_entries_as_allowed_are_made(limit: int, status: str, steps: int) -> None:
    result = await executor(counting(5), max_steps=limit).execute(START)
    assert (result.status, result.steps, result.values["n"]) == (status, steps, steps)


async def test_the_limit_counts_over_the_life_of_the_run_and_is_raised_by_name() -> None:
    run = executor(counting(5), max_steps=2)
    stopped = await run.execute(START)
    again = await run.resume(stopped.run_id)
    assert (again.status, again.steps, again.values["n"]) == ("limit_reached", 2, 2)
    with pytest.raises(ValueError, match="more than the 2 steps"):
        await run.resume(stopped.run_id, max_steps=2)
    assert (await run.resume(stopped.run_id, max_steps=5)).status == "completed"
    with pytest.raises(ValueError, match="a whole number from 1"):
        await run.start(START, max_steps=0)


async def test_at_the_limit_branches_in_flight_finish_and_the_others_start_when_it_is_raised() -> None:
    run = executor(fan(says("a"), says("b"), says("c")), max_steps=3)
    stopped = await run.execute(START)
    assert (stopped.status, stopped.steps, stopped.values["log"]) == ("limit_reached", 3, [])
    result = await run.resume(stopped.run_id, max_steps=4)
    assert (result.status, result.values["log"], result.steps) == ("completed", ["a", "b", "c"], 4)


async def test_a_branch_that_could_not_start_is_no_limit_once_its_parallel_node_has_failed() -> None:
    doors = Doors()

    async def fail(state: Any) -> None:
        await doors.until(1)
        raise ValueError("no")

    async def hold(state: Any) -> None:
        await doors.through("hold")

    flow = fan(branch(fail), branch(hold), branch(says("c")))
    flow.add_barrier("review").add_fallback("fan", "review").add_edge("review", END)
    run = executor(flow, max_steps=3)
    result = await run.execute(START)
    assert (result.status, result.waiting_for, result.steps) == ("waiting", ("review#1",), 3)


# --- parallel ---------------------------------------------------------------------------------------------------------
async def test_branches_merge_in_declared_order_whoever_is_first() -> None:
    doors = Doors()

    async def last(state: Any) -> dict[str, Any]:
        await doors.through("last")
        return {"log": ["declared first"], "total": 1}

    async def first(state: Any) -> dict[str, Any]:
        await doors.until(1)
        doors.open.set()
        return {"log": ["declared second"], "total": 2}

    result = await executor(fan(last, first)).execute(START)
    assert (result.values["log"], result.values["total"], result.steps) == (["declared first", "declared second"], 3, 3)


async def test_the_first_failure_cancels_the_other_branches_and_waits_for_them() -> None:
    doors = Doors()

    async def fail(state: Any) -> None:
        await doors.until(2)
        raise ValueError("no")

    async def hold(state: Any, ctx: Any) -> None:
        await doors.through(ctx.path)

    flow = Flow("fail fast", STATE)
    flow.add_parallel("fan", {"f": fail, "one": hold, "two": branch(hold, name="two")}).set_entry("fan").add_edge("fan", END)
    with pytest.raises(RunFailedError) as failed:
        await executor(flow).execute(START)
    cause = failed.value.__cause__
    assert isinstance(cause, BranchError)
    assert isinstance(cause.__cause__, ValueError)
    assert sorted(doors.left) == ["fan[1]", "fan[2]"]


async def test_a_barrier_beside_a_failed_branch_is_withdrawn() -> None:
    doors = Doors()
    asks = Flow("asks").add_barrier("review").set_entry("review").add_edge("review", END)

    async def fail(state: Any) -> None:
        await doors.through("fail")
        raise ValueError("no")

    run = executor(fan(fail, asks))
    handle = await run.start(START)
    await doors.until(1)
    (open_ticket,) = await run.store.barriers(run_id=handle.run_id)
    assert open_ticket.ticket == "fan[1].review#1"
    doors.open.set()
    with pytest.raises(RunFailedError):
        await handle.result()
    assert [ticket.status for ticket in await run.store.barriers(run_id=handle.run_id, status=None)] == ["withdrawn"]
    with pytest.raises(RunEndedError):
        await run.store.decide(handle.run_id, "review", Decision.approve(by="ana"))


async def test_collect_waits_for_all_and_raises_all() -> None:
    async def bad(state: Any) -> None:
        raise ValueError("bad")

    async def worse(state: Any) -> None:
        raise KeyError("worse")

    with pytest.raises(RunFailedError) as failed:
        await executor(fan(bad, says("fine"), worse, on_error="collect")).execute(START)
    group = failed.value.__cause__
    assert isinstance(group, BranchesFailedError)
    assert [type(error.__cause__) for error in group.exceptions] == [ValueError, KeyError]
    assert failed.value.result.error is not None
    assert [cause["causes"][0]["branch"] for cause in failed.value.result.error["causes"]] == ["bad", "worse"]
    assert failed.value.result.values["log"] == []


async def test_best_effort_goes_on_with_what_succeeded_and_shows_what_did_not() -> None:
    async def bad(state: Any) -> None:
        raise ValueError("bad")

    state = {**STATE, "failures": list[dict[str, Any]]}
    result = await executor(fan(bad, says("fine"), on_error=best_effort(min_success=1, failures_to="failures"), state=state)).execute(START)
    assert result.values["log"] == ["fine"]
    assert [(failure["branch"], failure["type"], failure["message"]) for failure in result.values["failures"]] == [
        ("bad", "ValueError", "bad")
    ]
    with pytest.raises(RunFailedError):
        await executor(fan(bad, says("fine"), on_error=best_effort(min_success=2), state=state)).execute(START)


async def test_no_more_bodies_run_at_once_than_allowed() -> None:
    doors = Doors()

    def held(name: str) -> Callable[..., Any]:
        async def node(state: Any) -> dict[str, Any]:
            await doors.through(name)
            doors.open.clear()
            return {"log": [name]}

        node.__name__ = name
        return node

    handle = await executor(fan(*(held(name) for name in "abcde"), max_concurrency=2)).start(START)
    for expected in (2, 3, 4, 5):
        await doors.until(expected)
        assert len(doors.arrived) - len(doors.left) <= 2
        doors.open.set()
        await asyncio.sleep(0)
    while not handle.done():
        doors.open.set()
        await asyncio.sleep(0)
    assert (await handle.result()).values["log"] == list("abcde")
    assert doors.arrived[:2] == ["a", "b"]


async def test_a_failed_inner_node_gives_its_places_under_the_outer_limit_back() -> None:
    doors = Doors()

    async def fail(state: Any) -> None:
        await doors.until(1)
        raise ValueError("no")

    async def hold(state: Any) -> None:
        await doors.through("hold")

    inner = Flow("inner").add_parallel("pair", [fail, hold]).add_node("rescue", says("rescued"))
    inner.set_entry("pair").add_edge("pair", END).add_fallback("pair", "rescue").add_edge("rescue", END)
    result = await executor(fan(inner, says("b"), says("c"), max_concurrency=2)).execute(START)
    assert result.values["log"] == ["rescued", "b", "c"]


async def test_two_branches_that_write_one_plain_key_merge_nothing() -> None:
    async def one(state: Any) -> dict[str, Any]:
        return {"log": ["one"], "n": 1}

    async def two(state: Any) -> dict[str, Any]:
        return {"n": 2}

    with pytest.raises(RunFailedError, match="branches one, two of node 'fan' all wrote 'n'") as failed:
        await executor(fan(one, two)).execute(START)
    assert failed.value.result.values == START


async def test_a_branch_that_fails_as_it_opens_closes_those_that_open_with_it() -> None:
    broken = Flow("broken").add_barrier("review", prompt="{n:%Q}", show=["n"]).set_entry("review").add_edge("review", END)
    asks = Flow("asks").add_barrier("other").set_entry("other").add_edge("other", END)
    with pytest.raises(RunFailedError, match="prompt of node 'review'"):
        await executor(fan(broken, says("b"), asks)).execute(START)


async def test_a_branch_that_ends_and_times_out_in_the_same_moment_starts_nothing_more() -> None:
    clock, doors = VirtualClock(), Doors()

    async def first(state: Any) -> None:
        await doors.through("first")

    async def second(state: Any) -> None:
        doors.arrived.append("second")

    inner = line(first, second, state=None, name="inner")
    flow = fan(branch(inner, timeout=timedelta(seconds=1)), says("b"), on_error="collect")
    handle = await executor(flow, clock=clock).start(START)
    await doors.until(1)
    await asyncio.sleep(0)
    doors.open.set()  # the body ends in the same turn in which the time is over
    advancing = asyncio.create_task(clock.advance(timedelta(seconds=1)))
    result = asyncio.create_task(handle.result())
    await asyncio.wait([advancing, result])
    error = result.exception()
    assert error is None or "BranchTimeoutError" in str(error.__cause__ and error.__cause__.exceptions)  # type: ignore[attr-defined]
    assert (error is None) == ("second" in doors.arrived)


async def test_branches_of_a_loop_have_places_of_their_own_each_time() -> None:
    seen: list[tuple[str, int]] = []

    async def work(state: Any, ctx: Any) -> dict[str, Any]:
        seen.append((ctx.path, ctx.visit))
        return {"n": state["n"] + 1}

    flow = Flow("loop", STATE).add_parallel("fan", [work]).set_entry("fan")
    flow.add_edge("fan", "fan", when=lambda state: state["n"] < 3, name="more").add_edge("fan", END)
    await executor(flow).execute(START)
    assert seen == [("fan[0]", 1), ("fan#2[0]", 1), ("fan#3[0]", 1)]


async def test_reading_a_deeply_merged_key_in_a_branch_changes_nothing() -> None:
    state = {"deep": Annotated[dict[str, Any], deep_merge]}

    async def one(state: Any) -> dict[str, Any]:
        return {"deep": {"a": {"b": 1}}}

    async def two(state: Any) -> dict[str, Any]:
        return {"deep": {"a": {"c": len(state["deep"]["a"])}}}

    async def three(state: Any) -> dict[str, Any]:
        return {"deep": {"a": {"d": len(state["deep"]["a"])}}}

    run = executor(fan(line(one, two, three, state=None, name="inner"), state=state))
    result = await run.execute({"deep": {}})
    assert result.values["deep"] == {"a": {"b": 1, "c": 1, "d": 2}}


@pytest.mark.parametrize(("odd", "even", "says", "n"), [(2, 3, "edge work->back may", 4), (3, 2, r"edge work->back\[1\] may", 5)])
async def test_each_of_two_capped_edges_between_the_same_nodes_has_a_count_of_its_own(odd: int, even: int, says: str, n: int) -> None:
    async def work(state: Any) -> dict[str, Any]:
        return {"n": state["n"] + 1}

    async def back(state: Any) -> None:
        return None

    flow = Flow("two ways round", STATE).add_node(None, work).add_node(None, back).set_entry(work).add_edge(back, work)
    flow.add_edge(work, back, when=lambda state: state["n"] % 2 == 1, name="odd", max_visits=odd)
    flow.add_edge(work, back, when=lambda state: state["n"] % 2 == 0, name="even", max_visits=even)
    with pytest.raises(RunFailedError, match=says) as failed:
        await executor(flow.add_edge(work, END)).execute(START)
    assert failed.value.result.values["n"] == n


# --- people -----------------------------------------------------------------------------------------------------------
async def test_a_run_waits_for_a_decision_and_goes_on_in_another_process() -> None:
    database = MemoryDatabase()
    here, there = (executor(review(), store=MemoryCheckpointStore(database=database)) for _ in range(2))
    waiting = await here.execute(START)
    assert (waiting.status, waiting.waiting_for) == ("waiting", ("review#1",))
    await there.store.decide(waiting.run_id, "review", Decision.approve(by="ana"))
    result = await there.resume(waiting.run_id)
    assert (result.status, result.values["log"], result.attempt) == ("completed", ["before", "after"], 2)


@pytest.mark.parametrize("name", ["review", "review#1"])
async def test_a_decision_may_come_before_the_barrier_is_reached(name: str) -> None:
    doors = Doors()

    async def before(state: Any) -> None:
        await doors.through("before")

    flow = (
        Flow("early", STATE)
        .add_node(None, before)
        .add_barrier("review")
        .set_entry("before")
        .add_edge("before", "review")
        .add_edge("review", END)
    )
    run = executor(flow)
    handle = await run.start(START)
    await doors.until(1)
    await run.store.decide(handle.run_id, name, Decision.approve(by="ana"))
    doors.open.set()
    assert (await handle.result()).status == "completed"
    (decision,) = await run.store.decisions(handle.run_id)
    assert decision.consumed_seq is not None
    assert decision.payload_digest is None


@pytest.mark.parametrize("name", ["review", "fan[0].review", "fan[0].review#1"])
async def test_a_decision_may_come_before_a_barrier_in_a_branch_is_reached_and_counts_once(name: str) -> None:
    doors = Doors()
    asks = Flow("asks").add_barrier("review").set_entry("review").add_edge("review", END)
    more = Flow("more").add_barrier("review").set_entry("review").add_edge("review", END)

    async def before(state: Any) -> None:
        await doors.through("before")

    flow = Flow("early", STATE).add_node(None, before).add_parallel("fan", [asks, more])
    flow.set_entry("before").add_edge("before", "fan").add_edge("fan", END)
    run = executor(flow)
    handle = await run.start(START)
    await doors.until(1)
    await run.store.decide(handle.run_id, name, Decision.approve(by="ana"))
    doors.open.set()
    result = await handle.result()
    assert (result.status, result.waiting_for) == ("waiting", ("fan[1].review#1",))


async def test_an_early_decision_is_used_for_the_first_visit_only() -> None:
    flow = Flow("again", STATE).add_barrier("review").add_node("after", says("after")).set_entry("review").add_edge("review", "after")
    flow.add_edge("after", "review", when=lambda state: len(state["log"]) < 2, name="again").add_edge("after", END)
    run = executor(flow)
    waiting = await run.execute(START)
    await run.store.decide(waiting.run_id, "review", Decision.approve(by="ana"))
    assert (await run.resume(waiting.run_id)).waiting_for == ("review#2",)


async def test_the_same_decision_twice_is_one_and_another_one_is_refused() -> None:
    run = executor(review())
    waiting = await run.execute(START)
    once = await run.store.decide(waiting.run_id, "review", Decision.approve(by="ana"))
    assert await run.store.decide(waiting.run_id, "review", Decision.approve(by="ana")) == once
    with pytest.raises(DecisionConflictError):
        await run.store.decide(waiting.run_id, "review", Decision.reject(by="ben"))
    with pytest.raises(UnknownBarrierError):
        await run.store.decide(waiting.run_id, "revue", Decision.approve(by="ana"))


async def test_somebody_who_waits_through_goes_on_when_another_process_decides() -> None:
    database = MemoryDatabase()
    run = executor(review(), store=MemoryCheckpointStore(database=database))
    handle = await run.start(START)
    waits = asyncio.create_task(handle.result(through_barriers=True))
    while not handle.done():
        await asyncio.sleep(0)
    await MemoryCheckpointStore(database=database).decide(handle.run_id, "review", Decision.approve(by="ana"))
    assert (await waits).status == "completed"


async def test_who_resumes_a_run_through_its_barriers_stays_until_its_end() -> None:
    run = executor(review())
    waiting = await run.execute(START)
    assert (await run.resume(waiting.run_id)).status == "waiting"
    resumes = asyncio.create_task(run.resume(waiting.run_id, through_barriers=True))
    await settled()
    assert not resumes.done()
    await run.store.decide(waiting.run_id, "review", Decision.approve(by="ana"))
    assert (await asyncio.wait_for(resumes, 20)).status == "completed"


async def test_deciding_on_the_handle_goes_on_here_even_in_the_very_moment_in_which_the_run_parks() -> None:
    for turns in range(12):
        run = executor(review())
        handle = await run.start(START)
        for _ in range(turns):
            await asyncio.sleep(0)
        await handle.decide("review", Decision.approve(by="ana"))
        result = await handle.result()
        assert result.status == "completed", f"after {turns} turns of the loop the run was left {result.status}"


async def test_edits_that_the_authors_own_rules_refuse_open_the_ticket_again() -> None:
    class Limited(BaseModel):
        n: int = 0
        log: Annotated[list[str], append] = []

        @field_validator("n")
        @classmethod
        def small(cls, value: int) -> int:
            if value > 10:
                raise ValueError("n is too large")
            return value

    flow = Flow("edits", Limited).add_barrier("review", form=["n"], show=["n"]).set_entry("review").add_edge("review", END)
    run = executor(flow)
    waiting = await run.execute({})
    await run.store.decide(waiting.run_id, "review", Decision.modify(by="ana", edits={"n": 11}))
    again = await run.resume(waiting.run_id)
    assert (again.status, again.waiting_for) == ("waiting", ("review#1",))
    assert "decision_refused" in await kinds(run.store, waiting.run_id)
    await run.store.decide(waiting.run_id, "review", Decision.modify(by="ana", edits={"n": 9}, approve=True))
    result = await run.resume(waiting.run_id)
    assert (result.status, result.values["n"]) == ("completed", 9)


async def test_a_deadline_is_nobodys_decision() -> None:
    clock = VirtualClock()
    run = executor(review(timeout=timedelta(days=2), on_timeout="approve"), store=MemoryCheckpointStore(now=clock.now), clock=clock)
    waits = asyncio.create_task(run.execute(START, through_barriers=True))
    await clock.advance(timedelta(days=1, hours=23))
    assert not waits.done()
    await clock.advance(timedelta(hours=1))
    result = await waits
    assert result.values["log"] == ["before", "after"]
    (decision,) = await run.store.decisions(result.run_id)
    assert (decision.actor, decision.source, decision.action) == ("timeout", "timeout", "approve")


async def test_a_deadline_that_passed_while_nobody_drove_the_run_holds_when_somebody_does() -> None:
    clock = VirtualClock()
    store = MemoryCheckpointStore(now=clock.now)
    waiting = await executor(review(timeout=timedelta(days=2)), store=store, clock=clock).execute(START)
    await clock.advance(timedelta(days=3))
    with pytest.raises(BarrierClosedError):
        await store.decide(waiting.run_id, "review", Decision.approve(by="ana"))
    with pytest.raises(RunFailedError, match="BarrierTimeoutError"):
        await executor(review(timeout=timedelta(days=2)), store=store, clock=clock).resume(waiting.run_id)


async def test_a_decision_made_in_time_wins_over_the_deadline_whoever_reads_first() -> None:
    clock = VirtualClock()
    database = MemoryDatabase()
    doors = Doors()
    asks = Flow("asks").add_barrier("review", timeout=timedelta(hours=1)).set_entry("review").add_edge("review", END)

    async def hold(state: Any) -> None:
        await doors.through("hold")

    class Deaf(MemoryCheckpointStore):
        """Its owner is not told of what others write."""

        def watch(self, run_id: str) -> Any:
            return super().watch("nobody")

    run = executor(fan(asks, hold), store=Deaf(now=clock.now, database=database), clock=clock)
    handle = await run.start(START)
    await doors.until(1)
    await clock.advance(timedelta(minutes=59))
    await MemoryCheckpointStore(now=clock.now, database=database).decide(handle.run_id, "review", Decision.approve(by="ana"))
    await clock.advance(timedelta(minutes=1))
    doors.open.set()
    assert (await handle.result()).status == "completed"
    assert [decision.actor for decision in await run.store.decisions(handle.run_id)] == ["ana"]


async def test_a_finished_branchs_own_time_does_not_wake_a_parked_run() -> None:
    clock = VirtualClock()
    asks = Flow("asks").add_barrier("review").set_entry("review").add_edge("review", END)
    run = executor(fan(branch(says("a"), timeout=timedelta(minutes=1)), asks), store=MemoryCheckpointStore(now=clock.now), clock=clock)
    handle = await run.start(START)
    waits = asyncio.create_task(handle.result(through_barriers=True))
    await clock.advance(timedelta(hours=1))
    record = await run.store.run(handle.run_id)
    assert (record.status, record.wake_at, record.attempt) == ("waiting", None, 1)
    await run.store.decide(handle.run_id, "review", Decision.approve(by="ana"))
    assert (await waits).status == "completed"


async def test_rerouting_leads_where_an_edge_leads_and_to_no_fallback() -> None:
    flow = review().add_node("aside", says("aside")).add_edge("aside", END).add_fallback("review", "aside")
    flow.add_edge("review", END, when=lambda state: False, name="never")
    run = executor(flow)
    waiting = await run.execute(START)
    (ticket,) = await run.store.barriers(run_id=waiting.run_id)
    assert ticket.targets == (END, "after")
    await run.store.decide(waiting.run_id, "review", Decision.reroute(by="ana", to=END))
    assert (await run.resume(waiting.run_id)).values["log"] == ["before"]


async def test_a_rejection_takes_no_edge_that_does_not_name_it() -> None:
    flow = review()
    flow.add_node("aside", says("aside")).add_edge("aside", END).add_fallback("review", "aside", on=Exception)
    run = executor(flow)
    waiting = await run.execute(START)
    await run.store.decide(waiting.run_id, "review", Decision.reject(by="ana", reason="no"))
    with pytest.raises(RunFailedError, match="rejected by ana: no"):
        await run.resume(waiting.run_id)


async def test_a_rejection_takes_no_edge_whose_condition_only_looks_at_the_state() -> None:
    flow = review()
    flow.add_node("aside", says("aside")).add_edge("aside", END).add_edge("review", "aside", when=lambda state: state["n"] > 5, name="much")
    for n in (0, 9):
        run = executor(flow)
        waiting = await run.execute({**START, "n": n})
        await run.store.decide(waiting.run_id, "review", Decision.reject(by="ana"))
        with pytest.raises(RunFailedError, match="rejected by ana"):
            await run.resume(waiting.run_id)


async def test_a_rejection_within_a_branch_takes_no_fallback_of_the_node_around_it_that_does_not_name_it() -> None:
    asks = Flow("asks").add_barrier("review").set_entry("review").add_edge("review", END)
    flow = fan(asks).add_node("aside", says("aside")).add_edge("aside", END).add_fallback("fan", "aside")
    run = executor(flow)
    waiting = await run.execute(START)
    await run.store.decide(waiting.run_id, "review", Decision.reject(by="ana"))
    with pytest.raises(RunFailedError, match="RejectedError"):
        await run.resume(waiting.run_id)


# --- how often a node may be entered ---------------------------------------------------------------------------------
def inner() -> Flow:
    return Flow("inner").add_node("one", says("one")).set_entry("one").add_edge("one", END)


async def as_it_is(item: str) -> str:
    return item


KINDS: dict[str, Callable[[Flow], Flow]] = {
    "task": lambda flow: flow.add_node("again", says("one"), max_visits=2),
    "parallel": lambda flow: flow.add_parallel("again", [says("one")], max_visits=2),
    "map": lambda flow: flow.add_map("again", "log", as_it_is, max_visits=2),
    "subflow": lambda flow: flow.add_subflow("again", inner(), max_visits=2),
    "barrier": lambda flow: flow.add_barrier("again", max_visits=2),
    "timer": lambda flow: flow.add_timer("again", timedelta(0), max_visits=2),
    "wait": lambda flow: flow.add_wait("again", "go", max_visits=2),
}


@pytest.mark.parametrize("kind", KINDS)
async def test_a_node_of_any_kind_that_is_entered_too_often_takes_its_fallback(kind: str) -> None:
    flow = KINDS[kind](Flow("looping", STATE)).add_node("back", says("back")).add_node("out", says("out"))
    flow.set_entry("again").add_edge("again", "back").add_edge("back", "again")
    flow.add_fallback("again", "out", on=[LoopLimitExceeded]).add_edge("out", END)
    run = executor(flow, max_steps=30)
    run_id = await run.submit(START)
    for visit in range(1, 3):  # what it would wait for has come already
        if kind == "barrier":
            await run.store.decide(run_id, f"again#{visit}", Decision.approve(by="ana"))
        if kind == "wait":
            await run.store.signal(run_id, "go")
    result = await run.resume(run_id)
    assert (result.status, [word for word in result.values["log"] if word != "one"]) == ("completed", ["back", "back", "out"])


# --- cancelling, suspending, letting go -------------------------------------------------------------------------------
async def test_cancelling_at_a_barrier_ends_the_run_and_decides_nothing() -> None:
    run = executor(review(timeout=timedelta(days=1), on_timeout="approve"))
    waiting = await run.execute(START)
    result = await run.cancel(waiting.run_id, by="ana", reason="not needed")
    assert [line.detail async for line in operations.steps(run.store, waiting.run_id)][-1] == "cancelled; by ana: not needed"
    assert (result.status, result.values["log"]) == ("cancelled", ["before"])
    assert await run.store.decisions(waiting.run_id) == []
    assert [ticket.status for ticket in await run.store.barriers(run_id=waiting.run_id, status=None)] == ["withdrawn"]
    assert (await run.cancel(waiting.run_id, by="ben")).status == "cancelled"
    assert (await run.resume(waiting.run_id)).status == "cancelled"


@pytest.mark.parametrize("in_branch", [False, True])
async def test_cancelling_a_running_body_ends_the_run_and_waits_for_the_body(in_branch: bool) -> None:
    doors = Doors()

    async def hold(state: Any) -> None:
        await doors.through("hold")

    run = executor(fan(hold) if in_branch else line(hold))
    handle = await run.start(START)
    await doors.until(1)
    result = await handle.cancel(by="ana")
    assert (result.status, doors.left) == ("cancelled", ["hold"])
    assert (await handle.result()).status == "cancelled"


async def test_what_a_body_raises_when_it_is_cancelled_is_no_failure_of_the_run() -> None:
    doors = Doors()

    async def hold(state: Any) -> None:
        try:
            await doors.through("hold")
        except asyncio.CancelledError:
            raise ConnectionError("closed while waiting") from None

    run = executor(line(hold))
    handle = await run.start(START)
    await doors.until(1)
    assert (await handle.cancel(by="ana")).status == "cancelled"
    handle = await run.start(START)
    await doors.until(2)
    assert (await handle.suspend()).status == "suspended"


async def test_a_body_that_swallows_its_cancellation_commits_and_then_the_run_is_cancelled() -> None:
    doors = Doors()

    async def stubborn(state: Any) -> dict[str, Any]:
        for _ in range(3):
            try:
                await doors.through("again")
            except asyncio.CancelledError:
                continue
        return {"log": ["done all the same"]}

    run = executor(line(stubborn, says("never")))
    handle = await run.start(START)
    cancels = []
    for number in range(1, 4):
        await doors.until(number)
        cancels.append(asyncio.create_task(handle.cancel(by="ana")))
        await asyncio.sleep(0)
    for cancel in cancels:
        assert (await cancel).status == "cancelled"
    assert (await handle.result()).values["log"] == ["done all the same"]


class Deaf:
    """A node that hears no cancellation until it is told to leave."""

    def __init__(self) -> None:
        self.inside, self.leave, self.left = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.seen: list[str] = []

    async def node(self, state: Any, ctx: Any) -> dict[str, Any]:
        self.inside.set()
        while not self.leave.is_set():
            try:
                await self.leave.wait()
            except asyncio.CancelledError:
                continue
        try:
            self.seen.append(ctx.node)
        except StaleContextError as stale:
            self.seen.append(str(stale))
        self.left.set()
        return {"log": ["deaf"]}

    async def goes(self, run: GraphExecutor) -> None:
        """Let it end, and see that nobody counts it any more."""
        assert run.strays == 1
        self.leave.set()
        await self.left.wait()
        await settled()
        assert run.strays == 0
        (seen,) = self.seen
        assert seen.startswith("this attempt of node 'deaf' is over (the run was ")


GRACE = timedelta(seconds=7)


@pytest.mark.parametrize("in_branch", [False, True])
@pytest.mark.parametrize("asked", ["cancel", "suspend", "close", "the caller goes"])
async def test_a_body_that_ignores_its_cancellation_holds_nothing_longer_than_the_grace(asked: str, in_branch: bool) -> None:
    clock, deaf = VirtualClock(), Deaf()
    flow = Flow("deaf", STATE).add_node("deaf", deaf.node).set_entry("deaf").add_edge("deaf", END)
    run = executor(fan(flow) if in_branch else flow, clock=clock, cancel_grace=GRACE)
    handle = await run.start(START)
    await deaf.inside.wait()
    stops: asyncio.Task[Any]
    if asked == "the caller goes":
        stops = asyncio.create_task(run._result_or_suspend(handle, through_barriers=False))
        await settled()
        stops.cancel()
    else:
        asks: dict[str, Callable[[], Any]] = {"cancel": lambda: handle.cancel(by="ana"), "suspend": handle.suspend, "close": run.aclose}
        stops = asyncio.create_task(asks[asked]())
    ends = asyncio.create_task(handle.result())
    await clock.advance(GRACE - timedelta(microseconds=1))
    assert not stops.done()
    assert not ends.done()
    with pytest.warns(StrayBodyWarning, match="node 'deaf'.* was cancelled and still runs after 7 s"):
        await clock.advance(timedelta(microseconds=1))
    result = await ends
    assert result.status == ("cancelled" if asked == "cancel" else "suspended")
    (warning,) = result.warnings
    assert isinstance(warning, StrayBodyWarning)
    assert (warning.node, warning.path, warning.seconds) == ("deaf", "fan[0]" if in_branch else "", 7)
    await asyncio.wait([stops])
    if asked in {"cancel", "suspend"}:
        assert stops.result().warnings == result.warnings
    await deaf.goes(run)
    assert (await run.store.run(handle.run_id)).status == result.status
    assert '["append","log"' not in str([row.payload async for row in run.store.history(handle.run_id)])


async def test_a_suspended_run_whose_body_was_given_up_is_resumed_beside_it() -> None:
    clock, deaf = VirtualClock(), Deaf()
    flow = Flow("deaf", STATE).add_node("deaf", deaf.node).set_entry("deaf").add_edge("deaf", END)
    run = executor(flow, clock=clock, cancel_grace=GRACE)
    handle = await run.start(START)
    await deaf.inside.wait()
    suspends = asyncio.create_task(handle.suspend())
    with pytest.warns(StrayBodyWarning):
        await clock.advance(GRACE)
    assert (await suspends).status == "suspended"
    resumes = asyncio.create_task(run.resume(handle.run_id))
    await settled()
    deaf.leave.set()
    result = await resumes
    assert (result.status, result.values["log"], len(deaf.seen)) == ("completed", ["deaf"], 2)


async def test_a_branch_that_ignores_its_cancellation_holds_the_failure_of_its_sibling_no_longer_than_the_grace() -> None:
    clock, deaf = VirtualClock(), Deaf()

    async def fail(state: Any) -> None:
        await deaf.inside.wait()
        raise ValueError("no")

    flow = fan(fail, branch(deaf.node, name="deaf"))
    flow.add_node("rescue", says("rescued")).add_fallback("fan", "rescue").add_edge("rescue", END)
    run = executor(flow, clock=clock, cancel_grace=GRACE)
    handle = await run.start(START)
    await deaf.inside.wait()
    await clock.advance(GRACE - timedelta(microseconds=1))
    assert not handle.done()
    with pytest.warns(StrayBodyWarning):
        await clock.advance(timedelta(microseconds=1))
    result = await handle.result()
    assert (result.status, result.values["log"]) == ("completed", ["rescued"])
    assert [warning.path for warning in result.warnings if isinstance(warning, StrayBodyWarning)] == ["fan[1]"]
    deaf.leave.set()
    await deaf.left.wait()
    await settled()
    assert run.strays == 0


async def test_an_async_node_that_ignores_its_timeout_has_failed_when_the_grace_is_over_and_its_retry_waits_for_it() -> None:
    clock, deaf = VirtualClock(), Deaf()
    attempts: list[int] = []

    async def slow(state: Any, ctx: Any) -> dict[str, Any]:
        attempts.append(ctx.attempt)
        return await deaf.node(state, ctx) if ctx.attempt == 1 else {"n": ctx.attempt}

    flow = line(slow, timeout=timedelta(seconds=3), retry=Retry(attempts=2, first=timedelta(seconds=1), jitter=0))
    run = executor(flow, clock=clock, cancel_grace=GRACE)
    handle = await run.start(START)
    await deaf.inside.wait()
    await clock.advance(timedelta(seconds=3))
    assert await kinds(run.store, handle.run_id) == ["start"]
    with pytest.warns(StrayBodyWarning):
        await clock.advance(GRACE)
    assert (await kinds(run.store, handle.run_id), run.strays) == (["start", "retry"], 1)
    await clock.advance(timedelta(seconds=1))
    assert attempts == [1]
    deaf.leave.set()
    result = await handle.result()
    assert (result.values["n"], result.values["log"], attempts) == (2, [], [1, 2])


async def test_a_retry_that_may_overlap_does_not_wait_for_the_attempt_that_ignores_its_timeout() -> None:
    clock, deaf = VirtualClock(), Deaf()

    async def slow(state: Any, ctx: Any) -> dict[str, Any]:
        return await deaf.node(state, ctx) if ctx.attempt == 1 else {"n": ctx.attempt}

    flow = Flow("deaf", STATE).add_node("slow", slow, timeout=timedelta(seconds=3), retry=Retry(attempts=2, jitter=0), overlap=True)
    run = executor(flow.set_entry("slow").add_edge("slow", END), clock=clock, cancel_grace=GRACE)
    handle = await run.start(START)
    await deaf.inside.wait()
    await clock.advance(timedelta(seconds=3))
    with pytest.warns(StrayBodyWarning):
        await clock.advance(GRACE + timedelta(seconds=1))
    is_done, strays = handle.done(), run.strays
    deaf.leave.set()
    result = await handle.result()
    assert (is_done, strays, result.status, result.values["n"], result.values["log"]) == (True, 1, "completed", 2, [])
    await deaf.left.wait()
    await settled()
    assert run.strays == 0


async def test_cancelling_wins_over_a_run_that_parks_in_the_same_moment() -> None:
    for turns in range(8):
        run = executor(review(), store=Unhurried())
        handle = await run.start(START)
        for _ in range(turns):
            await asyncio.sleep(0)
        assert (await handle.cancel(by="ana")).status == "cancelled", f"after {turns} turns"


class Unhurried(MemoryCheckpointStore):
    """A store that takes its time, as one with a database does: others run before and after each commit."""

    async def commit(self, commit: Commit) -> Receipt:
        await asyncio.sleep(0)
        receipt = await super().commit(commit)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return receipt

    async def inbox(self, run_id: str) -> Inbox:
        inbox = await super().inbox(run_id)
        await asyncio.sleep(0)
        return inbox


async def test_deciding_on_the_handle_goes_on_here_with_a_store_that_takes_its_time() -> None:
    for turns in range(16):
        run = executor(review(), store=Unhurried())
        handle = await run.start(START)
        for _ in range(turns):
            await asyncio.sleep(0)
        await handle.decide("review", Decision.approve(by="ana"))
        async with asyncio.timeout(5):
            assert (await handle.result()).status == "completed", f"after {turns} turns"


async def test_another_process_cancels_a_run_with_a_long_body() -> None:
    database, doors = MemoryDatabase(), Doors()

    async def hold(state: Any) -> None:
        await doors.through("hold")

    handle = await executor(line(hold), store=MemoryCheckpointStore(database=database)).start(START)
    await doors.until(1)
    other = executor(line(hold), store=MemoryCheckpointStore(database=database))
    assert (await other.cancel(handle.run_id, by="ana")).status == "cancelled"
    assert (await handle.result()).status == "cancelled"


async def test_a_request_that_comes_while_a_run_is_being_taken_over_is_not_missed() -> None:
    database, doors = MemoryDatabase(), Doors()
    outsider = MemoryCheckpointStore(database=database)

    class Slow(MemoryCheckpointStore):
        async def inbox(self, run_id: str) -> Inbox:
            inbox = await super().inbox(run_id)
            if doors.arrived == ["hold"]:
                await outsider.request_cancel(run_id, actor="ana")
            return inbox

    async def hold(state: Any) -> None:
        await doors.through("hold")

    first = executor(line(hold), store=MemoryCheckpointStore(database=database))
    handle = await first.start(START)
    await doors.until(1)
    await handle.suspend()
    async with asyncio.timeout(5):
        assert (await executor(line(hold), store=Slow(database=database)).resume(handle.run_id)).status == "cancelled"


async def test_a_caller_who_is_cancelled_suspends_the_run_which_then_resumes() -> None:
    doors = Doors()

    async def hold(state: Any) -> dict[str, Any]:
        await doors.through("hold")
        return {"n": 1}

    run = executor(line(hold))
    caller = asyncio.create_task(run.execute(START))
    await doors.until(1)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    (record,) = await run.store.runs()
    assert record.status == "suspended"
    doors.open.set()
    assert (await run.resume(record.run_id)).values["n"] == 1


async def test_closing_the_executor_suspends_what_it_drives() -> None:
    doors = Doors()

    async def hold(state: Any) -> None:
        await doors.through("hold")

    store = MemoryCheckpointStore()
    async with executor(line(hold), store=store) as run:
        handles = [await run.start(START) for _ in range(3)]
        await doors.until(3)
    assert [record.status for record in await store.runs()] == ["suspended"] * 3
    assert all(handle.done() for handle in handles)


async def test_runs_that_start_together_ask_the_store_for_its_time_once() -> None:
    class Asked(MemoryCheckpointStore):
        times = 0

        async def now(self) -> int:
            self.times += 1
            await asyncio.sleep(0)
            return await super().now()

    store = Asked()
    run = executor(line(says("a")), store=store)
    assert {result.status for result in await asyncio.gather(*(run.execute(START) for _ in range(50)))} == {"completed"}
    assert store.times == 1


async def test_two_runs_at_once_do_not_disturb_each_other() -> None:
    run = executor(counting(50))
    results = await asyncio.gather(*(run.execute({**START, "n": number}) for number in range(20)))
    assert [result.values["n"] for result in results] == [50] * 20
    assert [result.steps for result in results] == [50 - number for number in range(20)]


async def test_a_process_that_lost_its_lease_writes_nothing_more() -> None:
    database, doors = MemoryDatabase(), Doors()

    async def hold(state: Any, ctx: Any) -> dict[str, Any]:
        await doors.through("hold")
        return {"n": ctx.run_attempt}

    here, there = (executor(line(hold), store=MemoryCheckpointStore(database=database)) for _ in range(2))
    handle = await here.start(START)
    await doors.until(1)
    with pytest.raises(LeaseHeldError):
        await there.resume(handle.run_id)
    taken = await there.attach(handle.run_id, takeover=True)
    await doors.until(2)
    doors.open.set()
    with pytest.raises(LeaseLostError):
        await handle.result()
    assert (await taken.result()).values["n"] == 2


async def test_a_process_that_was_silent_for_long_asks_before_it_starts_anything_new() -> None:
    database, doors = MemoryDatabase(), Doors()
    fresh = True

    class Silent(MemoryCheckpointStore):
        def lease_is_fresh(self) -> bool:
            return fresh

    async def hold(state: Any) -> None:
        await doors.through("hold")

    async def next_one(state: Any) -> None:
        doors.arrived.append("next")

    flow = line(hold, next_one)
    handle = await executor(flow, store=Silent(database=database)).start(START)
    await doors.until(1)
    fresh = False
    doors.open.set()
    assert (await handle.result()).status == "completed"
    lost = await executor(line(next_one), store=Silent(database=database)).start(START)
    lease = await MemoryCheckpointStore(database=database).acquire(lost.run_id, takeover=True)
    with pytest.raises(LeaseLostError) as refused:
        await lost.result()
    assert (refused.value.current_epoch, doors.arrived) == (lease.epoch, ["hold", "next"])


@pytest.mark.parametrize("flow_of", [fan, line], ids=["in a branch", "at the root"])
async def test_a_run_that_can_no_longer_hear_stops_resumably_and_says_why(flow_of: Callable[..., Flow]) -> None:
    doors = Doors()

    class Deaf(MemoryCheckpointStore):
        async def inbox(self, run_id: str) -> Inbox:
            raise StoreUnavailableError("memory://", "no inbox today")

    async def hold(state: Any) -> None:
        await doors.through("hold")

    store = Deaf()
    handle = await executor(flow_of(hold), store=store).start(START)
    await doors.until(1)
    await MemoryCheckpointStore(database=store.database).request_cancel(handle.run_id, actor="ana")
    with pytest.raises(StoreUnavailableError, match="no inbox today"):
        async with asyncio.timeout(5):
            await handle.result()
    assert (doors.left, (await store.run(handle.run_id)).owner) == (["hold"], None)


# --- resuming, forking, looking back ----------------------------------------------------------------------------------
async def test_a_finished_run_returns_its_stored_result_without_running_anything() -> None:
    ran: list[int] = []

    async def once(state: Any) -> dict[str, Any]:
        ran.append(1)
        return {"n": 1}

    run = executor(line(once))
    done = await run.execute(START)
    again = await executor(line(once), store=run.store).resume(done.run_id)
    assert (again.status, again.values, again.steps, ran) == ("completed", done.values, 1, [1])
    with pytest.raises(RunEndedError):
        await run.attach(done.run_id)


async def test_a_change_ahead_is_gone_on_with_and_recorded_and_strict_refuses_it_with_what_changed() -> None:
    run = executor(review())
    waiting = await run.execute(START)
    await run.store.decide(waiting.run_id, "review", Decision.approve(by="ana"))
    changed = (
        review().add_node("more", says("more")).add_edge("after", "more", when=lambda state: True, name="always").add_edge("more", END)
    )
    later = executor(changed, store=run.store)
    with pytest.raises(GraphChangedError, match="more") as refused:
        await later.resume(waiting.run_id, mode="strict")
    assert refused.value.difference
    assert (await run.store.run(waiting.run_id)).attempt == 1
    result = await later.resume(waiting.run_id)
    assert result.values["log"] == ["before", "after", "more"]
    assert (await run.store.run(waiting.run_id)).graph_hash == later.graph.graph_hash
    details = (await load_state(run.store, waiting.run_id)).details
    assert (details["judged"], details["changed_from"]) == ("compatible", run.graph.graph_hash)


@pytest.mark.parametrize("became", ["gone", "task", "fan"])
async def test_a_place_that_the_new_graph_does_not_have_is_refused_even_with_force(became: str) -> None:
    run = executor(review())
    waiting = await run.execute(START)
    changed = Flow("reviewing", STATE).add_node("before", says("before")).add_node("after", says("after"))
    name = "elsewhere" if became == "gone" else "review"
    if became == "fan":
        changed.add_parallel(name, [says("a")])
    else:
        changed.add_node(name, says("x"))
    changed.set_entry("before").add_edge("before", name).add_edge(name, "after").add_edge("after", END)
    with pytest.raises(GraphChangedError, match="review"):
        await executor(changed, store=run.store).resume(waiting.run_id, mode="force")


async def test_a_run_of_another_flow_is_refused() -> None:
    run = executor(review())
    waiting = await run.execute(START)
    with pytest.raises(WrongFlowError):
        await executor(counting(3), store=run.store).resume(waiting.run_id)


async def test_a_long_run_whose_state_stays_small_is_loaded_from_a_snapshot() -> None:
    async def rewrite(state: Any) -> dict[str, Any]:
        return {"n": state["n"] + 1, "text": str(state["n"]) * 8_000}

    flow = Flow("long", {**STATE, "text": str}).add_node(None, rewrite).add_barrier("review").set_entry("rewrite")
    flow.add_edge("rewrite", "rewrite", when=lambda state: state["n"] < 40, name="more").add_edge("rewrite", "review").add_edge(
        "review", END
    )
    run = executor(flow)
    waiting = await run.execute({**START, "text": ""})
    snapshot, rows = await run.store.load(waiting.run_id)
    assert snapshot is not None
    assert len(rows) < 20
    await run.store.decide(waiting.run_id, "review", Decision.approve(by="ana"))
    result = await run.resume(waiting.run_id)
    assert (result.status, result.steps, result.values["text"][:4]) == ("completed", 41, "3939")
    assert (await run.resume(await run.fork(waiting.run_id, at=5))).status == "waiting"
    assert await run.store.verify(waiting.run_id) == []


async def test_no_step_waits_for_a_snapshot_to_be_written_and_whoever_drove_the_run_does() -> None:
    written = asyncio.Event()
    snapshots: list[Snapshot] = []

    class Slow(MemoryCheckpointStore):
        async def put_snapshot(self, snapshot: Snapshot, epoch: int) -> None:
            snapshots.append(snapshot)
            await written.wait()
            await super().put_snapshot(snapshot, epoch)

    async def rewrite(state: Any) -> dict[str, Any]:
        return {"n": state["n"] + 1, "text": str(state["n"]) * 8_000}

    flow = Flow("long", {**STATE, "text": str}).add_node(None, rewrite).set_entry("rewrite")
    flow.add_edge("rewrite", "rewrite", when=lambda state: state["n"] < 40, name="more").add_edge("rewrite", END)
    run = executor(flow, store=Slow())
    handle = await run.start({**START, "text": ""})
    driven = asyncio.create_task(handle.result())
    await settled()
    assert (await run.store.head(handle.run_id), len(snapshots), driven.done()) == (41, 1, False)
    written.set()
    assert (await driven).status == "completed"
    kept, rows = await run.store.load(handle.run_id)
    assert kept == snapshots[0]
    assert rows[-1].seq == 41


async def test_a_fork_stands_where_the_original_stood_and_leaves_it_alone() -> None:
    run = executor(review())
    waiting = await run.execute(START)
    before = [row async for row in run.store.history(waiting.run_id)]
    forked = await run.fork(waiting.run_id, edits={"n": 7})
    (ticket,) = await run.store.barriers(run_id=forked)
    assert (ticket.ticket, ticket.status) == ("review#1", "open")
    await run.store.decide(forked, "review", Decision.approve(by="ana"))
    result = await run.resume(forked)
    assert (result.status, result.values["n"], result.values["log"]) == ("completed", 7, ["before", "after"])
    assert [row async for row in run.store.history(waiting.run_id)] == before
    assert (await run.store.run(waiting.run_id)).status == "waiting"
    assert await run.store.decisions(waiting.run_id) == []
    assert await run.store.verify(forked) == []


async def test_a_fork_with_edits_shows_people_what_was_edited() -> None:
    run = executor(review())
    waiting = await run.execute(START)
    (old,) = await run.store.barriers(run_id=waiting.run_id)
    forked = await run.fork(waiting.run_id, edits={"n": 7})
    await run.resume(forked)
    (ticket,) = await run.store.barriers(run_id=forked)
    assert (ticket.payload, ticket.prompt) == ({"n": 7}, "7")
    assert ticket.digest != old.digest


async def test_what_a_person_sets_in_a_branch_or_in_a_fork_is_merged_over_by_who_writes_later_and_by_nobody_else() -> None:
    edits = {"most": 3, "kinds": [7], "notes": ["set"], "word": "b"}
    state = {
        "most": Annotated[int, max_], "kinds": Annotated[list[int], unique], "notes": Annotated[list[str], append],
        "word": Annotated[str, longest_word],
    }  # fmt: skip
    before = {"most": 9, "kinds": [1, 2], "notes": ["before"], "word": "aaaa"}

    async def writes(state: Any) -> dict[str, Any]:
        return {"most": 5, "kinds": [7, 2], "notes": ["written"], "word": "cc"}

    asks = Flow("asks").add_barrier("review", form=list(edits)).set_entry("review").add_edge("review", END)
    for first, second, merged in (
        (writes, asks, edits),
        (asks, writes, {"most": 5, "kinds": [7, 2], "notes": ["set", "written"], "word": "cc"}),
    ):
        run = executor(fan(first, second, state=state))
        waiting = await run.execute(before)
        forked = await run.fork(waiting.run_id, edits=edits)
        await run.store.decide(waiting.run_id, "review", Decision.modify(by="ana", edits=edits, approve=True))
        assert (await run.resume(waiting.run_id)).values == merged
        await run.store.decide(forked, "review", Decision.approve(by="ana"))
        assert (await run.resume(forked)).values == {"most": 5, "kinds": [7, 2], "notes": ["set", "written"], "word": "cc"}


@reducer("walking_longest_word")
def longest_word(current: Any, update: Any) -> Any:
    return update if current is ABSENT or len(update) > len(current) else current


async def test_a_fork_can_be_made_at_any_checkpoint_of_a_run_and_ends_like_it() -> None:
    async def fail(state: Any) -> None:
        raise ValueError("no")

    flow = Flow("forked", STATE).add_node("a", says("a")).add_node("rescue", says("rescue"))
    flow.add_parallel("fan", [line(says("b"), says("c"), state=None, name="inner"), fail, says("d")])
    flow.set_entry("a").add_edge("a", "fan").add_edge("fan", END).add_fallback("fan", "rescue").add_edge("rescue", END)
    run = executor(flow)
    done = await run.execute(START)
    seqs = [row.seq async for row in run.store.history(done.run_id)]
    for seq in seqs[:-1]:
        result = await run.resume(await run.fork(done.run_id, at=seq))
        assert (result.status, result.values["log"]) == ("completed", ["a", "rescue"]), f"forked at {seq}"
    with pytest.raises(ForkError):
        await run.fork(done.run_id)
    with pytest.raises(EditError):
        await run.fork(done.run_id, at=2, edits={"n": "x", "nobody": 1})


async def test_a_fork_of_the_time_before_another_graph_came_belongs_to_the_graph_of_that_time() -> None:
    run = executor(review())
    waiting = await run.execute(START)
    changed = (
        review().add_node("more", says("more")).add_edge("after", "more", when=lambda state: True, name="always").add_edge("more", END)
    )
    later = executor(changed, store=run.store)
    await later.resume(waiting.run_id)
    old, new = await run.fork(waiting.run_id, at=waiting.seq), await run.fork(waiting.run_id)
    assert (await run.store.run(old)).graph_hash == run.graph.graph_hash
    assert (await run.store.run(new)).graph_hash == later.graph.graph_hash
    with pytest.raises(GraphChangedError):
        await later.resume(old, mode="strict")
    assert (await run.resume(old)).status == "waiting"


async def test_history_says_what_every_checkpoint_did() -> None:
    run = executor(review())
    waiting = await run.execute(START)
    lines = [line async for line in operations.steps(run.store, waiting.run_id)]
    assert [(entry.row.kind, entry.row.node, entry.keys, entry.detail) for entry in lines] == [
        ("start", "", ("n", "log", "total"), "attempt 1"),
        ("step", "before", ("log",), ""),
        ("barrier", "review", (), "waits for review#1"),
    ]


# --- outcomes ---------------------------------------------------------------------------------------------------------
async def test_goto_needs_an_edge_and_its_condition_unless_forced() -> None:
    def never(state: Any) -> bool:
        return False

    def flow(outcome: Any) -> Flow:
        async def choose(state: Any) -> Any:
            return outcome

        made = Flow("choosing", STATE).add_node(None, choose).add_node("a", says("a")).add_node("b", says("b")).add_node("c", says("c"))
        made.set_entry("choose").add_edge("choose", "a", when=never).add_edge("choose", "b").add_edge("b", "c")
        return made.add_edge("a", END).add_edge("c", END)

    assert (await executor(flow(Goto("b"))).execute(START)).values["log"] == ["b", "c"]
    assert (await executor(flow(Goto("a", force=True))).execute(START)).values["log"] == ["a"]
    with pytest.raises(RunFailedError, match="does not hold; use force=True"):
        await executor(flow(Goto("a"))).execute(START)
    with pytest.raises(RunFailedError, match="no such edge is declared"):
        await executor(flow(Goto("c"))).execute(START)


async def test_end_in_a_branch_ends_the_branch_alone() -> None:
    async def stop(state: Any) -> End:
        return End({"log": ["stopped"]})

    inner = line(stop, says("never"), state=None, name="inner")
    flow = fan(inner, says("b")).add_node("after", says("after"))
    flow = Flow("ends", STATE).add_parallel("fan", [inner, says("b")]).add_node("after", says("after"))
    flow.set_entry("fan").add_edge("fan", "after").add_edge("after", END)
    assert (await executor(flow).execute(START)).values["log"] == ["stopped", "b", "after"]


async def test_modify_writes_and_approves_only_where_it_says_so() -> None:
    def flow() -> Flow:
        made = Flow("edits", STATE).add_barrier("review", form=["n"], show=["n"]).add_node("yes", says("yes")).add_node("no", says("no"))
        made.set_entry("review").add_edge("review", "yes", when=approved).add_edge("review", "no")
        return made.add_edge("yes", END).add_edge("no", END)

    for decision, log, n in (
        (Decision.modify(by="ana", edits={"n": 3}, approve=True), ["yes"], 3),
        (Decision.modify(by="ana", edits={"n": 3}), ["no"], 3),
        (Decision.skip(by="ana"), ["no"], 0),
        (Decision.reject(by="ana"), ["no"], 0),
        (Decision.approve(by="ana"), ["yes"], 0),
        (Decision.reroute(by="ana", to="yes"), ["yes"], 0),
    ):
        run = executor(flow())
        waiting = await run.execute(START)
        await run.store.decide(waiting.run_id, "review", decision)
        result = await run.resume(waiting.run_id)
        assert (result.values["log"], result.values["n"]) == (log, n), decision


async def test_what_is_meant_for_one_step_is_told_to_every_attempt_of_it_and_to_no_other() -> None:
    """The error that led to a fallback node: told to that node, also when it is tried again and by the next process, and then gone."""
    told: list[tuple[str, str | None]] = []
    crash = asyncio.Event()

    async def fails(state: Any) -> dict[str, Any]:
        raise OSError("the bank is down")

    def telling(name: str, *, then: Callable[[StepContext], Awaitable[None]] | None = None) -> Any:
        async def body(state: Any, ctx: StepContext) -> dict[str, Any]:
            told.append((name, None if ctx.error is None else str(ctx.error["message"])))
            if then is not None:
                await then(ctx)
            return {}

        return body

    async def fail_once_then_hang(ctx: StepContext) -> None:
        if ctx.attempt == 1:
            raise ValueError
        if not crash.is_set():
            crash.set()
            await asyncio.Event().wait()

    flow = Flow("told_once", {"n": int})
    flow.add_node("pay", fails)
    flow.add_node("queue", telling("queue", then=fail_once_then_hang), retry=Retry(first=timedelta(0), jitter=0))
    flow.add_parallel("both", {"left": telling("left"), "right": telling("right")})
    flow.add_node("after", telling("after"))
    flow.set_entry("pay").add_fallback("pay", "queue", on=OSError).add_edge("pay", END)
    flow.add_edge("queue", "both").add_edge("both", "after").add_edge("after", END)
    database = MemoryDatabase()
    first = GraphExecutor(flow.compile(), store=MemoryCheckpointStore(database=database))
    run = await first.start({"n": 0})
    await crash.wait()
    second = GraphExecutor(flow.compile(), store=MemoryCheckpointStore(database=database))
    assert (await second.resume(run.run_id, takeover=True)).status == "completed"
    await first.aclose()
    assert told == [*[("queue", "the bank is down")] * 3, ("left", None), ("right", None), ("after", None)]
