"""The closed catalog of events: what a run tells whoever watches it.

Each kind is a model, told apart by ``kind``; all fields are always present; times are Unix milliseconds.
An event travels in an `Envelope`, which says of which run it is, in which
branch it happened, and where in the log it stands.

Knows no run, no store and no loop: plain models, made only when somebody takes
an event (what a run keeps until then are tuples).
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, NamedTuple, TypeAlias, get_args

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer

from engine.errors import BadEventIdError

BACKEND: Final = "trailmark"
"""What ``backend`` says in every flow_start and flow_complete."""


class EventId(NamedTuple):
    """Where an event stands in its run's log.

    >>> str(EventId.parse("1.7.2")), EventId.parse("1.7.2").seq
    ('1.7.2', 7)
    """

    attempt: int
    """Which process's drive of the run told it, from 1."""
    seq: int
    """The checkpoint it belongs to; of an event told ahead of its checkpoint, the newest one before it."""
    n: int
    """Its place among the events of that checkpoint."""

    def __str__(self) -> str:
        return f"{self.attempt}.{self.seq}.{self.n}"

    @classmethod
    def parse(cls, text: str) -> EventId:
        """Read an id.  Raises BadEventIdError."""
        parts = text.split(".") if isinstance(text, str) else []
        if len(parts) != 3 or not all(part.isascii() and part.isdigit() for part in parts):
            raise BadEventIdError(text)
        return cls(*map(int, parts))


class Event(BaseModel):
    """What all events have in common."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    kind: str

    @property
    def is_terminator(self) -> bool:
        """Whether nothing follows in the log of the run: flow_complete or flow_error."""
        return self.kind in TERMINATORS

    @property
    def is_step_scoped(self) -> bool:
        """Whether it is about one step: it has a ``step_name``, and that is not empty."""
        return bool(getattr(self, "step_name", ""))


# --- the run ----------------------------------------------------------------------------------------------------------
class FlowStart(Event):
    """The run began.  Exactly once, first."""

    kind: Literal["flow_start"] = "flow_start"
    flow_name: str
    backend: str
    timestamp_ms: int


class FlowComplete(Event):
    """The run ended: completed (``success``), or cancelled (not ``success``, right after ``cancelled``).  Terminator."""

    kind: Literal["flow_complete"] = "flow_complete"
    flow_name: str
    backend: str
    success: bool
    steps_executed: int
    """Node entries over the life of the run, in branches too."""
    tokens_input: int
    """Of all steps, every attempt included."""
    tokens_output: int
    latency_ms: int
    """From the creation of the run to its end, pauses included."""
    timestamp_ms: int


class FlowError(Event):
    """The run failed.  Terminator."""

    kind: Literal["flow_error"] = "flow_error"
    flow_name: str
    error: str
    """Where it failed and why, secrets masked."""
    timestamp_ms: int


class Suspended(Event):
    """Nobody drives the run any more, and it can go on later.  Ends a segment; no terminator."""

    kind: Literal["suspended"] = "suspended"
    reason: Literal["waiting", "limit", "suspend"]
    detail: str
    """What was said when it was suspended; else empty."""
    waiting_for: list[str]
    """Open tickets."""
    timestamp_ms: int


class Cancelled(Event):
    """Somebody ended the run; flow_complete follows."""

    kind: Literal["cancelled"] = "cancelled"
    by: str
    reason: str
    timestamp_ms: int


class Retrying(Event):
    """A failed step will be tried again, or (``resumed``) a process took the run over."""

    kind: Literal["retrying"] = "retrying"
    reason: Literal["failed", "resumed"]
    step_name: str
    """Empty where it is about the run."""
    attempt: int
    """Of the step (``failed``) or of the run (``resumed``): the number of the one that comes."""
    error: str
    """Why the attempt before it failed; empty for ``resumed``."""
    due_ms: int | None
    """When the next attempt begins; None for ``resumed``."""
    open_steps: list[int]
    """Of ``resumed``: the indices of the steps that are still open.  Forget every other open step: it will begin again."""
    last_token_index: int
    """Of ``resumed``: forget tokens of open steps beyond it."""
    timestamp_ms: int


class MovedStep(BaseModel):
    """A step that is open while its run goes over to another version of its flow, as it is called from then on."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    step_index: int
    """The same as before: by this it is known."""
    step_name: str
    path: str
    ticket: str
    """Of a barrier: its open ticket; empty elsewhere."""


