"""The errors of flows, nodes and walks, told apart by who must act.

`FlowValidationError`: the flow's author, before anything ran.  `NodeError` and
below: the node's author; they may take a fallback edge.  `RunFailedError`: whoever
asked for the result.  `GraphChangedError`: whoever deployed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from inspect import isawaitable
from typing import TYPE_CHECKING, Any

from checkpoint_stores.errors import LeaseHeldError, RunExistsError
from reducers.errors import TrailmarkError, how_many, with_article

if TYPE_CHECKING:
    from engine.compatibility import Objection
    from engine.contracts import RunCheck
    from engine.result import RunResult


class FlowError(TrailmarkError):
    """The definition of a flow is wrong.  Its author must change it."""


class FlowValidationError(FlowError):
    """The flow cannot run; ``problems`` holds every reason at once."""

    def __init__(self, flow: str, problems: Sequence[str]) -> None:
        self.flow = flow
        self.problems = tuple(problems)
        listed = "\n".join(f"  - {problem}" for problem in self.problems)
        super().__init__(f"flow {flow!r} has {how_many(len(self.problems), 'problem')}:\n{listed}")


class InputError(TrailmarkError, ValueError):
    """The input of a run does not fit the flow's state.  No run was created."""

    def __init__(self, flow: str, problems: Sequence[str]) -> None:
        self.flow = flow
        self.problems = tuple(problems)
        super().__init__(f"the input does not fit flow {flow!r}: {'; '.join(self.problems)}")


class EditError(TrailmarkError, ValueError):
    """An operator's edits do not fit the flow's state.  Nothing was changed, no run was made."""

    def __init__(self, flow: str, problems: Sequence[str]) -> None:
        self.flow = flow
        self.problems = tuple(problems)
        super().__init__(f"the edits do not fit the state of flow {flow!r}: {'; '.join(self.problems)}")


class BadEventIdError(TrailmarkError, ValueError):
    """This is no event id.  Give the ``id`` of an event you were sent, as it was."""

    def __init__(self, given: str) -> None:
        self.given = given
        super().__init__(f"{given!r} is no event id; an id looks like 1.7.2 (attempt, checkpoint, position) and is sent with every event")


class SlowConsumerError(TrailmarkError):
    """A consumer of events that asked to fail rather than to be served late was too slow.  The run goes on."""

    def __init__(self, run_id: str, size: int) -> None:
        self.run_id = run_id
        self.size = size
        super().__init__(
            f"{size} events of run {run_id} were waiting for this consumer and more came; take them faster, give a larger size, "
            "or read on from the last id you got (after=...)"
        )


class RunKeyConflictError(RunExistsError):
    """The key already names a run that was started with another input.  Nothing was changed, no run was made."""

    def __init__(self, run_key: str, run_id: str, status: str, keys: Sequence[str] = ()) -> None:
        self.status = status
        self.keys = tuple(keys)
        """The state keys whose values differ; empty where that is not known."""
        differs = f" ({', '.join(self.keys)} differ{'s' if len(self.keys) == 1 else ''})" if self.keys else ""
        detail = f" ({status}), which was started with another input{differs}; "
        remedy = "use another key, or let this one take its place with if_exists='supersede'"
        super().__init__(run_key, run_id, detail=detail + remedy)


class MissingResourceError(TrailmarkError, ValueError):
    """A flow needs something opened for its runs, and nobody says how.  Nothing was opened, no run was created."""

    def __init__(self, flow: str, names: Sequence[str]) -> None:
        self.flow = flow
        self.names = tuple(names)
        shown = ", ".join(map(repr, names))
        super().__init__(
            f"flow {flow!r} needs {shown}, which nothing opens; give GraphExecutor(..., resources={{{names[0]!r}: open_it}}), or say it in the "
            f"flow: Flow(..., needs={{{names[0]!r}: open_it}})"
        )


class ResourceError(TrailmarkError):
    """What a flow needs could not be opened.  The run stays as it was and can be resumed."""

    def __init__(self, name: str, cause: BaseException) -> None:
        self.name = name
        super().__init__(f"the resource {name!r} could not be opened: {type(cause).__name__}: {cause}")


