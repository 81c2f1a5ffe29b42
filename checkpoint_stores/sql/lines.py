"""Between the lines of tables and the records of the protocol: pure conversion, no connection.

Bytes that a user wrote pass the codec here, and nowhere else in the SQL store.
"""

from __future__ import annotations

import uuid
from collections import namedtuple
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

from checkpoint_stores.chain import Chain
from checkpoint_stores.codec import decode, encode
from checkpoint_stores.errors import ArgumentError, CodecError, RunNotFoundError
from checkpoint_stores.ids import dashed
from checkpoint_stores.records import (
    UNDRIVEN,
    BarrierRecord,
    CancelRequest,
    DecisionRecord,
    EffectRecord,
    Grant,
    Inbox,
    NewRun,
    Row,
    RunRecord,
    Snapshot,
    new_tuple,
)
from checkpoint_stores.signalling import apart
from checkpoint_stores.soundness import Stored
from checkpoint_stores.sql.columns import COLUMNS
from checkpoint_stores.sql.leases import is_over
from checkpoint_stores.sql.statements import OWNER_COLUMNS

_REMEMBERED: Final = 1_024
"""So many ids and keys are remembered: a run's are asked for at every step, and those of a run that nobody drives never."""


def _line_type(name: str, table: str, *more: str) -> Any:
    """A tuple type whose fields are the table's columns, and what is read beside them."""
    return namedtuple(name, [*COLUMNS[table], *more])  # noqa: PYI024


RunLine: Any = _line_type("RunLine", "runs")
WatchedLine: Any = _line_type("WatchedLine", "runs", *OWNER_COLUMNS, "clock")
"""A line of `statements.RUN_BY_ID`."""
BarrierLine: Any = _line_type("BarrierLine", "barriers")
DecisionLine: Any = _line_type("DecisionLine", "decisions")
EffectLine: Any = _line_type("EffectLine", "effects")
GrantLine: Any = _line_type("GrantLine", "grants")


def key_of(run_id: str) -> bytes:
    """The 16 bytes of a run id.  What is no UUID names no run: RunNotFoundError."""
    try:
        return _key_of(run_id)
    except TypeError:  # nothing that could be looked for
        raise RunNotFoundError(str(run_id)) from None


@lru_cache(_REMEMBERED)
def _key_of(run_id: str) -> bytes:
    try:
        raw = bytes.fromhex(run_id.replace("-", ""))
    except (ValueError, AttributeError):
        raise RunNotFoundError(str(run_id)) from None
    if len(raw) != 16:
        raise RunNotFoundError(run_id)
    return raw


def new_key_of(run_id: str) -> bytes:
    """The 16 bytes of the id of a run to be.  Raises ArgumentError where it is no UUID in canonical text."""
    try:
        key = uuid.UUID(run_id).bytes
    except (ValueError, TypeError, AttributeError):
        key = b""
    if not key or id_of(key) != run_id:
        raise ArgumentError("run_id", run_id, "a UUID in canonical text")
    return key


@lru_cache(_REMEMBERED)
def id_of(key: bytes) -> str:
    """The canonical text of a run id.

    >>> id_of(bytes(15) + bytes([255]))
    '00000000-0000-0000-0000-0000000000ff'
    """
    return dashed(key.hex())


def span_of(beginning: str) -> tuple[bytes, bytes] | None:
    """The least and the greatest key whose text begins with ``beginning``; None where no key's can."""
    digits = beginning.replace("-", "")
    try:
        least, greatest = bytes.fromhex(digits.ljust(32, "0")), bytes.fromhex(digits.ljust(32, "f"))
    except ValueError:
        return None
    return (least, greatest) if len(least) == 16 and id_of(least).startswith(beginning.lower()) else None


def tail_of(ending: str) -> bytes:
    """The whole bytes at the end of every key whose text ends with ``ending``; empty where no key's can.

    >>> tail_of("a-00ff").hex()
    '00ff'
    """
    digits = ending.replace("-", "")
    try:
        tail = bytes.fromhex(digits[len(digits) % 2 :])
    except ValueError:
        return b""
    return tail if len(tail) < 16 else b""


