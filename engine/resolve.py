"""From a declaration to scopes: who is meant by each name, what each branch is, in which order edges are asked.

Judges only what cannot be resolved; everything else is `engine.validate`'s.  Knows no networkx.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any, NamedTuple

from engine.callables import name_of
from engine.declared import Branch, Declaration, Edge, Map, Node, Opening, Parallel, Task
from engine.flow import Flow
from engine.plan import END, ITEM, RESULT
from engine.schema import StateSchema


class BranchScope(NamedTuple):
    """One branch of a parallel node, or what a map or subflow node runs, resolved."""

    name: str
    scope: Scope
    timeout: timedelta | None = None


class Ways(NamedTuple):
    """The edges that leave one node, in the order they are asked."""

    conditional: tuple[Edge, ...] = ()
    normal: tuple[Edge, ...] = ()
    """At most one, where the flow is valid."""
    fallbacks: tuple[Edge, ...] = ()

    def all(self) -> tuple[Edge, ...]:
        return (*self.conditional, *self.normal, *self.fallbacks)


class Scope(NamedTuple):
    """A flow or a branch with all names resolved."""

    declaration: Declaration
    place: str
    """How problems name it: "" for the flow itself, ``branch 'a' of node 'checks': `` for a branch."""
    schema: StateSchema | None
    """None where the state's declaration is itself a problem."""
    nodes: dict[str, Node]
    ways: dict[str, Ways]
    branches: dict[str, tuple[BranchScope, ...]]

    def all(self) -> tuple[Scope, ...]:
        """This scope and every scope within it, outermost first."""
        return (self, *(inner for branches in self.branches.values() for branch in branches for inner in branch.scope.all()))


def resolve(
    declaration: Declaration,
    problems: list[str],
    *,
    place: str = "",
    parent: StateSchema | None = None,
    within: tuple[object, ...] = (),
) -> Scope:
    """Return the scope of ``declaration``; what cannot be resolved is added to ``problems`` and left out.

    ``within`` holds the flows and parallel nodes around it, none of which may stand in it again.
    """
    problems += [place + mistake for mistake in declaration.mistakes]
    schema = _schema_of(declaration, place, parent, problems)
    adopted = _only_branches(declaration)
    nodes: dict[str, Node] = {}
    for node in declaration.nodes:
        if node.name not in adopted:
            nodes.setdefault(node.name, node)
    branches = {
        node.name: tuple(_branches(declaration, node, place, schema, problems, within))
        for node in nodes.values()
        if isinstance(node, Opening)
    }
    leaving: dict[str, list[Edge]] = {name: [] for name in nodes}
    for edge in declaration.edges:
        if edge.source in leaving:
            leaving[edge.source].append(edge)
    ways = {name: _ways(own) for name, own in leaving.items()}
    return Scope(declaration, place, schema, nodes, ways, branches)


def signals_of(scope: Scope) -> dict[str, Any]:
    """Every event that the flow or anything in it may wait for, with the type of its payload (Any = anything).

    Where one declaration says a type and another none, the type counts.
    """
    found: dict[str, Any] = {}
    for inner in scope.all():
        for event, kind in inner.declaration.signals:
            if found.get(event, Any) is Any:
                found[event] = kind
    return found


def needs_of(scope: Scope) -> dict[str, Any]:
    """What the flow or anything in it needs opened, and what opens it; of two flows that say so, the outer one counts."""
    found: dict[str, Any] = {}
    for inner in scope.all():
        for name, provider in inner.declaration.needs.items():
            if found.get(name) is None:
                found[name] = provider
    return found


def _schema_of(declaration: Declaration, place: str, parent: StateSchema | None, problems: list[str]) -> StateSchema | None:
    if declaration.state is None:
        if parent is None and not place:
            problems.append("it declares no state; give a pydantic model, a TypedDict or a dict of annotations (an empty one for no keys)")
        return parent
    try:
        return StateSchema(declaration.state)
    except Exception as error:  # noqa: BLE001 - pydantic, typing and the codec each have their own; the author reads them all
        said = str(error).partition("\n\nFor further information")[0]
        problems.append(f"{place}its state cannot be used: {said}")
        return None


def _ways(own: list[Edge]) -> Ways:
    return Ways(
        tuple(sorted((edge for edge in own if edge.kind == "conditional"), key=_priority)),
        tuple(edge for edge in own if edge.kind == "normal"),
        tuple(edge for edge in own if edge.kind == "fallback"),
    )


