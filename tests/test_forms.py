"""Edits at a barrier: what the form's own validators say counts, and a refused decision loses nothing."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, field_validator

from trailmark import END, Decision, Flow, FlowGraph, GraphExecutor, approved
from trailmark.checkpoint_stores import MemoryCheckpointStore
from trailmark.reducers import append


class Order(BaseModel):
    amount: int
    note: str = ""
    log: Annotated[list[str], append] = []


class Edits(BaseModel):
    amount: int
    note: str = ""

    @field_validator("note")
    @classmethod
    def says_something(cls, note: str) -> str:
        if note == "whatever":
            raise ValueError("say what you mean")
        return note.strip()


def pay(state: Order) -> dict[str, list[str]]:
    return {"log": [f"paid {state.amount}: {state.note}"]}


def graph_with_a_form() -> FlowGraph:
    flow = Flow("order", Order)
    flow.add_barrier("review", prompt="Pay {amount}?", show=["amount"], form=Edits)
    flow.add_node("pay", pay)
    flow.set_entry("review")
    flow.add_edge("review", "pay", when=approved).add_edge("review", END).add_edge("pay", END)
    return flow.compile()


async def test_the_forms_validators_make_what_is_written() -> None:
    async with MemoryCheckpointStore() as store:
        executor = GraphExecutor(graph_with_a_form(), store=store)
        run = await executor.execute({"amount": 3})
        await store.decide(run.run_id, "review", Decision.modify(by="ana", edits={"amount": 4, "note": " fine "}, approve=True))
        run = await executor.resume(run.run_id)
        assert run.state.log == ["paid 4: fine"]


async def test_edits_that_the_forms_validator_refuses_open_the_ticket_again() -> None:
    async with MemoryCheckpointStore() as store:
        executor = GraphExecutor(graph_with_a_form(), store=store)
        run = await executor.execute({"amount": 3})
        await store.decide(run.run_id, "review", Decision.modify(by="ana", edits={"amount": 4, "note": "whatever"}, approve=True))
        run = await executor.resume(run.run_id)
        assert run.status == "waiting"
        assert run.waiting_for == ("review#1",)
        assert run.state.amount == 3
        assert [ticket.status for ticket in await store.barriers(run_id=run.run_id)] == ["open"]
        await store.decide(run.run_id, "review", Decision.approve(by="ana"))
        run = await executor.resume(run.run_id)
        assert run.status == "completed"
        assert run.state.log == ["paid 3: "]
