"""Whether a right may be given in advance, and what follows from one when a ticket opens: pure rules, one text for all stores.

Records in, a grant, uses of grants or a typed error out.  Knows no database, no clock, no loop and no user code.

An allowance decides what opens after it was made.  A ticket that was open already is left to people: it can be looked at.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

from checkpoint_stores.deciding import (
    EARLY_ACTIONS,
    check_asked,
    declared_barriers,
    find_ticket,
    judge,
    may_decide,
    name_of,
    names_somebody,
    node_of,
)
from checkpoint_stores.errors import (
    ArgumentError,
    BarrierError,
    InvalidGrantError,
    RunEndedError,
    UnknownBarrierError,
    UnknownFlowError,
)
from checkpoint_stores.grants import covers, is_live
from checkpoint_stores.moments import MICROSECOND, later
from checkpoint_stores.protocol import Decides
from checkpoint_stores.records import ENDED, BarrierRecord, BarrierStatus, DecisionRecord, Grant, GrantKind, RunRecord

ALLOWANCE: Final = "allowance"
"""A kind of grant, and the source of the decisions that come of it."""
DELEGATION: Final = "delegation"


@dataclass(frozen=True, slots=True)
class GrantAsked:
    """A right that somebody wants to give, its arguments checked as far as they stand alone."""

    kind: GrantKind
    barrier: str
    """A barrier's name; of a delegation also a ticket."""
    by: str
    roles: tuple[str, ...]
    reason: str
    source: str
    tenant: str
    flow: str | None
    run_id: str | None
    path: str | None
    until: datetime | timedelta | None
    action: str | None = None
    uses: int | None = None
    to: str | None = None


def allowance_asked(
    barrier: str, decision: Decides, *, uses: int, until: datetime | timedelta, flow: str | None, run_id: str | None, tenant: str, path: str | None
) -> GrantAsked:  # fmt: skip
    """Raises ArgumentError, InvalidGrantError."""
    check_asked(barrier, decision)
    _check_scope(flow, run_id, path)
    _check_until(until)
    if not isinstance(uses, int) or isinstance(uses, bool) or uses < 1:
        raise ArgumentError("uses", uses, "a whole number from 1")
    if name_of(barrier) != barrier:
        raise InvalidGrantError(barrier, "it is a ticket; decide that ticket itself (it may be decided before it opens)")
    if decision.action not in EARLY_ACTIONS:
        raise InvalidGrantError(barrier, f"nobody will have seen what is asked, so an allowance may only {', '.join(EARLY_ACTIONS)}")
    if decision.edits is not None or decision.target is not None or decision.seen is not None:
        raise InvalidGrantError(barrier, "it takes no edits, no target and no digest")
    if decision.on_behalf_of is not None:
        raise InvalidGrantError(barrier, "a right that was handed on is for looking at tickets; only who has it may allow in advance")
    return GrantAsked(
        "allowance", barrier, decision.by, tuple(decision.roles), decision.reason, decision.source, tenant, flow, run_id, path, until,
        action=decision.action, uses=uses,
    )  # fmt: skip


def delegation_asked(
    barrier: str, *, to: str, by: str, roles: Iterable[str], reason: str, source: str, until: datetime | timedelta | None,
    flow: str | None, run_id: str | None, tenant: str, path: str | None,
) -> GrantAsked:  # fmt: skip
    """Raises ArgumentError, InvalidGrantError."""
    if not isinstance(barrier, str) or not barrier:
        raise ArgumentError("barrier", barrier, "a ticket or a barrier's name, as text")
    _check_scope(flow, run_id, path)
    if until is not None:
        _check_until(until)
    elif run_id is None:
        raise ArgumentError("until", until, "an aware datetime or a timedelta, where every run of a flow is meant")
    if name_of(barrier) != barrier and run_id is None:
        raise ArgumentError("run_id", run_id, f"the run whose ticket {barrier} is")
    if not names_somebody(to):
        raise InvalidGrantError(barrier, f"to={to!r} names nobody; say who shall decide")
    if to == by:
        raise InvalidGrantError(barrier, f"{by!r} needs nobody's leave to decide for themselves")
    given = (roles,) if isinstance(roles, str) else tuple(roles)
    return GrantAsked("delegation", barrier, by, given, reason, source, tenant, flow, run_id, path, until, to=to)