def encoded(value: Any) -> bytes | None:
    """The codec's bytes; None for None and for what is empty."""
    return encode(value) if value else None


def watched_run_of(line: Any) -> RunRecord:
    """The record of a line of `statements.RUN_BY_ID` and the like, which tells of the owner too."""
    if line.owner is None:
        return run_of(line)
    expires_at = line.lease_expires_at
    orphaned = expires_at is None or is_over(expires_at, line.clock, line.host, line.pid, line.pid_started)
    return run_of(line, lease_expires_at=expires_at, orphaned=orphaned)


def run_of(line: Any, *, lease_expires_at: int | None = None, orphaned: bool = False) -> RunRecord:
    """The record of a line that has all columns of ``runs``."""
    return RunRecord(
        run_id=id_of(line.run_id),
        flow=line.flow,
        flow_version=line.flow_version,
        graph_hash=line.graph_hash,
        status=line.status,
        max_steps=line.max_steps,
        tenant=line.tenant,
        run_key=line.run_key,
        head_seq=line.head_seq,
        head_digest=bytes(line.head_digest),
        attempt=line.attempt,
        inbox_rev=line.inbox_rev,
        epoch=line.epoch,
        owner=line.owner,
        wake_at=line.wake_at,
        parent_run_id=id_of(line.parent_run_id) if line.parent_run_id is not None else None,
        forked_at_seq=line.forked_at_seq,
        labels=_readable(line.labels) or {},
        error=_readable(line.error),
        created_at=line.created_at,
        updated_at=line.updated_at,
        lease_expires_at=lease_expires_at,
        orphaned=orphaned,
    )


def _readable(raw: bytes | None) -> dict[str, Any] | None:
    """A mapping beside a run that decides nothing: where it is damaged it says so, and keeps nobody from the run, nor from others."""
    if raw is None:
        return None
    try:
        value = decode(raw)
    except CodecError as damaged:
        return {UNREADABLE: str(damaged)}
    return value if isinstance(value, dict) else {UNREADABLE: f"it is a {type(value).__name__}"}


UNREADABLE: Final = "unreadable"
"""The key under which damaged labels, or a damaged error, say what is wrong with them."""


def run_line(run: NewRun, first: Row, *, genesis: bytes, owner: str | None) -> Any:
    """The `RunLine` of a new run; its times are the statement's to say."""
    held = int(run.hold)
    return RunLine(
        run_id=new_key_of(run.run_id),
        tenant=run.tenant,
        run_key=run.run_key,
        flow=run.flow,
        flow_version=run.flow_version,
        graph_hash=run.graph_hash,
        status=run.status,
        head_seq=first.seq,
        head_digest=first.digest,
        genesis=genesis,
        max_steps=run.max_steps,
        attempt=held,
        inbox_rev=0,
        epoch=held,
        owner=owner if run.hold else None,
        wake_at=first.started_at if run.status in UNDRIVEN and not run.hold else None,
        parent_run_id=key_of(run.parent_run_id) if run.parent_run_id is not None else None,
        forked_at_seq=run.forked_at_seq,
        labels=encoded(run.labels),
        error=None,
        cancel=None,
        created_at=None,
        updated_at=None,
    )


def admitted_line(run: RunRecord, *, genesis: bytes, cancel: CancelRequest | None) -> Any:
    """The `RunLine` of a run that comes from another store: as it was, owned by nobody."""
    stated = {name: getattr(run, name) for name in RunLine._fields if hasattr(run, name)}
    stated |= {
        "run_id": new_key_of(run.run_id),
        "owner": None,
        "parent_run_id": key_of(run.parent_run_id) if run.parent_run_id is not None else None,
        "labels": encoded(run.labels),
        "error": encoded(run.error),
        "genesis": genesis,
        "cancel": cancel_line(cancel) if cancel is not None else None,
    }
    return RunLine(**stated)


def row_of(line: Any) -> Row:
    """The row of a line that has all columns of ``checkpoints``, in their order."""
    return Row(id_of(line[0]), *line[1:])


