"""Whether a decision counts: pure rules, one text for all stores.

Records in, a verdict or a typed error out.  Knows no database, no clock, no
loop and no user code: a barrier's row holds everything a decision is checked
against, so any process may decide.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from checkpoint_stores.errors import (
    AmbiguousTicketError,
    ArgumentError,
    BarrierClosedError,
    DecisionConflictError,
    InvalidDecisionError,
    NotAnApproverError,
    NotDelegatedError,
    RunEndedError,
    StalePayloadError,
    UnknownBarrierError,
)
from checkpoint_stores.grants import covers, is_live
from checkpoint_stores.protocol import Decides
from checkpoint_stores.records import ENDED, BarrierRecord, BarrierStatus, DecisionRecord, Grant, RunRecord

ACTIONS: Final = ("approve", "reject", "modify", "reroute", "skip")
EARLY_ACTIONS: Final = ("approve", "reject", "skip")
RESERVED_ACTORS: Final = frozenset({"", "timeout"})
"""``timeout`` is who a declared default is recorded by; no person may sign so."""


class EarlyTicket(NamedTuple):
    """A barrier that the graph declares and the run has not reached."""

    name: str
    """What the person gave; stored as the decision's ticket."""
    approvers: tuple[str, ...] = ()
    quorum: int = 1


class Verdict(NamedTuple):
    """What a store writes for an accepted decision."""

    record: DecisionRecord
    is_new: bool
    """False: this is the stored record of the same decision, and nothing is to be written."""
    status: BarrierStatus = "open"
    """What the barrier is after it."""


def name_of(ticket: str) -> str:
    """The ticket without its visit.

    >>> name_of("checks[1].review#2"), name_of("review")
    ('checks[1].review', 'review')
    """
    head, hash_, visit = ticket.rpartition("#")
    return head if hash_ and _is_number(visit) else ticket


def _is_number(text: str) -> bool:
    """Whether it is written as the number of a visit or of a branch is: ``isdigit`` holds for ``²`` too, and ``int`` takes only so many."""
    return text.isascii() and text.isdigit() and len(text) <= _DIGITS


_DIGITS: Final = 18
"""Of the largest number that a ticket may name; none comes near it."""


def node_of(ticket: str) -> str:
    """The node a ticket or a name is of.

    >>> node_of("checks#2[1].review#2"), node_of("review")
    ('review', 'review')
    """
    return name_of(ticket).rpartition(".")[2]


def tickets_counting_for(ticket: str) -> tuple[str, str]:
    """Under which tickets votes for ``ticket`` may be stored: itself, and its bare name (decided early).

    A bare name that is no ticket yet means the first one.

    >>> tickets_counting_for("review#2"), tickets_counting_for("review")
    (('review#2', 'review'), ('review', 'review#1'))
    """
    name = name_of(ticket)
    return (ticket, name) if name != ticket else (name, f"{name}#1")


def approvals(votes: Iterable[DecisionRecord]) -> list[DecisionRecord]:
    """The approvals that count towards a quorum: of each person one, and of each right, whoever cast it.

    One person may have voted under a ticket and under its bare name, before it opened.
    """
    counted: list[DecisionRecord] = []
    spoken_for: set[str] = set()
    for vote in votes:
        seats = {vote.actor, vote.on_behalf_of or vote.actor}
        if vote.approves and spoken_for.isdisjoint(seats):
            spoken_for |= seats
            counted.append(vote)
    return counted


def waiting_early(decisions: Iterable[DecisionRecord], known: Iterable[BarrierRecord]) -> list[DecisionRecord]:
    """Of a run's decisions those on tickets that have not opened: nothing has consumed them, and nothing does until then.

    ``known`` are the run's barriers, in every status.
    """
    tickets = {record.ticket for record in known}
    asked = {name for record in known if record.status in ("open", "decided") for name in (record.node, name_of(record.ticket))}
    return [each for each in decisions if each.consumed_seq is None and each.ticket not in tickets and each.ticket not in asked]


