"""What the measured flows come to without an engine: the duties of their steps, one after the other, in one straight loop.

A step's duties: show the state, call the body, check what it returned, ask the condition, encode, seal, fold, and keep the row.  Where
rows are durable, they are kept by the bare driver.  It branches, limits, resumes, cancels and observes nothing: what an engine takes
on top of this is what the engine costs, whatever the processor, the disk and the scheduler cost both.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable
from typing import Any

from flows import Counted, Summed

from checkpoint_stores.chain import Chain
from checkpoint_stores.codec import pack
from checkpoint_stores.records import Row
from engine.views import model_view

Keep = Callable[[Row], Awaitable[object]]
"""Makes a row durable before the next step begins; there is none where rows stay in memory."""

_CHAIN = Chain()
_RUNS = itertools.count(1)


async def counting(steps: int, keep: Keep | None = None) -> None:
    """The loop of `flows.counting`, as a run of its own."""
    run_id = f"run {next(_RUNS)}"

    async def body(state: Counted) -> dict[str, Any]:
        return {"n": state.n + 1}

    def more(state: Counted) -> bool:
        return state.n < steps

    view, plain = model_view(Counted, {}), {"n": int}
    values: dict[str, Any] = {"n": 0}
    rows: list[Row] = []
    digest = _CHAIN.genesis(run_id)
    goes_on = True
    while goes_on:
        began = time.monotonic_ns() // 1000
        ops = _checked(await body(view(values.__getitem__)), plain, "set")
        after = {key: value for _, key, value in ops}
        goes_on = more(view(lambda key: after[key] if key in after else values[key]))  # noqa: B023 - asked here and now
        payload, ops = pack(ops)
        row = _CHAIN.seal(digest, run_id, len(rows) + 1, 1, len(rows) + 1, "step", "", "count", "count", payload, began)
        values.update((key, value) for _, key, value in ops)
        digest = row.digest
        rows.append(row._replace(committed_at=time.time_ns() // 1000))
        if keep is not None:
            await keep(row)


async def crowd(runs: int, steps: int, keep: Keep) -> None:
    """So many loops at once."""
    await asyncio.gather(*(counting(steps, keep) for _ in range(runs)))


async def fan_out(branches: int) -> None:
    """The branches of `flows.fan_out`, each in a task of its own, and the row of each; joined by a row that sums what they returned."""

    async def body(state: Summed) -> dict[str, Any]:
        return {"total": 1}

    view, plain = model_view(Summed, {}), {"total": int}
    values: dict[str, Any] = {"total": 0}
    rows: list[Row] = []
    digest = _CHAIN.genesis("run")

    async def branch(number: int) -> int:
        nonlocal digest
        began = time.monotonic_ns() // 1000
        payload, ops = pack(_checked(await body(view(values.__getitem__)), plain, "increment"))
        row = _CHAIN.seal(digest, "run", len(rows) + 1, 1, len(rows) + 1, "step", f"all[{number}]", f"b{number}", "", payload, began)
        digest = row.digest
        rows.append(row)
        return int(ops[0][2])

    for added in await asyncio.gather(*(asyncio.create_task(branch(number)) for number in range(branches))):
        values["total"] += added
    payload, _ = pack([["set", "total", values["total"]]])
    rows.append(_CHAIN.seal(digest, "run", len(rows) + 1, 1, len(rows) + 1, "join", "", "all", "end", payload, 0))


def _checked(update: dict[str, Any], plain: dict[str, type], word: str) -> list[list[Any]]:
    ops: list[list[Any]] = []
    for key, value in update.items():
        if plain[key] is not type(value):
            raise TypeError(key)
        ops.append([word, key, value])
    return ops
