"""A run's checkpoints against the contracts: what a check counts, what it finds, and that a strict run completes only after it."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from typing import Annotated, Any

import pytest

from checkpoint_stores.codec import pack
from checkpoint_stores.memory import MemoryCheckpointStore
from checkpoint_stores.records import Row
from checkpoint_stores.sql.store import SQLCheckpointStore
from engine.decisions import Decision
from engine.errors import ContractError
from engine.executor import GraphExecutor
from engine.flow import Flow
from engine.plan import END, Retry
from engine.pruning import Cut, Retention, prune
from reducers.builtin import append
from trailmark.cli import main
from trailmark.cli.exits import ExitCode

STATE = {"n": int, "log": Annotated[list[str], append]}
START = {"n": 0, "log": []}


def is_short(state: Any) -> bool:
    return len(state["log"]) < 3


def looping() -> Flow:
    """draft -> fan(one, two) -> review, which goes back to draft while the log is short."""
    attempts: list[int] = []

    async def draft(state: Any) -> dict[str, Any]:
        attempts.append(1)
        if len(attempts) == 1:
            raise OSError("once")
        return {"n": state["n"] + 1}

    async def write(state: Any) -> dict[str, Any]:
        return {"log": ["written"]}

    async def read(state: Any) -> None:
        return None

    flow = Flow("looping", STATE).add_node("draft", draft, retry=Retry(attempts=2)).add_parallel("fan", {"one": write, "two": read})
    flow.add_barrier("review", on_reject="continue").set_entry("draft").add_edge("draft", "fan").add_edge("fan", "review")
    return flow.add_edge("review", "draft", when=is_short).add_edge("review", END)


async def looped(executor: GraphExecutor) -> str:
    run = await executor.start(START)
    for visit in range(3):
        assert (await run.result()).status == "waiting"
        await run.decide(f"review#{visit + 1}", Decision.approve(by="ana"))
    assert (await run.result()).status == "completed"
    return run.run_id


async def test_a_check_counts_every_edge_that_a_run_left_and_entered() -> None:
    executor = GraphExecutor(looping().compile(), store=MemoryCheckpointStore())
    found = await executor.check(await looped(executor))
    assert (found.passed, found.status, found.steps, found.since) == (True, "completed", 15, 1)
    assert {(edge.path, edge.source, edge.target): (edge.left, edge.entered, edge.standing, edge.given_up) for edge in found.edges} == {
        ("", "", "draft"): (1, 1, 0, 0),
        ("", "draft", "fan"): (3, 3, 0, 0),
        ("fan[0]", "", "one"): (3, 3, 0, 0),
        ("fan[1]", "", "two"): (3, 3, 0, 0),
        ("fan[0]", "one", END): (3, 3, 0, 0),
        ("fan[1]", "two", END): (3, 3, 0, 0),
        ("", "fan", "review"): (3, 3, 0, 0),
        ("", "review", "draft"): (2, 2, 0, 0),
        ("", "review", END): (1, 1, 0, 0),
    }


async def test_what_a_run_stands_before_and_what_a_failed_branch_never_reached_is_told_apart() -> None:
    async def first(state: Any) -> None: ...

    async def broken(state: Any) -> None:
        raise OSError

    inner = Flow("inner").add_node("a", first).add_node("b", broken).set_entry("a").add_edge("a", "b").add_edge("b", END)
    stuck = Flow("stuck").add_barrier("wait").set_entry("wait").add_edge("wait", END)
    flow = Flow("f", STATE).add_node("last", first).add_parallel("fan", {"x": inner, "y": stuck}).set_entry("fan")
    flow.add_edge("fan", END).add_fallback("fan", "last").add_edge("last", END)
    executor = GraphExecutor(flow.compile(), store=MemoryCheckpointStore(), max_steps=4)
    result = await executor.execute(START)
    assert result.status == "limit_reached"
    found = await executor.check(result.run_id)
    counts = {(edge.source, edge.target): (edge.left, edge.entered, edge.standing, edge.given_up) for edge in found.edges}
    assert found.passed
    assert counts["fan", "last"] == (1, 0, 1, 0)
    assert counts["a", "b"] in {(1, 0, 0, 1), (1, 1, 0, 0)}


async def test_a_fork_and_a_resumed_run_pass_as_well() -> None:
    executor = GraphExecutor(looping().compile(), store=MemoryCheckpointStore())
    run_id = await looped(executor)
    fork_id = await executor.fork(run_id, at=6)
    await executor.resume(fork_id)
    found = await executor.check(fork_id)
    assert (found.passed, found.problems) == (True, ())


async def test_a_fork_passes_that_stands_where_branches_are_over_and_not_joined_yet() -> None:
    executor = GraphExecutor(looping().compile(), store=MemoryCheckpointStore())
    fork_id = await executor.fork(await looped(executor), at=6)  # both branches of fan are over
    assert (await executor.check(fork_id)).problems == ()


async def test_a_fork_passes_whose_first_checkpoint_alone_was_pruned() -> None:
    store = MemoryCheckpointStore()
    executor = GraphExecutor(looping().compile(), store=store)
    fork_id = await executor.fork(await looped(executor), at=6)
    await executor.edit(fork_id, {"n": 7}, by="ana")
    assert (await prune(store, Retention(checkpoints=1))).cuts[0] == Cut(fork_id, 0, 0)
    assert (await executor.check(fork_id)).problems == ()


class Forgetful(MemoryCheckpointStore):
    """A store that changes history: ``deed`` says how a row comes back."""

    def deed(self, row: Row) -> list[Row]:
        return [row]

    async def history(self, run_id: str, *, after: int = -1) -> AsyncIterator[Row]:
        async for row in super().history(run_id, after=after):
            for each in self.deed(row):
                yield each


class LosesASet(Forgetful):
    def deed(self, row: Row) -> list[Row]:
        return [row._replace(payload=pack([])[0])] if row.node == "draft" and row.kind == "step" else [row]


class LosesAStep(Forgetful):
    def deed(self, row: Row) -> list[Row]:
        return [] if row.node == "draft" and row.kind == "step" else [row]


class GoesElsewhere(Forgetful):
    def deed(self, row: Row) -> list[Row]:
        return [row._replace(next="review")] if row.node == "draft" and row.kind == "step" else [row]


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (LosesASet, "is not the fold of its checkpoints"),
        (LosesAStep, "it follows checkpoint"),
        (GoesElsewhere, "it goes from 'draft' to 'review', where the flow has no edge"),
    ],
)
async def test_a_check_says_what_is_wrong_with_a_history(kind: type[Forgetful], words: str) -> None:
    store = kind()
    executor = GraphExecutor(looping().compile(), store=store)
    found = await executor.check(await looped(executor))
    assert not found.passed
    assert any(words in problem.reason for problem in found.problems), found.problems


async def test_a_strict_run_completes_after_its_check() -> None:
    executor = GraphExecutor(looping().compile(), store=MemoryCheckpointStore(), strict=True)
    run_id = await looped(executor)
    assert (await executor.store.run(run_id)).status == "completed"


async def test_a_strict_run_whose_checkpoints_break_a_contract_is_quarantined_and_can_be_resumed() -> None:
    async def draft(state: Any) -> dict[str, Any]:
        return {"n": 1}

    async def end(state: Any) -> dict[str, Any]:
        return {"log": ["ended"]}

    flow = Flow("f", STATE).add_node("draft", draft).add_node("end", end).set_entry("draft").add_edge("draft", "end").add_edge("end", END)
    store = LosesASet()
    executor = GraphExecutor(flow.compile(), store=store, strict=True)
    run = await executor.start(START)
    with pytest.raises(ContractError, match="the state it is driven with is not the fold"):
        await run.result()
    record = await store.run(run.run_id)
    assert (record.status, record.owner, (record.error or {})["type"]) == ("quarantined", None, "ContractError")
    assert [row.kind async for row in store.history(run.run_id)] == ["start", "step"], "the last step was not committed"
    lenient = GraphExecutor(flow.compile(), store=store)
    assert (await lenient.resume(run.run_id)).values["log"] == ["ended"]


def test_the_command_line_checks_a_run(tmp_path: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "small.py").write_text(
        'from trailmark import END, Flow\nflow = Flow("small", {"n": int})\n@flow.node\ndef a(state):\n    return {"n": 1}\n'
        'flow.set_entry("a").add_edge("a", END)\n'
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TRAILMARK_STORE", raising=False)
    main(["run", "small.py:flow", "-o", "ids"])
    run_id = capsys.readouterr().out.strip()
    assert main(["runs", "check", run_id]) == ExitCode.OK
    shown = " ".join(capsys.readouterr().out.split())
    assert "contracts kept" in shown
    assert "a -> (out) 1 1 0 0" in shown


# --- what people said, by the table and by the checkpoints --------------------------------------------------------------
TAMPERED = {
    "another name": ("UPDATE decisions SET actor = 'eve' WHERE actor = 'ben'", "'ben'"),
    "another moment": ("UPDATE decisions SET decided_at = decided_at - 1000000 WHERE actor = 'ben'", "'ben'"),
    "another action": ("UPDATE decisions SET action = 'reject' WHERE actor = 'ana'", "'ana'"),
    "a line taken out": ("DELETE FROM decisions WHERE actor = 'ana'", "'ana'"),
    "a line put in": (
        "INSERT INTO decisions SELECT 'x', run_id, ticket, action, 'eve', payload_digest, decided_at, consumed_seq, details FROM decisions LIMIT 1",
        "'eve'",
    ),
}


@pytest.mark.parametrize("how", TAMPERED)
async def test_a_decision_that_was_changed_behind_a_checkpoint_contradicts_it(sqlite_url: str, how: str) -> None:
    flow = Flow("signed", {"n": int}).add_barrier("sign", quorum=2).set_entry("sign").add_edge("sign", END)
    async with SQLCheckpointStore(sqlite_url) as store, GraphExecutor(flow.compile(), store=store) as executor:
        run_id = (await executor.execute({"n": 1})).run_id
        for name in ("ana", "ben"):
            await store.decide(run_id, "sign", Decision.approve(by=name, reason=f"{name} has looked"))
        await executor.resume(run_id)
        assert (await executor.check(run_id)).problems == ()
        statement, whom = TAMPERED[how]
        with closing(sqlite3.connect(sqlite_url.partition(":///")[2])) as raw, raw:
            columns = "id, run_id, ticket, action, actor, payload_digest, decided_at, consumed_seq, details"
            raw.execute(statement.replace("INTO decisions SELECT", f"INTO decisions ({columns}) SELECT"))
        problems = (await executor.check(run_id)).problems
        assert problems
        assert all("decision" in problem.reason for problem in problems)
        assert any(whom in problem.reason for problem in problems)