def check_asked(barrier: object, decision: object) -> None:
    """Raise ArgumentError where what was handed to ``decide`` is no ticket, or no decision."""
    if not isinstance(barrier, str) or not barrier:
        raise ArgumentError("barrier", barrier, "a ticket or a barrier's name, as text")
    if not hasattr(decision, "action") or not hasattr(decision, "by"):
        raise ArgumentError("decision", decision, 'a Decision, e.g. Decision.approve(by="ana")')


A_NAME: Final = "by a name without white space around it, its accented letters composed (Unicode NFC)"


def names_somebody(who: object) -> bool:
    """Whether it can stand for a person: printable, not reserved, and no other spelling of a name that two could be counted for.

    >>> [names_somebody(each) for each in ("ana", "Ana M.", "José", " ana", "Jose\u0301", "timeout", "", 7)]
    [True, True, True, False, False, False, False, False]
    """
    if not isinstance(who, str) or who in RESERVED_ACTORS:
        return False
    return who == who.strip() and who.isprintable() and unicodedata.is_normalized("NFC", who)


def is_known(barrier: str, known: Iterable[BarrierRecord]) -> bool:
    """Whether a ticket or a name means one of the ``known`` barriers, so that nobody need look at the graph's definition."""
    return any(barrier in (record.ticket, record.node, name_of(record.ticket)) for record in known)


def find_ticket(run: RunRecord, barrier: str, known: Sequence[BarrierRecord], definition: str | None) -> BarrierRecord | EarlyTicket:
    """Return what ``barrier``, a ticket or a name, means in this run.

    ``known`` are the run's barriers of that node, in every status; ``definition`` is the graph's, as JSON text.
    A name means the open ticket of that name, else the latest that was open; what never opened may be decided early.

    Raises RunEndedError, AmbiguousTicketError, UnknownBarrierError, BarrierClosedError (the barrier takes no early decisions),
    InvalidDecisionError (a quorum needs to know for which branch a vote is).
    """
    if run.status in ENDED:
        raise RunEndedError(run.run_id, run.status)
    for record in known:
        if record.ticket == barrier:
            return record
    named = [record for record in known if barrier in (record.node, name_of(record.ticket))]
    for statuses in (("open",), ("decided",)):
        fitting = [record for record in named if record.status in statuses]
        if len(fitting) > 1:
            raise AmbiguousTicketError(run.run_id, barrier, tuple(sorted(record.ticket for record in fitting)))
        if fitting:
            return fitting[0]
    if named:
        return max(named, key=lambda record: (record.opened_seq, record.opened_at))
    declared = declared_barriers(definition)
    spec = next((declared[name] for name in (barrier, name_of(barrier), node_of(barrier)) if name in declared), None)
    if spec is None:
        raise UnknownBarrierError(run.run_id, barrier, tuple(declared))
    if barrier != node_of(barrier) and not has_place(definition, barrier):
        # A ticket that can never open: a slip, not a decision made early.
        waiting = tuple(sorted(record.ticket for record in known if record.status == "open"))
        raise UnknownBarrierError(run.run_id, barrier, waiting or tuple(declared))
    if not spec.get("early", True):
        raise BarrierClosedError(run.run_id, barrier, "not open yet", detail="it takes no early decisions")
    quorum = int(spec.get("quorum") or 1)
    if quorum > 1 and not has_place(definition, barrier):
        # Votes under the bare name of a barrier in a branch are counted for no ticket until one takes them all.
        reason = f"it stands in a branch and needs {quorum} approvals; before it opens, say which one you mean, e.g. 'checks[0].{barrier}'"
        raise InvalidDecisionError(run.run_id, barrier, reason)
    return EarlyTicket(barrier, tuple(spec.get("approvers") or ()), quorum)