class Migrated(Event):
    """The run went over to another version of its flow: open steps and branches may have new names from here on."""

    kind: Literal["migrated"] = "migrated"
    versions: list[str]
    """Those it went through, the new one last."""
    steps: list[MovedStep]
    """Every open step."""
    paths: dict[str, str]
    """New branch paths of those that are open, by their old ones."""
    timestamp_ms: int


class StateChanged(Event):
    """A checkpoint changed the state (of its branch)."""

    kind: Literal["state_changed"] = "state_changed"
    keys: list[str]
    timestamp_ms: int


class CheckpointSaved(Event):
    """A checkpoint is durable; the envelope's ``seq`` is its number."""

    kind: Literal["checkpoint_saved"] = "checkpoint_saved"
    checkpoint: str
    """Its kind: start, step, parallel, join, barrier, decision ..."""
    step: int
    """Node entries committed so far."""
    bytes: int
    """Of its payload."""
    timestamp_ms: int


# --- a step -----------------------------------------------------------------------------------------------------------
class StepStart(Event):
    """A node was entered.  Once per step."""

    kind: Literal["step_start"] = "step_start"
    step_name: str
    step_index: int
    """From 0, unique in the run, given when the step begins."""
    step_type: str
    """task, parallel, barrier ..."""
    timestamp_ms: int


class StepToken(Event):
    """A piece of what the step says."""

    kind: Literal["step_token"] = "step_token"
    step_name: str
    content: str
    token_index: int
    """From 1, unique in the run, rising within the step."""
    timestamp_ms: int


class StepComplete(Event):
    """The step is over; every step_start has one, also on failure."""

    kind: Literal["step_complete"] = "step_complete"
    step_name: str
    step_index: int
    success: bool
    full_output: str
    """All tokens of the attempt that ended it."""
    tokens_input: int
    """What that attempt counted."""
    tokens_output: int
    """What that attempt counted, or how many tokens it sent."""
    timestamp_ms: int


class ToolCall(Event):
    """The step called a tool."""

    kind: Literal["tool_call"] = "tool_call"
    step_name: str
    tool_name: str
    content: str
    timestamp_ms: int


class Custom(Event):
    """Whatever else a node wanted to tell."""

    kind: Literal["custom"] = "custom"
    step_name: str
    name: str
    data: Any
    """JSON."""
    timestamp_ms: int


class Degraded(Event):
    """The step failed and took its fallback edge."""

    kind: Literal["degraded"] = "degraded"
    step_name: str
    step_index: int
    error: str
    fallback: str
    """The node that comes next; empty at the end of a branch or of the run."""
    timestamp_ms: int


# --- branches ---------------------------------------------------------------------------------------------------------
class ParallelStarted(Event):
    """A parallel step opened its branches."""

    kind: Literal["parallel_started"] = "parallel_started"
    step_name: str
    step_index: int
    branches: list[str]
    """Their branch paths, in declared order."""
    timestamp_ms: int


class BranchComplete(Event):
    """A branch is over; the envelope's ``path`` is the branch."""

    kind: Literal["branch_complete"] = "branch_complete"
    step_name: str
    """The parallel step."""
    branch: str
    success: bool
    error: str
    """Empty where it succeeded."""
    timestamp_ms: int


class Merged(Event):
    """The branches of a parallel step were merged; told only once that is durable."""

    kind: Literal["merged"] = "merged"
    step_name: str
    step_index: int
    branches: list[str]
    """Branch paths that took part, in declared order."""
    failed: list[str]
    """Branch paths that failed (best effort)."""
    keys: list[str]
    timestamp_ms: int