def barrier_line(barrier: BarrierRecord, *, tenant: str, status: str | None = None) -> dict[str, Any]:
    """The line of a barrier."""
    return {
        "run_id": key_of(barrier.run_id),
        "ticket": barrier.ticket,
        "tenant": tenant,
        "node": barrier.node,
        "path": barrier.path,
        "status": status or barrier.status,
        "digest": barrier.digest,
        "deadline": barrier.deadline,
        "opened_at": barrier.opened_at,
        "opened_seq": barrier.opened_seq,
        "details": barrier_details(barrier),
    }


def barrier_details(barrier: BarrierRecord) -> bytes:
    """The bytes of ``barriers.details``."""
    details = {
        "prompt": barrier.prompt,
        "payload": barrier.payload,
        "form": barrier.form,
        "approvers": list(barrier.approvers),
        "quorum": barrier.quorum,
        "early": barrier.early,
        "targets": list(barrier.targets),
        "on_timeout": barrier.on_timeout,
    }
    if barrier.nudges:
        details |= {"nudges": [[due, list(who)] for due, who in barrier.nudges], "nudged": barrier.nudged}
    return encode(details)


def barrier_of(line: Any) -> BarrierRecord:
    """The record of a line that has all columns of ``barriers``."""
    details: Mapping[str, Any] = decode(line.details)
    return BarrierRecord(
        run_id=id_of(line.run_id),
        ticket=line.ticket,
        node=line.node,
        path=line.path,
        status=line.status,
        prompt=details["prompt"],
        payload=details["payload"],
        digest=line.digest,
        form=details["form"],
        approvers=tuple(details["approvers"]),
        quorum=details["quorum"],
        early=details["early"],
        targets=tuple(details["targets"]),
        deadline=line.deadline,
        on_timeout=details["on_timeout"],
        opened_at=line.opened_at,
        opened_seq=line.opened_seq,
        nudges=tuple((due, tuple(who)) for due, who in details.get("nudges", ())),
        nudged=details.get("nudged", 0),
    )


def decision_line(decision: DecisionRecord, *, consumed_seq: int | None = None) -> dict[str, Any]:
    """The line of a decision."""
    details = {
        "reason": decision.reason,
        "source": decision.source,
        "roles": list(decision.roles),
        "edits": decision.edits,
        "target": decision.target,
        "approves": decision.approves,
    }
    details |= {name: value for name in ("on_behalf_of", "grant") if (value := getattr(decision, name)) is not None}
    return {
        "id": decision.id,
        "run_id": key_of(decision.run_id),
        "ticket": decision.ticket,
        "action": decision.action,
        "actor": decision.actor,
        "payload_digest": decision.payload_digest,
        "decided_at": decision.decided_at,
        "consumed_seq": decision.consumed_seq if consumed_seq is None else consumed_seq,
        "details": encode(details),
    }


def decision_of(line: Any) -> DecisionRecord:
    """The record of a line that has all columns of ``decisions``."""
    details: Mapping[str, Any] = decode(line.details)
    return DecisionRecord(
        id=line.id,
        run_id=id_of(line.run_id),
        ticket=line.ticket,
        action=line.action,
        actor=line.actor,
        reason=details["reason"],
        source=details["source"],
        roles=tuple(details["roles"]),
        edits=details["edits"],
        target=details["target"],
        approves=details["approves"],
        payload_digest=line.payload_digest,
        decided_at=line.decided_at,
        consumed_seq=line.consumed_seq,
        on_behalf_of=details.get("on_behalf_of"),
        grant=details.get("grant"),
    )


_GRANT_DETAILS: Final = ("action", "reason", "source", "path", "ticket", "revoked_by", "revoked_because")


def grant_line(grant: Grant) -> Any:
    """The `GrantLine` of a grant."""
    details = {"roles": list(grant.roles), **{name: getattr(grant, name) for name in _GRANT_DETAILS}}
    return GrantLine(
        id=grant.id,
        kind=grant.kind,
        tenant=grant.tenant,
        barrier=grant.barrier,
        flow=grant.flow,
        run_id=key_of(grant.run_id) if grant.run_id is not None else None,
        actor=grant.actor,
        delegate=grant.to,
        uses=grant.uses,
        used=grant.used,
        expires_at=grant.expires_at,
        made_at=grant.made_at,
        revoked_at=grant.revoked_at,
        details=encode(details),
    )


