"""Whether a stream of events keeps its promises.

`StreamChecker` is a state machine that reads envelopes, one after the other, of
any run, live or from the log.  It knows nothing of the flow.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, TypeAlias

from engine.catalog import BranchComplete, Envelope, EventId, Migrated, ParallelStarted, Retrying, StepComplete, StepStart, StepToken
from reducers.errors import TrailmarkError

Mode: TypeAlias = Literal["run", "segment"]


class StreamViolationError(TrailmarkError, AssertionError):
    """A stream of events broke a promise.  Whoever made the stream is to blame, not whoever reads it."""

    def __init__(self, problem: str, envelope: Envelope | None) -> None:
        self.problem = problem
        self.envelope = envelope
        super().__init__(problem if envelope is None else f"{problem}, at {envelope.model_dump_json()}")


class _Step:
    __slots__ = ("highest", "index", "name", "tokens")

    def __init__(self, name: str, index: int) -> None:
        self.name = name
        self.index = index
        self.highest = 0
        self.tokens: set[int] = set()


class StreamChecker:
    """Reads a stream and objects to the first thing that cannot be.

    - One flow_start, first; exactly one terminator (flow_complete or flow_error), last; or nothing at all (a run that was
      cancelled before it began).
    - Every step_start is closed by its step_complete; a step index names one step; what a step says comes in between.
    - Token indices are unique, and rise within a step.
    - Ids rise; all are of one run.
    - Branches end once, tickets are resolved once, each after it was opened.

    ``mode="run"`` is for a whole log.  ``mode="segment"`` is for one attachment, or for what follows an id: it may begin in the
    middle, where steps are open already, and it may end with ``suspended``, where steps stay open.

    >>> from trailmark.events import Envelope, FlowStart
    >>> first = Envelope(id="1.1.0", run_id="r", seq=1, event=FlowStart(flow_name="f", backend="trailmark", timestamp_ms=0))
    >>> StreamChecker.check([first])
    Traceback (most recent call last):
        ...
    trailmark.testing.streams.StreamViolationError: the stream ended without a terminator
    """

    def __init__(self, mode: Mode = "run") -> None:
        self.mode: Mode = mode
        self.seen = 0
        """How many events were read."""
        self._last: Envelope | None = None
        self._began = False
        self._open: dict[str, _Step] = {}
        self._indices: set[int] = set()
        self._tokens: set[int] = set()
        self._branches: dict[str, set[str]] = {}
        self._tickets: set[str] = set()

    @classmethod
    def check(cls, envelopes: Iterable[Envelope], mode: Mode = "run") -> list[Envelope]:
        """Read a whole stream and return it.  Raises StreamViolationError."""
        checker = cls(mode)
        read = [checker.see(envelope) for envelope in envelopes]
        checker.end()
        return read

    def see(self, envelope: Envelope) -> Envelope:
        """Read the next event and return it.  Raises StreamViolationError."""
        event = envelope.event
        self._order(envelope)
        if event.kind == "flow_start":
            self._require(self.seen == 0, "flow_start is not the first event", envelope)
            self._began = True
        elif self.seen == 0:
            self._require(self.mode == "segment", "the first event is no flow_start", envelope)
        self.seen += 1
        self._last = envelope
        if isinstance(event, Retrying):
            if event.reason == "resumed":
                self._resumed(event)
        elif isinstance(event, Migrated):
            self._migrated(envelope, event)
        elif isinstance(event, ParallelStarted):
            self._inside(envelope)
            self._branches[envelope.path] = set(event.branches)
        elif isinstance(event, BranchComplete):
            self._branch_over(envelope, event)
        elif event.kind in ("barrier_waiting", "barrier_resolved"):
            self._ticket(envelope)
        elif isinstance(event, StepStart):
            self._begin(envelope, event)
        elif isinstance(event, StepComplete):
            self._complete(envelope, event)
        elif event.is_step_scoped:
            self._inside(envelope)
        elif event.is_terminator:
            self._require(not self._open, f"the terminator comes while steps are open: {self._still_open()}", envelope)
        return envelope

    def end(self) -> None:
        """The stream is over.  Raises StreamViolationError."""
        last = None if self._last is None else self._last.event
        if last is None or last.is_terminator or (self.mode == "segment" and last.kind == "suspended"):
            return
        self._require(False, "the stream ended without a terminator", None)

    # --- one promise each -------------------------------------------------------------------------------------------
    def _require(self, kept: bool, problem: str, envelope: Envelope | None) -> None:
        if not kept:
            raise StreamViolationError(problem, envelope)

    def _order(self, envelope: Envelope) -> None:
        last = self._last
        if last is None:
            return
        self._require(envelope.run_id == last.run_id, f"the event is of another run than the one before it ({last.run_id})", envelope)
        self._require(not last.event.is_terminator, "an event follows the terminator", envelope)
        self._require(_place(envelope) > _place(last), f"the id does not rise (the one before it was {last.id})", envelope)

    def _begin(self, envelope: Envelope, event: StepStart) -> None:
        self._require(envelope.path not in self._open, f"a step is open there already: {self._still_open()}", envelope)
        self._require(event.step_index not in self._indices, "the step index was given before", envelope)
        self._indices.add(event.step_index)
        self._open[envelope.path] = _Step(event.step_name, event.step_index)

    def _inside(self, envelope: Envelope) -> None:
        step = self._open.get(envelope.path)
        if step is None:
            self._require(self._began_before, "no step is open there", envelope)
            return
        event = envelope.event
        self._require(step.name == getattr(event, "step_name", ""), f"the step that is open there is {step.name!r}", envelope)
        if isinstance(event, StepToken):
            self._require(event.token_index >= 1, "token indices count from 1", envelope)
            self._require(event.token_index not in self._tokens, "the token index was given before", envelope)
            self._require(event.token_index > step.highest, f"the token index does not rise (it was {step.highest})", envelope)
            step.highest = event.token_index
            step.tokens.add(event.token_index)
            self._tokens.add(event.token_index)

    def _complete(self, envelope: Envelope, event: StepComplete) -> None:
        self._inside(envelope)
        step = self._open.pop(envelope.path, None)
        if step is None:
            self._require(event.step_index not in self._indices, "the step was closed before", envelope)
            self._indices.add(event.step_index)
        else:
            self._require(step.index == event.step_index, f"the step that is open there has the index {step.index}", envelope)

    def _branch_over(self, envelope: Envelope, event: BranchComplete) -> None:
        above = event.branch.rpartition(".")[0]
        self._require(envelope.path == event.branch, "the path is not the branch", envelope)
        self._require(event.branch not in self._open, f"the branch ends while a step is open there: {self._still_open()}", envelope)
        waiting = self._branches.get(above)
        if waiting is None:
            self._require(self._began_before, "no parallel step opened this branch", envelope)
        else:
            self._require(event.branch in waiting or self._began_before, "the branch is not open", envelope)
            waiting.discard(event.branch)

    def _ticket(self, envelope: Envelope) -> None:
        self._inside(envelope)
        ticket: str = envelope.event.ticket  # type: ignore[union-attr]
        if envelope.event.kind == "barrier_waiting":
            self._tickets.add(ticket)
        else:
            self._require(ticket in self._tickets or self._began_before, "the ticket is not open", envelope)
            self._tickets.discard(ticket)

    def _migrated(self, envelope: Envelope, event: Migrated) -> None:
        """Open steps are called by other names, and are the same steps."""
        told = {step.index: step for step in self._open.values()}
        known = {moved.step_index for moved in event.steps}
        self._require(self._began_before or known == set(told), f"it does not name the steps that are open: {self._still_open()}", envelope)
        self._open = {}
        for moved in event.steps:
            step = self._open[moved.path] = told.get(moved.step_index) or _Step(moved.step_name, moved.step_index)
            step.name = moved.step_name
            self._indices.add(moved.step_index)
        self._tickets = {moved.ticket for moved in event.steps if moved.ticket}
        self._branches = {
            event.paths.get(above, above): {event.paths.get(path, path) for path in branches} for above, branches in self._branches.items()
        }

    def _resumed(self, event: Retrying) -> None:
        """What was told ahead of its checkpoint may be told again: it was lost with the process."""
        for path, step in list(self._open.items()):
            if step.index not in event.open_steps:
                del self._open[path]
                self._indices.discard(step.index)
                self._tokens -= step.tokens
            else:
                lost = {index for index in step.tokens if index > event.last_token_index}
                self._tokens -= lost
                step.highest = max(step.tokens - lost, default=0)

    @property
    def _began_before(self) -> bool:
        """Whether steps may be open that this stream has not told of."""
        return self.mode == "segment" and not self._began

    def _still_open(self) -> str:
        return ", ".join(f"{path} {step.name}".strip() + f" ({step.index})" for path, step in self._open.items())


def _place(envelope: Envelope) -> tuple[int, int]:
    event_id = EventId.parse(envelope.id)
    return event_id.seq, event_id.n