class UndeclaredResourceError(TrailmarkError, LookupError):
    """A node asks for something that its flow does not declare to need."""

    def __init__(self, name: str, declared: Sequence[str]) -> None:
        self.name = name
        self.declared = tuple(declared)
        super().__init__(f"no resource {name!r} is declared; declared are: {', '.join(declared) or 'none'} (Flow(..., needs=...))")


class ReadOnlyStateError(TrailmarkError, TypeError):
    """A node tried to assign to its state."""

    def __init__(self, key: str) -> None:
        self.key = key
        super().__init__(f"the state is read-only; return {{{key!r}: ...}} from the node instead of assigning to it")


class UnsetKeyError(TrailmarkError, KeyError, AttributeError):
    """A node read a key of its state that holds nothing, or that the state does not declare."""

    def __init__(self, key: str, known: Sequence[str]) -> None:
        self.key = key
        self.known = tuple(known)
        if key in self.known:
            said = f"the state holds nothing under {key!r}: no input, default or node has set it, or it was deleted; give it a default"
        else:
            said = f"the state declares no key {key!r}; declared are: {', '.join(self.known) or 'none'}"
        super().__init__(said)

    __str__ = Exception.__str__


class ExecutorClosedError(TrailmarkError, RuntimeError):
    """The executor was closed; it starts and resumes no run any more.  Nothing happened."""

    def __init__(self) -> None:
        super().__init__("this executor was closed (aclose, or the end of its `async with`); make a new GraphExecutor over the same store")


class RunningLoopError(TrailmarkError, RuntimeError):
    """A call for scripts was made inside a running event loop.  Nothing happened."""

    def __init__(self) -> None:
        super().__init__("an event loop runs here already; use `await executor.execute(...)` instead of execute_sync")


class DrivenHereError(LeaseHeldError):
    """This very process is advancing this run."""

    def __init__(self, run_id: str, owner: str, expires_at: datetime | None = None, *, other: bool = False) -> None:
        if other:
            said = "another executor of this process drives it; wait for its result there, or close that executor"
        else:
            said = f"this executor drives it already; wait for it with `await executor.result({run_id!r})`, or stop it with executor.suspend(...)"
        super().__init__(run_id, owner, expires_at, message=f"run {run_id} cannot be taken up again: {said}")


class NodeError(TrailmarkError):
    """A node did not come to a usable end.  Nothing of this step was merged."""

    def __init__(self, message: str, *, node: str, path: str = "", key: str = "") -> None:
        self.node = node
        self.path = path
        self.key = key
        super().__init__(message)


def place(node: str, path: str) -> str:
    """How an error names where it happened: ``node 'pay'`` or ``node 'pay' in branch checks[1]``."""
    return f"node {node!r}" + (f" in branch {path}" if path else "")


class NodeTimeoutError(NodeError, TimeoutError):
    """The node was still running when its timeout ended."""

    def __init__(self, node: str, path: str, seconds: float) -> None:
        self.seconds = seconds
        super().__init__(f"{place(node, path)} was still running after {seconds:g} s", node=node, path=path)


class NodeCancelledError(NodeError):
    """CancelledError came up in the node although nobody had cancelled the run, the branch or the node: the node cancelled itself."""

    def __init__(self, node: str, path: str) -> None:
        super().__init__(
            f"{place(node, path)} cancelled itself: CancelledError came up in it and nobody had asked for that; "
            "catch it in the node where something that it awaits may be cancelled",
            node=node, path=path,
        )  # fmt: skip


class BranchTimeoutError(NodeError, TimeoutError):
    """A branch of a parallel node was not over when its timeout ended."""

    def __init__(self, node: str, path: str) -> None:
        super().__init__(f"branch {path} was not over in time (it stood at node {node!r})", node=node, path=path)


class FallbackRequested(NodeError):  # noqa: N818 - not a failure of code: the node asked for its fallback
    """The node returned ``Fallback(reason)``."""

    def __init__(self, node: str, path: str, reason: str) -> None:
        self.reason = reason
        super().__init__(f"{place(node, path)} gave up: {reason}", node=node, path=path)


