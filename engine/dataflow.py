"""Whether what a node reads can have been written before: warnings about declared ``reads=``, as data.

What a node writes is what it declares (``writes=``), or what can be seen of the literals its function returns; a node of which neither
tells everything may have written anything, so it silences.  A key that the input must give, or that has a default, is there from
the start.  Static: a warning is a hint, its absence no proof.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterator
from typing import Any, NamedTuple

from engine.declared import Barrier, Edge, Map, Node, Opening, Parallel, Subflow, Task, Timer, Wait
from engine.plan import END, Warn
from engine.resolve import Scope

Keys = frozenset[str]


class Flowing(NamedTuple):
    """What may, and what must, hold a value at some place."""

    may: Keys
    must: Keys


def reads_before_writes(root: Scope) -> Iterator[Warn]:
    """Every declared read of a flow and its branches that no way, or not every way, provides for."""
    if root.schema is None or not any(isinstance(node, Task) and node.reads for scope in root.all() for node in scope.nodes.values()):
        return
    given = frozenset(name for name, spec in root.schema.keys.items() if spec.required or spec.has_default)
    yield from _scope(root, Flowing(given, given), frozenset(root.schema.keys))


def _scope(scope: Scope, start: Flowing, everything: Keys) -> Iterator[Warn]:
    arriving = _arriving(scope, start, everything)
    for name, node in scope.nodes.items():
        here = arriving.get(name)
        if here is None:
            continue
        for key in dict.fromkeys(node.reads) if isinstance(node, Task) else ():
            if key not in here.may:
                way = " -> ".join(_way(scope, name, key, everything))
                yield Warn(
                    "read_before_write", f"{scope.place}node {name!r} reads {key!r}, which nothing has written by then: {way}", (name,), key
                )
            elif key not in here.must:
                way = " -> ".join(_way(scope, name, key, everything))
                yield Warn(
                    "read_maybe_before_write", f"{scope.place}node {name!r} reads {key!r}, which this way leaves out: {way}", (name,), key
                )
        for branch in scope.branches.get(name, ()):
            if isinstance(node, Map | Subflow) and _stands_alone(node, branch.scope):
                given = _given(node, branch.scope)
                yield from _scope(branch.scope, Flowing(given, given), Keys(branch.scope.schema.keys if branch.scope.schema else ()))
            else:
                yield from _scope(branch.scope, here, everything)


def _arriving(scope: Scope, start: Flowing, everything: Keys) -> dict[str, Flowing]:
    """What holds a value where each node is entered: the smallest answer for ``may``, the largest for ``must``."""
    found: dict[str, Flowing] = {}
    if scope.declaration.entry not in scope.nodes:
        return found
    found[scope.declaration.entry] = start
    todo = [scope.declaration.entry]
    while todo:
        name = todo.pop()
        for edge in scope.ways[name].all():
            if edge.target not in scope.nodes:
                continue
            after = _after(scope, name, edge, found[name], everything)
            known = found.get(edge.target)
            joined = after if known is None else Flowing(known.may | after.may, known.must & after.must)
            if joined != known:
                found[edge.target] = joined
                todo.append(edge.target)
    return found


def _after(scope: Scope, name: str, edge: Edge, here: Flowing, everything: Keys) -> Flowing:
    """What holds a value behind ``edge``: a node that failed has written nothing, or what it gave its ``Fallback``."""
    writes = _writes(scope, scope.nodes[name], everything)
    return Flowing(here.may | writes.may, here.must if edge.kind == "fallback" else here.must | writes.must)


def _writes(scope: Scope, node: Node, everything: Keys) -> Flowing:
    if isinstance(node, Task):
        written = frozenset(node.writes) if node.writes is not None else returned_keys(node.fn)
        return Flowing(everything, everything) if written is None else Flowing(written, written)
    if isinstance(node, Barrier):
        return Flowing(_form_keys(node), frozenset())
    if isinstance(node, Timer | Wait):
        heard = Keys([node.to]) if isinstance(node, Wait) and node.to is not None else Keys()
        # A wait that may go on without a payload writes nothing then.
        return Flowing(heard, heard if isinstance(node, Wait) and node.on_timeout == "fail" else Keys())
    inner = [_whole(branch.scope, everything) for branch in scope.branches.get(node.name, ()) if not _stands_alone(node, branch.scope)]
    may, must = Keys().union(*(each.may for each in inner)), Keys().union(*(each.must for each in inner))
    told = _told(node)
    # Of a map nobody knows whether there are any items; of best_effort, which branches succeed.
    sure = isinstance(node, Parallel | Subflow) and node.on_error.policy != "best_effort"
    return Flowing(may | told, told | must if sure else told)


def _told(node: Opening) -> Keys:
    """What the node itself writes when its child scopes are over."""
    told = [node.on_error.failures_to] if node.on_error.policy == "best_effort" else []
    if isinstance(node, Map):
        told.append(node.to)
    elif isinstance(node, Subflow):
        told += [outside for outside, _inside in node.outputs]
    return Keys(key for key in told if key is not None)


def _stands_alone(node: Node, child: Scope) -> bool:
    """Whether the child scope has a state of its own, instead of the one around it."""
    return isinstance(node, Map | Subflow) and child.declaration.state is not None


def _given(node: Map | Subflow, child: Scope) -> Keys:
    """What holds a value where a flow with a state of its own begins."""
    keys = child.schema.keys if child.schema is not None else {}
    given = [name for name, spec in keys.items() if spec.required or spec.has_default]
    item = [node.item] if isinstance(node, Map) and node.item is not None else []
    return Keys([*given, *item, *(inside for inside, _outside in node.inputs)])


def _whole(scope: Scope, everything: Keys) -> Flowing:
    """What a branch writes from its entry to its ends."""
    arriving = _arriving(scope, Flowing(Keys(), Keys()), everything)
    ends = [
        _after(scope, name, edge, arriving[name], everything)
        for name, ways in scope.ways.items()
        if name in arriving
        for edge in ways.all()
        if edge.target == END
    ]
    return Flowing(Keys().union(*(end.may for end in ends)), ends[0].must.intersection(*(end.must for end in ends)) if ends else Keys())


def _form_keys(node: Barrier) -> Keys:
    return Keys(getattr(node.form, "__pydantic_fields__", node.form or ()))


def _way(scope: Scope, target: str, key: str, everything: Keys) -> list[str]:
    """The shortest way from the entry to ``target`` on which nothing writes ``key``."""
    entry = str(scope.declaration.entry)
    came: dict[str, str] = {entry: ""}
    waiting = [entry]
    for name in waiting:  # grows while it is walked
        for edge in scope.ways[name].all():
            writes = edge.kind != "fallback" and key in _writes(scope, scope.nodes[name], everything).must
            if not writes and edge.target in scope.nodes and edge.target not in came:
                came[edge.target] = name
                waiting.append(edge.target)
    way = [target]
    while came.get(way[-1]):
        way.append(came[way[-1]])
    return way[::-1]


def returned_keys(fn: Any) -> Keys | None:
    """The keys of the dict literals ``fn`` returns; None where it returns anything else, or its source cannot be had.

    The source is parsed, never run.

    >>> returned_keys(len) is None
    True
    """
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(fn)))
    except (OSError, TypeError, SyntaxError, ValueError):
        return None
    top = tree.body[0] if tree.body else None
    if not isinstance(top, ast.FunctionDef | ast.AsyncFunctionDef):
        return None
    found: set[str] = set()
    waiting: list[ast.AST] = list(top.body)
    while waiting:
        part = waiting.pop()
        if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.ClassDef):
            continue  # what an inner function returns is not what the node returns
        if (
            isinstance(part, ast.Return)
            and part.value is not None
            and not (isinstance(part.value, ast.Constant) and part.value.value is None)
        ):
            if not isinstance(part.value, ast.Dict):
                return None
            for key in part.value.keys:
                if not isinstance(key, ast.Constant) or not isinstance(key.value, str):
                    return None
                found.add(key.value)
        waiting += ast.iter_child_nodes(part)
    return frozenset(found)
