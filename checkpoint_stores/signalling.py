"""Whether a signal is taken: pure rules, one text for all stores.

A signal is kept among the decisions, as what outsiders told a run: under the ticket ``#name``, which no barrier can have.
Records in, a record or a typed error out.  Knows no database, no clock and no user code.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, Final

from checkpoint_stores.codec import decode, encode, to_json
from checkpoint_stores.deciding import misfit
from checkpoint_stores.errors import InvalidSignalError, RunEndedError, SignalConflictError, UnknownSignalError
from checkpoint_stores.records import ENDED, DecisionRecord, RunRecord, SignalRecord

SIGNAL: Final = "signal"
"""The action under which a signal is kept."""


def event_of(name: str) -> str:
    """The event a signal's name is of.

    >>> event_of("each[3].paid"), event_of("paid")
    ('paid', 'paid')
    """
    return name.rpartition(".")[2]


def ticket_of(name: str) -> str:
    """Where a signal is kept among the decisions."""
    return f"#{name}"


def id_of_signal(run_id: str, given: str) -> str:
    """The stored id of a signal to which its sender gave an id: the same for every run would be somebody else's."""
    return f"signal:{run_id}:{given}"


def judge_signal(
    run: RunRecord, name: str, payload: Any, definition: str | None, before: DecisionRecord | None, *, by: str, signal_id: str, now: int
) -> tuple[DecisionRecord, bool]:
    """Return what is to be stored for a signal, and whether it is new; ``before`` is what is stored under its id.

    Raises RunEndedError, UnknownSignalError, InvalidSignalError, SignalConflictError, UnserialisableError.
    """
    kept = decode(encode(payload, "payload"))
    if before is not None:
        if (before.ticket, before.edits) != (ticket_of(name), {"payload": kept}):
            raise SignalConflictError(run.run_id, name, signal_id)
        return before, False
    if run.status in ENDED:
        raise RunEndedError(run.run_id, run.status)
    declared = (json.loads(definition) if definition else {}).get("signals") or {}
    if event_of(name) not in declared:
        raise UnknownSignalError(run.run_id, name, tuple(declared))
    schema = declared[event_of(name)]
    problem = misfit(schema, to_json(kept), "payload") if schema is not None else ""
    if problem:
        raise InvalidSignalError(run.run_id, name, problem)
    record = DecisionRecord(
        id=signal_id, run_id=run.run_id, ticket=ticket_of(name), action=SIGNAL, actor=by, source=SIGNAL, edits={"payload": kept}, decided_at=now,
    )  # fmt: skip
    return record, True


def signal_of(record: DecisionRecord) -> SignalRecord:
    """The signal that is kept as ``record``."""
    payload = (record.edits or {}).get("payload")
    return SignalRecord(record.id, record.run_id, record.ticket[1:], payload, record.actor, record.decided_at, record.consumed_seq)


def apart(records: Iterable[DecisionRecord]) -> tuple[tuple[DecisionRecord, ...], tuple[SignalRecord, ...]]:
    """Decisions, and signals."""
    both = list(records)
    signals = tuple(signal_of(record) for record in both if record.action == SIGNAL)
    return tuple(record for record in both if record.action != SIGNAL), signals
