"""What checkpoints tell: the event log is a function of the rows.

    tell(what was told so far, row) -> events

The same function speaks for a run that is going on, for a log read years
later, and in any process.  It reads the ops that every row of its kind has and
skips words it does not know, so that new kinds of nodes are told of too: a row
that enters a node begins a step, a row that leaves it ends the step.

Knows no plan, no store, no loop and no clock.  Values are never read, only
their keys.
"""

from __future__ import annotations

from operator import attrgetter
from typing import Any, Final, NamedTuple

from orjson import dumps

from checkpoint_stores.codec import to_json
from checkpoint_stores.fold import AT, BEGIN_EARLY, DONE, FAILED, OPEN, PARKED, RETRY, WAIT, RunState, Scope
from checkpoint_stores.ops import MOVES, VALUE_OPS, Op
from checkpoint_stores.records import ENDED, Row
from engine.catalog import BACKEND, MODELS, Envelope
from engine.masking import masked
from engine.speech import entries_of


class Told(NamedTuple):
    """One event, before anybody took it."""

    attempt: int
    seq: int
    n: int
    path: str
    kind: str
    fields: dict[str, Any]


def enveloped(run_id: str, told: Told) -> Envelope:
    """The event as whoever takes it gets it."""
    fields = told.fields
    try:
        dumps(fields)
    except TypeError:
        fields = to_json(fields)  # half of a surrogate pair, which no JSON and no stream of bytes can hold
    event = MODELS[told.kind](**fields)
    return Envelope(id=f"{told.attempt}.{told.seq}.{told.n}", run_id=run_id, seq=told.seq, path=told.path, event=event)  # type: ignore[arg-type]


class OpenStep:
    """A step that has begun and is not over."""

    __slots__ = ("asked", "branches", "index", "node", "signal", "ticket")

    def __init__(self, node: str, index: int) -> None:
        self.node = node
        self.index = index
        self.ticket = ""
        """Of a barrier: its open ticket."""
        self.asked: dict[str, Any] = {}
        """Of a barrier: what the ticket says."""
        self.branches: dict[str, bool] = {}
        """Of a parallel step: branches that are over, and whether they succeeded."""
        self.signal: str | None = None
        """What it waits for; "" for a time alone, None where it does not wait."""

    def named(self) -> dict[str, Any]:
        return {"step_name": self.node, "step_index": self.index}


_TASKS: Final = MOVES | BEGIN_EARLY | {"failure"}
"""Kinds of rows that can enter and leave a node at once; every other kind that enters a node names what it is."""
_TYPES: Final = {OPEN: "parallel", PARKED: "barrier", RETRY: "task", AT: "task", WAIT: "wait"}
_BEFORE_ANYTHING: Final = frozenset({"start", "fork", "attempt"})
_SUCCEEDS: Final = frozenset({"step", "join", "decision", "signal", "timer"})
_WAITS: Final = {"timer": "timer", "signal": "wait", "body": "task"}
"""What waits (see the op ``wait``), and the type of its step."""
_NOTHING_SAID: Final[Op] = ["said", 0, [], 0, 0]


