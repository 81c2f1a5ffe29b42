"""A process that is killed while it prunes: every run is whole afterwards, and the next try does the rest."""

from __future__ import annotations

from typing import Any

import pytest

from checkpoint_stores.sql.store import SQLCheckpointStore
from engine.loading import load_state

INPUT = {"amount": 7}

DEATHS = [
    *({moment: f"{what} {number}"} for what in ("delete", "drop") for number in (1, 2) for moment in ("dies_before", "dies_after")),
    *({"dies_before": f"{what} 2", "ticks": ticks} for what in ("delete", "drop") for ticks in (1, 40, 80, 150, 300)),
]
"""Before and behind a transaction, and (SQLite) after so many instructions of its machine, within one."""


@pytest.mark.parametrize("death", DEATHS, ids=lambda death: " ".join(f"{name}={value}" for name, value in death.items()))
async def test_a_process_killed_while_it_prunes_leaves_every_run_whole(children: Any, store_url: str, death: dict[str, Any]) -> None:
    if not store_url.startswith("sqlite"):  # PostgreSQL's transactions run elsewhere: there the process dies before it
        death = {name: value for name, value in death.items() if name != "ticks"}
    ended = {children.run("start", store_url, flow="relay", input={})["result"]["run_id"] for _ in range(3)}
    waiting = {children.run("start", store_url, flow="claim", input=INPUT)["result"]["run_id"] for _ in range(3)}
    async with SQLCheckpointStore(store_url) as store:
        before = {run_id: (await load_state(store, run_id)).dump() for run_id in waiting}

        said = children.run("prune", store_url, runs_for=0, checkpoints=4, **death)

        assert said["ended"] in (-9, 0)  # so many instructions may be more than the transaction has
        for run in await store.runs():
            assert await store.verify(run.run_id) == []
        assert {run_id: (await load_state(store, run_id)).dump() for run_id in waiting} == before

        again = children.run("prune", store_url, runs_for=0, checkpoints=4)
        done = [*said.get("pruned", {}).get("runs", []), *again["pruned"]["runs"]]
        assert set(done) <= ended
        assert {run.run_id for run in await store.runs()} == waiting
        for run_id in waiting:
            assert len([row async for row in store.history(run_id)]) == 4
            assert await store.verify(run_id) == []
            assert (await load_state(store, run_id)).dump() == before[run_id]
    for run_id in waiting:
        resumed = children.run("resume", store_url, flow="claim", run_id=run_id)
        assert resumed["result"]["status"] == "waiting"