def has_place(definition: str | None, ticket: str) -> bool:
    """Whether the graph has the branches that a ticket's path names, and the barrier at its end, which may be visited so often.

    >>> graph = '{"nodes": {"checks": {"branches": [{"nodes": {"review": {"kind": "barrier"}}}]}}}'
    >>> has_place(graph, "checks#2[0].review#1"), has_place(graph, "review#1"), has_place(graph, "checks[7].review")
    (True, False, False)
    """
    nodes = (json.loads(definition) if definition else {}).get("nodes")
    if nodes is None:
        return True  # a definition that draws nothing tells nothing
    *branches, barrier = name_of(ticket).split(".")
    for part in branches:
        node, _, index = part.rstrip("]").partition("[")
        inside = (nodes.get(node.partition("#")[0]) or {}).get("branches") or []
        if not _is_number(index) or index != str(int(index)) or not inside:
            return False
        # A map runs the same for every item.
        place = 0 if (nodes.get(node.partition("#")[0]) or {}).get("kind") == "map" else int(index)
        if place >= len(inside):
            return False
        nodes = inside[place].get("nodes") or {}
    declared = nodes.get(barrier) or {}
    return declared.get("kind") == "barrier" and _may_be_visited(ticket, declared.get("max_visits"))


def _may_be_visited(ticket: str, most: int | None) -> bool:
    """Whether a ticket's visit, where it names one, can come: ``ok#0`` and ``ok#07`` never open, nor does a visit beyond the cap."""
    visit = ticket[len(name_of(ticket)) + 1 :]
    return not visit or (visit == str(int(visit)) and 1 <= int(visit) <= (most or int(visit)))


def declared_barriers(definition: str | None) -> Mapping[str, Mapping[str, Any]]:
    """The barriers a graph's definition declares, nested ones too, by name.

    >>> declared_barriers('{"barriers": {"review": {"approvers": ["ana"]}}}')
    {'review': {'approvers': ['ana']}}
    """
    declared = (json.loads(definition) if definition else {}).get("barriers") or {}
    if isinstance(declared, list):
        return {str(name): {} for name in declared}
    return {name: spec if isinstance(spec, dict) else {} for name, spec in declared.items()}


QUORUM_ACTIONS: Final = ("approve", "reject")
"""What a person may say where several have to agree."""


def judge(
    run: RunRecord,
    ticket: BarrierRecord | EarlyTicket,
    votes: Iterable[DecisionRecord],
    decision: Decides,
    *,
    now: int,
    decision_id: str,
    delegations: Iterable[Grant] = (),
) -> Verdict:
    """Return what is to be stored for ``decision``, or raise why it does not count.

    ``votes`` are the stored decisions under `tickets_counting_for` the ticket; ``delegations`` those to whoever decides, oldest
    first: only `needs_delegations` says whether they are asked for.

    Raises BarrierClosedError, DecisionConflictError, NotAnApproverError, NotDelegatedError, StalePayloadError, InvalidDecisionError.
    """
    name = ticket.ticket if isinstance(ticket, BarrierRecord) else ticket.name
    cast = _counting(ticket, name, votes)
    for vote in cast:
        if vote.actor == decision.by and _same(vote, decision):
            return Verdict(vote, is_new=False, status=ticket.status if isinstance(ticket, BarrierRecord) else "open")
    _check_open(run, ticket, name, cast, now)
    for vote in cast:
        if decision.by in (vote.actor, vote.on_behalf_of) or _settles(vote):
            raise _conflict(run, name, vote)
    if len(approvals(cast)) >= ticket.quorum:
        raise _conflict(run, name, cast[-1])
    delegation = _right_of(run, ticket, cast, decision, delegations, now)
    _check_quorum(run, name, ticket.quorum, decision)
    _check_content(run, ticket, name, decision)
    record = DecisionRecord(
        id=decision_id,
        run_id=run.run_id,
        ticket=name,
        action=decision.action,  # type: ignore[arg-type]  # checked above
        actor=decision.by,
        reason=decision.reason,
        source=decision.source,
        roles=tuple(decision.roles),
        edits=dict(decision.edits) if decision.edits is not None else None,
        target=decision.target,
        approves=_approves(decision),
        payload_digest=ticket.digest if isinstance(ticket, BarrierRecord) else None,
        decided_at=now,
        on_behalf_of=delegation.actor if delegation is not None else None,
        grant=delegation.id if delegation is not None else None,
    )
    is_enough = _settles(record) or len(approvals([*cast, record])) >= ticket.quorum
    return Verdict(record, is_new=True, status="decided" if is_enough else "open")