def grant_of(line: Any) -> Grant:
    """The grant of a line that has all columns of ``grants``."""
    details: Mapping[str, Any] = decode(line.details)
    return Grant(
        id=line.id,
        kind=line.kind,
        barrier=line.barrier,
        actor=line.actor,
        roles=tuple(details["roles"]),
        tenant=line.tenant,
        flow=line.flow,
        run_id=id_of(line.run_id) if line.run_id is not None else None,
        uses=line.uses,
        used=line.used,
        to=line.delegate,
        expires_at=line.expires_at,
        made_at=line.made_at,
        revoked_at=line.revoked_at,
        **{name: details[name] for name in _GRANT_DETAILS},
    )


def cancel_line(cancel: CancelRequest) -> bytes:
    """The bytes of ``runs.cancel``."""
    return encode({"actor": cancel.actor, "reason": cancel.reason, "requested_at": cancel.requested_at})


def cancel_of(raw: bytes | None) -> CancelRequest | None:
    """What `cancel_line` wrote."""
    return CancelRequest(**decode(raw)) if raw is not None else None


def inbox_of(rev: int, cancel: bytes | None, barriers: Iterable[Any], decisions: Iterable[Any]) -> Inbox:
    """The inbox of a run, from bare tuples that have all columns of ``barriers`` and of ``decisions``."""
    return Inbox(
        rev,
        cancel_of(cancel),
        tuple(barrier_of(BarrierLine(*line)) for line in barriers),
        *apart(decision_of(DecisionLine(*line)) for line in decisions),
    )


def stored_of(key: bytes, found: Sequence[Iterable[Any]], chain: Chain) -> tuple[Stored, list[Snapshot]]:
    """What is stored of a run, and the snapshots whose seal is broken; from its anchor, snapshots and rows as bare tuples.

    Raises RunNotFoundError.
    """
    anchors, snapshot_lines, lines = found
    run_id = id_of(key)
    anchor = next(iter(anchors), None)
    if anchor is None:
        raise RunNotFoundError(run_id)
    genesis, parent, head_seq, head_digest = anchor
    snapshots: list[Snapshot] = []
    unsound: list[Snapshot] = []
    for seq, digest, seal, payload in snapshot_lines:
        snapshot = Snapshot(run_id, seq, payload, digest)
        (snapshots if chain.seal_snapshot(snapshot) == seal else unsound).append(snapshot)
    rows = list(rows_of(key, lines))
    if parent is None:
        genesis = chain.genesis(run_id)
    return Stored(run_id, genesis, 1 if parent is None else 0, head_seq, head_digest, snapshots, rows), unsound


def rows_of(key: bytes, lines: Iterable[Any]) -> Iterator[Row]:
    """The rows of a run, from bare tuples; each made when it is asked for."""
    run_id = id_of(key)
    return (new_tuple(Row, (run_id, *line)) for line in lines)


def effect_line(effect: EffectRecord) -> Any:
    """The `EffectLine` of a record; UnserialisableError where its outcome is no data."""
    outcome = encode(effect.outcome, "outcome") if effect.status == "done" else None
    times = (effect.started_at, effect.ended_at)
    return EffectLine(key_of(effect.run_id), effect.key, effect.status, effect.epoch, effect.begun, *times, details_of(effect), outcome)


def details_of(effect: EffectRecord) -> bytes:
    """What a line of ``effects`` says of an effect beside its columns."""
    return encode({name: getattr(effect, name) for name in _EFFECT_DETAILS})


def effect_of(line: Any) -> EffectRecord:
    """The record of a line that has all columns of ``effects``."""
    run_id, key, status, epoch, begun, started_at, ended_at, details, outcome = line
    return EffectRecord(
        run_id=id_of(run_id), key=key, status=status, epoch=epoch, begun=begun, started_at=started_at, ended_at=ended_at,
        outcome=decode(outcome) if outcome is not None else None, **decode(details),
    )  # fmt: skip


def outcome_of(line: Any) -> Any:
    """The outcome that a line of ``effects`` holds, as whoever reads it is told; None where it holds none."""
    return decode(line.outcome) if line.outcome is not None else None


_EFFECT_DETAILS = ("name", "node", "path", "visit", "by", "reason")
