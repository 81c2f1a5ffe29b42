"""Map and subflow nodes, driven by the executor over a store in memory: what each item does, and what comes of it."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import timedelta
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, Field

from checkpoint_stores.memory import MemoryCheckpointStore
from engine import operations
from engine.decisions import Decision
from engine.errors import FlowValidationError, RunFailedError
from engine.executor import GraphExecutor
from engine.failures import BranchesFailedError
from engine.flow import Flow, best_effort, branch
from engine.outcomes import Break, End
from engine.plan import END, Retry
from reducers.builtin import append, sum_
from trailmark.testing import StreamChecker, VirtualClock, always_reload, crash_at_every_checkpoint

STATE = {
    "words": list[str],
    "lengths": list[int],
    "log": Annotated[list[str], append],
    "total": Annotated[int, sum_],
    "lost": list[dict[str, Any]],
}


def mapped(target: Any, over: str = "words", state: Any = STATE, **options: Any) -> Flow:
    """A flow of one map node, ``each``."""
    flow = Flow("mapping", state)
    flow.add_map("each", over, target, **options)
    return flow.set_entry("each").add_edge("each", END)


async def run(flow: Flow, given: Any, **options: Any) -> Any:
    async with MemoryCheckpointStore() as store, GraphExecutor(flow.compile(), store=store, max_steps=50_000) as executor:
        return await executor.execute(given, **options)


# --- functions --------------------------------------------------------------------------------------------------------
async def test_results_stand_in_the_order_of_the_items_whatever_ended_first() -> None:
    gates = {word: asyncio.Event() for word in ("one", "three", "five5")}

    async def length(word: str) -> int:
        if word != "five5":
            await gates[word].wait()
        else:
            gates["three"].set()
        if word == "three":
            gates["one"].set()
        return len(word)

    result = await run(mapped(length, to="lengths"), {"words": ["one", "three", "five5"]})

    assert result.values["lengths"] == [3, 5, 5]
    assert result.steps == 4


async def test_a_function_may_read_the_state_around_it_and_its_own_step() -> None:
    seen = []

    async def measure(word: str, state: Any, ctx: Any) -> int:
        seen.append((ctx.path, ctx.index, ctx.item, word, state["total"], ctx.idempotency_key))
        return len(word)

    await run(mapped(measure, to="lengths"), {"words": ["a", "bb"], "total": 7})

    assert [each[:5] for each in seen] == [("each[0]", 0, "a", "a", 7), ("each[1]", 1, "bb", "bb", 7)]
    assert len({each[5] for each in seen}) == 2


async def test_a_sync_function_runs_in_a_thread_and_gets_a_copy_of_its_item() -> None:
    def shout(words: list[str]) -> int:
        words.append("!")
        return len(words)

    flow = mapped(shout, "groups", {"groups": list[list[str]], "lengths": list[int]}, to="lengths")
    result = await run(flow, {"groups": [["a"], ["b", "c"]]})

    assert result.values == {"groups": [["a"], ["b", "c"]], "lengths": [2, 3]}


async def test_a_map_of_nothing_gives_an_empty_list() -> None:
    result = await run(mapped(len, to="lengths"), {"words": []})

    assert (result.values["lengths"], result.steps) == ([], 1)


async def test_results_that_nobody_keeps_are_not_stored() -> None:
    graph = mapped(branch(lambda word: word * 1000, name="shout")).compile()
    async with MemoryCheckpointStore() as store, GraphExecutor(graph, store=store) as executor:
        result = await executor.execute({"words": ["a"] * 5})
        rows = [row async for row in store.history(result.run_id)]

    assert result.values == {"words": ["a"] * 5}
    assert max(len(row.payload) for row in rows) < 200


async def test_what_is_not_a_list_is_refused_by_name() -> None:
    with pytest.raises(RunFailedError, match=r"node 'each' goes over 'words', which holds nothing; give it a list"):
        await run(mapped(len, to="lengths"), {})


async def test_a_result_of_the_wrong_type_is_refused_by_name() -> None:
    with pytest.raises(RunFailedError, match=r"lengths"):
        await run(mapped(str.upper, to="lengths"), {"words": ["a"]})


async def test_an_item_is_retried_by_itself() -> None:
    ran: Counter[str] = Counter()

    async def sometimes(word: str) -> int:
        ran[word] += 1
        if word == "b" and ran[word] < 3:
            raise ConnectionError("not yet")
        return ran[word]

    patient = branch(sometimes, retry=Retry(attempts=3, first=timedelta(0)))
    result = await run(mapped(patient, to="lengths"), {"words": ["a", "b", "c"]})

    assert result.values["lengths"] == [1, 3, 1]


async def test_ten_thousand_items_never_wait_in_memory_at_once() -> None:
    at_once = most = scopes = 0

    async def work(number: int) -> int:
        nonlocal at_once, most, scopes
        at_once += 1
        most = max(most, at_once)
        driver = executor._drives.driver(next(iter(executor._drives)))
        scopes = max(scopes, sum(scope.phase == "at" for scope in driver.state.scopes.values()))
        await asyncio.sleep(0)
        at_once -= 1
        return number + 1

    flow = mapped(work, "numbers", {"numbers": list[int], "results": list[int]}, to="results", max_concurrency=8)
    async with MemoryCheckpointStore() as store, GraphExecutor(flow.compile(), store=store, max_steps=50_000) as executor:
        result = await executor.execute({"numbers": list(range(10_000))})

    assert result.values["results"] == list(range(1, 10_001))
    assert most == 8
    assert scopes <= 9


# --- what goes wrong --------------------------------------------------------------------------------------------------
async def picky(word: str) -> int:
    if word.startswith("x"):
        raise ValueError(f"no {word}")
    return len(word)


async def test_the_first_failure_fails_the_map_and_names_the_item() -> None:
    with pytest.raises(RunFailedError, match=r"item 1 of node 'each' failed: ValueError: no x1") as failed:
        await run(mapped(picky, to="lengths"), {"words": ["a", "x1", "b"]})

    assert failed.value.result.error["causes"][0]["path"] == "each[1]"


async def test_collect_waits_for_all_and_fails_with_all() -> None:
    with pytest.raises(RunFailedError) as failed:
        await run(mapped(picky, to="lengths", on_error="collect"), {"words": ["x1", "a", "x2"]})

    assert isinstance(failed.value.__cause__, BranchesFailedError)
    assert [cause["path"] for cause in failed.value.result.error["causes"]] == ["", ""]
    assert "2 of 3 items" in failed.value.result.error["message"]


async def test_best_effort_keeps_the_results_of_what_succeeded_and_says_what_did_not() -> None:
    effort = best_effort(min_success=1, failures_to="lost")
    result = await run(mapped(picky, to="lengths", on_error=effort), {"words": ["a", "x1", "bb", "x2"]})

    assert result.values["lengths"] == [1, 2]
    assert [(each["index"], each["type"], each["message"]) for each in result.values["lost"]] == [
        (1, "ValueError", "no x1"), (3, "ValueError", "no x2"),
    ]  # fmt: skip


async def test_too_few_successes_are_a_failure() -> None:
    with pytest.raises(RunFailedError):
        await run(mapped(picky, to="lengths", on_error=best_effort(min_success=2)), {"words": ["a", "x1", "x2"]})


async def test_the_step_limit_counts_items_and_a_resume_does_only_the_rest() -> None:
    ran: list[str] = []

    async def note(word: str) -> int:
        ran.append(word)
        return len(word)

    graph = mapped(note, to="lengths", max_concurrency=2).compile()
    async with MemoryCheckpointStore() as store, GraphExecutor(graph, store=store) as executor:
        stopped = await executor.execute({"words": list("abcdef")}, max_steps=4)
        done = await executor.resume(stopped.run_id, max_steps=100)

    assert (stopped.status, stopped.steps) == ("limit_reached", 4)
    assert (done.status, done.values["lengths"]) == ("completed", [1] * 6)
    assert sorted(ran) == list("abcdef")


# --- flows ------------------------------------------------------------------------------------------------------------
def note_item(state: Any, ctx: Any) -> dict[str, Any]:
    return {"log": [f"{ctx.index}:{ctx.item}"], "total": len(ctx.item)}


async def test_a_flow_without_a_state_works_on_the_state_around_it_like_a_branch() -> None:
    inner = Flow("notes").add_node("note", note_item).add_node("again", note_item)
    inner.set_entry("note").add_edge("note", "again").add_edge("again", END)
    result = await run(mapped(inner), {"words": ["a", "bb"], "log": [], "total": 0})

    assert result.values["log"] == ["0:a", "0:a", "1:bb", "1:bb"]
    assert result.values["total"] == 6


class Document(BaseModel):
    text: str
    rules: list[str] = []
    score: float = 0.5
    hits: Annotated[list[str], append] = []
    verdict: str = ""


def review_flow() -> Flow:
    review = Flow("review", Document)

    @review.node
    async def read(state: Document) -> dict[str, Any]:
        return {"hits": [rule for rule in state.rules if rule in state.text], "score": state.score + len(state.text)}

    @review.node
    async def judge(state: Document) -> dict[str, Any]:
        return {"verdict": f"{state.text}: {len(state.hits)} of {len(state.rules)}, {state.score}"}

    review.set_entry("read").add_edge("read", "judge").add_edge("judge", END)
    return review


AROUND = {"texts": list[str], "rules": list[str], "verdicts": Annotated[list[str], append], "verdict": str, "text": str}


async def test_a_flow_with_a_state_of_its_own_gets_the_item_and_its_inputs_and_gives_its_result() -> None:
    flow = mapped(review_flow(), "texts", AROUND, item="text", inputs={"rules": "rules"}, result="verdict", to="verdicts")
    result = await run(flow, {"texts": ["abc", "b"], "rules": ["a", "b"], "verdicts": ["old"]})

    assert result.values["verdicts"] == ["old", "abc: 2 of 2, 3.5", "b: 1 of 2, 1.5"]
    assert set(result.values) == {"texts", "rules", "verdicts"}


async def test_a_subflow_maps_its_input_and_output_and_keeps_the_rest_to_itself() -> None:
    flow = Flow("outer", AROUND)
    flow.add_subflow("check", review_flow(), inputs={"text": "text", "rules": "rules"}, outputs={"verdict": "verdict"})
    flow.set_entry("check").add_edge("check", END)
    result = await run(flow, {"text": "abc", "rules": ["c", "x"]})

    assert result.values == {"text": "abc", "rules": ["c", "x"], "verdict": "abc: 1 of 2, 3.5"}


async def test_what_is_lent_to_a_flow_is_not_stored_again() -> None:
    flow = mapped(review_flow(), "texts", AROUND, item="text", inputs={"rules": "rules"}, result="verdict", to="verdicts")
    async with MemoryCheckpointStore() as store, GraphExecutor(flow.compile(), store=store) as executor:
        result = await executor.execute({"texts": ["x" * 10_000] * 3, "rules": ["y" * 10_000]})
        rows = [row async for row in store.history(result.run_id)]

    begun = [row for row in rows if row.kind == "begin"]
    assert [row.path for row in begun] == ["each[0]", "each[1]", "each[2]"]
    assert all(len(row.payload) < 200 for row in begun), "only the defaults of its own state are written down"


class Strict(BaseModel):
    number: int = Field(gt=0)
    doubled: float = 0.0


async def test_input_that_does_not_fit_fails_the_item_and_names_it() -> None:
    inner = Flow("double", Strict).add_node("double", lambda state: {"doubled": state.number * 2})
    inner.set_entry("double").add_edge("double", END)
    state = {"numbers": list[int], "doubles": list[float], "lost": list[dict[str, Any]]}
    options = {"item": "number", "result": "doubled", "to": "doubles", "on_error": best_effort(failures_to="lost")}
    result = await run(mapped(inner, "numbers", state, **options), {"numbers": [1, -1, 2]})

    assert result.values["doubles"] == [2.0, 4.0]
    (lost,) = result.values["lost"]
    assert (lost["index"], lost["type"]) == (1, "ChildInputError")
    assert "each[1]" in lost["message"]
    assert "number: Input should be greater than 0" in lost["message"]


async def test_an_item_that_ends_without_its_result_is_a_failure_that_says_so() -> None:
    inner = Flow("quiet", {"text": str, "verdict": str}).add_node("nothing", lambda state: None)
    inner.set_entry("nothing").add_edge("nothing", END)
    with pytest.raises(RunFailedError, match=r"item 0 of node 'each' ended without a value under 'verdict'"):
        await run(mapped(inner, "texts", AROUND, item="text", result="verdict", to="verdicts"), {"texts": ["a"]})


async def test_the_end_of_a_flow_with_a_state_of_its_own_is_checked_by_that_state() -> None:
    class Even(BaseModel):
        number: int

        def model_post_init(self, _context: Any) -> None:
            if self.number > 5:
                raise ValueError("too large")

    inner = Flow("grow", Even).add_node("grow", lambda state: {"number": state.number + 3})
    inner.set_entry("grow").add_edge("grow", END)
    flow = Flow("outer", {"n": int}).add_subflow("grown", inner, inputs={"number": "n"}, outputs={"n": "number"})
    flow.set_entry("grown").add_edge("grown", END)

    assert (await run(flow, {"n": 2})).values == {"n": 5}
    with pytest.raises(RunFailedError, match="the flow of node 'grown' failed: FinalStateError"):
        await run(flow, {"n": 3})


async def test_maps_nest() -> None:
    async def double(number: int, ctx: Any) -> int:
        assert ctx.path == f"rows[{ctx.path[5]}].cells[{ctx.index}]"
        return number * 2

    row = Flow("row", {"cells": list[int], "doubled": list[int]}).add_map("cells", "cells", double, to="doubled")
    row.set_entry("cells").add_edge("cells", END)
    flow = Flow("table", {"rows": list[list[int]], "table": list[list[int]]})
    flow.add_map("rows", "rows", row, item="cells", result="doubled", to="table", max_concurrency=2)
    flow.set_entry("rows").add_edge("rows", END)
    result = await run(flow, {"rows": [[1, 2], [], [3]]})

    assert result.values["table"] == [[2, 4], [], [6]]


async def test_each_item_may_wait_for_a_person_and_the_others_go_on() -> None:
    inner = Flow("ask").add_node("before", note_item).add_barrier("ok", prompt="Go on?").add_node("after", note_item)
    inner.set_entry("before").add_edge("before", "ok").add_edge("ok", "after").add_edge("after", END)
    graph = mapped(inner, max_concurrency=1).compile()
    async with MemoryCheckpointStore() as store:
        async with GraphExecutor(graph, store=store) as executor:
            waiting = await executor.execute({"words": ["a", "b", "c"]})
        assert waiting.waiting_for == ("each[0].ok#1", "each[1].ok#1", "each[2].ok#1")
        for ticket in reversed(waiting.waiting_for):
            await store.decide(waiting.run_id, ticket, Decision.approve(by="ana"))
        async with GraphExecutor(graph, store=store) as executor:
            result = await executor.resume(waiting.run_id)

    assert result.status == "completed"
    assert result.values["log"] == ["0:a", "0:a", "1:b", "1:b", "2:c", "2:c"]


async def test_a_subflow_that_takes_too_long_fails_or_takes_the_fallback() -> None:
    async def for_ever(state: Any) -> None:
        await asyncio.Event().wait()

    inner = Flow("slow").add_node("wait", for_ever).set_entry("wait").add_edge("wait", END)
    flow = Flow("outer", {"log": list[str]}).add_subflow("slow", inner, timeout=timedelta(milliseconds=20))
    flow.add_node("instead", lambda state, ctx: {"log": [ctx.error["causes"][0]["type"]]})
    flow.set_entry("slow").add_edge("slow", END).add_fallback("slow", "instead").add_edge("instead", END)

    assert (await run(flow, {})).values == {"log": ["BranchTimeoutError"]}


def slow_subflow(clock: VirtualClock, *, state: Any) -> Flow:
    async def for_a_minute(state: Any) -> None:
        over = asyncio.Event()
        clock.call_at(clock.now() + 60_000_000, over.set)
        await over.wait()

    inner = Flow("slow").add_node("work", for_a_minute).set_entry("work").add_edge("work", END)
    flow = Flow("outer", state).add_subflow("slow", inner, timeout=timedelta(seconds=10))
    return flow.set_entry("slow").add_edge("slow", END)


@pytest.mark.parametrize("stopped", ["amid its first node", "before its first node"])
async def test_a_subflow_keeps_its_time_across_a_resume_though_nothing_in_it_was_committed_yet(stopped: str) -> None:
    clock = VirtualClock()
    flow = slow_subflow(clock, state={}).add_node("late", lambda state: None).add_fallback("slow", "late").add_edge("late", END)
    executor = GraphExecutor(flow.compile(), store=MemoryCheckpointStore(now=clock.now), clock=clock)
    handle = await executor.start({}, max_steps=1 if stopped == "before its first node" else 9)
    await clock.advance(timedelta(seconds=1))
    await handle.suspend()
    resumed = await executor.attach(handle.run_id, max_steps=9)
    await clock.advance(timedelta(seconds=10))
    assert "fallback" in [row.kind async for row in executor.store.history(handle.run_id)]
    assert (await resumed.result()).status == "completed"


async def test_a_subflow_that_waits_for_a_place_spends_its_time_there() -> None:
    clock = VirtualClock()

    async def for_an_hour(state: Any) -> None:
        over = asyncio.Event()
        clock.call_at(clock.now() + 3_600_000_000, over.set)
        await over.wait()

    flow = Flow("around", {}).add_parallel(
        "both", [branch(for_an_hour, name="long"), slow_subflow(clock, state=None)], max_concurrency=1, on_error="collect"
    )
    executor = GraphExecutor(
        flow.set_entry("both").add_edge("both", END).compile(), store=MemoryCheckpointStore(now=clock.now), clock=clock
    )
    handle = await executor.start({})
    await clock.advance(timedelta(seconds=11))
    assert [row.path async for row in executor.store.history(handle.run_id) if row.kind == "failure"] == ["both[1].slow[0]", "both[1]"]
    await handle.suspend()


# --- crashes, forks ---------------------------------------------------------------------------------------------------
def everything() -> Flow:
    """A map of functions, a map of flows, a subflow, one after the other, and the results of each in the next."""
    flow = Flow("everything", {**AROUND, "lengths": list[int], "summary": str})
    flow.add_map("measure", "texts", len, to="lengths", max_concurrency=2)
    flow.add_map(
        "review", "texts", review_flow(), item="text", inputs={"rules": "rules"}, result="verdict", to="verdicts", max_concurrency=2
    )
    flow.add_subflow("sum up", review_flow(), inputs={"text": "text", "rules": "verdicts"}, outputs={"summary": "verdict"})
    flow.set_entry("measure").add_edge("measure", "review").add_edge("review", "sum up").add_edge("sum up", END)
    return flow


GIVEN = {"texts": ["abc", "b", "", "cab"], "rules": ["a", "b"], "verdicts": [], "text": "t"}


async def test_a_crash_at_any_checkpoint_changes_nothing_of_the_end() -> None:
    graph = everything().compile()
    whole = await run(everything(), GIVEN)
    report = await crash_at_every_checkpoint(graph, GIVEN)
    reloaded = await always_reload(graph, GIVEN)

    assert report.result.values == reloaded.values == whole.values
    assert report.result.steps == reloaded.steps == whole.steps


async def test_a_fork_in_the_middle_of_a_map_does_only_the_rest() -> None:
    ran: list[str] = []

    async def note(word: str) -> int:
        ran.append(word)
        return len(word)

    graph = mapped(note, to="lengths", max_concurrency=1).compile()
    async with MemoryCheckpointStore() as store, GraphExecutor(graph, store=store) as executor:
        whole = await executor.execute({"words": ["a", "bb", "ccc", "dddd"]})
        fork = await executor.fork(whole.run_id, at=4)
        ran.clear()
        result = await executor.resume(fork)

    assert ran == ["ccc", "dddd"]
    assert result.values == whole.values


async def test_a_map_in_a_loop_begins_anew_with_every_visit() -> None:
    flow = Flow("loop", {"words": list[str], "lengths": list[int], "rounds": Annotated[int, sum_]})
    flow.add_node("more", lambda state: {"rounds": 1, "words": ["w" * (state["rounds"] + 1)] * 2})
    flow.add_map("each", "words", len, to="lengths", max_concurrency=1)
    flow.set_entry("more").add_edge("more", "each")
    flow.add_edge("each", "more", lambda state: state["rounds"] < 3, name="again").add_edge("each", END)
    async with MemoryCheckpointStore() as store, GraphExecutor(flow.compile(), store=store) as executor:
        result = await executor.execute({"words": [], "rounds": 0})
        paths = [line.row.path async for line in operations.steps(store, result.run_id) if line.row.path]

    assert result.values["lengths"] == [3, 3]
    assert paths == ["each[0]", "each[1]", "each#2[0]", "each#2[1]", "each#3[0]", "each#3[1]"]


# --- what a flow may not say ------------------------------------------------------------------------------------------
def test_every_problem_of_maps_and_subflows_is_named_at_once() -> None:
    shared = Flow("shared").add_node("note", note_item).set_entry("note").add_edge("note", END)
    flow = Flow("wrong", AROUND)
    flow.add_map("a", "nothing", len, to="nowhere", item="text")
    flow.add_map("b", "texts", review_flow(), result="verdict", inputs={"nobody": "no_key"})
    flow.add_map("c", "texts", shared, to="verdicts")
    flow.add_map("d", "texts", branch(lambda a, b, c, d: None, name="many"), max_concurrency=0)
    flow.add_subflow("e", review_flow(), outputs={"verdict": "no_key"})
    flow.add_subflow("f", shared, outputs={"verdict": "verdict"})
    for source, target in zip("abcdef", [*"bcdef", END], strict=True):
        flow.add_edge(source, target)
    with pytest.raises(FlowValidationError) as wrong:
        flow.set_entry("a").compile()

    said = "\n".join(wrong.value.problems)
    for part in (
        "node 'a': over names 'nothing'", "node 'a': to names 'nowhere'", "node 'a': item= is for a flow with a state of its own",
        "node 'b': flow 'review' has a state of its own; say by item=", "node 'b': give both result=", "node 'b': inputs names 'no_key'",
        "node 'b': inputs names 'nobody', which is no key of flow 'review'", "node 'b': flow 'review' needs the key 'text'",
        "node 'c': to= is for a flow with a state of its own", "node 'd': max_concurrency=0", "a map calls it with (item)",
        "node 'e': outputs names 'no_key'", "node 'e': flow 'review' needs the key 'text'", "node 'f': inputs= and outputs= are for",
    ):  # fmt: skip
        assert part in said


def test_what_an_item_flow_writes_without_a_reducer_is_warned_of() -> None:
    inner = Flow("notes").add_node("note", lambda state: {"verdict": "x"}, writes=["verdict"]).set_entry("note").add_edge("note", END)
    warnings = mapped(inner, "texts", AROUND).compile().warnings

    assert [(warning.code, warning.key) for warning in warnings if warning.code == "parallel_writers"] == [("parallel_writers", "verdict")]


def test_the_hash_knows_what_a_map_does() -> None:
    options: list[dict[str, Any]] = [
        {"to": "lengths"}, {"to": "lengths", "max_concurrency": 3}, {"to": "lengths", "on_error": "collect"}, {},
    ]  # fmt: skip
    hashes = {mapped(len, **each).compile().graph_hash for each in options} | {mapped(len, "log", to="lengths").compile().graph_hash}

    assert len(hashes) == 5


def test_a_map_is_drawn_once_for_all_its_items() -> None:
    graph = everything().compile()

    assert graph.describe().count("for each of texts") == 2
    assert "each of texts" in graph.to_mermaid()
    dot = graph.to_dot(visited=["review[3].read"])
    assert '"review[0].read" [shape=box, label="read", style=filled' in dot
    assert graph.to_svg().startswith("<svg")


# --- leaving a map early ----------------------------------------------------------------------------------------------
async def test_an_item_that_breaks_ends_the_map_and_what_has_not_begun_never_does() -> None:
    begun: list[str] = []

    async def length(word: str) -> Any:
        begun.append(word)
        return Break() if word == "stop" else len(word)

    result = await run(mapped(length, to="lengths", max_concurrency=1), {"words": ["a", "bb", "stop", "ccc"]})
    assert (begun, result.values["lengths"], result.steps) == (["a", "bb", "stop"], [1, 2], 4)

    def nothing(word: str) -> Any:
        return Break({"result": 0})

    result = await run(mapped(nothing, to="lengths", max_concurrency=1), {"words": ["a", "b"]})
    assert result.values["lengths"] == [0], "with a result of its own"


async def test_an_item_that_ends_early_is_over_and_the_next_one_begins() -> None:
    inner = Flow("inner")
    inner.add_node("first", lambda state, ctx: End({"log": ["skipped"]}) if ctx.item == "skip" else {"log": [ctx.item]})
    inner.add_node("second", lambda state, ctx: {"log": [ctx.item.upper()]})
    inner.set_entry("first").add_edge("first", "second").add_edge("second", END)
    result = await run(mapped(inner, max_concurrency=1), {"words": ["a", "skip", "b"], "log": []})
    assert result.values["log"] == ["a", "A", "skipped", "b", "B"]


async def test_what_is_under_way_beside_an_item_that_breaks_is_given_up() -> None:
    gone: list[str] = []
    waits = asyncio.Event()

    async def work(state: Any, ctx: Any) -> Any:
        if ctx.item == "stop":
            await waits.wait()
            return Break({"log": ["stopped"]})
        if ctx.item == "slow":
            waits.set()
            try:
                await asyncio.Event().wait()
            finally:
                gone.append("slow")
        return {"log": [ctx.item]}

    inner = Flow("inner").add_node("work", work).add_barrier("ask").set_entry("work")
    inner.add_edge("work", "ask", when=lambda state: state["log"][-1] == "asks", name="asks").add_edge("work", END).add_edge("ask", END)
    async with MemoryCheckpointStore() as store, GraphExecutor(mapped(inner).compile(), store=store) as executor:
        result = await executor.execute({"words": ["done", "asks", "slow", "stop"], "log": []}, max_steps=50)
        assert (result.status, gone) == ("completed", ["slow"])
        assert result.values["log"] == ["done", "stopped"], "what was over stays"
        assert [(each.ticket, each.status) for each in await store.barriers(run_id=result.run_id, status=None)] == [
            ("each[1].ask#1", "withdrawn")
        ]
        assert (await executor.check(result.run_id)).problems == ()
        StreamChecker.check([envelope async for envelope in executor.events(result.run_id)])
        assert await store.verify(result.run_id) == []


async def test_a_map_that_was_left_is_left_again_wherever_the_process_dies() -> None:
    async def work(state: Any, ctx: Any) -> Any:
        return Break({"log": ["stopped"]}) if ctx.item == "stop" else {"log": [ctx.item]}

    inner = Flow("inner").add_node("work", work).set_entry("work").add_edge("work", END)
    flow = Flow("looping", STATE).add_map("each", "words", inner, max_concurrency=1).add_node("last", lambda state: {"log": ["last"]})
    flow.set_entry("each").add_edge("each", "last").add_edge("last", END)
    given = {"words": ["a", "b", "stop", "c", "d"], "log": []}
    await crash_at_every_checkpoint(flow.compile(), given)
    result = await always_reload(flow.compile(), given)
    assert result.values["log"] == ["a", "b", "stopped", "last"]


@pytest.mark.parametrize("where", ["root", "branch", "nested branch", "subflow"])
async def test_where_there_is_no_map_to_leave_a_break_is_an_error_of_its_node(where: str) -> None:
    def leaves(state: Any) -> Any:
        return Break()

    flow = Flow("nowhere", STATE)
    if where == "root":
        flow.add_node("each", leaves)
    elif where == "branch":
        flow.add_parallel("each", [leaves])
    elif where == "subflow":
        flow.add_subflow("each", Flow("inner").add_node("leaves", leaves).set_entry("leaves").add_edge("leaves", END))
    else:
        inner = Flow("inner").add_parallel("both", [leaves]).set_entry("both").add_edge("both", END)
        flow.add_map("each", "words", inner)
    flow.set_entry("each").add_edge("each", END)
    with pytest.raises(RunFailedError, match="returned Break, but does not stand in the flow of a map's item"):
        await run(flow, {"words": ["a"], "log": []})
