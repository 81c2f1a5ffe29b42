"""Whether a run may go on with a changed graph: what differs where the run stands, and why that matters to it.

Pure: reads the definition the run was driven by (data), the new graph, and the folded state.  Calls no node, no condition and
no reducer of the author's; only what the run holds is checked against the new state's types.

The rules follow from one sentence: *what lies behind is history, what lies ahead may change, what is under way must stay what
it was.*  Under way are the node each scope stands at, the nodes whose branches or items are open, the tickets people look at,
the counts behind caps, and the values.

- A scope **stands before a node**: the node must be there.  Its options and its function may change (it has committed nothing; it
  is run as the new graph says, with the same idempotency key); its kind may not, for its body may have been running.
- **People are asked** at a barrier: the ticket stays as it was opened, so what a decision is checked against must not change: the form,
  who may decide, and how many.  (Where it may be sent lies ahead: a decision that names a node no edge leads to any more is
  refused, and the ticket opens again.)
- **The run waits** for a time or a signal: what it waits for must not change, nor the function of a body that has waited (it is told again what
  it heard, in that order).
- **Branches are open**: the node that opened them, how it joins them and which they are must stay; within each branch these rules
  apply anew.  Branches that are over are history.
- **Values** that the run holds: their keys must be there, with the same reducer, and they must fit the key's new type.
- **Counts**: no cap may be used up at a stroke that was not.

A kind of waiting that this file does not know is taken strictly: its node must stay as it was.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from checkpoint_stores.codec import materialise
from checkpoint_stores.deciding import node_of
from checkpoint_stores.fold import AT, DONE, FAILED, OPEN, PARKED, RETRY, WAIT, RunState, Scope
from checkpoint_stores.records import DecisionRecord, SignalRecord
from engine.definition import canonical
from engine.graph import FlowGraph
from engine.plan import END, EachPlan, NodePlan, ParallelPlan, Plan
from engine.updates import first_line
from reducers.changes import ABSENT


class Objection(NamedTuple):
    """One reason why a run cannot simply go on with a changed graph."""

    change: str
    """What is otherwise in the new graph."""
    why: str
    """Why that matters to this run."""
    remedy: str
    """What to do."""
    final: bool = False
    """Whether the run has no place in the new graph: no force overcomes it."""

    def __str__(self) -> str:
        return f"{self.change}: {self.why}; {self.remedy}"


FORCE: Final = "mode='force' goes on all the same"

_Definition = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class _Here:
    """One scope, and its flow in both graphs."""

    scope: Scope
    plan: Plan
    before: _Definition
    after: _Definition
    version: str
    """Of the flow that the run was driven by."""

    @property
    def inside(self) -> str:
        return f" in {self.scope.path}" if self.scope.path else ""

    def node(self, graph: _Definition, name: str | None = None) -> _Definition:
        return dict(graph.get("nodes", {}).get(self.scope.node if name is None else name, {}))

    def migration(self, what: str) -> str:
        return f"declare Migration(from_version={self.version!r}, {what})"


def objections(
    old: _Definition | None, graph: FlowGraph, state: RunState, votes: Iterable[DecisionRecord] = (), signals: Iterable[SignalRecord] = ()
) -> tuple[Objection, ...]:
    """Why the run that stands at ``state`` cannot go on with ``graph``; empty where it can.

    ``old`` is the definition it was driven by (None: nobody knows any more), ``votes`` and ``signals`` what it has not read yet.
    """
    plan = graph.plan
    if old is None:
        missing = "the definition of the graph it was driven by is not in the store"
        unknown = Objection(missing, "so nobody can tell what has changed", f"make sure that the flow fits; {FORCE}")
        return (unknown, *(place for place in _found(None, graph.definition, plan, state) if place.final))
    new = graph.definition
    found = [*_found(old, new, plan, state), *_lost_votes(old, new, state, votes), *_lost_signals(old, new, plan, signals)]
    return tuple(dict.fromkeys(found))


def _found(old: _Definition | None, new: _Definition, plan: Plan, state: RunState) -> Iterator[Objection]:
    before, after = canonical(dict(old or {})), canonical(dict(new))
    lost: list[str] = []
    for scope in state.scopes.values():  # parents first
        if scope.path.startswith(tuple(lost)):
            continue
        try:
            here = plan.at(scope.path)
        except (KeyError, IndexError):
            lost.append(f"{scope.path}.")
            yield _no_branch(scope, before)
            continue
        around = _Here(scope, here, _part(before, scope.path), _part(after, scope.path), str(before.get("version", "")))
        told = list(_of_scope(around, before, after))
        if any(objection.final for objection in told):
            lost += [f"{_place(scope)}[", f"{_place(scope)}#"]
        yield from told


def _no_branch(scope: Scope, before: _Definition) -> Objection:
    remedy = f"if its node has another name now, declare Migration(from_version={str(before.get('version', ''))!r}, rename=...); else bring it back"
    return Objection(f"branch {scope.path} removed", "it is open", remedy, final=True)


def _of_scope(here: _Here, before: _Definition, after: _Definition) -> Iterator[Objection]:
    scope = here.scope
    if scope.phase == FAILED:
        return
    yield from _values(here, before, after)
    if scope.phase == DONE:
        return
    node = here.plan.nodes.get(scope.node)
    if node is None:
        yield Objection(
            f"node {scope.node!r}{here.inside} removed", _STANDS.get(scope.phase, "the run stands there").format(ticket=_ticket(scope)),
            f"if it has another name now, {here.migration(f'rename={{{_place(scope)!r}: ...}}')}; else bring it back, or fork the run before it came here",
            final=True,
        )  # fmt: skip
        return
    yield from _RULES.get(scope.phase, _unknown_rule)(here, node)
    yield from _caps(here)


_STANDS: Final = {
    AT: "the run stands before it",
    RETRY: "the run waits there to try it again",
    PARKED: "people are asked there (ticket {ticket})",
    WAIT: "the run waits there",
    OPEN: "what it opened is under way",
}


def _ticket(scope: Scope) -> str:
    return scope.detail[0] if scope.phase == PARKED else ""


def _place(scope: Scope) -> str:
    return f"{scope.path}.{scope.node}" if scope.path else scope.node


# --- the phases of a scope --------------------------------------------------------------------------------------------


def _stands_before(here: _Here, node: NodePlan) -> Iterator[Objection]:
    was = here.node(here.before).get("kind", node.kind)
    if was == "task" != node.kind:
        yield _changed_kind(here, was, node, "its body may have been running, and what it did would be done again", final=False)
    elif here.scope.heard:
        yield from _same_body(here)


def _waits(here: _Here, node: NodePlan) -> Iterator[Objection]:
    kind, event, _due = here.scope.detail
    if node.kind != _WAITING[kind]:
        yield _changed_kind(here, _WAITING[kind], node, _STANDS[WAIT], final=True)
    elif kind == "body":
        yield from _same_body(here)
    elif node.wait is not None and node.wait.event != event:
        yield Objection(
            f"node {node.name!r}{here.inside}: event changed", f"the run waits there for {event!r}",
            f"send that signal first, or let it time out; {FORCE} (it goes on waiting for {event!r})",
        )  # fmt: skip


_WAITING: Final = {"timer": "timer", "signal": "wait", "body": "task"}
"""By what waits (see the op ``wait``): the kind of its node."""


def _same_body(here: _Here) -> Iterator[Objection]:
    was, now = here.node(here.before), here.node(here.after)
    if was and any(was.get(field) != now.get(field) for field in ("callable", "version")):
        yield Objection(
            f"node {here.scope.node!r}{here.inside}: its function changed", "its body waits for signals, and will be told again what it heard, in that order",
            f"let it be over; {FORCE} (which fails the node where it asks in another order)",
        )  # fmt: skip


def _waits_to_retry(here: _Here, node: NodePlan) -> Iterator[Objection]:
    if node.kind != "task":
        yield _changed_kind(here, "task", node, "the run waits there to try it again", final=True)


def _is_parked(here: _Here, node: NodePlan) -> Iterator[Objection]:
    scope, barrier = here.scope, node.barrier
    ticket, details = scope.detail
    if barrier is None:
        yield _changed_kind(here, "barrier", node, _STANDS[PARKED].format(ticket=ticket), final=True)
        return
    was, now = here.node(here.before), here.node(here.after)
    held = {"approvers": _asked_first(details, len(now.get("approvers", ()))), "quorum": details["quorum"]}
    changed = [name for name in ("form", "edit_keys") if was.get(name) != now.get(name)]
    changed += [name for name, value in held.items() if value != now.get(name)]
    for name in changed:
        yield Objection(
            f"node {scope.node!r}{here.inside}: {name} changed", f"ticket {ticket} is open and would be decided by what it was opened with",
            f"let it be decided first; {FORCE} (the ticket stays as it is)",
        )  # fmt: skip


def _asked_first(details: Mapping[str, Any], count: int) -> list[str]:
    """Whom a ticket asked when it was opened, if those were ``count``: escalations have added others since, at the end."""
    reached = details.get("nudges", ())[: details.get("nudged", 0)]
    escalated = {person for _due, who in reached for person in who}
    asked = list(details["approvers"])
    return asked[:count] if escalated.issuperset(asked[count:]) else asked


def _is_open(here: _Here, node: NodePlan) -> Iterator[Objection]:
    scope = here.scope
    was, now = here.node(here.before), here.node(here.after)
    if node.opens is None or isinstance(node.opens, ParallelPlan) != (len(scope.detail) == _BRANCHES):
        yield _changed_kind(here, str(was.get("kind", "node that opens branches")), node, _STANDS[OPEN], final=True)
        return
    if isinstance(node.opens, ParallelPlan):
        yield from _branches(here, node.opens, was, now)
    else:
        yield from _each(here, node, node.opens, was)
    if was:
        for field in sorted({*was, *now} - _MAY_CHANGE):
            if was.get(field) != now.get(field):
                yield Objection(
                    f"node {scope.node!r}{here.inside}: {field} changed", "what it opened is under way and has still to be joined",
                    f"wait until the node is over; {FORCE}",
                )  # fmt: skip


_BRANCHES: Final = 2
"""The length of the detail of a scope whose parallel node is open."""

_MAY_CHANGE: Final = frozenset({"branches", "max_concurrency", "max_visits"})
"""Of an open node: what says nothing about what is under way."""


def _branches(here: _Here, opens: ParallelPlan, was: _Definition, now: _Definition) -> Iterator[Objection]:
    scope = here.scope
    if len(opens.branches) != len(scope.children):
        yield Objection(
            f"node {scope.node!r}{here.inside}: {len(scope.children)} branches became {len(opens.branches)}", "they are under way",
            "deploy this change when the node is over, or fork the run before it came here", final=True,
        )  # fmt: skip
        return
    names = [[branch["name"] for branch in graph.get("branches", ())] for graph in (was, now)]
    if was and names[0] != names[1]:
        yield Objection(
            f"node {scope.node!r}{here.inside}: branches {', '.join(names[0])} became {', '.join(names[1])}",
            "they are under way, and a branch is known by its place", f"wait until the node is over; {FORCE} (by their places)",
        )  # fmt: skip


def _each(here: _Here, node: NodePlan, opens: EachPlan, was: _Definition) -> Iterator[Objection]:
    scope = here.scope
    each = scope.detail[2]
    if (each["over"] is None) != (opens.over is None):
        yield _changed_kind(here, str(was.get("kind", "node")), node, _STANDS[OPEN], final=True)
        return
    if (each["lent"] is None) != (opens.mapped is None):
        gained = "a state of its own" if opens.mapped is not None else "no state of its own any more"
        yield Objection(
            f"node {scope.node!r}{here.inside}: the flow it runs has {gained}", "that flow is under way",
            "deploy this change when the node is over, or fork the run before it came here", final=True,
        )  # fmt: skip
        return
    if not scope.unbegun():
        return
    if each["entry"] not in opens.plan.nodes:
        yield Objection(
            f"node {each['entry']!r} in {scope.node}{here.inside} removed", f"{scope.unbegun()} items have still to begin there",
            f"if it has another name now, wait until every item has begun; else bring it back, or fork the run before it came to {scope.node!r}",
            final=True,
        )  # fmt: skip
        return
    inner = here.node(here.before).get("branches") or [{}]
    was_kind = (inner[0].get("nodes", {}).get(each["entry"]) or {}).get("kind", "task")
    first = opens.plan.nodes[each["entry"]]
    if was_kind == "task" != first.kind:
        why = "bodies of items that have not begun yet may have been running, and what they did would be done again"
        yield Objection(
            f"node {first.name!r} in {scope.node}{here.inside} was a task and is a {first.kind}",
            why,
            f"wait until the node is over; {FORCE}",
        )
    if opens.mapped is not None and opens.mapped.checked:
        given = {*each["lent"], *([each["item"]] if each["item"] is not None else [])}
        wanted = {name for name, spec in opens.plan.schema.keys.items() if spec.required}
        for name in sorted({*(given - set(opens.plan.schema.keys)), *(wanted - given)}):
            yield Objection(
                f"key {name!r} of the flow that {scope.node!r}{here.inside} runs is {'not declared' if name in given else 'required'}",
                f"{scope.unbegun()} items have still to begin, with what they were to be given", f"wait until the node is over; {FORCE}",
            )  # fmt: skip


def _unknown_rule(here: _Here, node: NodePlan) -> Iterator[Objection]:
    was, now = here.node(here.before), here.node(here.after)
    if not was:
        return
    if was.get("kind") != node.kind:
        yield _changed_kind(here, str(was.get("kind")), node, "the run waits there", final=True)
        return
    for field in sorted({*was, *now} - {"max_visits"}):
        if was.get(field) != now.get(field):
            yield Objection(f"node {node.name!r}{here.inside}: {field} changed", "the run waits there", f"let it be over; {FORCE}")


_RULES: Final = {AT: _stands_before, RETRY: _waits_to_retry, WAIT: _waits, PARKED: _is_parked, OPEN: _is_open}


def _changed_kind(here: _Here, was: str, node: NodePlan, why: str, *, final: bool) -> Objection:
    remedy = "give the new node another name and bring the old one back" if final else f"give the new node another name; {FORCE}"
    return Objection(f"node {node.name!r}{here.inside} was a {was} and is a {node.kind}", why, remedy, final)


# --- caps -------------------------------------------------------------------------------------------------------------


def _caps(here: _Here) -> Iterator[Objection]:
    """Caps that the run had not used up and would have used up now, on nodes and edges it can still come to."""
    scope = here.scope
    if not scope.visits and not scope.hops:
        return
    ahead = _ahead(here.after, scope.node)
    entered = ahead | {scope.node} if scope.phase == AT else ahead
    for name, visits in scope.visits.items():
        node = here.plan.nodes.get(name)
        if node is None or name not in entered:
            continue
        if _is_used_up(visits, here.node(here.before, name).get("max_visits"), node.max_visits):
            yield Objection(
                f"node {name!r}{here.inside}: max_visits became {node.max_visits}", f"the run has entered it {visits} time(s) already",
                f"allow more; {FORCE} (the next time takes its fallback)",
            )  # fmt: skip
    before, after = _hops(here.before), _hops(here.after)
    for name, count in scope.hops.items():
        was, now = before.get(name), after.get(name)
        if now is None or was is None or now.get("max_visits") is None or now["from"] not in ahead | {scope.node}:
            continue
        if [was.get(field) for field in _EDGE] != [now.get(field) for field in _EDGE]:
            yield Objection(
                f"edge {name}{here.inside} is another one", f"it is capped, and its {count} traversal(s) would count for the new one",
                f"declare the new edge behind the old one; {FORCE}",
            )  # fmt: skip
        elif _is_used_up(count, was.get("max_visits"), now["max_visits"]):
            yield Objection(
                f"edge {name}{here.inside}: max_visits became {now['max_visits']}", f"the run has taken it {count} time(s) already",
                f"allow more; {FORCE} (the next time takes the fallback)",
            )  # fmt: skip


_EDGE: Final = ("kind", "when", "on")


def _is_used_up(count: int, before: int | None, now: int | None) -> bool:
    return now is not None and count >= now and (before is None or count < before)


def _ahead(flow: _Definition, node: str) -> set[str]:
    """The nodes that a way leads to from ``node``."""
    ways: dict[str, list[str]] = {}
    for edge in flow.get("edges", ()):
        ways.setdefault(edge["from"], []).append(edge["to"])
    found: set[str] = set()
    todo = [node]
    while todo:
        for target in ways.get(todo.pop(), ()):
            if target != END and target not in found:
                found.add(target)
                todo.append(target)
    return found


def _hops(flow: _Definition) -> dict[str, _Definition]:
    """The edges of a flow by the name under which a capped one is counted (see `engine.routing.hop_name`)."""
    named: dict[str, _Definition] = {}
    seen: dict[str, int] = {}
    for edge in flow.get("edges", ()):
        between = f"{edge['from']}->{edge['to']}"
        number = seen[between] = seen.get(between, -1) + 1
        named[f"{between}[{number}]" if number else between] = edge
    return named


# --- values -----------------------------------------------------------------------------------------------------------


def _values(here: _Here, before: _Definition, after: _Definition) -> Iterator[Objection]:
    scope, schema = here.scope, here.plan.schema
    owns = scope.base is None
    kept, versions = _keys(before, scope.path)
    declared, now_versions = _keys(after, scope.path)
    whose = f" of {scope.path}" if scope.path and owns else ""
    for key, reducer in kept.items():
        if not (scope.read(key) is not ABSENT if owns else key in scope.ops):
            continue
        if key not in schema.keys:
            yield Objection(
                f"key {key!r}{whose} removed", "the run holds a value under it, which no node could read any more",
                f"{here.migration('state=...')} that moves or drops it; {FORCE}",
            )  # fmt: skip
        elif declared.get(key, reducer) != reducer or versions.get(reducer) != now_versions.get(reducer):
            yield Objection(
                f"key {key!r}{whose}: the reducer {reducer} became {declared.get(key, reducer)}" + _new_version(reducer, now_versions),
                "the run holds a value that the old one made", f"{here.migration('state=...')} that says what becomes of it; {FORCE}",
            )  # fmt: skip
    for key, spec in schema.keys.items():
        value = scope.read(key) if owns else ABSENT
        if value is not ABSENT:
            problem = _misfit(here.plan, key, value)
            if problem:
                yield Objection(
                    f"key {key!r}{whose}: the run's value does not fit", problem, f"{here.migration('state=...')} that changes it; {FORCE}"
                )
        elif spec.required and key not in kept and scope.read(key) is ABSENT:
            yield Objection(
                f"key {key!r}{whose} added", "it must be given, and the run was started without it",
                f"give it a default, or {here.migration('state=...')} that adds it; {FORCE}",
            )  # fmt: skip


def _new_version(reducer: str, versions: Mapping[str, str]) -> str:
    return f" (version {versions[reducer]})" if reducer in versions else ""


def _misfit(plan: Plan, key: str, value: Any) -> str:
    try:
        plan.schema.validate_update(key, materialise(value))
    except Exception as error:  # noqa: BLE001 - the author's validators may raise anything
        return first_line(error)
    return ""


def _keys(definition: _Definition, path: str) -> tuple[Mapping[str, str], Mapping[str, str]]:
    """The keys that a scope's flow works on and their reducers, and the reducers' versions."""
    keys: Mapping[str, str] = {}
    versions: Mapping[str, str] = {}
    for flow in _parts(definition, path):
        if "keys" in flow:
            keys, versions = flow["keys"], flow.get("reducer_versions", {})
    return keys, versions


def _part(definition: _Definition, path: str) -> _Definition:
    """The flow of the scope at ``path``; empty where there is none."""
    return _parts(definition, path)[-1]


def _parts(definition: _Definition, path: str) -> Sequence[_Definition]:
    parts = [definition]
    for piece in path.split(".") if path else ():
        name, _, index = piece.rstrip("]").partition("[")
        node = parts[-1].get("nodes", {}).get(name.partition("#")[0]) or {}
        inside = node.get("branches") or []
        place = int(index) if node.get("kind") == "parallel" else 0
        parts.append(inside[place] if place < len(inside) else {})
    return parts


# --- decisions nobody has read yet ------------------------------------------------------------------------------------


def _lost_votes(old: _Definition, new: _Definition, state: RunState, votes: Iterable[DecisionRecord]) -> Iterator[Objection]:
    """Decisions made before a barrier opened, of a barrier that is no more."""
    open_now = {scope.detail[0] for scope in state.frontier() if scope.phase == PARKED}
    for vote in votes:
        name = node_of(vote.ticket)
        if vote.ticket not in open_now and name in old.get("barriers", {}) and name not in new.get("barriers", {}):
            yield Objection(
                f"barrier {name!r} removed", f"{vote.actor} has decided it before it opened ({vote.action}), and nothing would come of that",
                f"if it has another name now, declare Migration(from_version={str(old.get('version', ''))!r}, rename={{{name!r}: ...}}); {FORCE}",
            )  # fmt: skip


def _lost_signals(old: _Definition, new: _Definition, plan: Plan, signals: Iterable[SignalRecord]) -> Iterator[Objection]:
    """Signals nobody has read, for events or branches that are no more."""
    for signal in signals:
        path, _dot, event = signal.name.rpartition(".")
        if event in old.get("signals", {}) and event not in new.get("signals", {}):
            gone = f"signal {event!r} removed"
        elif path and not _has_place(plan, path):
            gone = f"branch {path} removed"
        else:
            continue
        yield Objection(
            gone, f"{signal.name!r} was sent and nobody has read it yet", f"let it be read first; {FORCE} (nothing comes of it)"
        )


def _has_place(plan: Plan, path: str) -> bool:
    try:
        plan.at(path)
    except (KeyError, IndexError, ValueError):
        return False
    return True
