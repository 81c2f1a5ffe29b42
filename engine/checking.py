"""A stored run against the contracts: reads its history from the store and hands it to `engine.contracts`.  Needs nobody's code."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Any, Final

from checkpoint_stores.codec import decode, encode, unpack
from checkpoint_stores.errors import CheckpointCorruptError
from checkpoint_stores.fold import RunState
from checkpoint_stores.protocol import CheckpointStore
from checkpoint_stores.records import Problem, Row, RunRecord
from engine.contracts import Contracts, RunCheck
from engine.loading import load_state
from engine.witnesses import contradictions, votes_in

_DECIDED: Final = frozenset({"decision", "fallback", "failure"})
"""Kinds of checkpoints that may rest on decisions."""

_CHANGES: Final = ("attempt", "migration")
"""Kinds of checkpoints by which a run may go over to another graph."""


async def check_run(store: CheckpointStore, run_id: str, *, pending: Sequence[Row] = (), live: RunState | None = None) -> RunCheck:
    """Check every checkpoint of a run, and that the state a resume loads is the fold of all of them.

    ``pending`` are rows about to be committed, ``live`` the state that has them folded already: then that state is compared instead.

    Raises RunNotFoundError; CheckpointCorruptError where the run cannot be loaded at all.
    """
    record = await store.run(run_id)
    contracts: Contracts | None = None
    used: list[tuple[int, list[dict[str, Any]]]] = []
    async for row in store.history(record.run_id):
        if contracts is None:
            contracts = await _begun(store, record, row)
        if row.kind in _CHANGES:
            contracts.definition = await _changed(store, row, contracts.definition)
        if row.seq == 0 or row.seq > contracts.state.seq:  # a snapshot may stand for the first ones; a fork's first has number 0
            contracts.take(row)
        if row.kind in _DECIDED and (votes := _votes_of(row)):
            used.append((row.seq, votes))
    if contracts is None:
        contracts = Contracts(record.run_id, None)
    for row in pending:
        contracts.take(row)
    found = contracts.check()
    other = live if live is not None else await load_state(store, record.run_id)
    if found.passed and encode(contracts.state.dump()) != encode(other.dump()):
        what = "the state it is driven with" if live is not None else "the state that a resume loads (snapshot and the rest)"
        problem = Problem(record.run_id, other.seq, f"{what} is not the fold of its checkpoints")
        found = dataclasses.replace(found, problems=(problem,))
    told = tuple(contradictions(record.run_id, used, await store.decisions(record.run_id)))
    return dataclasses.replace(found, problems=found.problems + told) if told else found


def _votes_of(row: Row) -> list[dict[str, Any]]:
    try:
        return votes_in(unpack(row.payload))
    except Exception:  # noqa: BLE001 - that it cannot be read was told before
        return []


async def _begun(store: CheckpointStore, record: RunRecord, first: Row) -> Contracts:
    """Contracts that begin where the history begins: with nothing, or on a snapshot where earlier checkpoints were pruned."""
    state = None
    if first.seq > (1 if record.parent_run_id is None else 0):  # a fork's own first checkpoint has number 0
        snapshot, _rows = await store.load(record.run_id, first.seq)
        if snapshot is not None:
            state = RunState.restored(record.run_id, decode(snapshot.payload), snapshot.digest)
    return Contracts(record.run_id, await _definition(store, await _first_graph(store, record)), state)


async def _first_graph(store: CheckpointStore, record: RunRecord) -> str:
    """The graph the run began with: a resume with another says which one it left."""
    if record.attempt > 1:
        async for row in store.history(record.run_id):
            for op in unpack(row.payload) if row.kind in _CHANGES else ():
                if op[0] in ("attempt", "migrate") and "changed_from" in op[2]:
                    return str(op[2]["changed_from"])
    return record.graph_hash


async def _changed(store: CheckpointStore, row: Row, known: dict[str, Any] | None) -> dict[str, Any] | None:
    """The definition that counts from this checkpoint on.  Raises CheckpointCorruptError."""
    try:
        ops = unpack(row.payload)
    except Exception as error:
        raise CheckpointCorruptError(row.run_id, row.seq, f"its payload cannot be read ({error})") from error
    for op in ops:
        if op[0] in ("attempt", "migrate") and {"changed_from", "graph_hash"} <= op[2].keys():
            return await _definition(store, str(op[2]["graph_hash"]))
    return known


async def _definition(store: CheckpointStore, graph_hash: str) -> dict[str, Any] | None:
    text = await store.graph(graph_hash)
    return None if text is None else dict(json.loads(text))