class ReturnTypeError(NodeError, TypeError):
    """The node returned something that is no update."""

    def __init__(self, node: str, path: str, got: object, *, is_state: bool = False) -> None:
        self.got_type = type(got).__name__
        what = with_article(self.got_type)
        if is_state:
            what, remedy = "its whole state", 'return only what changed, e.g. {"key": value}, or None where nothing did'
        elif isawaitable(got):
            remedy = "nothing awaited it: make the node's function async, and await in it"
        elif hasattr(got, "model_dump"):
            remedy = 'return what changed as a mapping, e.g. {"key": value}'
        else:
            remedy = "return a mapping of state keys, None, Update, Goto, Fallback or End"
        super().__init__(f"{place(node, path)} returned {what}; {remedy}", node=node, path=path)


class YieldedAfterResultError(NodeError):
    """A generator node yielded again after its result."""

    def __init__(self, node: str, path: str) -> None:
        super().__init__(
            f"{place(node, path)} yielded something after its result; yield text first, then at most one update", node=node, path=path
        )


class UndeclaredKeyError(NodeError, KeyError):
    """The update names a key that the state does not declare."""

    def __init__(self, node: str, path: str, key: str, known: Sequence[str]) -> None:
        self.known = tuple(known)
        super().__init__(
            f"{place(node, path)} wrote the undeclared key {key!r}; declare it in the state, or write one of: {', '.join(self.known)}",
            node=node,
            path=path,
            key=key,
        )

    __str__ = Exception.__str__


class UpdateTypeError(NodeError, TypeError):
    """The update's value does not fit the key's declared type."""

    def __init__(self, node: str, path: str, key: str, reason: str) -> None:
        self.reason = reason
        super().__init__(f"{place(node, path)} wrote a wrong value to {key!r}: {reason}", node=node, path=path, key=key)


class UndeclaredWriteError(NodeError, KeyError):
    """The update names a key that is not among the node's declared ``writes``."""

    def __init__(self, node: str, path: str, keys: Sequence[str], writes: Sequence[str]) -> None:
        self.keys = tuple(keys)
        self.writes = tuple(writes)
        super().__init__(
            f"{place(node, path)} wrote {', '.join(map(repr, self.keys))}, but declares writes={list(self.writes)}; declare it there, too",
            node=node, path=path, key=self.keys[0],
        )  # fmt: skip

    __str__ = Exception.__str__


class CircuitOpenError(NodeError):
    """A circuit breaker refused the call: the node was not run.  An error of the node like any other: retry and fallback take it."""

    def __init__(self, node: str, path: str, middleware: str, seconds: float) -> None:
        self.middleware = middleware
        self.seconds = seconds
        when = f"it tries again in {seconds:g} s" if seconds else "its trials are under way"
        super().__init__(f"{place(node, path)} was not run: its {middleware} is open; {when}", node=node, path=path)


class BulkheadFullError(NodeError):
    """No place and no room to wait for one: the node was not run.  An error of the node like any other: retry and fallback take it."""

    def __init__(self, node: str, path: str, middleware: str, limit: int, waiting: int) -> None:
        self.middleware = middleware
        self.limit = limit
        self.waiting = waiting
        super().__init__(
            f"{place(node, path)} was not run: all {limit} places of its {middleware} are taken and {waiting} wait for one",
            node=node,
            path=path,
        )


class MiddlewareError(NodeError):
    """A user-written middleware broke its promise: it left the call out, made it twice, or hid its error."""

    def __init__(self, node: str, path: str, middleware: str, reason: str) -> None:
        self.middleware = middleware
        super().__init__(
            f"middleware {middleware!r} around {place(node, path)} {reason}; it must await call() exactly once and let its error out, or raise",
            node=node, path=path,
        )  # fmt: skip


class UnroutedError(NodeError):
    """No edge leads on from the node.  ``evaluated`` holds every condition and its result."""

    def __init__(self, node: str, path: str, evaluated: Sequence[tuple[str, str, bool]]) -> None:
        self.evaluated = tuple(evaluated)
        asked = ", ".join(f"{name} -> {target}: {result}" for name, target, result in self.evaluated) or "none"
        super().__init__(
            f"no edge leads on from {place(node, path)} (conditions evaluated: {asked}); add a normal edge", node=node, path=path
        )


class ConditionError(NodeError):
    """A condition raised instead of answering."""

    def __init__(self, node: str, path: str, edge: str, cause: BaseException) -> None:
        self.edge = edge
        super().__init__(f"condition {edge} of {place(node, path)} raised {type(cause).__name__}: {cause}", node=node, path=path)


