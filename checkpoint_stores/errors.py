"""What can go wrong between a run and its store, told apart by who must act."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from reducers.errors import TrailmarkError, with_article


class ArgumentError(TrailmarkError, ValueError):
    """An argument is of a wrong kind, or out of range.  Nothing happened."""

    def __init__(self, argument: str, given: object, expected: str) -> None:
        self.argument = argument
        self.given = given
        self.expected = expected
        shown = repr(given)
        super().__init__(f"{argument} must be {expected}, not {shown if len(shown) <= 100 else f'{shown[:97]}...'}")


class StoreError(TrailmarkError):
    """The root of every error of a checkpoint store."""


class StoreUnavailableError(StoreError):
    """The database cannot be reached or cannot be written (locked, full, read-only).  The operator must act; nothing was lost."""

    def __init__(self, url: str, reason: str) -> None:
        self.url = url
        self.reason = reason
        super().__init__(f"the checkpoint store {url} cannot be used: {reason}")


class SchemaVersionError(StoreError):
    """The database's schema is older or newer than this trailmark understands, or is not trailmark's at all."""

    def __init__(self, url: str, found: str, expected: str, *, newer: bool, remedy: str = "") -> None:
        self.url = url
        self.found = found
        self.expected = expected
        self.newer = newer
        self.remedy = remedy
        """What to do where no version of trailmark helps; "" where upgrading the schema or trailmark does."""
        then = remedy or ("install a newer trailmark" if newer else "type `trailmark db upgrade`")
        super().__init__(f"the schema of {url} is {found}, this trailmark needs {expected}; {then}")


class RunNotFoundError(StoreError, LookupError):
    """No run has this id."""

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        short = "" if len(run_id) >= SHORTEST_ID else f" (the first or last characters of an id do where they are {SHORTEST_ID} or more)"
        super().__init__(f"no run {run_id!r} in this store{short}; `trailmark runs ls` lists them")


SHORTEST_ID: Final = 8
"""How many characters of a run's id must be given at least."""


class AmbiguousRunError(StoreError, LookupError):
    """What was given is the beginning, or the ending, of several runs' ids."""

    def __init__(self, run_id: str, candidates: tuple[str, ...]) -> None:
        self.run_id = run_id
        self.candidates = candidates
        """Ids that fit; there may be more."""
        endings = ", ".join(f"...{each[-SHORTEST_ID:]}" for each in candidates)
        super().__init__(
            f"several runs fit {run_id!r}: {', '.join(candidates)}; give a whole id, or its last {SHORTEST_ID} characters ({endings})"
        )


class SignalError(StoreError):
    """A signal was not taken."""

    def __init__(self, run_id: str, name: str, reason: str) -> None:
        self.run_id = run_id
        self.name = name
        super().__init__(f"signal {name!r} for run {run_id}: {reason}")


class UnknownSignalError(SignalError):
    """The run's flow waits for no such signal."""

    def __init__(self, run_id: str, name: str, known: Sequence[str]) -> None:
        self.known = tuple(known)
        super().__init__(run_id, name, f"its flow waits for no such signal; it may wait for: {', '.join(known) or 'none'}")


class InvalidSignalError(SignalError):
    """The payload is not what the flow declares."""

    def __init__(self, run_id: str, name: str, reason: str) -> None:
        self.reason = reason
        super().__init__(run_id, name, f"its payload does not fit: {reason}")


class SignalConflictError(SignalError):
    """A signal with this id was sent before, and says something else."""

    def __init__(self, run_id: str, name: str, signal_id: str) -> None:
        self.signal_id = signal_id
        super().__init__(run_id, name, f"a signal with the id {signal_id!r} was sent before and says something else; use another id")


class RunExistsError(StoreError):
    """A run with this run_key (or id) is already there."""

    def __init__(self, run_key: str, run_id: str, *, detail: str = "") -> None:
        self.run_key = run_key
        self.run_id = run_id
        taken = f"run {run_id} exists already" if run_key == run_id else f"run_key {run_key!r} already names run {run_id}"
        super().__init__(taken + (detail or f"; resume that run, or use another {'run_id' if run_key == run_id else 'key'}"))


