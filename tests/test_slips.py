"""Slips that must not pass quietly: a ticket that cannot exist, a condition that answers with a coroutine, a loop in the way."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from trailmark import END, ConditionError, Decision, Flow, FlowGraph, GraphExecutor, RunFailedError, StepContext, UnknownBarrierError
from trailmark.checkpoint_stores import MemoryCheckpointStore


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