class GotoError(NodeError):
    """``Goto`` named a node that no declared edge leads to, or whose condition does not hold."""

    def __init__(self, node: str, path: str, target: str, reason: str) -> None:
        self.target = target
        super().__init__(f"{place(node, path)} cannot go to {target!r}: {reason}", node=node, path=path)


class LoopLimitExceeded(NodeError):  # noqa: N818 - the name is public API
    """A node or edge was to be entered more often than its cap allows."""

    def __init__(self, node: str, path: str, limit: int, *, edge: str = "") -> None:
        self.limit = limit
        self.edge = edge
        times = "once" if limit == 1 else how_many(limit, "time")
        remedy = f"max_visits={limit}; raise it, or add_fallback({node!r}, ...) says where to go then"
        if edge:
            said = f"edge {edge} may be taken {times} and was to be taken again ({remedy})"
        else:
            said = f"{place(node, path)} may be entered {times} and was to be entered again ({remedy})"
        super().__init__(said, node=node, path=path)


class MergeConflictError(NodeError):
    """Several branches wrote one key that has no reducer.  Nothing was merged."""

    def __init__(self, node: str, path: str, key: str, writers: Sequence[str]) -> None:
        self.writers = tuple(writers)
        super().__init__(
            f"branches {', '.join(self.writers)} of {place(node, path)} all wrote {key!r}, which has no reducer; "
            f"declare one: Annotated[..., reducer]",
            node=node, path=path, key=key,
        )  # fmt: skip


class MergeError(NodeError):
    """A reducer refused what a node or branch wrote.  Nothing was merged."""

    def __init__(self, node: str, path: str, key: str, writer: str, cause: BaseException) -> None:
        self.writer = writer
        by = f" (written by branch {writer})" if writer else ""
        super().__init__(f"{place(node, path)}: merging {key!r}{by} failed: {cause}", node=node, path=path, key=key)


class UpdateNotStorableError(NodeError, TypeError):
    """The node returned a value that cannot be stored as data; ``value_path`` says where it stands."""

    def __init__(self, node: str, path: str, value_path: str, cause: BaseException) -> None:
        self.value_path = value_path
        super().__init__(f"{place(node, path)} returned something that cannot be stored: {cause}", node=node, path=path)


class BranchError(NodeError):
    """A branch of a parallel node, an item of a map or the flow of a subflow node failed."""

    def __init__(self, node: str, path: str, branch: str, error: dict[str, Any], *, what: str = "") -> None:
        self.branch = branch
        self.error = error
        said = f"{what or f'branch {branch!r}'} of {place(node, path)} failed: {error.get('type')}: {error.get('message')}"
        super().__init__(said, node=node, path=path)


class NoItemsError(NodeError):
    """The key a map node goes over holds no list."""

    def __init__(self, node: str, path: str, key: str, held: str) -> None:
        self.key = key
        super().__init__(
            f"{place(node, path)} goes over {key!r}, which holds {held}; give it a list (or a tuple) before this node",
            node=node, path=path,
        )  # fmt: skip


class TimerError(NodeError):
    """The state key a timer node reads holds neither how long nor until when."""

    def __init__(self, node: str, path: str, key: str, held: str) -> None:
        self.key = key
        super().__init__(
            f"{place(node, path)} waits as {key!r} says, which holds {held}; give it a timedelta or an aware datetime",
            node=node, path=path,
        )  # fmt: skip


class WaitTimeoutError(NodeError, TimeoutError):
    """The signal a node waits for did not come in time."""

    def __init__(self, node: str, path: str, event: str) -> None:
        self.event = event
        super().__init__(f"{place(node, path)} waited for the signal {event!r}, which did not come in time", node=node, path=path)


class SignalTypeError(NodeError):
    """A signal's payload is not what the flow declares."""

    def __init__(self, node: str, path: str, event: str, reason: str) -> None:
        self.event = event
        super().__init__(f"the signal {event!r} that {place(node, path)} waited for does not fit: {reason}", node=node, path=path)


class UndeclaredSignalError(NodeError):
    """A node's body waits for a signal that its flow does not declare."""

    def __init__(self, node: str, path: str, event: str, known: Sequence[str]) -> None:
        self.event = event
        super().__init__(
            f"{place(node, path)} waits for the signal {event!r}, which the flow does not declare: flow.add_signal({event!r}, its type); "
            f"declared are: {', '.join(known) or 'none'}",
            node=node, path=path,
        )  # fmt: skip