class RunEndedError(StoreError):
    """The run has ended; nothing more can happen to it."""

    def __init__(self, run_id: str, status: str) -> None:
        self.run_id = run_id
        self.status = status
        super().__init__(f"run {run_id} already ended as {status}; a fork goes on from one of its earlier checkpoints")


class IllegalTransitionError(StoreError):
    """What was asked cannot happen to a run in this status.  Nothing was changed."""

    def __init__(self, status: str, event: str, possible: tuple[str, ...], run_id: str = "") -> None:
        self.status = status
        self.event = event
        self.possible = possible
        """What can happen in this status."""
        self.run_id = run_id
        then = f"what can happen is: {', '.join(possible)}" if possible else "nothing follows it; `trailmark runs fork` makes a new run"
        super().__init__(f"{event!r} cannot happen to {f'run {run_id}' if run_id else 'a run'} in status {status}; {then}")


class RunNotEndedError(StoreError):
    """The run has not ended: what it still needs is not deleted."""

    def __init__(self, run_id: str, status: str) -> None:
        self.run_id = run_id
        self.status = status
        super().__init__(
            f"run {run_id} is {status}, and only runs that have ended are deleted; cancel it first (`trailmark runs cancel {run_id}`)"
        )


class RunFileError(StoreError, ValueError):
    """The file is no run that this store can take.  Nothing was imported."""

    def __init__(self, line: int, reason: str) -> None:
        self.line = line
        """Counted from 1; 0 where it is about a checkpoint."""
        self.reason = reason
        super().__init__(f"the run cannot be imported: {f'line {line}: ' if line else ''}{reason}")


class LeaseHeldError(StoreError):
    """A living process is advancing this run."""

    def __init__(self, run_id: str, owner: str, expires_at: datetime | None, *, message: str = "") -> None:
        self.run_id = run_id
        self.owner = owner
        self.expires_at = expires_at
        until = f" until {expires_at.isoformat()}" if expires_at else ""
        super().__init__(message or f"run {run_id} is being advanced by {owner}{until}; wait, or take it over with takeover=True")


class LeaseLostError(StoreError):
    """This process no longer has the right to advance the run; it wrote nothing."""

    def __init__(self, run_id: str, epoch: int, *, owner: str | None = None, current_epoch: int | None = None) -> None:
        self.run_id = run_id
        self.epoch = epoch
        self.owner = owner
        self.current_epoch = current_epoch
        by = f" to {owner}" if owner else ""
        super().__init__(f"the lease of run {run_id} (epoch {epoch}) was lost{by}; nothing was written")


class RunMovedError(StoreError):
    """Somebody else wrote to the run at the same moment; nothing was written."""

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        super().__init__(f"somebody else wrote to run {run_id} at the same moment, and nothing was changed; look at it again, then repeat")


class CheckpointNotFoundError(StoreError, LookupError):
    """The run has no checkpoint with this number."""

    def __init__(self, run_id: str, seq: int) -> None:
        self.run_id = run_id
        self.seq = seq
        super().__init__(f"run {run_id} has no checkpoint {seq}; `trailmark runs steps {run_id}` lists them")


class CheckpointCorruptError(StoreError):
    """A stored checkpoint cannot be read or breaks the digest chain."""

    def __init__(self, run_id: str, seq: int, reason: str) -> None:
        self.run_id = run_id
        self.seq = seq
        self.reason = reason
        super().__init__(
            f"checkpoint {seq} of run {run_id} is corrupt: {reason}; "
            f"steps before {seq} are still readable (`trailmark runs state {run_id} --at {seq - 1}`)"
        )


class CodecError(StoreError):
    """A value cannot be stored, or stored bytes cannot be read."""


class UnserialisableError(CodecError, TypeError):
    """A value cannot be stored as data.  ``path`` says where it stands, e.g. ``items[3].fh``."""

    def __init__(self, path: str, value: object, *, reason: str = "", remedy: str = "") -> None:
        self.path = path
        self.type_name = type(value).__name__
        self.reason = reason
        where = path if len(path) <= _LONGEST_PATH else f"{path[: _LONGEST_PATH // 2]}...{path[-_LONGEST_PATH // 4 :]}"
        super().__init__(
            f"{where or 'the value'} is {with_article(self.type_name)}, which cannot be stored as data{': ' + reason if reason else ''}; "
            f"{remedy or 'return plain data, or register its class with trailmark.register_type'}"
        )