def _counting(ticket: BarrierRecord | EarlyTicket, name: str, votes: Iterable[DecisionRecord]) -> list[DecisionRecord]:
    if isinstance(ticket, BarrierRecord) and ticket.status == "open":
        # What an open ticket has consumed was refused by the run, which opened it again: the vote is to be cast anew.
        votes = [vote for vote in votes if vote.consumed_seq is None]
    exact = not ticket.early if isinstance(ticket, BarrierRecord) else name not in (name_of(name), f"{name_of(name)}#1")
    # An early vote counts once, for the first ticket that consumed it; it says nothing about later visits.
    others = () if exact else tickets_counting_for(name)
    return [vote for vote in votes if vote.ticket == name or (vote.ticket in others and vote.consumed_seq is None)]


def _check_open(run: RunRecord, ticket: BarrierRecord | EarlyTicket, name: str, cast: Sequence[DecisionRecord], now: int) -> None:
    if isinstance(ticket, EarlyTicket):
        return
    if ticket.status in ("decided", "resolved"):
        if cast:
            raise _conflict(run, name, next((vote for vote in cast if _settles(vote)), cast[-1]))
        raise BarrierClosedError(run.run_id, name, ticket.status)
    if ticket.status != "open":
        raise BarrierClosedError(run.run_id, name, ticket.status, detail="the run went on without it")
    if ticket.deadline is not None and ticket.deadline <= now:
        raise BarrierClosedError(run.run_id, name, "expired", detail=f"its deadline was {_moment(ticket.deadline).isoformat()}")


def may_decide(actor: str, roles: Iterable[str], approvers: tuple[str, ...]) -> bool:
    """Whether the barrier's approvers (none: anybody) name this person, or a role they act in.

    >>> may_decide("ana", ["finance"], ("finance", "ben")), may_decide("ana", [], ("ben",)), may_decide("ana", [], ())
    (True, False, True)
    """
    return not approvers or actor in approvers or not set(approvers).isdisjoint(roles)


def needs_delegations(error: BaseException | None, decision: Decides) -> bool:
    """Whether a decision is to be judged again with the delegations to whoever makes it: it was refused for want of a right of their own."""
    return isinstance(error, NotDelegatedError) or (isinstance(error, NotAnApproverError) and decision.on_behalf_of is None)


def _right_of(
    run: RunRecord,
    ticket: BarrierRecord | EarlyTicket,
    cast: Sequence[DecisionRecord],
    decision: Decides,
    delegations: Iterable[Grant],
    now: int,
) -> Grant | None:
    """By whose right the person decides: None is their own, else the delegation."""
    name = ticket.ticket if isinstance(ticket, BarrierRecord) else ticket.name
    person, principal = decision.by, decision.on_behalf_of
    if not names_somebody(person):
        raise InvalidDecisionError(run.run_id, name, f"by={person!r} names nobody; say who decides, {A_NAME}")
    if principal is not None and not names_somebody(principal):
        raise InvalidDecisionError(run.run_id, name, f"on_behalf_of={principal!r} names nobody; say for whom, {A_NAME}")
    if principal == person:
        raise InvalidDecisionError(run.run_id, name, f"{person!r} decides for themselves; leave on_behalf_of out")
    if principal is None and may_decide(person, decision.roles, ticket.approvers):
        return None
    path = ticket.path if isinstance(ticket, BarrierRecord) else name_of(name).rpartition(".")[0]
    # Only what the giver may do by right counts: who has been handed a right cannot hand it on.
    usable = [
        each for each in delegations
        if each.to == person and principal in (None, each.actor) and is_live(each, now)
        and covers(each, run, ticket=name, node=node_of(name), path=path) and may_decide(each.actor, each.roles, ticket.approvers)
    ]  # fmt: skip
    if not usable:
        if principal is not None:
            raise NotDelegatedError(run.run_id, name, person, principal)
        raise NotAnApproverError(run.run_id, name, person, ticket.approvers)
    seats = {each.id: next((vote for vote in cast if each.actor in (vote.actor, vote.on_behalf_of)), None) for each in usable}
    free = next((each for each in usable if seats[each.id] is None), None)
    if free is None:
        raise _conflict(run, name, next(vote for vote in seats.values() if vote is not None))
    return free


