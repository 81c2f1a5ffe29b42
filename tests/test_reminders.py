"""Reminders and escalations: committed once, by the store's clock, whoever drives the run."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from checkpoint_stores.errors import NotAnApproverError
from checkpoint_stores.memory import MemoryCheckpointStore, MemoryDatabase
from checkpoint_stores.records import BarrierRecord
from checkpoint_stores.sql.store import SQLCheckpointStore
from engine.decisions import Decision
from engine.errors import FlowValidationError
from engine.executor import GraphExecutor
from engine.flow import Flow
from engine.operations import steps
from engine.plan import END, Escalation
from trailmark.testing import VirtualClock

HOUR = timedelta(hours=1)
BOARD = Escalation(after=4 * HOUR, approvers={"board", "ana"})


def asking(**options: Any) -> Flow:
    flow = Flow("asking", {"n": int}).add_barrier("manager", **{"approvers": {"ana"}, **options})
    return flow.set_entry("manager").add_edge("manager", END)


class Office:
    """Executors over one database, under a clock that stands still."""

    def __init__(self, flow: Flow, url: str | None = None) -> None:
        self.clock = VirtualClock()
        self.graph = flow.compile()
        self.told: list[tuple[str, str]] = []
        database = MemoryDatabase()
        self.opened: list[Any] = []
        self.make = lambda: (
            SQLCheckpointStore(url, now=self.clock.now) if url else MemoryCheckpointStore(now=self.clock.now, database=database)
        )
        self.store = self.open()
        self.executor = self.new_executor()

    def new_executor(self) -> GraphExecutor:
        """As another process would have it."""
        observer = lambda committed: self.told.append((committed.row.kind, committed.row.node))  # noqa: E731
        return GraphExecutor(self.graph, store=self.open(), clock=self.clock, observers=[observer])

    def open(self) -> Any:
        self.opened.append(self.make())
        return self.opened[-1]

    async def close(self) -> None:
        for store in self.opened:
            await store.close()

    async def kinds(self, run_id: str) -> list[str]:
        return [
            row.kind async for row in self.store.history(run_id) if row.kind in ("barrier", "reminded", "escalated", "decision", "failure")
        ]

    async def ticket(self, run_id: str) -> BarrierRecord:
        (ticket,) = await self.store.barriers(run_id=run_id, status=None)
        return ticket


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
def url(request: pytest.FixtureRequest) -> str | None:
    return (
        None
        if request.param == "memory"
        else request.getfixturevalue({"sqlite": "sqlite_url", "postgresql": "postgres_url"}[request.param])
    )


async def test_a_parked_run_is_woken_to_remind_and_to_escalate_and_parks_again(url: str | None) -> None:
    office = Office(asking(remind=[HOUR, 2 * HOUR], escalate=[BOARD], timeout=10 * HOUR), url)
    waiting = await office.executor.execute({})
    run_id = waiting.run_id
    opened = office.clock.now()
    assert (await office.store.run(run_id)).wake_at == opened + 3_600_000_000

    await office.clock.advance(HOUR)
    assert (await office.executor.resume(run_id)).status == "waiting"
    record = await office.store.run(run_id)
    assert (record.status, record.owner, record.wake_at) == ("waiting", None, opened + 2 * 3_600_000_000)
    assert (await office.ticket(run_id)).nudged == 1
    with pytest.raises(NotAnApproverError):
        await office.store.decide(run_id, "manager", Decision.approve(by="eve", roles="board"))

    await office.clock.advance(3 * HOUR)
    other = office.new_executor()
    assert (await other.resume(run_id)).status == "waiting"
    assert await office.kinds(run_id) == ["barrier", "reminded", "escalated"]
    ticket = await office.ticket(run_id)
    assert (ticket.approvers, ticket.nudged, ticket.status) == (("ana", "board"), 3, "open")
    assert (await office.store.run(run_id)).wake_at == opened + 10 * 3_600_000_000
    assert [told for told in office.told if told[0] in ("reminded", "escalated")] == [("reminded", "manager"), ("escalated", "manager")]

    assert (await office.new_executor().resume(run_id)).status == "waiting"  # nothing comes twice
    await office.store.decide(run_id, "manager", Decision.approve(by="eve", roles="board"))
    assert (await other.resume(run_id)).status == "completed"
    assert await office.kinds(run_id) == ["barrier", "reminded", "escalated", "decision"]
    assert await office.store.verify(run_id) == []
    details = [line.detail async for line in steps(office.store, run_id)]
    assert "still undecided" in details
    assert "still undecided: board may decide too" in details
    await office.close()


async def test_what_came_due_while_nobody_was_there_is_one_row() -> None:
    office = Office(asking(remind=[n * HOUR for n in range(1, 6)]))
    run_id = (await office.executor.execute({})).run_id
    await office.clock.advance(100 * HOUR)
    await office.executor.resume(run_id)
    assert await office.kinds(run_id) == ["barrier", "reminded"]
    assert (await office.ticket(run_id)).nudged == 5
    assert (await office.store.run(run_id)).wake_at is None


async def test_who_waits_through_barriers_is_reminded_in_time() -> None:
    office = Office(asking(remind=HOUR))
    handle = await office.executor.start({})
    result = asyncio.create_task(handle.result(through_barriers=True))
    await office.clock.wait_for_timer()
    await office.clock.advance(HOUR)
    await office.executor.decide(handle.run_id, "manager", Decision.approve(by="ana"))
    assert (await asyncio.wait_for(result, 20)).status == "completed"
    assert await office.kinds(handle.run_id) == ["barrier", "reminded", "decision"]


async def test_a_decision_that_came_first_is_not_reminded_of() -> None:
    office = Office(asking(remind=HOUR))
    run_id = (await office.executor.execute({})).run_id
    await office.store.decide(run_id, "manager", Decision.approve(by="ana"))
    await office.clock.advance(2 * HOUR)
    assert (await office.executor.resume(run_id)).status == "completed"
    assert await office.kinds(run_id) == ["barrier", "decision"]


async def test_a_deadline_that_has_passed_decides_and_reminds_nobody() -> None:
    office = Office(asking(remind=HOUR, timeout=2 * HOUR, on_timeout="skip"))
    run_id = (await office.executor.execute({})).run_id
    await office.clock.advance(3 * HOUR)
    assert (await office.executor.resume(run_id)).status == "completed"
    assert await office.kinds(run_id) == ["barrier", "decision"]


async def test_a_fork_of_an_escalated_run_asks_the_same_people() -> None:
    office = Office(asking(escalate=[BOARD]))
    run_id = (await office.executor.execute({})).run_id
    await office.clock.advance(5 * HOUR)
    await office.executor.resume(run_id)
    fork = await office.executor.fork(run_id)
    assert (await office.ticket(fork)).approvers == ("ana", "board")
    assert (await office.executor.resume(fork)).status == "waiting"
    assert await office.kinds(fork) == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"remind": [3]}, "must be a timedelta"),
        ({"remind": timedelta(0)}, "must be longer than nothing"),
        ({"remind": 3 * HOUR, "timeout": 2 * HOUR}, "never happens"),
        ({"escalate": [BOARD], "timeout": HOUR}, "never happens"),
        ({"escalate": ["board"]}, "must be an Escalation"),
        ({"escalate": [Escalation(HOUR, ())]}, "needs approvers"),
        ({"escalate": [Escalation(HOUR, "board")]}, "needs approvers"),
        ({"escalate": [BOARD], "approvers": ()}, "anybody may decide it"),
    ],
)
def test_a_reminder_that_could_never_come_is_a_problem_of_the_flow(options: dict[str, Any], said: str) -> None:
    with pytest.raises(FlowValidationError, match=said):
        asking(**options).compile()


def test_reminders_are_part_of_the_graphs_hash() -> None:
    hashes = {
        asking(**options).compile().graph_hash for options in ({}, {"remind": HOUR}, {"remind": [HOUR, 2 * HOUR]}, {"escalate": [BOARD]})
    }
    assert len(hashes) == 4