# --- people -----------------------------------------------------------------------------------------------------------
class BarrierWaiting(Event):
    """A ticket is open."""

    kind: Literal["barrier_waiting"] = "barrier_waiting"
    step_name: str
    step_index: int
    ticket: str
    prompt: str
    approvers: list[str]
    """People or roles; empty means anybody."""
    quorum: int
    deadline_ms: int | None
    refused: str
    """Why the decision before it did not count; empty for a ticket that opens."""
    timestamp_ms: int


class BarrierResolved(Event):
    """A ticket is closed."""

    kind: Literal["barrier_resolved"] = "barrier_resolved"
    step_name: str
    step_index: int
    ticket: str
    action: Literal["approve", "reject", "modify", "reroute", "skip", "expired", "withdrawn"]
    """``expired``: nobody decided in time; ``withdrawn``: its branch or run ended without a decision."""
    by: str
    """Who decided; empty where nobody did."""
    reason: str
    timestamp_ms: int


# --- waits ------------------------------------------------------------------------------------------------------------
class Waiting(Event):
    """A step waits for a signal or for a time; not for a person (barrier_waiting) or for its next attempt (retrying)."""

    kind: Literal["waiting"] = "waiting"
    step_name: str
    step_index: int
    signal: str
    """The signal it waits for; empty where it waits for a time alone."""
    due_ms: int | None
    """Until when; None for as long as it takes."""
    timestamp_ms: int


class Woken(Event):
    """What a step waited for has come, or its time is over."""

    kind: Literal["woken"] = "woken"
    step_name: str
    step_index: int
    signal: str
    """The signal that came; empty where the time did."""
    timestamp_ms: int


# --- the consumer -----------------------------------------------------------------------------------------------------
class Dropped(Event):
    """Of this step a slow consumer did not get every token.  Never in the log: there they all are."""

    kind: Literal["dropped"] = "dropped"
    step_name: str
    step_index: int
    tokens: int
    """How many it did not get as they were sent."""
    policy: Literal["drop_oldest", "degrade"]
    timestamp_ms: int


AnyEvent: TypeAlias = (
    FlowStart | StepStart | StepToken | StepComplete | ToolCall | FlowComplete | FlowError
    | ParallelStarted | BranchComplete | Merged | BarrierWaiting | BarrierResolved | StateChanged | CheckpointSaved
    | Waiting | Woken | Degraded | Retrying | Migrated | Suspended | Cancelled | Custom | Dropped
)  # fmt: skip
"""One event of the catalog."""

MODELS: Final[dict[str, type[Event]]] = {model.model_fields["kind"].default: model for model in get_args(AnyEvent)}
"""Every kind and its model."""

KINDS: Final = tuple(MODELS)
TERMINATORS: Final = ("flow_complete", "flow_error")


class Envelope(BaseModel):
    """An event on its way: whose it is, where it happened, where in the log it stands.

    >>> token = StepToken(step_name="write", content="Once", token_index=1, timestamp_ms=0)
    >>> Envelope(id="1.2.1", run_id="r", seq=2, event=token).model_dump_json()
    '{"id":"1.2.1","run_id":"r","seq":2,"event":{"kind":"step_token","step_name":"write","content":"Once","token_index":1,"timestamp_ms":0}}'
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    id: str
    """``attempt.seq.n``: rises from event to event; give it as ``after`` to go on from here."""
    run_id: str
    seq: int
    """The checkpoint it belongs to; of an event told ahead of its checkpoint, the newest one before it."""
    path: str = ""
    """Branch path; left out at the root."""
    event: Annotated[AnyEvent, Field(discriminator="kind")]

    @model_serializer(mode="wrap")
    def _without_empty_path(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        made: dict[str, Any] = handler(self)
        if not self.path:
            made.pop("path", None)
        return made
