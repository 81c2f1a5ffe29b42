"""Whether this graph may go on with that run: asks the store what the run was driven by, and `engine.compatibility` what that means.

Commits a declared migration, where there is one; and, where a run moved on between being judged and being taken and has no place any
more, the way back.  Decides nothing itself.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from checkpoint_stores.codec import pack
from checkpoint_stores.fold import RunState, fold
from checkpoint_stores.protocol import CheckpointStore
from checkpoint_stores.records import ENDED, Changeover, Lease, RunRecord, vote_moved
from engine.definition import difference
from engine.errors import GraphChangedError, MigrationError
from engine.graph import FlowGraph

if TYPE_CHECKING:  # loaded where a graph has changed: most runs go on with the one they were begun with
    from engine.compatibility import Objection
    from engine.migrating import Migrated

ResumeMode = Literal["compatible", "strict", "force"]
"""How much a graph may differ from the one a run was driven by."""


class Judgement(NamedTuple):
    """What a changed graph means to a run."""

    changes: list[str]
    """All that differs, in readable lines."""
    objections: tuple[Objection, ...]
    """What of it keeps the run from going on, once it is migrated where that is declared."""
    migrated: Migrated | None
    """What a declared migration makes of the run; None where none is declared for its version."""


class Admission(NamedTuple):
    """A run may go on."""

    details: dict[str, Any]
    """What the attempt records of it; empty where the graph is the same."""
    migrates: bool = False
    """Whether a migration is to be committed before anything else."""


async def judged(store: CheckpointStore, record: RunRecord, state: RunState, graph: FlowGraph) -> Judgement:
    """Compare the graph that the run at ``state`` was driven by with this one.

    Raises MigrationError where a declared migration cannot be applied.
    """
    if record.graph_hash == graph.graph_hash:
        return Judgement([], (), None)
    from engine.compatibility import objections
    from engine.migrating import migrated

    stored = await store.graph(record.graph_hash)
    inbox = await store.inbox(record.run_id)
    if stored is None:
        return Judgement(["the definition of the graph it was driven by is not in the store"], objections(None, graph, state), None)
    old = json.loads(stored)
    changes = difference(old, graph.definition)
    if record.status in ENDED or (moved := migrated(graph, old, state)) is None:
        return Judgement(changes, objections(old, graph, state, inbox.decisions, inbox.signals), None)
    renamed = [replace(vote, ticket=vote_moved(vote.ticket, moved.tickets, moved.barriers)) for vote in inbox.decisions]
    return Judgement(changes, objections(moved.definition, graph, moved.state, renamed, inbox.signals), moved)


async def admitted(store: CheckpointStore, record: RunRecord, state: RunState, graph: FlowGraph, mode: ResumeMode) -> Admission:
    """Whether the run at ``state`` may go on with ``graph``.

    Raises GraphChangedError, MigrationError.
    """
    if record.graph_hash == graph.graph_hash:
        return Admission({})
    changes, found, moved = await judged(store, record, state, graph)
    if mode == "strict":
        raise GraphChangedError(record.run_id, record.graph_hash, graph.graph_hash, changes)
    if any(each.final or mode != "force" for each in found):
        raise GraphChangedError(record.run_id, record.graph_hash, graph.graph_hash, changes, found)
    details: dict[str, Any] = {"changed_from": record.graph_hash, "judged": "forced" if found else "migrated" if moved else "compatible"}
    if found:
        details["overruled"] = [f"{each.change}: {each.why}" for each in found]
    if moved is not None:
        # The attempt still is one of the old graph: the run's graph changes in the transaction of the migration's own checkpoint.
        return Admission({**details, "migrates_to": graph.graph_hash}, migrates=True)
    await store.put_graph(graph.graph_hash, graph.definition_text)
    return Admission({**details, "graph_hash": graph.graph_hash, "flow_version": graph.version})


async def readmitted(  # noqa: PLR0917 - what was judged, and what came of it
    store: CheckpointStore, record: RunRecord, state: RunState, graph: FlowGraph, mode: ResumeMode, before: Admission, lease: Lease
) -> tuple[Admission, Lease]:
    """Judge again a run that has moved on between being judged and being taken; where it is refused now, it keeps the graph it had.

    Raises GraphChangedError, MigrationError.
    """
    driven_by = str(state.details.get("graph_hash", record.graph_hash))
    try:
        admission = await admitted(store, replace(record, graph_hash=driven_by), state, graph, mode)
    except (GraphChangedError, MigrationError):
        back = {"graph_hash": driven_by, "changed_from": graph.graph_hash, "judged": "refused"}
        refused = await store.acquire(record.run_id, details=back, takeover=True)
        await store.release(record.run_id, refused.epoch)
        raise
    if admission.details.get("changed_from") == before.details.get("changed_from"):
        return admission, lease
    # The run's graph is not what the attempt has said: another attempt says it.
    told = {"graph_hash": driven_by if admission.migrates else graph.graph_hash, **admission.details}
    return admission, await store.acquire(record.run_id, details=told, takeover=True)


async def change_over(store: CheckpointStore, state: RunState, graph: FlowGraph, details: Mapping[str, Any], epoch: int) -> None:
    """Commit what the declared migrations make of the run, as one checkpoint, and fold it.

    Raises MigrationError, LeaseLostError, StoreUnavailableError.
    """
    from engine.migrating import migrated

    driven_by = str(details["changed_from"])
    moved = migrated(graph, json.loads(await store.graph(driven_by) or "{}"), state)
    assert moved is not None  # noqa: S101 - it was judged so
    said: dict[str, Any] = {
        "graph_hash": graph.graph_hash,
        "flow_version": graph.version,
        "changed_from": driven_by,
        "versions": list(moved.versions),
    }
    said |= {"paths": moved.paths} if moved.paths else {}
    payload, ops = pack([["migrate", moved.state.dump(), said]])
    row = store.chain.seal(state.digest, state.run_id, state.seq + 1, epoch, state.step, "migration", "", "", "", payload, 0)
    changeover = Changeover(state.run_id, epoch, row, graph.graph_hash, graph.definition_text, moved.tickets, moved.barriers)
    await store.change_over(changeover)
    fold(state, row, ops)