def _priority(edge: Edge) -> float:
    return edge.priority if isinstance(edge.priority, int | float) else 0  # else it is a problem that the checks name


# --- branches -------------------------------------------------------------------------------------------------------
def _only_branches(declaration: Declaration) -> set[str]:
    """Declared nodes that serve as branches and stand on no edge: they belong to their parallel node alone."""
    named = set()
    for node in declaration.nodes:
        for branch in node.branches if isinstance(node, Opening) else ():
            found = _declared_node(declaration, branch.target)
            if found is not None:
                named.add(found.name)
    on_edges = {end for edge in declaration.edges for end in (edge.source, edge.target)} | {declaration.entry}
    return {name for name in named if name not in on_edges}


def _declared_node(declaration: Declaration, target: object) -> Node | None:
    if isinstance(target, str):
        return declaration.node(target)
    fn = target.fn if isinstance(target, Task) else target
    # == because a bound method is made anew each time it is read from its object.
    found = [node for node in declaration.nodes if isinstance(node, Task) and node.fn == fn]
    return found[0] if len(found) == 1 else None  # a function of several nodes stands for none of them


def _branches(
    declaration: Declaration, node: Opening, place: str, schema: StateSchema | None, problems: list[str], within: tuple[object, ...]
) -> Iterator[BranchScope]:
    for number, branch in enumerate(node.branches, 1):
        target = branch.target if isinstance(branch.target, Flow) else _node_of(declaration, branch)
        what = f"{place}node {node.name!r}"
        has = "has the branch" if isinstance(node, Parallel) else "runs"
        if target is None:
            problems.append(
                f"{what} {has} {branch.target!r}, which is no node of the flow; "
                f"give a function, a Flow, a node's name or branch(fn, name=...)"
            )
        elif not target.name:
            kind = "a lambda" if name_of(branch.target) == "<lambda>" else "a callable"
            which = f": its branch number {number} is" if isinstance(node, Parallel) else " runs"
            problems.append(
                f"{what}{which} {kind} without a name of its own, and branches are told apart by their names; "
                f'give it one: {{"name": function, ...}} or branch(function, name="...")'
            )
        elif any(target is around for around in (*within, node)):
            problems.append(f"{what} {has} {target.name!r}, which it stands in itself; nothing can be its own branch")
        else:
            name = branch.name or target.name
            if isinstance(target, Flow):
                inner = target.declaration()
            elif isinstance(node, Map) and isinstance(target, Task):
                inner = _for_item(node, target)
            else:
                inner = _alone(declaration, target)
            where = f"{place}branch {name!r} of node {node.name!r}: " if isinstance(node, Parallel) else f"{what}: "
            scope = resolve(inner, problems, place=where, parent=schema, within=(*within, node, target))
            yield BranchScope(name, scope, branch.timeout)


def _node_of(declaration: Declaration, branch: Branch) -> Node | None:
    """The node a branch that is no flow consists of."""
    target = branch.target
    if isinstance(target, Task):
        return target
    found = _declared_node(declaration, target)
    if isinstance(target, str) or not callable(target):
        return found
    if isinstance(found, Task):
        return found._replace(name=branch.name or found.name)
    return Task(branch.name or _own_name(target), target)


def _alone(declaration: Declaration, node: Node) -> Declaration:
    """A flow of just this node.  The nodes that a nested parallel node has as branches come along, as branches only."""
    nodes: list[Node] = [node]
    for known in nodes:  # grows while it is walked
        for branch in known.branches if isinstance(known, Opening) else ():
            found = _declared_node(declaration, branch.target)
            if found is not None and found not in nodes:
                nodes.append(found)
    end = Edge(node.name, END, "normal")
    return Declaration(node.name, "", "", None, node.name, tuple(nodes), (end,))


def _for_item(node: Map, task: Task) -> Declaration:
    """A flow of one function that is called with an item: its state is the item, and what the function made of it."""
    called = task._replace(gives="nothing" if node.to is None else "result")
    end = Edge(task.name, END, "normal")
    return Declaration(task.name, "", "", {ITEM: Any, RESULT: Any}, task.name, (called,), (end,))


def _own_name(fn: Callable[..., Any]) -> str:
    name = name_of(fn)
    return "" if name == "<lambda>" else name
