"""What can be wrong with map and subflow nodes: the keys that lead into their flows and out again.

Part of `engine.validate`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from engine.declared import Map, Subflow
from engine.flow import Flow
from engine.option_checks import at_least_one, known_policy, span, undeclared_keys
from engine.resolve import BranchScope, Scope


def maps(scope: Scope) -> Iterator[str]:
    for node in scope.nodes.values():
        if not isinstance(node, Map):
            continue
        where = f"node {node.name!r}"
        yield from undeclared_keys(scope, f"{where}: over", [node.over])
        yield from undeclared_keys(scope, f"{where}: to", [node.to] if node.to is not None else [])
        yield from at_least_one(where, "max_concurrency", node.max_concurrency)
        yield from known_policy(where, node.on_error)
        if node.on_error.failures_to is not None:
            yield from undeclared_keys(scope, f"{where}: failures_to", [node.on_error.failures_to])
        for child in scope.branches[node.name]:
            yield from _map_keys(scope, node, child, where)


def _map_keys(scope: Scope, node: Map, child: BranchScope, where: str) -> Iterator[str]:
    if not isinstance(node.target.target, Flow) or child.scope.declaration.state is None:
        said = [
            word for word, given in (("item", node.item), ("inputs", node.inputs or None), ("result", node.result)) if given is not None
        ]
        if child.scope.declaration.state is None:
            said += ["to"] if node.to is not None else []
            why = "it works on the state of this flow: read the item as ctx.item and return updates"
        else:
            why = "a function is called with the item, and what it returns is the result"
        if said:
            yield f"{where}: {' and '.join(f'{word}=' for word in said)} {'is' if len(said) == 1 else 'are'} for a flow with a state of its own; {why}"
        return
    what = f"flow {child.scope.declaration.name!r}"
    if node.item is None:
        yield f"{where}: {what} has a state of its own; say by item= which of its keys gets the item"
    if (node.to is None) != (node.result is None):
        yield f"{where}: give both result= (the key of {what} that is an item's result) and to= (the key that gets the list), or neither"
    yield from _inner_keys(child, f"{where}: item", [node.item] if node.item is not None else [])
    yield from _inner_keys(child, f"{where}: result", [node.result] if node.result is not None else [])
    yield from _inputs(scope, child, where, node.inputs, given={node.item})


def subflows(scope: Scope) -> Iterator[str]:
    for node in scope.nodes.values():
        if not isinstance(node, Subflow):
            continue
        where = f"node {node.name!r}"
        for child in scope.branches[node.name]:
            yield from span(where, "timeout", child.timeout)
            if child.scope.declaration.state is None:
                if node.inputs or node.outputs:
                    yield f"{where}: inputs= and outputs= are for a flow with a state of its own; this one works on the state of this flow"
                continue
            yield from undeclared_keys(scope, f"{where}: outputs", [key for key, _inner in node.outputs])
            yield from _inner_keys(child, f"{where}: outputs", [inner for _key, inner in node.outputs])
            yield from _inputs(scope, child, where, node.inputs, given=set())


def _inputs(scope: Scope, child: BranchScope, where: str, inputs: tuple[tuple[str, str], ...], *, given: set[str | None]) -> Iterator[str]:
    yield from undeclared_keys(scope, f"{where}: inputs", [source for _inner, source in inputs])
    yield from _inner_keys(child, f"{where}: inputs", [inner for inner, _source in inputs])
    schema = child.scope.schema
    have = given | {inner for inner, _source in inputs}
    for key, spec in schema.keys.items() if schema is not None else ():
        if spec.required and key not in have:
            yield f"{where}: flow {child.scope.declaration.name!r} needs the key {key!r}; give it: inputs={{{key!r}: ...}}"


def _inner_keys(child: BranchScope, where: str, keys: Iterable[str]) -> Iterator[str]:
    schema = child.scope.schema
    for key in keys:
        if schema is not None and key not in schema.keys:
            yield f"{where} names {key!r}, which is no key of flow {child.scope.declaration.name!r}; its keys are: {', '.join(schema.keys)}"