def _check_scope(flow: str | None, run_id: str | None, path: str | None) -> None:
    if (flow is None) == (run_id is None):
        raise ArgumentError("flow", flow, "given, or run_id is: a grant is for one flow or for one run")
    for name, value in (("flow", flow), ("run_id", run_id), ("path", path)):
        if not isinstance(value, str | None):
            raise ArgumentError(name, value, "a text or None")


def _check_until(until: object) -> None:
    if not isinstance(until, timedelta) and not (isinstance(until, datetime) and until.tzinfo is not None):
        raise ArgumentError("until", until, "an aware datetime or a timedelta, e.g. timedelta(days=3)")


def given_for_run(
    asked: GrantAsked, run: RunRecord, known: Sequence[BarrierRecord], definition: str | None, *, now: int, grant_id: str
) -> Grant:
    """The grant for one run; ``known`` are the run's barriers of that node.

    Raises RunEndedError, UnknownBarrierError, AmbiguousTicketError, InvalidGrantError.
    """
    if run.status in ENDED:
        raise RunEndedError(run.run_id, run.status)
    node, ticket = node_of(asked.barrier), None
    approvers: list[tuple[str, ...]] = []
    if name_of(asked.barrier) != asked.barrier:
        found = find_ticket(run, asked.barrier, known, definition)
        ticket = asked.barrier
        approvers.append(found.approvers)
    else:
        declared = declared_barriers(definition)
        if node not in declared:
            raise UnknownBarrierError(run.run_id, asked.barrier, tuple(declared))
        _check_early(asked, [declared[node]])
        approvers += [tuple(declared[node].get("approvers") or ()), *(each.approvers for each in known if each.status == "open")]
    _check_giver(asked, approvers)
    return _given(asked, now, grant_id, barrier=node, ticket=ticket, tenant=run.tenant, run_id=run.run_id)


def given_for_flow(asked: GrantAsked, definitions: Iterable[str], *, now: int, grant_id: str) -> Grant:
    """The grant for every run of a flow; ``definitions`` are those of graphs that may be the flow's.

    Raises UnknownFlowError, UnknownBarrierError, InvalidGrantError.
    """
    assert asked.flow is not None  # noqa: S101 - asked for a flow
    versions = [declared_barriers(text) for text in definitions if json.loads(text).get("flow") == asked.flow]
    if not versions:
        raise UnknownFlowError(asked.flow)
    specs = [declared[asked.barrier] for declared in versions if asked.barrier in declared]
    if not specs:
        raise UnknownBarrierError("", asked.barrier, tuple(sorted({name for declared in versions for name in declared})), flow=asked.flow)
    _check_early(asked, specs)
    _check_giver(asked, [tuple(spec.get("approvers") or ()) for spec in specs])
    return _given(asked, now, grant_id, barrier=asked.barrier, tenant=asked.tenant, flow=asked.flow)


def _check_early(asked: GrantAsked, specs: Iterable[Mapping[str, Any]]) -> None:
    if asked.kind == ALLOWANCE and not any(spec.get("early", True) for spec in specs):
        raise InvalidGrantError(asked.barrier, "it takes no decisions that are made before it is asked (early=False)")


def _check_giver(asked: GrantAsked, approvers: Sequence[tuple[str, ...]]) -> None:
    if not names_somebody(asked.by):
        raise InvalidGrantError(asked.barrier, f"by={asked.by!r} names nobody; say whose right it is")
    if not any(may_decide(asked.by, asked.roles, each) for each in approvers):
        listed = ", ".join(sorted({name for each in approvers for name in each}))
        raise InvalidGrantError(
            asked.barrier, f"{asked.by!r} may not decide it, and nobody gives what they have not; approvers are: {listed}"
        )


