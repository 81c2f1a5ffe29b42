"""Middleware around node bodies: in which order it stands, whom it lets wait, what it refuses, and that no wait is a failure."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Annotated, Any

import pytest

from checkpoint_stores.memory import MemoryCheckpointStore
from checkpoint_stores.protocol import CheckpointStore
from engine.errors import (
    BulkheadFullError,
    CircuitOpenError,
    FlowValidationError,
    MiddlewareError,
    NodeTimeoutError,
    RunFailedError,
    UndeclaredWriteError,
)
from engine.executor import GraphExecutor
from engine.flow import Flow, branch
from engine.handle import RunHandle
from engine.middleware import Backpressure, Bulkhead, CircuitBreaker, NodeCall, RateLimit, Timeout, without
from engine.notices import StrayBodyWarning
from engine.plan import END, Retry
from engine.stack import snapshot
from reducers.builtin import append
from trailmark.testing import VirtualClock

STATE = {"n": int, "log": Annotated[list[str], append]}
START = {"n": 0, "log": []}
SECOND = timedelta(seconds=1)


class BankDown(Exception):
    pass


class Doors:
    """Lets a test hold bodies where it wants them: ``inside`` tells how many there are, ``let_out`` lets one go."""

    def __init__(self) -> None:
        self.inside = 0
        self.began = 0
        self.most = 0
        self._keys = asyncio.Semaphore(0)

    async def body(self, state: Any) -> None:
        self.inside += 1
        self.began += 1
        self.most = max(self.most, self.inside)
        try:
            await self._keys.acquire()
        finally:
            self.inside -= 1

    def let_out(self, count: int = 1) -> None:
        for _ in range(count):
            self._keys.release()


class Scene:
    """An executor on a clock that a test moves."""

    def __init__(self, flow: Flow, **options: Any) -> None:
        self.clock = VirtualClock()
        self.store = MemoryCheckpointStore(now=self.clock.now)
        self.graph = flow.compile()
        self.executor = GraphExecutor(self.graph, store=self.store, clock=self.clock, **options)

    async def start(self, count: int) -> list[RunHandle]:
        runs = [await self.executor.start(START) for _ in range(count)]
        await self.settle()
        return runs

    async def settle(self) -> None:
        await self.clock.advance(timedelta(0))

    async def pass_(self, time: timedelta) -> None:
        await self.clock.advance(time)


def lone(body: Callable[..., Any], *middleware: Any, fallback: Callable[..., Any] | None = None, **options: Any) -> Flow:
    """A flow of one node, ``work``, with middleware of its own."""
    flow = Flow("lone", STATE)
    flow.add_node("work", body, middleware=middleware, **options).set_entry("work").add_edge("work", END)
    if fallback is not None:
        flow.add_node("instead", fallback).add_fallback("work", "instead").add_edge("instead", END)
    return flow


async def instead(state: Any, ctx: Any) -> dict[str, Any]:
    return {"log": [ctx.error["type"]]}


async def kinds(store: CheckpointStore, run_id: str) -> list[str]:
    return [row.kind async for row in store.history(run_id)]


# --- rates ------------------------------------------------------------------------------------------------------------
async def test_a_rate_limit_holds_over_all_runs_of_an_executor_and_lets_them_in_as_time_passes() -> None:
    doors = Doors()
    doors.let_out(9)
    scene = Scene(lone(doors.body, RateLimit(2, SECOND)))
    runs = await scene.start(5)
    seen = [doors.began]
    for _ in range(3):
        await scene.pass_(SECOND)
        seen.append(doors.began)
    assert seen == [2, 4, 5, 5]
    assert [(await run.result()).status for run in runs] == ["completed"] * 5


async def test_a_wait_for_a_turn_is_no_failure_and_no_checkpoint() -> None:
    doors = Doors()
    doors.let_out(2)
    scene = Scene(lone(doors.body, RateLimit(1, SECOND), retry=Retry(attempts=5)))
    _first, second = await scene.start(2)
    await scene.pass_(SECOND)
    result = await second.result()
    assert (result.status, await kinds(scene.store, second.run_id)) == ("completed", ["start", "step"])


async def test_a_timeout_counts_no_wait_before_it_and_every_wait_behind_it() -> None:
    async def quick(state: Any) -> None:
        return None

    outside = Scene(lone(quick, RateLimit(1, 10 * SECOND), Timeout(SECOND)))
    inside = Scene(lone(quick, Timeout(SECOND), RateLimit(1, 10 * SECOND)))
    for scene in (outside, inside):
        runs = await scene.start(2)
        await scene.pass_(20 * SECOND)
        if scene is outside:
            assert [(await run.result()).status for run in runs] == ["completed", "completed"]
        else:
            with pytest.raises(RunFailedError) as failed:
                await runs[1].result()
            assert isinstance(failed.value.__cause__, NodeTimeoutError)


async def test_a_shared_rate_is_one_for_all_nodes_that_have_it() -> None:
    def both(*, shared: bool) -> Flow:
        flow = Flow("two", STATE, middleware=[RateLimit(1, 10 * SECOND, shared=shared)])
        flow.add_node("first", nothing).add_node("second", nothing)
        return flow.set_entry("first").add_edge("first", "second").add_edge("second", END)

    for shared in (False, True):
        scene = Scene(both(shared=shared))
        (run,) = await scene.start(1)
        assert run.done() is not shared
        await scene.pass_(10 * SECOND)
        assert (await run.result()).status == "completed"


# --- places -----------------------------------------------------------------------------------------------------------
async def test_a_bulkhead_lets_so_many_in_at_a_time_over_all_runs_in_the_order_they_came() -> None:
    doors = Doors()
    scene = Scene(lone(doors.body, Bulkhead(2)))
    runs = await scene.start(5)
    assert doors.inside == 2
    for _ in range(5):
        doors.let_out()
        await scene.settle()
    assert doors.most == 2
    assert [(await run.result()).status for run in runs] == ["completed"] * 5


async def test_a_full_bulkhead_refuses_and_the_fallback_takes_it() -> None:
    doors = Doors()
    scene = Scene(lone(doors.body, Bulkhead(1, waiting=1), fallback=instead))
    runs = await scene.start(3)
    assert (await runs[2].result()).values["log"] == ["BulkheadFullError"]
    doors.let_out(2)
    await scene.settle()
    assert [(await run.result()).values["log"] for run in runs[:2]] == [[], []]
    assert issubclass(BulkheadFullError, Exception)


async def test_a_run_that_is_cancelled_while_it_waits_leaves_the_queue_and_takes_no_place_with_it() -> None:
    doors = Doors()
    scene = Scene(lone(doors.body, Bulkhead(1)))
    runs = await scene.start(3)
    assert (await runs[1].cancel(by="ana")).status == "cancelled"
    doors.let_out()
    await scene.settle()
    assert doors.inside == 1, "the third run has the place of the first"
    doors.let_out()
    await scene.settle()
    assert (await runs[2].result()).status == "completed"
    (told,) = scene.executor.statistics().middleware
    assert (told.inside, told.waiting, told.waits) == (0, 0, 2)


async def test_a_place_given_to_somebody_who_is_cancelled_in_that_moment_is_not_lost() -> None:
    doors = Doors()
    scene = Scene(lone(doors.body, Bulkhead(1)))
    runs = await scene.start(3)
    doors.let_out()
    while doors.inside:  # the first has left, the second is let in and has not been told yet
        await asyncio.sleep(0)
    await runs[1].cancel(by="ana")
    await scene.settle()
    doors.let_out(2)
    await scene.settle()
    assert (await runs[2].result()).status == "completed"


async def test_a_run_suspended_while_it_waits_is_resumed_and_waits_again() -> None:
    doors = Doors()
    scene = Scene(lone(doors.body, Bulkhead(1)))
    _first, second = await scene.start(2)
    assert (await second.suspend("later")).status == "suspended"
    doors.let_out(2)
    await scene.settle()
    assert (await scene.executor.resume(second.run_id)).status == "completed"


async def test_a_shared_bulkhead_is_one_for_all_nodes_and_branches() -> None:
    doors = Doors()
    flow = Flow("shared", STATE, middleware=[Bulkhead(2, shared=True)])
    flow.add_parallel(
        "fan", {"a": doors.body, "b": doors.body, "c": Flow("inner").add_node("x", doors.body).set_entry("x").add_edge("x", END)}
    )
    flow.set_entry("fan").add_edge("fan", END)
    scene = Scene(flow)
    (run,) = await scene.start(1)
    assert doors.inside == 2
    doors.let_out(3)
    await scene.settle()
    assert ((await run.result()).status, doors.most, doors.began) == ("completed", 2, 3)


async def test_synchronous_nodes_wait_for_places_without_holding_a_thread() -> None:
    gate = threading.Event()

    def work(state: Any) -> None:
        gate.wait()

    executor = GraphExecutor(lone(work, Bulkhead(1)).compile(), store=MemoryCheckpointStore())
    runs = [await executor.start(START) for _ in range(4)]
    while executor.statistics().threads < 1 or not executor.statistics().middleware or executor.statistics().middleware[0].waiting < 3:
        await asyncio.sleep(0)
    assert executor.statistics().threads == 1
    gate.set()
    assert [(await run.result()).status for run in runs] == ["completed"] * 4


# --- breakers ---------------------------------------------------------------------------------------------------------
async def test_a_breaker_opens_after_failures_in_a_row_refuses_and_closes_when_a_trial_succeeds() -> None:
    bank_is_up = False
    asked = 0

    async def pay(state: Any) -> dict[str, Any]:
        nonlocal asked
        asked += 1
        if not bank_is_up:
            raise BankDown
        return {"log": ["paid"]}

    scene = Scene(lone(pay, CircuitBreaker(failures=2, open_for=30 * SECOND), fallback=instead))

    async def outcome() -> str:
        return str((await scene.executor.execute(START)).values["log"][0])

    assert [await outcome() for _ in range(3)] == ["BankDown", "BankDown", "CircuitOpenError"]
    assert asked == 2
    await scene.pass_(30 * SECOND)
    assert [await outcome(), await outcome()] == ["BankDown", "CircuitOpenError"], "a failed trial opens it again"
    bank_is_up = True
    await scene.pass_(30 * SECOND)
    assert [await outcome(), await outcome()] == ["paid", "paid"]
    (told,) = scene.executor.statistics().middleware
    assert (told.state, told.refused) == ("closed", 2)


async def test_a_shared_breaker_that_one_node_opened_refuses_the_others() -> None:
    async def pay(state: Any) -> None:
        raise BankDown

    def both(*, shared: bool) -> Flow:
        flow = Flow("two", STATE, middleware=[CircuitBreaker(failures=1, shared=shared)])
        flow.add_node("first", pay).add_node("second", pay).add_node("instead", instead, middleware=[without("circuit_breaker")])
        flow.set_entry("first").add_fallback("first", "second").add_fallback("second", "instead")
        return flow.add_edge("first", END).add_edge("second", END).add_edge("instead", END)

    outcomes = [(await Scene(both(shared=shared)).executor.execute(START)).values["log"] for shared in (False, True)]
    assert outcomes == [["BankDown"], ["CircuitOpenError"]]


async def test_a_breaker_that_tries_again_lets_so_many_in_and_closes_when_all_of_them_succeed() -> None:
    doors = Doors()
    asked = 0

    async def pay(state: Any) -> None:
        nonlocal asked
        asked += 1
        if asked == 1:
            raise BankDown
        await doors.body(state)

    scene = Scene(lone(pay, CircuitBreaker(failures=1, open_for=30 * SECOND, trials=2), fallback=instead))
    await scene.start(1)
    await scene.pass_(30 * SECOND)
    runs = await scene.start(3)
    assert doors.inside == 2
    assert (await runs[2].result()).values["log"] == ["CircuitOpenError"]
    doors.let_out(1)
    await scene.settle()
    (told,) = scene.executor.statistics().middleware
    assert told.state != "closed"
    doors.let_out(1)
    await scene.settle()
    (told,) = scene.executor.statistics().middleware
    assert told.state == "closed"


async def test_an_error_that_a_breaker_does_not_count_is_as_good_as_an_answer() -> None:
    errors = [BankDown(), ValueError(), BankDown(), BankDown(), BankDown()]

    async def pay(state: Any) -> None:
        raise errors.pop(0)

    scene = Scene(lone(pay, CircuitBreaker(failures=2, on=(BankDown,)), fallback=instead))
    outcomes = [(await scene.executor.execute(START)).values["log"][0] for _ in range(5)]
    assert outcomes == ["BankDown", "ValueError", "BankDown", "BankDown", "CircuitOpenError"]


async def test_a_breaker_around_a_timeout_counts_what_ran_out_of_time() -> None:
    doors = Doors()
    scene = Scene(lone(doors.body, CircuitBreaker(failures=1), Timeout(SECOND), fallback=instead))
    (run,) = await scene.start(1)
    await scene.pass_(SECOND)
    assert (await run.result()).values["log"] == ["NodeTimeoutError"]
    assert (await scene.executor.execute(START)).values["log"] == ["CircuitOpenError"]


async def test_an_open_breaker_is_an_error_that_a_retry_waits_out() -> None:
    asked = 0

    async def pay(state: Any) -> dict[str, Any]:
        nonlocal asked
        asked += 1
        if asked == 1:
            raise BankDown
        return {"log": ["paid"]}

    policy = Retry(attempts=3, first=SECOND, factor=2.0, jitter=0.0, on=(BankDown, CircuitOpenError))
    scene = Scene(lone(pay, CircuitBreaker(failures=1, open_for=2 * SECOND), retry=policy))
    (run,) = await scene.start(1)
    await scene.pass_(3 * SECOND)
    assert (await run.result()).values["log"] == ["paid"]
    assert (asked, await kinds(scene.store, run.run_id)) == (2, ["start", "retry", "retry", "step"])


async def test_a_breaker_learns_nothing_from_a_call_that_was_cancelled() -> None:
    doors = Doors()
    scene = Scene(lone(doors.body, CircuitBreaker(failures=1)))
    first, second = await scene.start(2)
    await first.cancel(by="ana")
    doors.let_out()
    await scene.settle()
    assert (await second.result()).status == "completed"


async def test_a_breaker_learns_nothing_where_who_has_a_place_and_who_waits_for_it_are_cancelled_together() -> None:
    doors = Doors()
    flow = Flow("both", STATE, middleware=[CircuitBreaker(failures=1, shared=True), Bulkhead(1, shared=True)])
    flow.add_parallel("checks", {"first": doors.body, "second": doors.body}).set_entry("checks").add_edge("checks", END)
    scene = Scene(flow)
    (run,) = await scene.start(1)
    await run.suspend()
    places, breaker = scene.executor.statistics().middleware
    assert (breaker.state, places.inside, places.waiting) == ("closed", 0, 0)


async def test_a_trial_that_never_comes_back_refuses_nobody_for_ever() -> None:
    answers: list[Awaitable[None]] = []

    async def work(state: Any) -> None:
        if not answers:
            raise BankDown
        await answers.pop()

    async def never() -> None:
        while not stop.is_set():
            try:
                await stop.wait()
            except asyncio.CancelledError:
                continue

    async def at_once() -> None:
        pass

    stop = asyncio.Event()
    breaker, timeout = CircuitBreaker(failures=1, open_for=10 * SECOND), Timeout(SECOND)
    scene = Scene(lone(work, breaker, timeout, fallback=instead), cancel_grace=SECOND)
    await scene.start(1)
    await scene.pass_(10 * SECOND)
    answers.append(never())
    await scene.start(1)
    with pytest.warns(StrayBodyWarning):
        await scene.pass_(9 * SECOND)
    (refused,) = await scene.start(1)
    await scene.pass_(SECOND)
    answers.append(at_once())
    (tried,) = await scene.start(1)
    assert [(await run.result()).values["log"] for run in (refused, tried)] == [["CircuitOpenError"], []]
    stop.set()
    await scene.settle()
    assert scene.executor.statistics().middleware[0].state == "closed"


# --- backpressure -----------------------------------------------------------------------------------------------------
async def test_backpressure_holds_a_node_back_while_too_many_wait_behind_it() -> None:
    fetch, parse = Doors(), Doors()
    flow = Flow("pipe", STATE)
    flow.add_node("fetch", fetch.body, middleware=[Bulkhead(1), Backpressure("parse", high=2, low=0)])
    flow.add_node("parse", parse.body, middleware=[Bulkhead(1)])
    flow.set_entry("fetch").add_edge("fetch", "parse").add_edge("parse", END)
    scene = Scene(flow)
    runs = await scene.start(6)
    for _ in range(6):
        fetch.let_out()
        await scene.settle()
    # The third passed while the second was on its way; the fourth finds them there, and waits until nobody is left.
    assert (fetch.began, parse.began) == (3, 1)
    for _ in range(2):
        parse.let_out()
        await scene.settle()
    assert (fetch.began, parse.began) == (3, 3), "one is still there"
    parse.let_out()
    await scene.settle()
    assert fetch.began > 3
    parse.let_out(3)
    await scene.settle()
    assert [(await run.result()).status for run in runs] == ["completed"] * 6


def test_backpressure_goes_before_a_shared_bulkhead_whose_places_others_need() -> None:
    flow = Flow("f", STATE, middleware=[Bulkhead(1, shared=True)]).add_node("parse", nothing)
    flow.add_node("fetch", nothing, middleware=[RateLimit(1, SECOND), Backpressure("parse", high=1)])
    flow.set_entry("fetch").add_edge("fetch", "parse").add_edge("parse", END)
    assert names(flow, "fetch") == ["backpressure", "bulkhead", "rate_limit"]


async def test_whoever_is_held_back_goes_on_although_nobody_arrives_behind_any_more() -> None:
    parse = Doors()
    calls = 0

    async def fetch(state: Any) -> dict[str, Any]:
        nonlocal calls
        calls += 1
        return {"n": calls}

    flow = Flow("pipe", STATE)
    flow.add_node("fetch", fetch, middleware=[Backpressure("parse", high=1)]).add_node("parse", parse.body)
    flow.set_entry("fetch").add_edge("fetch", "parse", when=lambda state: state["n"] == 1, name="first").add_edge("fetch", END).add_edge(
        "parse", END
    )
    scene = Scene(flow)
    runs = [*await scene.start(1), *await scene.start(3)]
    assert calls == 1
    parse.let_out()
    await scene.settle()
    assert [(await run.result()).status for run in runs] == ["completed"] * 4


# --- the stack --------------------------------------------------------------------------------------------------------
def names(flow: Flow, node: str) -> list[str]:
    return [each["name"] for each in flow.compile().definition["nodes"][node].get("middleware", [])]


async def nothing(state: Any) -> None:
    return None


def test_a_node_takes_the_flows_list_and_changes_it_by_name() -> None:
    flow = Flow("f", STATE, middleware=[Bulkhead(9), Retry(attempts=2), RateLimit(5, SECOND), Timeout(9 * SECOND)])
    flow.add_node("plain", nothing)
    flow.add_node(
        "own", nothing, retry=Retry(attempts=7), timeout=SECOND, middleware=[without("bulkhead"), CircuitBreaker(), RateLimit(1, SECOND)]
    )
    flow.set_entry("plain").add_edge("plain", "own").add_edge("own", END)
    assert names(flow, "plain") == ["retry", "bulkhead", "rate_limit", "timeout"]
    assert names(flow, "own") == ["retry", "rate_limit", "timeout", "circuit_breaker"]
    plain, own = flow.compile().plan.nodes["plain"], flow.compile().plan.nodes["own"]
    assert (plain.retry, plain.timeout, own.retry, own.timeout) == (Retry(attempts=2), 9 * SECOND, Retry(attempts=7), SECOND)


def test_an_inner_flow_takes_the_list_around_it_and_changes_it_by_name() -> None:
    inner = Flow("inner", middleware=[Timeout(SECOND), without("bulkhead")]).add_node("x", nothing).set_entry("x").add_edge("x", END)
    flow = Flow("f", STATE, middleware=[Bulkhead(9), Retry()])
    flow.add_parallel("fan", {"flow": inner, "lone": nothing, "own": branch(nothing, middleware=[Bulkhead(1)])})
    flow.set_entry("fan").add_edge("fan", END)
    branches = flow.compile().definition["nodes"]["fan"]["branches"]
    found = [[(each["name"], each.get("limit")) for each in next(iter(one["nodes"].values()))["middleware"]] for one in branches]
    assert found == [[("retry", None), ("timeout", None)], [("retry", None), ("bulkhead", 9)], [("retry", None), ("bulkhead", 1)]]


async def test_a_flows_retry_makes_each_failed_attempt_a_checkpoint_of_the_walk() -> None:
    asked = 0

    async def flaky(state: Any) -> None:
        nonlocal asked
        asked += 1
        if asked < 3:
            raise BankDown

    flow = Flow("f", STATE, middleware=[Retry(attempts=3, first=timedelta(0))])
    flow.add_node("flaky", flaky).add_node("plain", nothing, middleware=[without("retry")])
    flow.set_entry("flaky").add_edge("flaky", "plain").add_edge("plain", END)
    scene = Scene(flow)
    result = await scene.executor.execute(START)
    assert (asked, await kinds(scene.store, result.run_id)) == (3, ["start", "retry", "retry", "step", "step"])


async def test_a_node_with_nothing_around_it_never_meets_the_middleware() -> None:
    flow = Flow("f", STATE).add_node("bare", nothing).add_node("timed", nothing, timeout=SECOND, retry=Retry())
    graph = flow.set_entry("bare").add_edge("bare", "timed").add_edge("timed", END).compile()
    bare, timed = graph.plan.nodes["bare"], graph.plan.nodes["timed"]
    assert (bare.runs_inline, bare.is_wrapped, timed.runs_inline, timed.is_wrapped) == (True, False, False, False)
    assert "middleware" not in graph.definition["nodes"]["bare"]
    executor = GraphExecutor(graph, store=MemoryCheckpointStore())
    await executor.execute(START)
    assert executor.statistics().middleware == ()


WRONG: dict[str, tuple[Callable[[], Flow], str]] = {
    "no calls": (lambda: lone(nothing, RateLimit(0, SECOND)), "calls=0 must be a whole number from 1"),
    "no time": (lambda: lone(nothing, RateLimit(1, timedelta(0))), "per=datetime.timedelta(0) must be longer than nothing"),
    "no place": (lambda: lone(nothing, Bulkhead(0)), "limit=0 must be a whole number from 1"),
    "less than no waiting": (lambda: lone(nothing, Bulkhead(1, waiting=-1)), "waiting=-1 must be a whole number from 1"),
    "seconds": (lambda: lone(nothing, Timeout(3)), "after=3 must be a timedelta"),  # type: ignore[arg-type]
    "no failures": (lambda: lone(nothing, CircuitBreaker(failures=0)), "failures=0 must be a whole number from 1"),
    "no error": (lambda: lone(nothing, CircuitBreaker(on=("x",))), "on='x' is no exception class"),  # type: ignore[arg-type]
    "no trials": (lambda: lone(nothing, CircuitBreaker(trials=0)), "trials=0 must be a whole number from 1"),
    "low above high": (lambda: lone(nothing, Backpressure("work", high=2, low=2)), "low=2 must be from 0 to less than high=2"),
    "an unknown node": (lambda: lone(nothing, Backpressure("later", high=2)), "looks behind to 'later', which is no task of flow 'lone'"),
    "itself": (lambda: lone(nothing, Backpressure("work", high=2)), "node 'work' would wait for itself"),
    "twice": (lambda: lone(nothing, Bulkhead(1), Bulkhead(2)), "declares middleware 'bulkhead' 2 times"),
    "a retry twice": (lambda: lone(nothing, Retry(), retry=Retry()), "declares middleware 'retry' 2 times"),
    "nothing to take away": (lambda: lone(nothing, without("retry")), "the flow has no such middleware; it has: none"),
    "something else": (lambda: lone(nothing, "retry"), "'retry' is no middleware"),
    "two shared places": (
        lambda: lone(nothing, Bulkhead(1, shared=True), Bulkhead(1, shared=True, name="other")),
        "has two shared bulkheads",
    ),
}


@pytest.mark.parametrize(("make", "problem"), list(WRONG.values()), ids=list(WRONG))
def test_middleware_that_cannot_work_is_a_problem_of_the_flow(make: Callable[[], Flow], problem: str) -> None:
    with pytest.raises(FlowValidationError) as invalid:
        make().compile()
    assert any(problem in each for each in invalid.value.problems), invalid.value.problems


# --- one's own --------------------------------------------------------------------------------------------------------
class Own:
    """A middleware whose behaviour a test gives."""

    name = "own"
    version = "3"

    def __init__(self, around: Callable[[Callable[[], Awaitable[Any]], NodeCall], Awaitable[Any]]) -> None:
        self._around = around
        self.settings = {"depth": 1}

    async def around(self, call: Callable[[], Awaitable[Any]], node: NodeCall) -> object:
        return await self._around(call, node)


async def test_own_middleware_sees_each_attempt_and_cannot_change_what_the_node_returned() -> None:
    seen: list[tuple[str, int, int]] = []
    asked = 0

    async def flaky(state: Any) -> dict[str, Any]:
        nonlocal asked
        asked += 1
        if asked == 1:
            raise BankDown
        return {"log": ["done"]}

    async def watch(call: Callable[[], Awaitable[Any]], node: NodeCall) -> object:
        seen.append((node.node, node.visit, node.attempt))
        await call()
        return {"log": ["forged"]}

    scene = Scene(lone(flaky, Own(watch), retry=Retry(first=timedelta(0))))
    assert (await scene.executor.execute(START)).values["log"] == ["done"]
    assert seen == [("work", 1, 1), ("work", 1, 2)]


async def test_own_middleware_may_turn_an_error_into_another_which_takes_its_fallback() -> None:
    async def pay(state: Any) -> None:
        raise ConnectionResetError("peer")

    async def translate(call: Callable[[], Awaitable[Any]], node: NodeCall) -> None:
        try:
            await call()
        except ConnectionError as error:
            raise BankDown("no answer") from error

    flow = Flow("f", STATE).add_node("pay", pay, middleware=[Own(translate)]).add_node("instead", instead)
    flow.add_fallback("pay", "instead", on=BankDown).set_entry("pay").add_edge("pay", END).add_edge("instead", END)
    assert (await Scene(flow).executor.execute(START)).values["log"] == ["BankDown"]


async def leaves_it_out(call: Callable[[], Awaitable[Any]], node: NodeCall) -> None:
    return None


async def calls_it_twice(call: Callable[[], Awaitable[Any]], node: NodeCall) -> None:
    await call()
    await call()


async def hides_its_error(call: Callable[[], Awaitable[Any]], node: NodeCall) -> None:
    try:
        await call()
    except BankDown:
        pass


@pytest.mark.parametrize(
    ("around", "words"),
    [
        (leaves_it_out, "came back before the node had"),
        (calls_it_twice, "called the node twice"),
        (hides_its_error, "turned an error into a success"),
    ],
)
async def test_own_middleware_is_held_to_its_promises(around: Any, words: str) -> None:
    async def body(state: Any) -> None:
        if around is hides_its_error:
            raise BankDown

    with pytest.raises(RunFailedError) as failed:
        await Scene(lone(body, Own(around))).executor.execute(START)
    assert isinstance(failed.value.__cause__, MiddlewareError)
    assert words in str(failed.value.__cause__)


async def test_own_middleware_that_calls_in_a_task_of_its_own_does_not_hide_what_ran_out_of_time() -> None:
    class Patient:
        name = "patient"

        async def around(self, call: Callable[[], Awaitable[None]], node: NodeCall) -> None:
            calling = asyncio.create_task(call())
            try:
                await asyncio.shield(calling)
            except asyncio.CancelledError:
                calling.cancel()
                await asyncio.wait([calling])
                calling.exception()
                raise

    doors = Doors()
    scene = Scene(lone(doors.body, Patient(), Timeout(SECOND), fallback=instead))
    (run,) = await scene.start(1)
    await scene.pass_(2 * SECOND)
    assert (await run.result()).values["log"] == ["NodeTimeoutError"]


async def test_own_middleware_cannot_hold_a_cancelled_body_back() -> None:
    async def swallow(call: Callable[[], Awaitable[Any]], node: NodeCall) -> None:
        try:
            await call()
        except asyncio.CancelledError:
            pass

    doors = Doors()
    scene = Scene(lone(doors.body, Own(swallow)))
    (run,) = await scene.start(1)
    assert (await run.cancel(by="ana")).status == "cancelled"


# --- as data ----------------------------------------------------------------------------------------------------------
def test_the_snapshot_of_a_stack_stands_in_the_definition_in_its_order() -> None:
    own = Own(leaves_it_out)
    flow = lone(
        nothing,
        Retry(),
        Backpressure("later", high=9),
        Timeout(SECOND),
        CircuitBreaker(),
        RateLimit(5, SECOND),
        Bulkhead(4, waiting=2),
        own,
    )
    flow.add_node("later", nothing).add_edge("work", "later", when=lambda state: True, name="more").add_edge("later", END)
    assert flow.compile().definition["nodes"]["work"]["middleware"] == [
        {"name": "retry", "kind": "retry", "attempts": 3, "first": 0.1, "factor": 2.0, "longest": 300.0, "jitter": 0.5, "on": ["Exception"]},
        {"name": "backpressure", "kind": "backpressure", "behind": "later", "high": 9, "low": 4},
        {"name": "timeout", "kind": "timeout", "timeout": 1.0},
        {"name": "circuit_breaker", "kind": "circuit_breaker", "failures": 5, "open_for": 30.0, "trials": 1, "on": ["Exception"], "shared": False},
        {"name": "rate_limit", "kind": "rate_limit", "calls": 5, "per": 1.0, "shared": False},
        {"name": "bulkhead", "kind": "bulkhead", "limit": 4, "waiting": 2, "shared": False},
        {"name": "own", "kind": "own", "callable": "Own", "version": "3", "settings": {"depth": 1}},
    ]  # fmt: skip
    assert snapshot(own)["settings"] == {"depth": 1}


# --- what a node may write --------------------------------------------------------------------------------------------
async def test_a_key_that_a_node_does_not_declare_to_write_is_refused() -> None:
    async def sneaky(state: Any) -> dict[str, Any]:
        return {"log": ["fine"], "n": 3}

    flow = Flow("f", STATE).add_node("sneaky", sneaky, writes=["log"]).set_entry("sneaky").add_edge("sneaky", END)
    with pytest.raises(RunFailedError) as failed:
        await Scene(flow).executor.execute(START)
    error = failed.value.__cause__
    assert isinstance(error, UndeclaredWriteError)
    assert (error.keys, error.writes, failed.value.result.values["log"]) == (("n",), ("log",), [])


# --- maps, and bodies that do not stop --------------------------------------------------------------------------------
async def test_all_items_of_a_map_share_the_places_of_their_node() -> None:
    doors = Doors()

    async def score(item: Any) -> int:
        await doors.body(item)
        return int(item)

    flow = Flow("mapping", {"items": list[int], "scores": list[int]}, middleware=[Bulkhead(2)])
    flow.add_map("score", "items", score, to="scores").set_entry("score").add_edge("score", END)
    scene = Scene(flow)
    run = await scene.executor.start({"items": [1, 2, 3, 4, 5]})
    await scene.settle()
    assert doors.inside == 2
    doors.let_out(5)
    await scene.settle()
    assert ((await run.result()).values["scores"], doors.most) == ([1, 2, 3, 4, 5], 2)
    found = await scene.executor.check(run.run_id)
    assert found.passed
    assert [(edge.left, edge.entered) for edge in found.edges if edge.path == "score[*]"] == [(5, 5), (5, 5)]


async def test_a_body_behind_a_stack_that_ignores_its_timeout_is_given_up_after_its_grace() -> None:
    stop = asyncio.Event()

    async def stubborn(state: Any) -> None:
        while not stop.is_set():
            try:
                await stop.wait()
            except asyncio.CancelledError:
                continue

    scene = Scene(lone(stubborn, CircuitBreaker(), Timeout(SECOND), fallback=instead), cancel_grace=SECOND)
    (run,) = await scene.start(1)
    with pytest.warns(StrayBodyWarning):
        await scene.pass_(2 * SECOND)
    assert (await run.result()).values["log"] == ["NodeTimeoutError"]
    assert scene.executor.statistics().strays == 1
    stop.set()
    await scene.settle()
    assert scene.executor.statistics().strays == 0


async def test_a_cancelled_run_waits_for_no_place() -> None:
    doors = Doors()
    scene = Scene(lone(doors.body, RateLimit(1, timedelta(days=1))))
    _first, second = await scene.start(2)
    assert (await second.cancel(by="ana")).status == "cancelled"
    doors.let_out()
    await scene.settle()
    assert scene.executor.statistics().middleware[0].waiting == 0
