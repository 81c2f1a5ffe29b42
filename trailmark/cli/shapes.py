"""What the commands print as JSON: one plain mapping per record, with stable fields.

Fields are only ever added.  Values pass `checkpoint_stores.codec.to_json`; times are ISO 8601 in UTC.  Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from trailmark.cli.plain import data, iso

if TYPE_CHECKING:
    from checkpoint_stores.deciding import EarlyTicket
    from checkpoint_stores.fold import RunState
    from checkpoint_stores.records import BarrierRecord, DecisionRecord, EffectRecord, Grant, Problem, RunRecord, SignalRecord
    from engine.contracts import RunCheck
    from engine.operations import StepLine
    from engine.plan import Warn
    from engine.replaying import Replay
    from engine.result import PendingRetry, PendingWait, RunResult


def of_result(result: RunResult) -> dict[str, Any]:
    """What `run` and `resume` print."""
    return {
        "run_id": result.run_id,
        "status": result.status,
        "steps": result.steps,
        "attempt": result.attempt,
        "seq": result.seq,
        "waiting_for": list(result.waiting_for),
        "retries": [of_retry(each) for each in result.retries],
        "waits": [of_wait(each) for each in result.waits],
        "error": data(dict(result.error)) if result.error is not None else None,
        "values": data(dict(result.values)),
    }


def of_retry(retry: PendingRetry) -> dict[str, Any]:
    """A failed node that is to be tried again."""
    return {"node": retry.node, "path": retry.path, "failed": retry.failed, "error": data(dict(retry.error)), "due": iso(retry.due_at)}


def of_wait(wait: PendingWait) -> dict[str, Any]:
    """A node that waits for a signal or a time."""
    return {"node": wait.node, "path": wait.path, "signal": wait.signal or None, "due": iso(wait.due_at)}


def of_signal(signal: SignalRecord) -> dict[str, Any]:
    """A signal that was sent to a run."""
    return {
        "id": signal.id,
        "run_id": signal.run_id,
        "signal": signal.name,
        "payload": data(signal.payload),
        "by": signal.actor,
        "sent_at": iso(signal.sent_at),
        "consumed_seq": signal.consumed_seq,
    }


def of_replay(replay: Replay) -> dict[str, Any]:
    """What `runs replay` prints of one run."""
    return {
        "run_id": replay.run_id,
        "status": replay.status,
        "matches": replay.matches,
        "rows": replay.rows,
        "checked": replay.checked,
        "divergences": [each._asdict() for each in replay.divergences],
        "unchecked": [each._asdict() for each in replay.unchecked],
    }


def of_run(run: RunRecord) -> dict[str, Any]:
    """One line of `runs ls`."""
    return {
        "run_id": run.run_id,
        "flow": run.flow,
        "flow_version": run.flow_version,
        "graph_hash": run.graph_hash,
        "status": run.status,
        "run_key": run.run_key,
        "labels": dict(run.labels),
        "attempt": run.attempt,
        "max_steps": run.max_steps,
        "owner": run.owner,
        "lease_expires_at": iso(run.lease_expires_at),
        "orphaned": run.orphaned,
        "wake_at": iso(run.wake_at),
        "parent_run_id": run.parent_run_id,
        "forked_at_seq": run.forked_at_seq,
        "error": data(run.error),
        "created_at": iso(run.created_at),
        "updated_at": iso(run.updated_at),
    }


def of_place(state: RunState) -> list[dict[str, str]]:
    """Where a run stands: each open branch with its node and what it waits for."""
    return [{"path": scope.path, "node": scope.node, "phase": scope.phase} for scope in state.frontier()]


def of_step(line: StepLine) -> dict[str, Any]:
    """One line of `runs steps`."""
    row = line.row
    return {
        "seq": row.seq,
        "step": row.step,
        "kind": row.kind,
        "path": row.path,
        "node": row.node,
        "next": row.next,
        "keys": list(line.keys),
        "detail": line.detail,
        "epoch": row.epoch,
        "started_at": iso(row.started_at),
        "committed_at": iso(row.committed_at),
        "bytes": len(row.payload),
        "digest": row.digest.hex(),
    }


def of_barrier(barrier: BarrierRecord) -> dict[str, Any]:
    """One line of `approvals ls`."""
    return {
        "run_id": barrier.run_id,
        "ticket": barrier.ticket,
        "node": barrier.node,
        "path": barrier.path,
        "status": barrier.status,
        "prompt": barrier.prompt,
        "payload": data(barrier.payload),
        "digest": barrier.digest,
        "form": barrier.form,
        "approvers": list(barrier.approvers),
        "quorum": barrier.quorum,
        "targets": list(barrier.targets),
        "deadline": iso(barrier.deadline),
        "on_timeout": barrier.on_timeout,
        "opened_at": iso(barrier.opened_at),
        "nudged": barrier.nudged,
    }


def of_ticket(run_id: str, ticket: BarrierRecord | EarlyTicket) -> dict[str, Any]:
    """What `approvals show` prints: a ticket, or a barrier that the run has not reached."""
    from checkpoint_stores.records import BarrierRecord

    if isinstance(ticket, BarrierRecord):
        return of_barrier(ticket)
    return {"run_id": run_id, "ticket": ticket.name, "status": "not_open_yet", "approvers": list(ticket.approvers), "quorum": ticket.quorum}


def of_decision(decision: DecisionRecord) -> dict[str, Any]:
    """What a decision is recorded as."""
    return {
        "id": decision.id,
        "run_id": decision.run_id,
        "ticket": decision.ticket,
        "action": decision.action,
        "approves": decision.approves,
        "by": decision.actor,
        "roles": list(decision.roles),
        "reason": decision.reason,
        "source": decision.source,
        "edits": data(decision.edits),
        "target": decision.target,
        "seen": decision.payload_digest,
        "decided_at": iso(decision.decided_at),
        "consumed_seq": decision.consumed_seq,
        "early": decision.is_early,
        "on_behalf_of": decision.on_behalf_of,
        "grant": decision.grant,
    }


def of_grant(grant: Grant) -> dict[str, Any]:
    """One line of `approvals allowed`."""
    return {
        "id": grant.id,
        "kind": grant.kind,
        "barrier": grant.barrier,
        "ticket": grant.ticket,
        "tenant": grant.tenant,
        "flow": grant.flow,
        "run_id": grant.run_id,
        "path": grant.path,
        "by": grant.actor,
        "roles": list(grant.roles),
        "reason": grant.reason,
        "source": grant.source,
        "action": grant.action,
        "uses": grant.uses,
        "used": grant.used,
        "to": grant.to,
        "until": iso(grant.expires_at),
        "made_at": iso(grant.made_at),
        "revoked_at": iso(grant.revoked_at),
        "revoked_by": grant.revoked_by,
        "revoked_because": grant.revoked_because,
    }


def of_effect(effect: EffectRecord) -> dict[str, Any]:
    """One line of `runs effects`."""
    return {
        "key": effect.key,
        "run_id": effect.run_id,
        "name": effect.name,
        "node": effect.node,
        "path": effect.path,
        "visit": effect.visit,
        "status": effect.status,
        "begun": effect.begun,
        "started_at": iso(effect.started_at),
        "ended_at": iso(effect.ended_at),
        "outcome": data(effect.outcome),
        "by": effect.by,
        "reason": effect.reason,
    }


def of_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """A state."""
    return {key: data(value) for key, value in values.items()}


def of_difference(pairs: Mapping[str, tuple[Any, Any]], absent: object) -> dict[str, dict[str, Any]]:
    """Keys that differ; a side that holds nothing has no ``before`` or no ``after``."""
    return {
        key: {side: data(value) for side, value in (("before", before), ("after", after)) if value is not absent}
        for key, (before, after) in pairs.items()
    }


def of_warning(warning: Warn) -> dict[str, Any]:
    """A finding of the static analysis."""
    return {"code": warning.code, "message": warning.message, "nodes": list(warning.nodes), "key": warning.key}


def of_check(check: RunCheck) -> dict[str, Any]:
    """What `runs check` found."""
    return {
        "run_id": check.run_id,
        "passed": check.passed,
        "status": check.status,
        "checkpoints": check.checkpoints,
        "since": check.since,
        "steps": check.steps,
        "problems": [{"seq": each.seq, "reason": each.reason} for each in check.problems],
        "edges": [
            {
                "path": each.path, "from": each.source, "to": each.target, "left": each.left, "entered": each.entered,
                "standing": each.standing, "given_up": each.given_up,
            }
            for each in check.edges
        ],
    }  # fmt: skip


def of_problem(problem: Problem) -> dict[str, Any]:
    """A finding of `db verify`."""
    return {"run_id": problem.run_id, "seq": problem.seq, "reason": problem.reason}
