"""Slips that must not pass quietly: a ticket that cannot exist, a condition that answers with a coroutine, a loop in the way."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal, localcontext
from pathlib import Path
from typing import Annotated, Any, Literal, TextIO
from uuid import UUID

import pytest
from pydantic import AfterValidator, BaseModel, ConfigDict, SecretStr, field_validator
from typing_extensions import TypedDict

from checkpoint_stores.deciding import waiting_early
from checkpoint_stores.registered import TYPES
from trailmark import (
    END,
    ArgumentError,
    ConditionError,
    Decision,
    DrivenHereError,
    ExecutorClosedError,
    Flow,
    FlowError,
    FlowGraph,
    FlowValidationError,
    Goto,
    GraphExecutor,
    LeaseHeldError,
    MergeError,
    ReducerFunctionError,
    Retry,
    ReturnTypeError,
    RunFailedError,
    RunNotFoundError,
    StepContext,
    StoreUnavailableError,
    UnknownBarrierError,
    UnsetKeyError,
    Update,
    UpdateNotStorableError,
    best_effort,
    branch,
    register_type,
)
from trailmark.checkpoint_stores import MemoryCheckpointStore, SQLCheckpointStore
from trailmark.reducers import Change, append, names, reducer, replace, sum_


def asking_in_a_branch(seen: list[set[str]] | None = None) -> FlowGraph:
    inner = Flow("inner").add_barrier("ask", prompt="Go on?").set_entry("ask").add_edge("ask", END)
    flow = Flow("outer", {"n": int})
    flow.add_parallel("p", [inner])

    @flow.node
    def after(state: Any, ctx: StepContext) -> None:
        if seen is not None:
            seen.append(set(ctx.decisions))

    flow.set_entry("p").add_edge("p", "after").add_edge("after", END)
    return flow.compile()


@pytest.mark.parametrize("slip", ["ask#1", "p[7].ask#1", "zzz[0].ask#1", "p[0].after"])
async def test_a_ticket_that_can_never_open_takes_no_decision(slip: str) -> None:
    async with MemoryCheckpointStore() as store:
        run = await GraphExecutor(asking_in_a_branch(), store=store).execute({"n": 1})
        assert run.waiting_for == ("p[0].ask#1",)
        with pytest.raises(UnknownBarrierError) as caught:
            await store.decide(run.run_id, slip, Decision.approve(by="ana"))
        assert slip == "p[0].after" or caught.value.known == ("p[0].ask#1",)
        assert await store.decisions(run.run_id) == []


def rounds(most: int | None = None) -> FlowGraph:
    flow = Flow("rounds", {"n": int}).add_barrier("ok", max_visits=most).add_node("count", lambda state: {"n": state["n"] + 1})
    flow.set_entry("ok").add_edge("ok", "count").add_edge("count", END, when=lambda state: state["n"] == 2, name="twice")
    return flow.add_edge("count", "ok").compile()


async def test_a_decision_for_a_later_visit_waits_for_that_visit() -> None:
    async with MemoryCheckpointStore() as store:
        executor = GraphExecutor(rounds(), store=store)
        run = await executor.execute({"n": 0})
        early = await store.decide(run.run_id, "ok#2", Decision.approve(by="ana"))
        assert early.is_early
        assert waiting_early(await store.decisions(run.run_id), await store.barriers(run_id=run.run_id, status=None)) == [early]
        assert (await executor.resume(run.run_id)).waiting_for == ("ok#1",)
        on_time = await store.decide(run.run_id, "ok", Decision.approve(by="ben"))
        assert not on_time.is_early
        assert (await executor.resume(run.run_id)).status == "completed"
        assert waiting_early(await store.decisions(run.run_id), await store.barriers(run_id=run.run_id, status=None)) == []


@pytest.mark.parametrize("slip", ["ok#3", "ok#0", "ok#02"])
async def test_a_visit_that_can_never_come_takes_no_decision(slip: str) -> None:
    async with MemoryCheckpointStore() as store:
        run = await GraphExecutor(rounds(most=2), store=store).execute({"n": 0})
        with pytest.raises(UnknownBarrierError):
            await store.decide(run.run_id, slip, Decision.approve(by="ana"))
        assert (await store.decide(run.run_id, "ok#2", Decision.approve(by="ana"))).is_early


async def test_a_decision_made_in_a_branch_is_known_after_the_join() -> None:
    seen: list[set[str]] = []
    async with MemoryCheckpointStore() as store:
        executor = GraphExecutor(asking_in_a_branch(seen), store=store)
        run = await executor.execute({"n": 1})
        await store.decide(run.run_id, "ask", Decision.approve(by="ana"))
        assert (await executor.resume(run.run_id)).status == "completed"
    assert seen == [{"ask"}]


async def test_a_condition_that_answers_with_a_coroutine_is_no_yes() -> None:
    async def is_safe(state: Any) -> bool:
        return False

    flow = Flow("safe", {"n": int})
    flow.add_node("look", lambda state: None)
    flow.add_node("pay", lambda state: {"n": 2})
    flow.set_entry("look").add_edge(
        "look",
        "pay",
        when=lambda state: is_safe(state),  # noqa: PLW0108 - an async function itself is refused at compile time
        name="safe",
    ).add_edge("look", END).add_edge("pay", END)
    async with MemoryCheckpointStore() as store:
        with pytest.raises(RunFailedError) as caught:
            await GraphExecutor(flow.compile(), store=store).execute({"n": 1})
    assert isinstance(caught.value.__cause__, ConditionError)
    assert "something to await" in str(caught.value)


async def test_what_a_condition_does_to_the_state_the_next_condition_does_not_see() -> None:
    def meddles(state: Any) -> bool:
        state["words"].append("meddled")
        return False

    flow = Flow("asked", {"words": list[str]}).add_node("look", lambda state: {"words": ["a"]}).add_node("many", lambda state: None)
    flow.set_entry("look").add_edge("look", "many", when=meddles)
    flow.add_edge("look", "many", when=lambda state: len(state["words"]) > 1, name="many").add_edge("look", END).add_edge("many", END)
    async with MemoryCheckpointStore() as store:
        result = await GraphExecutor(flow.compile(), store=store).execute({})
        assert [row.node async for row in store.history(result.run_id)] == ["", "look"]


async def test_execute_sync_in_a_running_loop_says_what_to_call() -> None:
    executor = GraphExecutor(asking_in_a_branch(), store=MemoryCheckpointStore())
    await asyncio.sleep(0)
    with pytest.raises(RuntimeError, match=r"await executor\.execute"):
        executor.execute_sync({"n": 1})


def test_a_script_that_uses_execute_sync_ends_quietly(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        """
from trailmark import END, Flow, GraphExecutor
from trailmark.checkpoint_stores import SQLCheckpointStore