_LONGEST_PATH: Final = 80
"""Characters of a path in a message; the field holds all of it."""


class DuplicateTypeError(CodecError, ValueError):
    """Two different classes want the same name in the store, or one class two names."""

    def __init__(self, name: str, cls: type, taken_by: str) -> None:
        self.name = name
        self.taken_by = taken_by
        super().__init__(
            f"{cls.__qualname__} cannot be registered as {name!r}: {taken_by}; choose another name with register_type(cls, name=...)"
        )


class BarrierError(StoreError):
    """The root of the errors of deciding a barrier.  The decision was not recorded."""


class UnknownBarrierError(BarrierError, LookupError):
    """The run's flow has no such barrier."""

    def __init__(self, run_id: str, barrier: str, known: tuple[str, ...], *, flow: str = "") -> None:
        self.run_id = run_id
        """Empty where a whole flow was meant."""
        self.flow = flow
        self.barrier = barrier
        self.known = known
        where = f"run {run_id}" if run_id else f"flow {flow!r}"
        super().__init__(f"{where} has no barrier {barrier!r}; its barriers are: {', '.join(known) or 'none'}")


class AmbiguousTicketError(BarrierError):
    """The name fits several open tickets; name one of them."""

    def __init__(self, run_id: str, barrier: str, tickets: tuple[str, ...]) -> None:
        self.run_id = run_id
        self.barrier = barrier
        self.tickets = tickets
        super().__init__(f"barrier {barrier!r} of run {run_id} has several open tickets: {', '.join(tickets)}; name one of them")


class BarrierClosedError(BarrierError):
    """The ticket is decided, withdrawn or past its deadline."""

    def __init__(self, run_id: str, ticket: str, status: str, *, detail: str = "") -> None:
        self.run_id = run_id
        self.ticket = ticket
        self.status = status
        super().__init__(f"ticket {ticket} of run {run_id} is {status}{': ' + detail if detail else ''}; it takes no more decisions")


class DecisionConflictError(BarrierError):
    """Somebody else decided first, and differently."""

    def __init__(self, run_id: str, ticket: str, *, winner: str, winning_action: str, decided_at: datetime | None = None) -> None:
        self.run_id = run_id
        self.ticket = ticket
        self.winner = winner
        self.winning_action = winning_action
        self.decided_at = decided_at
        when = f" at {decided_at.isoformat()}" if decided_at else ""
        super().__init__(
            f"ticket {ticket} of run {run_id} was already decided by {winner} ({winning_action}){when}; your decision was not recorded"
        )


class NotAnApproverError(BarrierError, PermissionError):
    """This person may not decide this barrier."""

    def __init__(self, run_id: str, ticket: str, actor: str, approvers: tuple[str, ...]) -> None:
        self.run_id = run_id
        self.ticket = ticket
        self.actor = actor
        self.approvers = approvers
        super().__init__(f"{actor!r} may not decide ticket {ticket} of run {run_id}; approvers are: {', '.join(approvers)}")


class NotDelegatedError(BarrierError, PermissionError):
    """Nobody of that name has given this person the right to decide, or may not decide themselves."""

    def __init__(self, run_id: str, ticket: str, actor: str, principal: str) -> None:
        self.run_id = run_id
        self.ticket = ticket
        self.actor = actor
        self.principal = principal
        super().__init__(
            f"{actor!r} may not decide ticket {ticket} of run {run_id} on behalf of {principal!r}:"
            f" there is no delegation from one to the other that covers it and is still good"
        )


class StalePayloadError(BarrierError):
    """The person decided over a payload that is not the one the ticket shows now."""

    def __init__(self, run_id: str, ticket: str, seen: str, current: str) -> None:
        self.run_id = run_id
        self.ticket = ticket
        self.seen = seen
        self.current = current
        super().__init__(
            f"ticket {ticket} of run {run_id} now shows payload {current[:12]}, the decision was made over {seen[:12]}; look again"
        )