class Teller:
    """Turns the rows of one run into events, one row after the other.

    Args:
        flow: the flow's name.
        created_at: when the run was created (microseconds).
        state: the run as of the row before the first one to tell; None for a log from its beginning.
    """

    def __init__(self, flow: str, created_at: int, state: RunState | None = None) -> None:
        self.flow = flow
        self.seq = -1
        """The newest row told."""
        self.attempt = 1
        self.next_n = 0
        """The position after that row's last event."""
        self.open: dict[str, OpenStep] = {}
        """Steps that are open, by branch path, in the order they began."""
        self._created_at = created_at // 1000
        self._step = self._indices = 0
        self._tokens = self._tokens_input = self._tokens_output = 0
        self._events: list[Told] = []
        self._at = 0
        self._held: list[Told] | None = []
        """Events of a run that has not done anything yet: a run that is cancelled before it begins tells nothing."""
        if state is not None:
            self.stand_behind(state)

    # --- the verbs --------------------------------------------------------------------------------------------------
    def tell(self, row: Row, ops: list[Op]) -> list[Told]:
        """The events of the next row."""
        self._events = []
        self._at = row.committed_at // 1000
        self.seq = row.seq
        words: dict[str, Op] = {op[0]: op for op in ops}
        if row.kind == "attempt":
            self._resumed(words["attempt"])
        elif "restore" in words:
            self._forked(words["restore"])
        elif "migrate" in words:
            self._migrated(words["migrate"])
        elif row.kind == "start":
            self._add("flow_start", "", flow_name=self.flow, backend=BACKEND)
        elif row.node:
            self._of_step(row, ops, words)
        status = words["status"][1] if "status" in words else ""
        if status in ENDED:
            self._close(list(self.open))
        self._add("checkpoint_saved", row.path, checkpoint=row.kind, step=row.step, bytes=len(row.payload))
        self._of_run(status, row, words)
        self._step, self.next_n = row.step, len(self._events)
        return self._let_go(row)

    def stand_behind(self, state: RunState) -> None:
        """Go on with the row after ``state``: what was before it is told elsewhere, or was pruned."""
        self.open = {}
        self._stand(state)
        self.seq = state.seq
        self.attempt = state.attempt
        self._tokens, self._tokens_input, self._tokens_output = state.tokens, state.tokens_input, state.tokens_output
        if state.indices:
            self._held = None

    def release(self) -> list[Told]:
        """What was held back because nothing had begun: something begins now."""
        held, self._held = self._held, None
        return held or []

    def ahead(self, path: str, kind: str, fields: dict[str, Any]) -> Told:
        """An event that is told before the checkpoint it will belong to."""
        told = Told(self.attempt, max(self.seq, 0), self.next_n, path, kind, fields)
        self.next_n += 1
        return told

    def waiting(self, timestamp_ms: int) -> list[Told]:
        """The end of a segment: the run is parked until people or time move it."""
        fields = {"reason": "waiting", "detail": "", "waiting_for": self._tickets(), "timestamp_ms": timestamp_ms}
        return [*self.release(), self.ahead("", "suspended", fields)]

    def _tickets(self) -> list[str]:
        return [step.ticket for step in sorted(self.open.values(), key=attrgetter("index")) if step.ticket]

    # --- the run ----------------------------------------------------------------------------------------------------
    def _let_go(self, row: Row) -> list[Told]:
        if self._held is None:
            return self._events
        if row.kind in _BEFORE_ANYTHING:
            self._held += self._events
            return []
        if row.kind == "cancelled" and not row.started_at:
            self._held = None
            return []
        return [*self.release(), *self._events]

    def _add(self, kind: str, path: str, /, **fields: Any) -> None:
        fields.setdefault("timestamp_ms", self._at)
        self._events.append(Told(self.attempt, self.seq, len(self._events), path, kind, fields))

    def _resumed(self, op: Op) -> None:
        self.attempt = op[1]
        if self.attempt > 1:
            self._add(
                "retrying", "", reason="resumed", step_name="", attempt=self.attempt, error="", due_ms=None,
                open_steps=sorted(step.index for step in self.open.values()), last_token_index=self._tokens,
            )  # fmt: skip

    def _forked(self, op: Op) -> None:
        parent = RunState.restored("", op[1], b"")
        self._add("flow_start", "", flow_name=self.flow, backend=BACKEND)
        for scope in self._stand(parent):
            step = self.open[scope.path]
            self._add("step_start", scope.path, **step.named(), step_type=_type_of(scope))
            if step.ticket:
                self._ask(scope.path, step, "")

    def _migrated(self, op: Op) -> None:
        """Open steps go on under the names that the new version has for them."""
        _word, data, details = op
        self.open = {}
        self._stand(RunState.restored("", data, b""))
        steps = [
            {"step_index": step.index, "step_name": step.node, "path": path, "ticket": step.ticket}
            for path, step in sorted(self.open.items(), key=lambda each: each[1].index)
        ]
        self._add("migrated", "", versions=list(details["versions"]), steps=steps, paths=dict(details.get("paths", {})))

    def _stand(self, state: RunState) -> list[Scope]:
        """Take up the steps that are open in a folded state, and return where they are."""
        self._step, self._indices = state.step, state.indices
        found = []
        for scope in state.scopes.values():
            if scope.phase in _TYPES and scope.step_index is not None:
                step = self.open[scope.path] = OpenStep(scope.node, scope.step_index)
                if scope.phase == PARKED:
                    step.ticket, step.asked = scope.detail
                elif scope.phase == WAIT:
                    step.signal = scope.detail[1]
                step.branches = {child.path: child.phase == DONE for child in scope.children if child.phase in (DONE, FAILED)}
                found.append(scope)
        return found

    def _of_run(self, status: str, row: Row, words: dict[str, Op]) -> None:
        said = words["attempt"][2] if "attempt" in words else {}
        if status == "completed":
            self._complete(row, success=True)
        elif status == "cancelled":
            details = said.get("cancelled", {})
            self._add("cancelled", "", by=details.get("actor", ""), reason=details.get("reason", ""))
            self._complete(row, success=False)
        elif status == "failed":
            self._add("flow_error", "", flow_name=self.flow, error=label(words["fail"][1] if "fail" in words else {}))
        elif status in _STOPS:
            self._add("suspended", "", reason=_STOPS[status], detail=said.get(status, ""), waiting_for=self._tickets())

    def _complete(self, row: Row, *, success: bool) -> None:
        self._add(
            "flow_complete", "", flow_name=self.flow, backend=BACKEND, success=success, steps_executed=row.step,
            tokens_input=self._tokens_input, tokens_output=self._tokens_output, latency_ms=max(0, self._at - self._created_at),
        )  # fmt: skip

    # --- a step -----------------------------------------------------------------------------------------------------
    def _of_step(self, row: Row, ops: list[Op], words: dict[str, Op]) -> None:
        step = self.open.get(row.path)
        if step is None and (row.step != self._step or row.kind in BEGIN_EARLY):
            step = self._begin(row, words)
        keys = _keys(ops)
        spoken = ("", 0, 0)
        if step is None:  # a branch ran out of time while a body was in flight, of which no checkpoint tells
            if "close" in words:
                self._close(self._below(row.path))
        else:
            spoken = self._say(row, step, words.get("said", _NOTHING_SAID))
            self._middle(row, step, words, keys)
        if keys:
            self._add("state_changed", row.path, keys=keys)
        if row.kind in MOVES or "fail" in words or "done" in words:
            if step is not None:
                self._end(row.path, step, row.kind in _SUCCEEDS and "fail" not in words, *spoken)
            if "cut" in words:
                self._close(self._below(row.path.rpartition(".")[0]))
            if row.path and ("done" in words or "fail" in words):
                self._branch_over(row.path, words.get("fail"))

    def _begin(self, row: Row, words: dict[str, Op]) -> OpenStep:
        index = words["index"][1] if "index" in words else self._indices
        self._indices = max(self._indices, index + 1)
        step = self.open[row.path] = OpenStep(row.node, index)
        kind = _WAITS[words["wait"][1]] if "wait" in words else "task" if row.kind in _TASKS else row.kind
        self._add("step_start", row.path, **step.named(), step_type=kind, timestamp_ms=row.started_at // 1000 or self._at)
        return step

    def _say(self, row: Row, step: OpenStep, said: Op) -> tuple[str, int, int]:
        """Tell what the body said; its text, and what it counted."""
        text = []
        for entry in entries_of(said, step.node, row.started_at):
            self._add(entry.kind, row.path, **entry.fields)
            if entry.kind == "step_token":
                text.append(entry.fields["content"])
                self._tokens = max(self._tokens, entry.fields["token_index"])
        self._tokens_input += said[3]
        self._tokens_output += said[4]
        return "".join(text), said[3], said[4]

    def _middle(self, row: Row, step: OpenStep, words: dict[str, Op], keys: list[str]) -> None:
        """What happens between the beginning of a step and its end."""
        path = row.path
        if row.kind == "retry":
            _word, failed, due, error = words["retry"]
            self._add(
                "retrying", path, reason="failed", step_name=step.node, attempt=failed + 1, error=label(error), due_ms=due // 1000,
                open_steps=[], last_token_index=self._tokens,
            )  # fmt: skip
        opened = words.get("open") or words.get("each")
        if opened is not None:
            self._add("parallel_started", path, **step.named(), branches=_branches(path, opened))
        if "wait" in words:
            _word, _kind, step.signal, due = words["wait"]
            self._add("waiting", path, **step.named(), signal=step.signal, due_ms=None if due is None else due // 1000)
        elif step.signal is not None:
            has_come = row.kind == "signal" or ("heard" in words and words["heard"][3])
            self._add("woken", path, **step.named(), signal=step.signal if has_come else "")
            step.signal = None
        if "park" in words:
            _word, step.ticket, step.asked = words["park"]
            self._ask(path, step, "")
        elif row.kind == "decision_refused":
            self._ask(path, step, label(words["error"][1]))
        elif step.ticket and "nudge" not in words:
            self._resolve(path, step, words["decision"][2] if "decision" in words else {"action": _undecided(words)})
        if "close" in words:
            self._close(self._below(path))
        if row.kind == "join":
            ended = sorted(step.branches.items(), key=_place)
            self._add(
                "merged", path, **step.named(), branches=[branch for branch, succeeded in ended if succeeded],
                failed=[branch for branch, succeeded in ended if not succeeded], keys=keys,
            )  # fmt: skip
        elif row.kind == "fallback":
            self._add("degraded", path, **step.named(), error=label(words["error"][1] if "error" in words else {}), fallback=row.next)

    def _end(self, path: str, step: OpenStep, success: bool, text: str = "", tokens_input: int = 0, tokens_output: int = 0) -> None:
        self._add(
            "step_complete", path, **step.named(), success=success, full_output=text, tokens_input=tokens_input, tokens_output=tokens_output
        )
        del self.open[path]

    def _branch_over(self, path: str, fail: Op | None) -> None:
        above, _, last = path.rpartition(".")
        self._add(
            "branch_complete", path, step_name=last.partition("[")[0].partition("#")[0], branch=path, success=fail is None,
            error="" if fail is None else label(fail[1]),
        )  # fmt: skip
        if above in self.open:
            self.open[above].branches[path] = fail is None

    def _ask(self, path: str, step: OpenStep, refused: str) -> None:
        deadline = step.asked.get("deadline")
        self._add(
            "barrier_waiting", path, **step.named(), ticket=step.ticket, prompt=step.asked.get("prompt", ""),
            approvers=list(step.asked.get("approvers", ())), quorum=step.asked.get("quorum", 1),
            deadline_ms=None if deadline is None else deadline // 1000, refused=refused,
        )  # fmt: skip

    def _resolve(self, path: str, step: OpenStep, decision: dict[str, Any]) -> None:
        self._add(
            "barrier_resolved", path, **step.named(), ticket=step.ticket, action=decision["action"], by=decision.get("by", ""),
            reason=decision.get("reason", ""),
        )  # fmt: skip
        step.ticket = ""

    def _below(self, path: str) -> list[str]:
        prefix = f"{path}." if path else ""
        return [each for each in self.open if each != path and each.startswith(prefix)]

    def _close(self, paths: list[str]) -> None:
        """End steps that will not come to an end of their own, the one that began last first."""
        for path in sorted(paths, key=lambda each: self.open[each].index, reverse=True):
            step = self.open[path]
            if step.ticket:
                self._resolve(path, step, {"action": "withdrawn"})
            self._end(path, step, success=False)


_STOPS: Final = {"suspended": "suspend", "limit_reached": "limit", "quarantined": "suspend"}


def _place(branch: tuple[str, bool]) -> int:
    """Where a branch stands among its siblings."""
    return int(branch[0].rpartition("[")[2].rstrip("]"))


def _type_of(scope: Scope) -> str:
    """What kind of step a scope is in."""
    if scope.phase == WAIT:
        return _WAITS[scope.detail[0]]
    if scope.phase != OPEN or len(scope.detail) <= 2:
        return _TYPES[scope.phase]
    return "subflow" if scope.detail[2]["over"] is None else "map"


def _undecided(words: dict[str, Op]) -> str:
    """How a ticket closed that nobody decided: its own time was over, or something else ended its branch."""
    error = words.get("fail") or words.get("error")
    return "expired" if error and error[1].get("type") == "BarrierTimeoutError" else "withdrawn"


def _keys(ops: list[Op]) -> list[str]:
    """The state keys a row changed, in order."""
    written = (op[2] if op[0] == "take" else op[1] for op in ops if op[0] == "take" or op[0] in VALUE_OPS)
    return list(dict.fromkeys(map(str, written)))


def _branches(path: str, op: Op) -> list[str]:
    """The paths of the branches (or items) that an ``open`` (or ``each``) op opens."""
    scope = Scope(path, None, "")
    word, node, visit, below, *_ = op
    count = len(below) if word == "open" else below["count"]
    return [scope.child_path(node, visit, index) for index in range(count)]


def label(error: dict[str, Any]) -> str:
    """An error in one line: where, what kind, which words; secrets masked.

    >>> label({"type": "ValueError", "message": "no key sk-0123456789abcdef", "node": "pay", "path": "checks[1]"})
    "node 'pay' in branch checks[1]: ValueError: no key ***"
    """
    where = f"node {error['node']!r}" if error.get("node") else ""
    where += f" in branch {error['path']}" if where and error.get("path") else ""
    what = f"{error.get('type', 'Error')}: {error.get('message', '')}".removesuffix(": ")
    return masked(": ".join(filter(None, (where, what))))