flow = Flow("plain", {"n": int})
flow.add_node("a", lambda state: {"n": state["n"] + 1})
flow.set_entry("a").add_edge("a", END)
executor = GraphExecutor(flow.compile(), store=SQLCheckpointStore("sqlite+aiosqlite:///runs.db"))
print(executor.execute_sync({"n": 1}).values, executor.execute_sync({"n": 2}).values)
"""
    )
    done = subprocess.run([sys.executable, script], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "{'n': 2} {'n': 3}\n", "")
    assert not (tmp_path / "runs.db-wal").exists(), "the store was not closed"


def test_a_single_role_may_be_given_as_it_is() -> None:
    assert Decision.approve(by="ana", roles="finance").roles == ("finance",)


# --- arguments ------------------------------------------------------------------------------------------------------
def one_node(fn: Any, state: Any = None) -> FlowGraph:
    flow = Flow("one", {"n": int, "x": Any} if state is None else state)
    return flow.add_node("a", fn).set_entry("a").add_edge("a", END).compile()


@pytest.mark.parametrize(
    ("slip", "said"),
    [
        ({"run_id": "abc"}, "run_id must be a UUID in canonical text .*not 'abc'"),
        ({"run_id": 7}, "run_id must be a UUID"),
        ({"run_id": "01A1FDC4-E4AE-70CC-943C-32468A25690E"}, "canonical"),
        ({"run_key": 7}, "run_key must be a text or None, not 7"),
        ({"tenant": None}, "tenant must be a text, not None"),
        ({"run_key": "a\0b"}, "run_key must be a text of whole characters other than NUL"),
        ({"tenant": "\ud83d"}, "tenant must be a text of whole characters other than NUL"),
        ({"max_steps": "5"}, "max_steps must be a whole number from 1, not '5'"),
        ({"max_steps": True}, "max_steps"),
        ({"max_steps": 0}, "max_steps"),
        ({"labels": {"team": 7}}, r"labels\['team'\] must be a text, e.g. '7', not 7"),
        ({"labels": {7: "team"}}, "a label's name must be a text, not 7"),
        ({"labels": ["team"]}, "labels must be a mapping of texts"),
    ],
)
async def test_a_run_is_not_created_where_an_argument_is_of_a_wrong_kind(slip: dict[str, Any], said: str) -> None:
    async with MemoryCheckpointStore() as store:
        executor = GraphExecutor(one_node(lambda state: None), store=store)
        with pytest.raises(ArgumentError, match=said):
            await executor.execute({"n": 1}, **slip)
        assert await store.runs() == []


@pytest.mark.parametrize("slip", [None, 7, "", b"01a1fdc4"])
async def test_a_run_is_named_by_text(slip: Any) -> None:
    async with MemoryCheckpointStore() as store:
        executor = GraphExecutor(one_node(lambda state: None), store=store)
        for ask in (executor.resume, executor.attach, executor.fork):
            with pytest.raises(ArgumentError, match="run_id must be a run's id as text"):
                await ask(slip)


async def test_an_id_that_is_too_short_says_how_much_of_it_is_needed(sqlite_url: str) -> None:
    async with SQLCheckpointStore(sqlite_url) as store:
        with pytest.raises(RunNotFoundError, match="8 or more"):
            await GraphExecutor(one_node(lambda state: None), store=store).resume("abc")


async def test_a_resume_with_a_wrong_argument_leaves_the_run_alone() -> None:
    async with MemoryCheckpointStore() as store:
        executor = GraphExecutor(asking_in_a_branch(), store=store)
        run = await executor.execute({"n": 1})
        for slip in ({"max_steps": "50"}, {"max_steps": run.steps}, {"mode": "Force"}):
            with pytest.raises(ArgumentError):
                await executor.resume(run.run_id, **slip)
        with pytest.raises(ArgumentError, match="at must be the number of a checkpoint"):
            await executor.fork(run.run_id, at="last")  # type: ignore[arg-type]
        assert (await store.run(run.run_id)).attempt == 1


def test_an_executor_wants_a_compiled_flow_and_a_store() -> None:
    graph = asking_in_a_branch()
    with pytest.raises(ArgumentError, match=r"graph must be what flow\.compile\(\) returns"):
        GraphExecutor(Flow("raw", {}), store=MemoryCheckpointStore())  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="store must be an open checkpoint store"):
        GraphExecutor(graph, store="sqlite:///runs.db")  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="max_steps"):
        GraphExecutor(graph, store=MemoryCheckpointStore(), max_steps="5")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("slip", "field"),
    [
        (lambda: Decision.approve(by="ana", reason=7), "reason"),
        (lambda: Decision.approve(by=None), "by"),
        (lambda: Decision.approve(by="ana", seen=7), "seen"),
        (lambda: Decision.approve(by="ana", source=None), "source"),
        (lambda: Decision.approve(by="ana", roles=7), "roles"),
        (lambda: Decision.approve(by="ana", roles=[7]), "roles"),
        (lambda: Decision.modify(by="ana", edits=None), "edits"),
        (lambda: Decision.modify(by="ana", edits=[("n", 1)]), "edits"),
        (lambda: Decision.modify(by="ana", edits={1: 2}), "edits"),
        (lambda: Decision.modify(by="ana", edits={"n": 2}, approve="yes"), "approve"),
        (lambda: Decision.reroute(by="ana", to=7), "target"),
        (lambda: Decision(7, "ana"), "action"),
    ],
)
def test_a_decision_with_a_field_of_a_wrong_kind_cannot_be_made(slip: Any, field: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        slip()
    assert caught.value.argument == field


@pytest.mark.parametrize("kind", [MemoryCheckpointStore, SQLCheckpointStore])
async def test_what_is_no_decision_is_not_recorded(kind: Any, sqlite_url: str) -> None:
    async with kind(sqlite_url) if kind is SQLCheckpointStore else kind() as store:
        run = await GraphExecutor(asking_in_a_branch(), store=store).execute({"n": 1})
        with pytest.raises(ArgumentError, match=r"Decision\.approve"):
            await store.decide(run.run_id, "ask", {"action": "approve"})
        with pytest.raises(ArgumentError, match="barrier must be a ticket or a barrier's name"):
            await store.decide(run.run_id, None, Decision.approve(by="ana"))
        assert await store.decisions(run.run_id) == []


async def test_a_closed_executor_starts_and_resumes_nothing() -> None:
    async with MemoryCheckpointStore() as store:
        async with GraphExecutor(asking_in_a_branch(), store=store) as executor:
            run = await executor.execute({"n": 1})
        for late in (executor.start({"n": 1}), executor.execute({"n": 1}), executor.resume(run.run_id), executor.attach(run.run_id)):
            with pytest.raises(ExecutorClosedError, match="make a new GraphExecutor"):
                await late
        assert [each.run_id for each in await store.runs()] == [run.run_id]


async def test_a_decision_over_a_handle_counts_though_its_executor_is_closed() -> None:
    async with MemoryCheckpointStore() as store:
        async with GraphExecutor(asking_in_a_branch(), store=store) as executor:
            handle = await executor.start({"n": 1})
            await handle.result()
        record = await handle.decide("ask", Decision.approve(by="ana"))
        assert await store.decisions(handle.run_id) == [record]


async def test_a_run_that_this_process_drives_says_where_to_wait_for_it() -> None:
    go_on = asyncio.Event()

    async def wait(state: Any) -> dict[str, Any]:
        await go_on.wait()
        return {"n": 2}

    async with MemoryCheckpointStore() as store:
        executor, other = (GraphExecutor(one_node(wait), store=store) for _ in range(2))
        handle = await executor.start({"n": 1})
        with pytest.raises(DrivenHereError, match=r"wait for it with `await executor\.result") as caught:
            await executor.resume(handle.run_id)
        assert isinstance(caught.value, LeaseHeldError)
        assert "takeover" not in str(caught.value)
        with pytest.raises(DrivenHereError, match="another executor of this process"):
            await other.resume(handle.run_id)
        go_on.set()
        assert (await executor.result(handle.run_id)).values == {"n": 2}


# --- what a node reads and returns ----------------------------------------------------------------------------------
async def failure_of(graph: FlowGraph, given: dict[str, Any]) -> BaseException:
    async with MemoryCheckpointStore() as store:
        with pytest.raises(RunFailedError) as caught:
            await GraphExecutor(graph, store=store).execute(given)
    assert caught.value.__cause__ is not None
    return caught.value.__cause__


def ring() -> list[Any]:
    made: list[Any] = []
    made.append(made)
    return made


def tower(levels: int) -> list[Any]:
    made: list[Any] = []
    for _ in range(levels):
        made = [made]
    return made


async def test_a_value_that_contains_itself_is_not_told_to_register_its_class() -> None:
    error = await failure_of(one_node(lambda state: {"x": {"k": ring()}}), {"n": 1})
    assert isinstance(error, UpdateNotStorableError)
    assert error.value_path == "x.k[0]"
    assert "x.k[0] is a list, which cannot be stored as data: it contains itself; store its parts in a flat list" in str(error)
    assert "register" not in str(error)


async def test_a_value_that_is_nested_too_deeply_says_so_on_one_line() -> None:
    error = await failure_of(one_node(lambda state: {"x": tower(3000)}), {"n": 1})
    assert "it is nested deeper than 100 levels of JSON; store its parts in a flat list" in str(error)
    assert len(str(error)) < 400
    assert isinstance(error, UpdateNotStorableError)
    assert error.value_path == "x" + "[0]" * 100


class Opaque:
    pass


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (Path("a"), r"x is a PosixPath, .*; return a str: str\(path\)$"),
        (deque([1]), r"return a list: list\(value\)$"),
        (bytearray(b"a"), r"return bytes: bytes\(value\)$"),
        (iter([1]), r"return a list: list\(value\)$"),
        (print, "return a str: its name"),
        (Opaque(), "x is an Opaque, .*make its class a dataclass or a pydantic model"),
        (ValueError("no"), r"x is a ValueError, .*str\(error\)"),
    ],
)
async def test_a_value_that_is_no_data_is_told_what_to_be_instead(value: Any, said: str) -> None:
    with pytest.raises(UpdateNotStorableError, match=said):
        raise await failure_of(one_node(lambda state: {"x": value}), {"n": 1})


class Counted(TypedDict):
    n: int
    m: int
    seen: Annotated[list[int], append]


class CountedModel(BaseModel):
    n: int = 0
    seen: Annotated[list[int], append] = []


async def test_reading_a_key_that_holds_nothing_names_it() -> None:
    error = await failure_of(one_node(lambda state: {"n": state["m"]}, Counted), {"n": 1})
    assert isinstance(error, UnsetKeyError)
    assert isinstance(error, KeyError)
    assert str(error) == "the state holds nothing under 'm': no input, default or node has set it, or it was deleted; give it a default"
    unknown = await failure_of(one_node(lambda state: {"n": state["q"]}, Counted), {"n": 1})
    assert str(unknown) == "the state declares no key 'q'; declared are: n, m, seen"


async def test_a_mapping_state_still_answers_get_and_in() -> None:
    graph = one_node(lambda state: {"n": state.get("m", 5) + ("m" in state)}, Counted)
    async with MemoryCheckpointStore() as store:
        assert (await GraphExecutor(graph, store=store).execute({"n": 1})).values["n"] == 5


@pytest.mark.parametrize("state", [Counted, CountedModel])
@pytest.mark.parametrize("returned", [lambda state: state, Update, lambda state: Goto("b", state)])
async def test_a_node_that_returns_its_whole_state_is_told_to_return_what_changed(state: Any, returned: Any) -> None:
    flow = Flow("whole", state).add_node("a", lambda given: returned(given), goto=["b"])  # noqa: PLW0108 - a class takes no state
    flow.add_node("b", lambda given: None).set_entry("a").add_edge("a", "b").add_edge("b", END)
    error = await failure_of(flow.compile(), {"n": 1, "seen": [1]})
    assert isinstance(error, ReturnTypeError)
    assert str(error).startswith("node 'a' returned its whole state; return only what changed")


async def test_a_node_that_returns_a_coroutine_is_told_to_await_it() -> None:
    async def work() -> dict[str, Any]:
        return {"n": 2}

    error = await failure_of(one_node(lambda state: work()), {"n": 1})
    assert str(error) == "node 'a' returned a coroutine; nothing awaited it: make the node's function async, and await in it"


def problems_of(state: Any) -> tuple[str, ...]:
    with pytest.raises(FlowValidationError) as caught:
        one_node(lambda given: None, state)
    return caught.value.problems


@pytest.mark.parametrize(
    ("declared", "said"),
    [
        (Path, "declared as Path, which cannot be stored; hold a str: str(path)"),
        (Path | None, "declared as Path"),
        (dict[str, list[Path]], "declared as Path"),
        (deque[int], "declared as deque, which cannot be stored; hold a list: list(value)"),
        (TextIO, "declared as TextIO, which cannot be stored; hold its path"),
        (Callable[[int], int], "declared as Callable, which cannot be stored; hold a str: its name"),
        (Iterable[int], "declared as Iterable, which cannot be stored; hold a list"),
        (bytearray, "hold bytes"),
        (ValueError, "hold a str: str(error)"),
        (Annotated[deque[int], replace], "declared as deque"),
    ],
)
def test_a_key_that_could_never_be_stored_is_refused_before_anything_runs(declared: Any, said: str) -> None:
    class HeldModel(BaseModel):
        model_config = ConfigDict(arbitrary_types_allowed=True)
        k: declared

    for state in ({"n": int, "k": declared}, HeldModel):
        problems = problems_of(state)
        assert len(problems) == 1
        assert problems[0].startswith("key 'k' of the state is declared as ")
        assert said in problems[0]


@pytest.mark.parametrize(
    "declared",
    [
        Any, object, int | str, Path | str, Literal["a"], Sequence[int], Mapping[str, int], set[int], tuple[int, ...], date, Decimal, UUID,
        Annotated[Path, AfterValidator(str)], SecretStr, None, Counted, CountedModel, list[Counted], type(None),
    ],
)  # fmt: skip
def test_a_key_that_may_hold_something_is_left_alone(declared: Any) -> None:
    assert one_node(lambda given: None, {"k": declared}).warnings == ()


def test_a_key_whose_validator_makes_data_of_it_is_left_alone() -> None:
    class ShownPath(BaseModel):
        k: Path

        @field_validator("k", mode="after")
        @classmethod
        def shown(cls, value: Path) -> Any:
            return str(value)

    assert one_node(lambda given: None, ShownPath).warnings == ()


def test_a_key_of_a_class_that_is_not_registered_is_warned_of() -> None:
    class Shape:
        pass

    @dataclass
    class SlipSquare(Shape):
        side: int

    graph = one_node(lambda given: None, {"k": list[Opaque], "s": Shape})
    assert [(warning.code, warning.key) for warning in graph.warnings] == [("unknown_class", "k"), ("unknown_class", "s")]
    assert "make it a dataclass or a pydantic model" in graph.warnings[0].message
    with TYPES.isolated():
        register_type(SlipSquare)
        assert [warning.key for warning in one_node(lambda given: None, {"k": list[Opaque], "s": Shape}).warnings] == ["k"]


def test_a_lambda_as_a_branch_is_asked_for_a_name() -> None:
    flow = Flow("nameless", {"n": int}).add_parallel("p", [work, lambda state: None]).set_entry("p").add_edge("p", END)
    with pytest.raises(FlowValidationError) as caught:
        flow.compile()
    said = "node 'p': its branch number 2 is a lambda without a name of its own, and branches are told apart by their names; "
    assert caught.value.problems == (said + 'give it one: {"name": function, ...} or branch(function, name="...")',)


def work(state: Any) -> None: ...


def test_a_type_that_is_not_defined_is_told_without_a_page_of_help() -> None:
    assert all("further information" not in problem for problem in problems_of({"k": "NotDefined"}))


# --- reducers -------------------------------------------------------------------------------------------------------
async def waiting(current: Any, update: Any) -> Any:
    return update


def yielding(current: Any, update: Any) -> Any:
    yield update


class Awaits:
    async def __call__(self, current: Any, update: Any) -> Any:
        return update


@pytest.mark.parametrize(
    ("fn", "said"),
    [
        (waiting, "is async; a reducer only computes, so await in the node"),
        (Awaits(), "is async"),
        (yielding, "is a generator; return the new value"),
        (lambda update: update, "cannot be called with"),
        (7, "cannot be called; decorate a function"),
    ],
)
def test_what_cannot_be_a_reducer_is_refused_when_it_is_registered(fn: Any, said: str) -> None:
    with pytest.raises(ReducerFunctionError, match=said):
        reducer("slip_reducer")(fn)
    assert "slip_reducer" not in names()


async def seen_before_and_after_a_resume(flow: Flow, given: Mapping[str, Any], ask: str = "ask") -> tuple[Any, Any]:
    """The values of a run that waits at ``ask``: as the process that drove it has them, and as another one loads them."""
    graph = flow.compile()
    async with MemoryCheckpointStore() as store:
        async with GraphExecutor(graph, store=store) as driven:
            waiting = await driven.execute(given)
        async with GraphExecutor(graph, store=store) as again:
            return waiting.values, (await again.resume(waiting.run_id)).values


def adding(state: Any, update: Any) -> Flow:
    flow = Flow("adding", state).add_node("add", lambda state: update).add_barrier("ask")
    return flow.set_entry("add").add_edge("add", "ask").add_edge("ask", END)


async def test_what_a_reducer_does_to_the_current_value_it_does_not_do_to_the_state() -> None:
    @reducer("test_meddling", independent=True)
    def meddling(current: Any, update: Any) -> Change:
        current.append("meddled")
        return Change("append", update)

    flow = adding({"words": Annotated[list[str], meddling]}, {"words": ["b"]})
    assert await seen_before_and_after_a_resume(flow, {"words": ["a"]}) == ({"words": ["a", "b"]},) * 2


async def test_a_sum_is_the_same_for_who_resumes_whatever_a_process_has_set_for_its_decimals() -> None:
    flow = adding({"total": Annotated[Decimal, sum_]}, {"total": Decimal("0.123456789")})
    with localcontext() as context:
        context.prec = 4
        before, after = await seen_before_and_after_a_resume(flow, {"total": Decimal("1.1")})
    assert before == after == {"total": Decimal("1.223456789")}


@pytest.mark.parametrize(
    ("change", "current"),
    [(Change("append", 5), []), (Change("increment", 1), "a"), (Change("merge", {"a": 1}), 7)],
)
async def test_a_change_that_cannot_be_applied_fails_its_node_and_not_the_process(change: Change, current: Any) -> None:
    unfit = reducer(f"test_slip_{change}")(lambda current, update: change)
    async with MemoryCheckpointStore() as store:
        with pytest.raises(RunFailedError) as caught:
            await GraphExecutor(adding({"key": Annotated[Any, unfit]}, {"key": 1}).compile(), store=store).execute({"key": current})
    assert isinstance(caught.value.__cause__, MergeError)


async def test_branches_whose_changes_do_not_go_together_fail_their_node_and_not_the_process() -> None:
    @reducer("test_set_or_push", independent=True)
    def set_or_push(current: Any, update: Any) -> Change:
        return Change("append", update) if isinstance(update, list) else Change("set", update)

    flow = Flow("both", {"key": Annotated[Any, set_or_push], "total": Annotated[Decimal, sum_]})
    flow.add_parallel("p", {"one": lambda state: {"key": 7}, "other": lambda state: {"key": ["b"]}})
    huge = {"total": Decimal("9e999999")}
    flow.add_parallel("q", {"one": lambda state: huge, "other": lambda state: huge})
    flow.set_entry("p").add_fallback("p", "q").add_edge("p", END).add_edge("q", END)
    async with MemoryCheckpointStore() as store:
        with pytest.raises(RunFailedError, match=r"'total' \(written by branch one, other\) failed: these decimals have no sum") as caught:
            await GraphExecutor(flow.compile(), store=store).execute({"key": ["a"]})
    assert isinstance(caught.value.__cause__, MergeError)


async def test_keys_that_are_one_and_the_same_as_data_fail_their_node_and_not_the_process() -> None:
    @dataclass(eq=False)
    class Place:
        number: int

    with TYPES.isolated():
        flow = adding({"places": dict[Place, str]}, {"places": {Place(1): "a", Place(1): "b"}})
        async with MemoryCheckpointStore() as store:
            with pytest.raises(RunFailedError) as caught:
                await GraphExecutor(flow.compile(), store=store).execute({})
    assert isinstance(caught.value.__cause__, UpdateNotStorableError)


def test_a_reducer_is_registered_by_name() -> None:
    with pytest.raises(ReducerFunctionError, match=r'no name; write @reducer\("name"\) above it'):

        @reducer
        def nameless(current: Any, update: Any) -> Any:
            return update


async def test_a_visit_cap_says_what_it_counts_and_what_to_do() -> None:
    flow = Flow("circle", {"n": int}).add_node("a", lambda state: {"n": 1}, max_visits=2)
    flow.set_entry("a").add_edge("a", END, when=lambda state: False, name="never").add_edge("a", "a")
    error = await failure_of(flow.compile(), {"n": 1})
    said = "node 'a' may be entered 2 times and was to be entered again (max_visits=2; raise it, or add_fallback('a', ...) says where to go then)"
    assert str(error) == said


# --- what a flow is declared with -----------------------------------------------------------------------------------
def sound() -> Flow:
    flow = Flow("sound", {"n": int, "pay": int}).add_node("a", work).add_node("pay", lambda state: None)
    return flow.set_entry("a").add_edge("a", "pay").add_edge("pay", END)


@pytest.mark.parametrize(
    ("declare", "said"),
    [
        (lambda flow: flow.add_parallel("p", 5), "node 'p': branches=5 must be a list of functions or flows"),
        (lambda flow: flow.add_barrier("b", approvers=5), "barrier 'b': approvers=5 must be a list of names"),
        (lambda flow: flow.add_barrier("b", approvers=["ana", 5]), "barrier 'b': approver 5 must be a name"),
        (lambda flow: flow.add_barrier("b", show=5), "barrier 'b': show=5 must be a list of state keys"),
        (lambda flow: flow.add_barrier("b", prompt=5), "barrier 'b': prompt=5 must be a text"),
        (lambda flow: flow.add_node("z", work, goto=5), "node 'z': goto=5 must be a list of node names"),
        (lambda flow: flow.add_node("z", work, retry=Retry(on=ValueError)), "on=(TimeoutError,)"),  # type: ignore[arg-type]
        (lambda flow: flow.add_node("z", work, retry=Retry(factor="2")), "factor='2' must be 1 or more"),  # type: ignore[arg-type]
        (lambda flow: flow.add_node("z", work, version=2), "node 'z': version=2 must be a text"),
        (lambda flow: flow.add_node("z", work, description=b"x"), "node 'z': description=b'x' must be a text"),
        (lambda flow: flow.add_fallback("a", "pay", on=5), "fallback a -> pay: on=5 must be a list of exception classes"),
        (lambda flow: flow.add_edge("a", "pay", when=lambda state: True, priority="1"), "priority='1' must be a number"),
        (lambda flow: flow.add_node(5, work), "node 5 cannot have this name: a name is a text that is not empty"),
        (lambda flow: flow.add_node("a\0b", work), "node 'a\\x00b' cannot have this name: not every database can hold a NUL"),
        (lambda flow: Flow("a\0b", {}), "the flow cannot have the name 'a\\x00b': not every database can hold a NUL"),
        (lambda flow: flow.add_node("z", lambda ctx, state: None), "node 'z': its function must take (state), (state, ctx) or nothing"),
        (lambda flow: flow.add_barrier(["ask"]), "node ['ask'] cannot have this name"),
        (lambda flow: flow.add_timer(None, timedelta(seconds=1)), "node None cannot have this name"),
        (lambda flow: flow.add_let({}, {"n": 1}), "node {}: a name is a text that is not empty"),
        (lambda flow: flow.add_let("z", ["n"]), "node 'z': values=['n'] must be a mapping of state keys to values"),
        (lambda flow: flow.add_let("z", {1: 2}), "node 'z': values={1: 2} must be a mapping"),
        (lambda flow: flow.add_parallel("p", {5: work}), "node 'p': a branch is named by a text, not by 5"),
        (lambda flow: flow.add_map("m", ["n"], work), "node 'm': over names ['n'], which is no key of the state"),
        (lambda flow: flow.add_map("m", "n", work, item=set()), "node 'm': item= is for a flow with a state of its own"),
        (lambda flow: flow.add_map("m", "n", Flow("i"), inputs=["n"]), "node 'm': inputs=['n'] must be a mapping of keys to keys"),
        (lambda flow: flow.add_subflow("s", Flow("i"), outputs="n"), "node 's': outputs='n' must be a mapping of keys to keys"),
        (lambda flow: flow.add_node("z", work, middleware=5), "node 'z': middleware=5 must be a list of middleware"),
        (lambda flow: flow.add_node("z", work, writes=[[]]), "node 'z': writes names [], which is no key of the state"),
        (lambda flow: flow.add_node("z", work, overlap="no"), "node 'z': overlap='no' must be True or False"),
        (lambda flow: flow.add_node("z", work, retry=Retry(first=None)), "node 'z': retry: first=None is no time"),  # type: ignore[arg-type]
        (lambda flow: flow.add_barrier("b", early="no"), "barrier 'b': early='no' must be True or False"),
        (lambda flow: Flow("f", {}, middleware=5), "the flow: middleware=5 must be a list of middleware"),  # type: ignore[arg-type]
        (lambda flow: Flow("f", {}, migrations=5), "the flow: migrations=5 must be a list of migrations"),  # type: ignore[arg-type]
        (lambda flow: Flow("f", {}, needs=5), "the flow: needs=5 must be a list of names of resources"),  # type: ignore[arg-type]
        (lambda flow: Flow("f", {}, needs=[[]]), "the flow: needs names []; a resource is named by a text"),  # type: ignore[list-item]
        (lambda flow: flow.add_parallel("p", [work], on_error=best_effort(min_success="2")), "min_success='2' must be a whole number"),  # type: ignore[arg-type]
    ],
)
def test_an_option_of_a_wrong_kind_is_one_of_the_problems_of_the_flow(declare: Any, said: str) -> None:
    with pytest.raises(FlowValidationError) as caught:
        declare(sound()).compile()
    assert [problem for problem in caught.value.problems if said in problem], caught.value.problems


def test_half_a_character_in_a_text_is_a_problem_of_the_flow() -> None:
    flow = Flow("half", {}, version="\ud83d").add_node("a", work).set_entry("a").add_edge("a", END)
    with pytest.raises(FlowValidationError, match="half of a surrogate pair"):
        flow.compile()


def test_a_name_in_the_place_of_the_function_is_answered_with_the_option() -> None:
    with pytest.raises(FlowError, match=r"@flow\.node\(name='pay'\)"):
        Flow("named", {}).node("pay")(work)  # type: ignore[call-overload]


@pytest.mark.parametrize("option", ["reads", "writes", "middleware"])
def test_a_branch_with_an_option_of_a_wrong_kind_is_refused(option: str) -> None:
    slip: dict[str, Any] = {option: 5}
    with pytest.raises(FlowError, match=f"{option}=5 must be a list of"):
        branch(work, **slip)


def test_what_a_branch_writes_may_be_given_as_one_name() -> None:
    flow = Flow("one", {"pay": int}).add_parallel("p", [branch(work, writes="pay")]).set_entry("p").add_edge("p", END)
    assert flow.compile().plan.nodes["p"].opens.branches[0].plan.nodes["work"].writes == {"pay"}  # type: ignore[union-attr]


def test_what_is_needed_may_be_given_as_one_name() -> None:
    assert dict(Flow("one", {}, needs="bank").needs) == {"bank": None}


def test_one_of_several_may_be_given_as_it_is() -> None:
    flow = sound().add_node("z", lambda state: None, goto="pay", writes="pay").add_parallel("p", approvable)
    flow.add_edge("a", "z", when=lambda state: True, name="z").add_edge("z", "p").add_edge("p", "pay").add_edge("z", "pay", when=approvable)
    assert flow.compile().definition["nodes"]["p"]["branches"][0]["name"] == "approvable"


def approvable(state: Any) -> bool:
    return True


@pytest.mark.parametrize("kind", [MemoryCheckpointStore, lambda **options: SQLCheckpointStore("sqlite:///unused.db", **options)])
@pytest.mark.parametrize("slip", [{"lease": 30}, {"chain_key": "secret"}])
def test_a_store_with_a_setting_of_a_wrong_kind_is_not_made(kind: Any, slip: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError) as caught:
        kind(**slip)
    assert caught.value.argument in slip


def test_a_path_in_the_place_of_a_url_is_answered_with_its_url() -> None:
    with pytest.raises(StoreUnavailableError, match=r"try sqlite\+aiosqlite:///my/runs\.db"):
        SQLCheckpointStore("my/runs.db")


async def test_who_cancels_and_what_is_edited_must_be_said_rightly() -> None:
    async with MemoryCheckpointStore() as store:
        executor = GraphExecutor(asking_in_a_branch(), store=store)
        run = await executor.execute({"n": 1})
        for slip in ({"by": 7}, {"by": ""}):
            with pytest.raises(ArgumentError, match="by must be the name of who does it"):
                await executor.cancel(run.run_id, **slip)
        with pytest.raises(ArgumentError, match="edits must be a mapping"):
            await executor.fork(run.run_id, edits=[("n", 2)])  # type: ignore[arg-type]
        assert [each.status for each in await store.runs()] == ["waiting"]


async def test_a_failed_run_names_the_node_it_failed_at() -> None:
    def divide(state: Any) -> Any:
        return 1 // 0

    async with MemoryCheckpointStore() as store:
        with pytest.raises(RunFailedError, match="failed at node 'a': ZeroDivisionError"):
            await GraphExecutor(one_node(divide), store=store).execute({"n": 1})