class WaitOrderError(NodeError):
    """A node's body that runs again waits for other signals than it did before."""

    def __init__(self, node: str, path: str, event: str, before: str) -> None:
        self.event = event
        super().__init__(
            f"{place(node, path)} waits for {event!r} where it waited for {before!r} before; a body that waits runs again from its beginning, "
            "so it must ask for the same signals in the same order",
            node=node, path=path,
        )  # fmt: skip


class BreakError(NodeError):
    """A node returned Break where there is no map to end."""

    def __init__(self, node: str, path: str) -> None:
        super().__init__(
            f"{place(node, path)} returned Break, but does not stand in the flow of a map's item; return End to end this flow, or Break in "
            "a node of the item's flow itself (not in a branch or a subflow of it)",
            node=node, path=path,
        )  # fmt: skip


class ForkedWaitError(NodeError):
    """A part of a step's work wants to wait for a signal, which only the body as a whole can."""

    def __init__(self, node: str, path: str, part: str, event: str) -> None:
        self.part = part
        self.event = event
        super().__init__(
            f"part {part!r} of {place(node, path)} waits for {event!r}; a body that waits runs again from its beginning, so call "
            "ctx.wait_for in the body itself, before it forks",
            node=node, path=path,
        )  # fmt: skip


class ChildInputError(NodeError):
    """What a map or subflow node gives its flow does not fit the state of that flow."""

    def __init__(self, node: str, path: str, flow: str, problems: Sequence[str]) -> None:
        self.flow = flow
        self.problems = tuple(problems)
        super().__init__(f"what flow {flow!r} is given in {path} does not fit its state: {'; '.join(self.problems)}", node=node, path=path)


class EffectInDoubtError(NodeError):
    """A side effect (`StepContext.once`) was started and nobody knows whether it happened.  It is not carried out again by itself.

    Where no fallback edge names this error the run is suspended: settle the effect, then resume the run.
    """

    def __init__(self, node: str, path: str, run_id: str, effect: str, effect_key: str, reason: str = "") -> None:
        self.run_id = run_id
        self.effect = effect
        self.effect_key = effect_key
        self.reason = reason
        super().__init__(
            f"side effect {effect!r} of {place(node, path)} was started and nobody knows whether it happened{f' ({reason})' if reason else ''}; "
            f"find out, then type `trailmark runs resolve-effect {run_id} {effect_key[:12]} --done JSON` (or --not-done) and resume the run",
            node=node, path=path,
        )  # fmt: skip


class RejectedError(NodeError):
    """A barrier was rejected and no edge says what then."""

    def __init__(self, node: str, path: str, by: str, reason: str) -> None:
        self.by = by
        self.reason = reason
        super().__init__(
            f"{place(node, path)} was rejected by {by}{': ' + reason if reason else ''}; add an edge with when=rejected, or on_reject='continue'",
            node=node, path=path,
        )  # fmt: skip


class BarrierTimeoutError(NodeError, TimeoutError):
    """Nobody decided before the barrier's deadline, and its on_timeout is ``fail``."""

    def __init__(self, node: str, path: str) -> None:
        super().__init__(f"nobody decided {place(node, path)} before its deadline", node=node, path=path)


class CapabilityDenied(NodeError, PermissionError):  # noqa: N818 - the name is public API
    """The node asked for a capability that its run does not hold.  Nothing happened."""

    def __init__(self, node: str, path: str, resource: str, required: str, held: Iterable[str]) -> None:
        self.resource = resource
        self.required = required
        self.held = frozenset(held)
        super().__init__(
            f"{place(node, path)} needs the capability {required!r}{f' for {resource}' if resource != required else ''}; the run holds "
            f"{', '.join(sorted(self.held)) or 'none'}; give it with capabilities= when it is started or resumed",
            node=node, path=path,
        )  # fmt: skip


class NoStepError(TrailmarkError, LookupError):
    """`current_step` was called where no node runs."""

    def __init__(self) -> None:
        super().__init__("no node runs here; current_step() is for code that a node calls")


