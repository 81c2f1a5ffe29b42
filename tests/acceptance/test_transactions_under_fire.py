"""What a node writes in its own transaction is there exactly once, wherever its process is killed.

A child kills itself (SIGKILL) between any two statements of a transaction: its own, those of the checkpoint, and the
COMMIT; at the root and in branches.  Another process brings the run to its end.
"""

from __future__ import annotations

from typing import Any

import pytest

from trailmark.checkpoint_stores import SQLCheckpointStore

LINES = [f"{node} {line}" for node in ("first", "left", "right") for line in (1, 2)]

IN_BODIES = [{"dies_in": (node, moment)} for node in ("first", "left", "right") for moment in (1, 2, "end of block", "behind the block")]
IN_COMMITS = [
    {how: f"{what} {seq}"}
    for seq in (2, 4, 5)  # the steps of first, left, right
    for how, what in (("dies_before", "write"), ("dies_after", "write"), ("dies_before", "finish"), ("dies_after", "finish"))
]


@pytest.mark.parametrize("kill", [{}, *IN_BODIES, *IN_COMMITS], ids=str)
async def test_lines_are_entered_exactly_once(children: Any, store_url: str, tables: Any, kill: dict[str, Any]) -> None:
    async with SQLCheckpointStore(store_url, synchronous="OFF") as store:
        await store.runs()
        await tables(store_url).ask("CREATE TABLE ledger (run VARCHAR(40), line VARCHAR(40))")
        said = children.run("start", store_url, flow="ledger", input={"amount": 7}, **kill)
        assert said["ended"] == (-9 if kill else 0), said.get("error", said)
        run_id = (await store.runs())[0].run_id
        if kill:
            entered = await tables(store_url).ask("SELECT line FROM ledger")
            steps = [row.node async for row in store.history(run_id) if row.kind == "step"]
            assert sorted(line for (line,) in entered) == sorted(f"{node} {line}" for node in steps for line in (1, 2))
            said = children.run("resume", store_url, flow="ledger", run_id=run_id)
        assert said["result"]["status"] == "completed"
        assert sorted(line for (line,) in await tables(store_url).ask("SELECT line FROM ledger")) == LINES
        assert await store.verify(run_id) == []


async def test_a_process_that_is_stopped_within_a_transaction_keeps_nobody_waiting_for_ever(
    children: Any, postgres_url: str, tables: Any
) -> None:
    """On PostgreSQL the server itself ends the transaction; on a SQLite file others wait until the process goes on or ends."""
    async with SQLCheckpointStore(postgres_url) as store:
        await store.runs()
        await tables(postgres_url).ask("CREATE TABLE ledger (run VARCHAR(40), line VARCHAR(40) UNIQUE)")
        stopped = children.start("start", postgres_url, flow="ledger", input={"amount": 7}, stops_after="write 2", lease=1)
        while not await store.runs() or not (await store.runs())[0].orphaned:
            await tables(postgres_url).ask("SELECT pg_sleep(0.05)")
        run_id = (await store.runs())[0].run_id
        said = children.run("resume", postgres_url, flow="ledger", run_id=run_id)
        assert said["result"]["status"] == "completed"
        assert sorted(line for (line,) in await tables(postgres_url).ask("SELECT line FROM ledger")) == LINES
        stopped.kill()
        stopped.end()