def _given(asked: GrantAsked, now: int, grant_id: str, **where: Any) -> Grant:
    expires_at = _moment_of(asked.until, now) if asked.until is not None else None
    if expires_at is not None and expires_at <= now:
        raise InvalidGrantError(asked.barrier, "it would be over before it begins; give until= a time to come")
    return Grant(
        id=grant_id, kind=asked.kind, actor=asked.by, roles=asked.roles, reason=asked.reason, source=asked.source, path=asked.path,
        action=asked.action, uses=asked.uses, to=asked.to, expires_at=expires_at, made_at=now, **where,
    )  # fmt: skip


_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def _moment_of(until: datetime | timedelta, now: int) -> int:
    return later(now, until) if isinstance(until, timedelta) else (until - _EPOCH) // MICROSECOND


def revoked(grant: Grant, *, by: str, reason: str, now: int) -> Grant:
    """The grant, taken back; one that was taken back before stays as it was.  Raises InvalidGrantError."""
    if not names_somebody(by):
        raise InvalidGrantError(grant.barrier, f"by={by!r} names nobody; say who revokes it")
    return grant if grant.revoked_at is not None else replace(grant, revoked_at=now, revoked_by=by, revoked_because=reason)


# --- what follows when tickets open ---------------------------------------------------------------------------------
class Use(NamedTuple):
    """One use of an allowance: a decision, and what its ticket is after it."""

    record: DecisionRecord
    status: BarrierStatus


@dataclass(frozen=True, slots=True)
class _Said:
    """What an allowance says; fits `protocol.Decides`."""

    action: str
    by: str
    reason: str
    roles: tuple[str, ...]
    source: str = ALLOWANCE
    edits: None = None
    target: None = None
    seen: None = None
    on_behalf_of: None = None

    @property
    def approves(self) -> bool:
        return self.action == "approve"


def uses_of(
    run: RunRecord, opened: Iterable[BarrierRecord], grants: Sequence[Grant], decisions: Iterable[DecisionRecord], *, now: int,
    new_id: Callable[[], str],
) -> list[Use]:  # fmt: skip
    """The decisions that allowances make on tickets that open just now.

    The oldest allowance first; what people said before counts before any of them.  ``decisions`` are the run's that no
    checkpoint has consumed.  An allowance that may not decide a ticket (its giver is no approver, has voted already, or the
    barrier wants people to look) leaves it alone.
    """
    allowances = sorted(
        (each for each in grants if each.kind == ALLOWANCE and is_live(each, now)), key=lambda each: (each.made_at, each.id)
    )
    if not allowances:
        return []
    said = list(decisions)
    spent: Counter[str] = Counter()
    made: list[Use] = []
    for ticket in opened:
        if ticket.status != "open" or not ticket.early:
            continue
        cast = [vote for vote in said if vote.ticket in (ticket.ticket, name_of(ticket.ticket), ticket.node)]
        said = [vote for vote in said if vote not in cast]  # an early decision is spent on one ticket
        cast = [replace(vote, ticket=ticket.ticket) for vote in cast]
        barrier = ticket
        for grant in allowances:
            is_left = grant.uses is None or grant.used + spent[grant.id] < grant.uses
            if not is_left or not covers(grant, run, ticket=ticket.ticket, node=ticket.node, path=ticket.path):
                continue
            what = _Said(grant.action or "", grant.actor, grant.reason, grant.roles)
            try:
                verdict = judge(run, barrier, cast, what, now=now + len(made), decision_id=new_id())
            except BarrierError:
                continue  # not for this allowance to say
            if not verdict.is_new:
                continue
            record = replace(verdict.record, payload_digest=None, grant=grant.id)
            spent[grant.id] += 1
            cast.append(record)
            made.append(Use(record, verdict.status))
            if verdict.status == "decided":
                break
            barrier = replace(barrier, status=verdict.status)
    return made