class InvalidDecisionError(BarrierError, ValueError):
    """The decision does not fit the barrier's form (edits, target, action)."""

    def __init__(self, run_id: str, ticket: str, reason: str) -> None:
        self.run_id = run_id
        self.ticket = ticket
        self.reason = reason
        super().__init__(f"the decision on ticket {ticket} of run {run_id} cannot be accepted: {reason}")


class EffectError(StoreError):
    """The root of the errors of settling a side effect.  Nothing was changed."""


class UnknownEffectError(EffectError, LookupError):
    """The run has no such side effect."""

    def __init__(self, run_id: str, effect: str, known: tuple[str, ...]) -> None:
        self.run_id = run_id
        self.effect = effect
        self.known = known
        super().__init__(f"run {run_id} has no side effect {effect!r}; its side effects are: {', '.join(known) or 'none'}")


class AmbiguousEffectError(EffectError):
    """The name fits several side effects of the run; give the key of one of them."""

    def __init__(self, run_id: str, effect: str, keys: tuple[str, ...]) -> None:
        self.run_id = run_id
        self.effect = effect
        self.keys = keys
        super().__init__(f"{effect!r} is the name of several side effects of run {run_id}; give the key of one: {', '.join(keys)}")


class EffectNotInDoubtError(EffectError):
    """The side effect's outcome is known, or its process is still at it; there is nothing to settle."""

    def __init__(self, run_id: str, effect: str, status: str) -> None:
        self.run_id = run_id
        self.effect = effect
        self.status = status
        why = "is being carried out by a living process; wait for it, or end that process" if status == "started" else f"is {status}"
        super().__init__(f"side effect {effect!r} of run {run_id} {why}; only one in doubt can be settled")


class TransactionError(StoreError):
    """The root of the errors of a step's own transaction (`StepContext.transaction`).  Nothing of it was committed."""


class TransactionUnavailableError(TransactionError):
    """This store keeps no database that a step could write to."""

    def __init__(self, url: str) -> None:
        self.url = url
        super().__init__(
            f"the checkpoint store {url} has no database for a step's own transaction; use SQLCheckpointStore (a SQLite file or PostgreSQL)"
        )


class TransactionOverError(TransactionError):
    """The step's transaction has ended, or is not the node's to end; ``reason`` tells."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


class TransactionTimeoutError(TransactionError, TimeoutError):
    """The step's transaction took longer than it may and was rolled back."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        super().__init__(
            f"the step's transaction took longer than {seconds:g} s and was rolled back; do slow work before its first statement, "
            "or give it a longer limit: ctx.transaction(limit=...)"
        )


class TenantError(StoreError, PermissionError):
    """One tenant's view of a store was asked for something that is not the tenant's."""

    def __init__(self, tenant: str, reason: str) -> None:
        self.tenant = tenant
        self.reason = reason
        super().__init__(f"the view of tenant {tenant!r} was refused something: {reason}")


class GrantError(StoreError):
    """The root of the errors of giving rights in advance.  Nothing was given."""


class InvalidGrantError(GrantError, ValueError):
    """The right cannot be given so: it is not the giver's, it is over, or it says more than may be said unseen."""

    def __init__(self, barrier: str, reason: str) -> None:
        self.barrier = barrier
        self.reason = reason
        super().__init__(f"the grant for barrier {barrier!r} cannot be made: {reason}")


class UnknownFlowError(GrantError, LookupError):
    """No graph of a flow of this name is in the store."""

    def __init__(self, flow: str) -> None:
        self.flow = flow
        super().__init__(
            f"this store knows no flow {flow!r}; its graph is kept with its first run, or by store.put_graph(graph.graph_hash, graph.definition_text)"
        )


class UnknownGrantError(GrantError, LookupError):
    """No grant has this id."""

    def __init__(self, grant_id: str) -> None:
        self.grant_id = grant_id
        super().__init__(f"there is no grant {grant_id!r} in this store; `trailmark approvals allowed` lists them")