class StaleContextError(TrailmarkError):
    """This attempt of the node is over (timed out, cancelled or superseded); it can do nothing any more."""

    def __init__(self, node: str, reason: str) -> None:
        self.node = node
        self.reason = reason
        super().__init__(f"this attempt of node {node!r} is over ({reason}); its result will not be used")


class WrongThreadError(TrailmarkError, RuntimeError):
    """What is for async nodes was called in a plain node's thread, or the other way round.  The message names the right one."""


class FinalStateError(TrailmarkError, ValueError):
    """The state a run ended with breaks the state model's own rules."""

    def __init__(self, flow: str, reason: str) -> None:
        self.flow = flow
        self.reason = reason
        super().__init__(f"the final state of flow {flow!r} is not valid: {reason}")


class GraphChangedError(TrailmarkError):
    """The run cannot go on with this graph: it was driven by another one.

    ``difference`` holds all that differs, in readable lines; ``objections`` what of it matters to this run, and why.
    Nothing was changed.
    """

    def __init__(
        self, run_id: str, stored_hash: str, graph_hash: str, difference: Sequence[str], objections: Sequence[Objection] = ()
    ) -> None:
        self.run_id = run_id
        self.stored_hash = stored_hash
        self.graph_hash = graph_hash
        self.difference = tuple(difference)
        self.objections = tuple(objections)
        graphs = f"run {run_id} was driven by graph {stored_hash[:12]}, this flow is {graph_hash[:12]}"
        if self.objections:
            listed = "\n".join(f"  {objection}" for objection in self.objections)
            super().__init__(f"{graphs}, and the run cannot go on with it as it stands:\n{listed}")
        else:
            listed = "\n".join(f"  {line}" for line in self.difference)
            super().__init__(
                f"{graphs}, and mode='strict' refuses any difference:\n{listed}\ndeploy the old flow, or resume in another mode"
            )

    @property
    def has_place(self) -> bool:
        """Whether ``mode="force"`` would go on all the same."""
        return not any(objection.final for objection in self.objections)


class MigrationError(TrailmarkError):
    """A declared migration cannot be applied to this run.  Nothing was changed."""

    def __init__(self, run_id: str, from_version: str, to_version: str, reason: str) -> None:
        self.run_id = run_id
        self.from_version = from_version
        self.to_version = to_version
        self.reason = reason
        super().__init__(f"run {run_id} cannot be migrated from version {from_version!r} to {to_version!r}: {reason}")


class ContractError(TrailmarkError):
    """The run was about to complete, but its checkpoints break a contract (``strict=True``).  It is quarantined; ``check`` holds what was found."""

    def __init__(self, check: RunCheck) -> None:
        self.run_id = check.run_id
        self.check = check
        listed = "\n".join(f"  checkpoint {problem.seq}: {problem.reason}" for problem in check.problems)
        super().__init__(
            f"run {check.run_id} was not completed, because its checkpoints break a contract:\n{listed}\n"
            f"it is quarantined; `trailmark runs check {check.run_id}` and `trailmark db verify {check.run_id}` tell more, a resume tries again"
        )


class WrongFlowError(TrailmarkError):
    """The run belongs to another flow than the executor's."""

    def __init__(self, run_id: str, flow: str, expected: str) -> None:
        self.run_id = run_id
        self.flow = flow
        self.expected = expected
        super().__init__(f"run {run_id} is of flow {flow!r}, this executor drives {expected!r}; resume it with an executor of {flow!r}")


class ForkError(TrailmarkError):
    """A fork at this checkpoint would be a run that has already ended."""

    def __init__(self, run_id: str, seq: int, status: str) -> None:
        self.run_id = run_id
        self.seq = seq
        self.status = status
        super().__init__(
            f"run {run_id} has {status} at checkpoint {seq}; fork at an earlier one (`trailmark runs steps {run_id}` lists them)"
        )


class RunFailedError(TrailmarkError):
    """The run failed.  ``result`` holds its state and status; the cause is chained where this process saw it."""

    def __init__(self, result: RunResult) -> None:
        self.result = result
        error = result.error or {}
        node, message = str(error.get("node", "")), str(error.get("message"))
        where = f" at node {node!r}" if node and repr(node) not in message else ""
        super().__init__(f"run {result.run_id} failed{where}: {error.get('type')}: {message}")
