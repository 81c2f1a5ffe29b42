"""The flows whose processes are killed, stopped and cut off, and the journal their node bodies write.

Every body writes one line before it does anything, so that the journal tells which bodies ran, how often and under
which key, whatever became of the process.  Runs in children only; the tests read the journal.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from itertools import pairwise
from typing import Annotated, Any

from pydantic import BaseModel

from trailmark import END, Flow, FlowGraph, Retry, StepContext
from trailmark.reducers import append, merge, sum_


class BankDown(Exception):
    """What the node that always fails raises."""


class Fire:
    """What a child knows of the test: where to write, and at which body to die or to wait."""

    journal: int = -1
    """File descriptor."""
    dies_in: tuple[Any, ...] | None = None
    """(path, node, visit, attempt)"""
    waits_in: str | None = None
    """A node that says "in body" and goes on when it is told to; the process goes on meanwhile."""
    blocks_in: str | None = None
    """The same, but the whole process waits: it hears of nothing and prolongs no lease."""
    hangs: bool = False
    """Whether the first step of the flow shift never ends."""
    tell: Callable[[dict[str, Any]], None]
    hear: Callable[[], Awaitable[str]]
    hear_now: Callable[[], bytes]


def die() -> None:
    """End this process as a crash would: no finally, no atexit, no flush."""
    os.kill(os.getpid(), signal.SIGKILL)


def note(ctx: StepContext) -> None:
    """Write that a body runs; die here if the test says so."""
    place = (ctx.path, ctx.node, ctx.visit, ctx.attempt)
    line = {"run": ctx.run_id, "place": place, "key": ctx.idempotency_key, "run_attempt": ctx.run_attempt, "pid": os.getpid()}
    # What is killed is a process, never the machine: the line is safe once the kernel has it.
    os.write(Fire.journal, json.dumps(line).encode() + b"\n")
    if place == Fire.dies_in:
        die()


async def note_and_wait(ctx: StepContext) -> None:
    """`note`; the node the test has chosen then waits for its word."""
    note(ctx)
    if ctx.node == Fire.waits_in:
        Fire.tell({"in_body": ctx.node})
        await Fire.hear()
    if ctx.node == Fire.blocks_in:
        Fire.tell({"in_body": ctx.node})
        Fire.hear_now()


# --- a flow with everything in it -----------------------------------------------------------------------------------
class Claim(BaseModel):
    amount: int
    rounds: int = 0
    quote: int = 0
    score: Annotated[int, sum_] = 0
    photos: Annotated[dict[str, str], merge] = {}
    trail: Annotated[list[str], append] = []


def claim_graph() -> FlowGraph:
    """A loop, a sync node, nested parallels, a node that fails twice, barriers at the root and in a branch, a fallback."""
    flow = Flow("claim", Claim)

    @flow.node
    async def collect(state: Claim, ctx: StepContext) -> dict[str, Any]:
        note(ctx)
        return {"rounds": state.rounds + 1, "trail": [f"collect {state.rounds + 1}"]}

    @flow.node
    def estimate(state: Claim, ctx: StepContext) -> dict[str, Any]:
        note(ctx)
        return {"quote": state.amount * state.rounds, "trail": ["estimate"]}

    async def fraud(state: Claim, ctx: StepContext) -> dict[str, Any]:
        note(ctx)
        return {"score": 1, "trail": ["fraud"]}

    history = Flow("history")

    @history.node(retry=Retry(attempts=4, first=timedelta(milliseconds=1), factor=1.0))
    def fetch(state: Claim, ctx: StepContext) -> dict[str, Any]:
        note(ctx)
        if ctx.attempt < 3:
            raise ConnectionError("the archive is asleep")
        return {"score": 10, "trail": [f"fetch, attempt {ctx.attempt}"]}

    @history.node
    async def rate(state: Claim, ctx: StepContext) -> dict[str, Any]:
        note(ctx)
        return {"score": state.score, "trail": ["rate"]}

    history.set_entry("fetch").add_edge("fetch", "rate").add_edge("rate", END)

    async def front(state: Claim, ctx: StepContext) -> dict[str, Any]:
        note(ctx)
        return {"photos": {"front": ctx.idempotency_key[:6]}, "score": 100}

    def back(state: Claim, ctx: StepContext) -> dict[str, Any]:
        note(ctx)
        return {"photos": {"back": ctx.idempotency_key[:6]}, "score": 1000}

    site = Flow("site")

    @site.node
    async def look(state: Claim, ctx: StepContext) -> dict[str, Any]:
        note(ctx)
        return {"trail": ["look"]}

    @site.node
    async def sign(state: Claim, ctx: StepContext) -> dict[str, Any]:
        note(ctx)
        return {"trail": [f"signed by {ctx.decisions['review'].by} over {len(state.photos)} photos"]}

    site.add_parallel("shots", [front, back])
    site.add_barrier("review", prompt="Are the photos good?", show=["photos"])
    site.set_entry("look").add_edge("look", "shots").add_edge("shots", "review").add_edge("review", "sign").add_edge("sign", END)

    flow.add_parallel("checks", {"fraud": fraud, "history": history, "site": site})
    flow.add_barrier("approval", prompt="Pay {quote}?", show=["quote", "score"])

    @flow.node
    async def pay(state: Claim, ctx: StepContext) -> dict[str, Any]:
        note(ctx)
        raise BankDown("come back on Monday")

    @flow.node
    async def queue_up(state: Claim, ctx: StepContext) -> dict[str, Any]:
        note(ctx)
        assert ctx.error is not None
        return {"trail": [f"queued: {ctx.error['message']}, approved by {ctx.decisions['approval'].by}"]}

    def incomplete(state: Claim) -> bool:
        return state.rounds < 3

    flow.set_entry("collect")
    flow.add_edge("collect", "collect", when=incomplete)
    flow.add_edge("collect", "estimate")
    flow.add_edge("estimate", "checks")
    flow.add_edge("checks", "approval")
    flow.add_edge("approval", "pay")
    flow.add_fallback("pay", "queue_up", on=BankDown)
    flow.add_edge("queue_up", END)
    return flow.compile()


# --- small flows ----------------------------------------------------------------------------------------------------
def relay_graph() -> FlowGraph:
    """first -> second -> third, each of which can be made to wait inside."""
    flow = Flow("relay", {"trail": Annotated[list[str], append]})

    async def step(state: Any, ctx: StepContext) -> dict[str, Any]:
        await note_and_wait(ctx)
        return {"trail": [f"{ctx.node} in attempt {ctx.run_attempt}"]}

    for name in ("first", "second", "third"):
        flow.add_node(name, step)
    flow.set_entry("first").add_edge("first", "second").add_edge("second", "third").add_edge("third", END)
    return flow.compile()


def approval_graph() -> FlowGraph:
    """before -> a barrier -> after."""
    flow = Flow("approval", {"trail": Annotated[list[str], append]})

    async def step(state: Any, ctx: StepContext) -> dict[str, Any]:
        await note_and_wait(ctx)
        return {"trail": [ctx.node]}

    flow.add_node("before", step).add_node("after", step)
    flow.add_barrier("gate", prompt="Go on?", on_reject="continue")
    flow.set_entry("before").add_edge("before", "gate").add_edge("gate", "after").add_edge("after", END)
    return flow.compile()


def beside_graph() -> FlowGraph:
    """A barrier in one branch, work in the other."""
    flow = Flow("beside", {"trail": Annotated[list[str], append]})

    async def step(state: Any, ctx: StepContext) -> dict[str, Any]:
        await note_and_wait(ctx)
        return {"trail": [ctx.node]}

    asking = Flow("asking").add_node("ask", step).add_barrier("gate", prompt="Go on?").add_node("answer", step)
    asking.set_entry("ask").add_edge("ask", "gate").add_edge("gate", "answer").add_edge("answer", END)
    flow.add_node("work", step)
    flow.add_parallel("both", {"asking": asking, "working": "work"})
    return flow.set_entry("both").add_edge("both", END).compile()


def bulky_graph() -> FlowGraph:
    """Six steps, each of which leaves 100 kB behind."""
    flow = Flow("bulky", {"bulk": Annotated[list[str], append]})

    async def step(state: Any, ctx: StepContext) -> dict[str, Any]:
        note(ctx)
        return {"bulk": [ctx.node * 100_000]}

    for name in "abcdef":
        flow.add_node(name, step)
    for source, target in pairwise("abcdef"):
        flow.add_edge(source, target)
    return flow.set_entry("a").add_edge("f", END).compile()


def parcels_graph() -> FlowGraph:
    """A map of functions over six parcels, then a subflow with a state of its own that maps over what they weigh."""
    flow = Flow("parcels", {"parcels": list[int], "weights": list[int], "dear": list[int], "price": int})

    async def weigh(parcel: int, ctx: StepContext) -> int:
        note(ctx)
        return parcel * 10

    def stamp(weight: int, ctx: StepContext) -> int:
        note(ctx)
        return weight + ctx.visit

    async def add_up(state: Any, ctx: StepContext) -> dict[str, Any]:
        note(ctx)
        return {"price": sum(state["dear"])}

    post = Flow("post", {"weights": list[int], "dear": list[int], "price": int})
    post.add_map("stamps", "weights", stamp, to="dear", max_concurrency=2).add_node("add_up", add_up)
    post.set_entry("stamps").add_edge("stamps", "add_up").add_edge("add_up", END)

    flow.add_map("scale", "parcels", weigh, to="weights", max_concurrency=2)
    flow.add_subflow("post", post, inputs={"weights": "weights"}, outputs={"price": "price"})
    return flow.set_entry("scale").add_edge("scale", "post").add_edge("post", END).compile()


# --- a flow that talks ------------------------------------------------------------------------------------------------
class Story(BaseModel):
    text: Annotated[list[str], append] = []


def story_graph() -> FlowGraph:
    """Three nodes that say what they write, word by word; the second stops in the middle where the test says so."""

    async def opening(state: Story, ctx: StepContext) -> AsyncIterator[Any]:
        note(ctx)
        for word in ("Once ", "upon ", "a time"):
            yield word
        yield {"text": ["opening"]}

    async def middle(state: Story, ctx: StepContext) -> dict[str, Any]:
        ctx.emit_token("there ")
        ctx.emit_tool_call("dictionary", "was")
        ctx.emit_token("was ")
        await note_and_wait(ctx)
        ctx.emit_token("a process")
        return {"text": ["middle"]}

    def ending(state: Story, ctx: StepContext) -> dict[str, Any]:
        note(ctx)
        ctx.emit_token("that ")
        ctx.emit_token("never died.")
        return {"text": ["ending"]}

    flow = Flow("story", Story)
    for node in (opening, middle, ending):
        flow.add_node(None, node)
    return flow.set_entry(opening).add_edge(opening, middle).add_edge(middle, ending).add_edge(ending, END).compile()


def payment_graph() -> FlowGraph:
    """An async node and a plain one, each of which carries out one side effect and writes it into the journal as it happens."""
    flow = Flow("payment", {"amount": int, "receipts": Annotated[list[str], append]})

    def happen(ctx: StepContext, name: str) -> str:
        if Fire.dies_in == (name, "before"):
            die()
        line = {"run": ctx.run_id, "place": (ctx.path, name, ctx.visit, ctx.attempt), "key": ctx.effect_key(name), "pid": os.getpid()}
        os.write(Fire.journal, json.dumps(line).encode() + b"\n")
        if Fire.dies_in == (name, "behind"):
            die()
        return f"{name} {ctx.run_attempt}"

    @flow.node(retry=Retry(attempts=3, first=timedelta(0)))
    async def debit(state: Any, ctx: StepContext) -> dict[str, Any]:
        async def debiting() -> str:
            return happen(ctx, "debit")

        return {"receipts": [await ctx.once("debit", debiting)]}

    @flow.node(retry=Retry(attempts=3, first=timedelta(0)))
    def credit(state: Any, ctx: StepContext) -> dict[str, Any]:
        return {"receipts": [ctx.once_sync("credit", happen, ctx, "credit")]}

    return flow.set_entry("debit").add_edge("debit", "credit").add_edge("credit", END).compile()


def ledger_graph() -> FlowGraph:
    """A node at the root and two branches, each of which writes two lines into a table of the store's own database."""
    flow = Flow("ledger", {"amount": int, "trail": Annotated[list[str], append]})

    async def enter(state: Any, ctx: StepContext) -> dict[str, Any]:
        from sqlalchemy import text

        note(ctx)
        async with ctx.transaction() as connection:
            for line in (1, 2):
                if Fire.dies_in == (ctx.node, line):
                    die()
                entry = {"run": ctx.run_id, "line": f"{ctx.node} {line}"}
                await connection.execute(text("INSERT INTO ledger (run, line) VALUES (:run, :line)"), entry)
            if Fire.dies_in == (ctx.node, "end of block"):
                die()
        if Fire.dies_in == (ctx.node, "behind the block"):
            die()
        return {"trail": [ctx.node]}

    for name in ("first", "left", "right"):
        flow.add_node(name, enter)
    flow.add_parallel("both", ["left", "right"])
    return flow.set_entry("first").add_edge("first", "both").add_edge("both", END).compile()


def shift_graph() -> FlowGraph:
    """Two steps; the first may hang for ever (where the child is told so), or kill its process (where the input says so)."""
    flow = Flow("shift", {"kills": bool, "trail": Annotated[list[str], append]})

    @flow.node
    async def lift(state: Any, ctx: StepContext) -> dict[str, Any]:
        await note_and_wait(ctx)
        if state["kills"]:
            die()
        if Fire.hangs:
            Fire.tell({"in_body": ctx.node})
            await asyncio.Event().wait()
        return {"trail": [f"lift in attempt {ctx.run_attempt}"]}

    @flow.node
    async def carry(state: Any, ctx: StepContext) -> dict[str, Any]:
        note(ctx)
        return {"trail": [f"carry in attempt {ctx.run_attempt}"]}

    return flow.set_entry("lift").add_edge("lift", "carry").add_edge("carry", END).compile()


GRAPHS: dict[str, FlowGraph] = {
    graph.name: graph
    for graph in (
        claim_graph(),
        shift_graph(),
        relay_graph(),
        approval_graph(),
        beside_graph(),
        bulky_graph(),
        parcels_graph(),
        story_graph(),
        payment_graph(),
        ledger_graph(),
    )
}
"""Compiled once, before any child is forked."""
