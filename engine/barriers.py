"""Barriers: what a ticket asks, what the votes say, where the decision leads.

Pure.  Who may vote is checked by the store when a vote is taken; what the votes
mean for the walk is decided here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from checkpoint_stores.codec import encode, materialise, to_json
from checkpoint_stores.deciding import approvals
from checkpoint_stores.fold import Scope
from checkpoint_stores.moments import later
from checkpoint_stores.records import BarrierRecord, DecisionRecord
from engine.decisions import Decision
from engine.errors import NodeError, place
from engine.identity import ticket_name
from engine.plan import BarrierPlan, NodePlan
from reducers.changes import ABSENT


def opened(run_id: str, node: NodePlan, scope: Scope, now: int, *, seq: int) -> BarrierRecord:
    """The ticket that the scope opens at this barrier with checkpoint ``seq``.  Raises NodeError where the prompt cannot be written."""
    barrier = node.barrier
    assert barrier is not None  # noqa: S101
    prompt, payload = worded(node, scope)
    ticket = ticket_name(scope.path, node.name, scope.visits.get(node.name, 0) + 1)
    deadline = None if barrier.timeout is None else later(now, barrier.timeout)
    targets = tuple(dict.fromkeys(edge.target for edge in node.edges() if edge.kind != "fallback"))
    return BarrierRecord(
        run_id=run_id, ticket=ticket, node=node.name, path=scope.path, status="open", prompt=prompt, payload=payload,
        digest=payload_digest(prompt, payload), form=barrier.form, approvers=barrier.approvers, quorum=barrier.quorum,
        early=barrier.early, targets=targets, deadline=deadline, on_timeout=barrier.on_timeout if barrier.timeout else None,
        opened_at=now, opened_seq=seq, nudges=tuple((later(now, after), who) for after, who in barrier.nudges),
    )  # fmt: skip


def worded(node: NodePlan, scope: Scope) -> tuple[str, dict[str, Any]]:
    """The prompt and the payload that a ticket of this barrier shows now.  Raises NodeError where the prompt cannot be written."""
    assert node.barrier is not None  # noqa: S101 - asked of barriers only
    return _prompt(node, node.barrier, scope), shown(node.barrier, scope)


def shown(barrier: BarrierPlan, scope: Scope) -> dict[str, Any]:
    """What a person gets to see: the declared keys as readable data; absent keys are left out."""
    values = {key: scope.read(key) for key in barrier.show}
    return {key: to_json(value) for key, value in values.items() if value is not ABSENT}


def payload_digest(prompt: str, payload: Mapping[str, Any]) -> str:
    """SHA-256 (hex) over what the person sees."""
    return hashlib.sha256(encode([prompt, dict(payload)])).hexdigest()


def _prompt(node: NodePlan, barrier: BarrierPlan, scope: Scope) -> str:
    held = {key: scope.read(key) for key in barrier.show}
    try:
        return barrier.prompt.format_map({key: materialise(value) for key, value in held.items() if value is not ABSENT})
    except Exception as error:
        message = f"the prompt of {place(node.name, scope.path)} cannot be written: {type(error).__name__}: {error}"
        raise NodeError(message, node=node.name, path=scope.path) from error


_IDENTITY = ("run_id", "ticket", "node", "path", "status", "opened_seq")


def details_of(record: BarrierRecord) -> dict[str, Any]:
    """What the checkpoint keeps of a ticket: enough to open it again elsewhere (`record_of`)."""
    details = {name: getattr(record, name) for name in BarrierRecord.__slots__ if name not in _IDENTITY}
    details |= {"approvers": list(record.approvers), "targets": list(record.targets)}
    if record.nudges:
        return details | {"nudges": [[due, list(who)] for due, who in record.nudges]}
    del details["nudges"], details["nudged"]
    return details


def record_of(run_id: str, scope: Scope, *, seq: int) -> BarrierRecord:
    """The ticket a parked scope waits for, from the fold alone (a fork opens its parent's tickets anew)."""
    ticket, details = scope.detail
    fields = {**details, "approvers": tuple(details["approvers"]), "targets": tuple(details["targets"])}
    if "nudges" in details:
        fields["nudges"] = tuple((due, tuple(who)) for due, who in details["nudges"])
    return BarrierRecord(run_id=run_id, ticket=ticket, node=scope.node, path=scope.path, status="open", opened_seq=seq, **fields)


def next_nudge(details: Mapping[str, Any]) -> int | None:
    """When people are to be reminded of an open ticket, or others may decide it too, next (microseconds); None where that is all."""
    to_come = details.get("nudges", ())[details.get("nudged", 0) :]
    return to_come[0][0] if to_come else None


def verdict(quorum: int, records: Sequence[DecisionRecord]) -> DecisionRecord | None:
    """The vote that decides, or None while more are needed.

    A reject decides at once, and so does anything where one person is enough; else ``quorum`` different people must approve.
    """
    for number, record in enumerate(records, 1):
        if record.action == "reject" or quorum == 1:
            return record
        if record.action == "approve" and len(approvals(records[:number])) >= quorum:
            return record
    return None


def timed_out(run_id: str, ticket: str, action: str, digest: str, now: int) -> DecisionRecord:
    """The decision a deadline makes: recorded as nobody's."""
    return DecisionRecord(
        id=f"timeout:{run_id}:{ticket}", run_id=run_id, ticket=ticket, action=action,  # type: ignore[arg-type]
        actor="timeout", reason="the deadline passed", source="timeout", approves=action == "approve", payload_digest=digest, decided_at=now,
    )  # fmt: skip


def decision_data(deciding: DecisionRecord, records: Sequence[DecisionRecord]) -> dict[str, Any]:
    """What later nodes can read of the outcome: the deciding vote, and who else voted."""
    data = Decision.of_record(deciding).data()
    return {**data, "votes": [Decision.of_record(record).data() for record in records]} if len(records) > 1 else data