def _check_quorum(run: RunRecord, name: str, quorum: int, decision: Decides) -> None:
    # Else one person could do alone what the barrier wants several for.
    if quorum > 1 and decision.action in ACTIONS and decision.action not in QUORUM_ACTIONS:
        raise InvalidDecisionError(run.run_id, name, f"it needs {quorum} approvals, so each person may only {' or '.join(QUORUM_ACTIONS)}")


def _check_content(run: RunRecord, ticket: BarrierRecord | EarlyTicket, name: str, decision: Decides) -> None:
    def refused(reason: str) -> InvalidDecisionError:
        return InvalidDecisionError(run.run_id, name, reason)

    action = decision.action
    if action not in ACTIONS:
        raise refused(f"{action!r} is no action; actions are: {', '.join(ACTIONS)}")
    if decision.edits is not None and action != "modify":
        raise refused(f"{action} carries no edits; use modify")
    if decision.target is not None and action != "reroute":
        raise refused(f"{action} names no target; use reroute")
    if isinstance(ticket, EarlyTicket):
        if action not in EARLY_ACTIONS:
            raise refused(f"the ticket is not open yet; before it opens a decision may only {', '.join(EARLY_ACTIONS)}")
        if decision.seen is not None:
            raise refused("the ticket is not open yet, so nobody can have seen its payload")
        return
    if decision.seen is not None and decision.seen != ticket.digest:
        raise StalePayloadError(run.run_id, name, decision.seen, ticket.digest)
    if action == "reroute" and decision.target not in ticket.targets:
        raise refused(f"{decision.target!r} is no target of it; targets are: {', '.join(ticket.targets) or 'none'}")
    if action == "modify":
        if ticket.form is None:
            raise refused("it has no form, so it takes no edits")
        if decision.edits is None:
            raise refused("modify needs edits")
        problem = misfit(ticket.form, dict(decision.edits), "edits")
        if problem:
            raise refused(problem)


def misfit(form: Mapping[str, Any], value: Any, what: str) -> str:
    """What is wrong with ``value`` by a JSON Schema, in readable words; "" where nothing is."""
    import jsonschema
    import referencing

    try:
        # An empty registry: a form never makes this process fetch a remote schema.
        validator = jsonschema.Draft202012Validator(dict(form), registry=referencing.Registry())
        errors = sorted(validator.iter_errors(value), key=lambda error: [str(part) for part in error.absolute_path])
    except (jsonschema.exceptions.SchemaError, referencing.exceptions.Unresolvable, jsonschema.exceptions.UnknownType, re.error) as error:
        return f"its form is not a usable JSON Schema: {error}"
    except (ValueError, TypeError, OverflowError, RecursionError) as error:  # numbers without end, lists too deep
        return f"the {what} cannot be checked ({type(error).__name__}: {error})"
    return "; ".join(f"{'.'.join(str(part) for part in error.absolute_path) or what}: {error.message}" for error in errors)


def _same(vote: DecisionRecord, decision: Decides) -> bool:
    edits = dict(decision.edits) if decision.edits is not None else None
    said = (decision.action, _approves(decision), edits, decision.target)
    if (vote.action, vote.approves, vote.edits, vote.target) != said:
        return False
    return decision.seen is None or vote.payload_digest is None or decision.seen == vote.payload_digest


def _approves(decision: Decides) -> bool:
    return decision.action == "approve" or (decision.action == "modify" and decision.approves)


def _settles(vote: DecisionRecord) -> bool:
    """Whether the vote decides alone; only plain approvals are counted against the quorum."""
    return vote.action != "approve"


def _conflict(run: RunRecord, name: str, winner: DecisionRecord) -> DecisionConflictError:
    return DecisionConflictError(run.run_id, name, winner=winner.actor, winning_action=winner.action, decided_at=_moment(winner.decided_at))


def _moment(microseconds: int) -> datetime:
    return datetime.fromtimestamp(microseconds / 1_000_000, UTC)
