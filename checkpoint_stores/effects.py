"""What becomes of a side effect's record: begun, ended, settled by a person.  The same rules for every store.

    (none), not_done ── begin ──▶ started ── end ──▶ done │ not_done │ in_doubt
    started, begun before and without an end ── begin ──▶ in_doubt        (``again`` begins it anew)
    in_doubt ── settle ──▶ done │ not_done

Pure: records in, records out.  Whether the lease is still the writer's is the
store's to check, in the same transaction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from checkpoint_stores.errors import AmbiguousEffectError, ArgumentError, EffectNotInDoubtError, UnknownEffectError
from checkpoint_stores.records import EffectRecord, RunRecord

SHORTEST_KEY = 8
"""How much of an effect's key must be given at least."""


def begin(held: EffectRecord | None, wanted: EffectRecord, epoch: int, now: int, *, again: bool) -> tuple[EffectRecord, bool]:
    """The record as it stands now, and whether the effect may be carried out; ``held`` is what the store had.

    >>> wanted = EffectRecord("r", "k", "pay", "pay", "", 1)
    >>> started, may_run = begin(None, wanted, 1, 100, again=False)
    >>> started.status, may_run
    ('started', True)
    >>> record, may_run = begin(started, wanted, 2, 200, again=False)
    >>> record.status, may_run
    ('in_doubt', False)
    """
    if held is None or held.status == "not_done" or (again and held.status != "done"):
        begun = 1 if held is None else held.begun + 1
        return replace(wanted, status="started", epoch=epoch, begun=begun, started_at=now), True
    return (replace(held, status="in_doubt") if held.status == "started" else held), False


def end(held: EffectRecord, ended: EffectRecord, now: int) -> EffectRecord | None:
    """The record with what ``ended`` says of it; None where it was begun anew or settled meanwhile, so that this comes too late."""
    if held.begun != ended.begun or held.by is not None or held.status not in ("started", "in_doubt"):
        return None
    return replace(held, status=ended.status, outcome=ended.outcome, reason=ended.reason, ended_at=now)


def seen(run: RunRecord, effect: EffectRecord) -> EffectRecord:
    """The record as a reader is told it: one that was started by a process that no longer drives the run is in doubt."""
    is_going_on = effect.epoch == run.epoch and run.owner is not None and not run.orphaned
    return replace(effect, status="in_doubt") if effect.status == "started" and not is_going_on else effect


def settle(run: RunRecord, held: EffectRecord, *, done: bool, outcome: Any, by: str, reason: str, now: int) -> EffectRecord:
    """The record as a person settled it; the same answer by the same person again changes nothing.

    Raises ArgumentError, EffectNotInDoubtError.
    """
    if not by:
        raise ArgumentError("by", by, "the name of who settles the effect; it is recorded")
    status = "done" if done else "not_done"
    if held.by == by and held.status == status and held.outcome == (outcome if done else None):
        return held
    if seen(run, held).status != "in_doubt":
        raise EffectNotInDoubtError(held.run_id, held.name, held.status)
    return replace(held, status=status, outcome=outcome if done else None, ended_at=now, by=by, reason=reason)  # type: ignore[arg-type]


def find(run_id: str, effects: Sequence[EffectRecord], wanted: str) -> EffectRecord:
    """The effect with this key (or a beginning of it), or the only one in doubt (else: of all) with this name.

    Raises UnknownEffectError, AmbiguousEffectError.
    """
    fitting = [effect for effect in effects if effect.name == wanted]
    if len(fitting) > 1:
        fitting = [effect for effect in fitting if effect.status == "in_doubt"] or fitting
    if not fitting and len(wanted) >= SHORTEST_KEY:
        fitting = [effect for effect in effects if effect.key.startswith(wanted.lower())]
    if not fitting:
        raise UnknownEffectError(run_id, wanted, tuple(effect.name for effect in effects))
    if len(fitting) > 1:
        raise AmbiguousEffectError(run_id, wanted, tuple(f"{effect.key[:12]} ({effect.place})" for effect in fitting))
    return fitting[0]
