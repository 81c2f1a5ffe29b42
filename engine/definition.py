"""The definition of a graph as plain data: its hash, what changed between two, and readable lines.

A definition is JSON, made by `engine.defining`: any tool can draw and explain a run without the author's code.  This file knows
no networkx, no functions, no flows.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from typing import Any, Final

from engine.plan import END, Warn


def hash_of(definition: dict[str, Any]) -> str:
    """SHA-256 (hex) of the canonical JSON of everything that decides how a run goes.

    Not in it: descriptions, and the order in which nodes were declared.
    """
    text = json.dumps(canonical(definition), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


_TIMES: Final = frozenset({"timeout", "first", "longest", "delay", "open_for", "per"})
"""Fields that hold seconds."""

_UNHASHED: Final = frozenset({"description", "format", "barriers"})
"""Of a flow: what says nothing new about how it runs (``barriers`` repeats what stands in the nodes)."""


def canonical(flow: dict[str, Any]) -> dict[str, Any]:
    """A flow or branch without what does not decide how it runs."""
    kept = {field: value for field, value in flow.items() if field not in _UNHASHED}
    kept["nodes"] = {name: _canonical_node(node) for name, node in flow.get("nodes", {}).items()}
    # Which of one node's edges comes first matters; which node's edges were declared first does not.
    kept["edges"] = sorted(flow.get("edges", []), key=lambda edge: str(edge["from"]))
    kept["ends"] = sorted(flow.get("ends", []))
    return kept


def _canonical_node(node: dict[str, Any]) -> dict[str, Any]:
    kept = {field: value for field, value in node.items() if field not in _UNHASHED_OF_NODE}
    if deciding := _deciding(node.get("middleware", ())):
        kept["middleware"] = deciding
    if "branches" in kept:
        kept["branches"] = [canonical(branch) for branch in kept["branches"]]
    if "form" in kept:
        kept["form"] = _without_descriptions(kept["form"])
    return kept


_UNHASHED_OF_NODE: Final = frozenset({"description", "middleware", "reads"})
"""Of a node: what restricts nothing.  Its middleware is hashed as far as it can change an outcome (see `_deciding`)."""


def _deciding(stack: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """What of a stack can change how a run goes: what may refuse a call, and what waits while a timeout counts.

    Who waits at a limiter is late, no more: without it the run goes the same way.  Retry and timeout stand in the node itself; a timeout
    is kept as a place, because what stands behind it counts.
    """
    kept, counting = [], False
    for each in stack:
        if each["kind"] == "timeout":
            counting = True
            kept.append({"name": each["name"], "kind": "timeout"})
        elif each["kind"] not in _ONLY_WAIT or counting or each.get("waiting") is not None:
            kept.append(each)
    kept = [each for each in kept if each["kind"] != "retry"]
    return kept if any(each["kind"] != "timeout" for each in kept) else []


_ONLY_WAIT: Final = frozenset({"rate_limit", "bulkhead", "backpressure"})


def _without_descriptions(schema: Any) -> Any:
    """A JSON Schema without its prose.  A property called ``description`` is a mapping, and stays."""
    if isinstance(schema, dict):
        return {word: _without_descriptions(part) for word, part in schema.items() if not (word == "description" and isinstance(part, str))}
    return [_without_descriptions(part) for part in schema] if isinstance(schema, list) else schema


def difference(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Readable lines: what must be changed in ``old`` to get ``new``, as far as it decides how a run goes.

    >>> difference({"nodes": {"pay": {"timeout": 30.0}}}, {"nodes": {"pay": {"timeout": 10.0}}})
    ["node 'pay': timeout 30 s -> 10 s"]
    """
    return list(_changed_scope(canonical(old), canonical(new), ""))


def _changed_scope(old: dict[str, Any], new: dict[str, Any], place: str) -> Iterator[str]:
    for field in ("flow", "version", "entry"):
        if old.get(field) != new.get(field):
            yield f"{place}{field} {_shown(old.get(field))} -> {_shown(new.get(field))}"
    yield from _changed_members(old.get("keys", {}), new.get("keys", {}), place, "key")
    for key, kind in new.get("types", {}).items():
        if old.get("types", {}).get(key, kind) != kind:  # definitions of old say nothing of types
            yield f"{place}type of key {key!r} {old['types'][key]} -> {kind}"
    yield from _changed_members(old.get("reducer_versions", {}), new.get("reducer_versions", {}), place, "version of reducer")
    yield from _changed_members(old.get("nodes", {}), new.get("nodes", {}), place, "node")
    yield from _changed_edges(old.get("edges", []), new.get("edges", []), place)


def _changed_members(old: dict[str, Any], new: dict[str, Any], place: str, what: str) -> Iterator[str]:
    yield from (f"{place}{what} {name!r} removed" for name in old if name not in new)
    yield from (f"{place}{what} {name!r} added" for name in new if name not in old)
    for name, before in old.items():
        after = new.get(name, before)
        if isinstance(before, dict) and isinstance(after, dict):
            yield from _changed_node(before, after, place, f"{what} {name!r}")
        elif before != after:
            yield f"{place}{what} {name!r}: {_shown(before)} -> {_shown(after)}"


def _changed_node(old: dict[str, Any], new: dict[str, Any], place: str, node: str) -> Iterator[str]:
    for field in dict.fromkeys((*old, *new)):
        before, after = old.get(field), new.get(field)
        if before == after:
            continue
        if field == "branches" and before is not None and after is not None:
            yield from _changed_branches(before, after, f"{place}{node}")
        elif field == "middleware":
            yield from _changed_stack(before or [], after or [], f"{place}{node}: middleware")
        elif isinstance(before, dict) and isinstance(after, dict) and field != "form":
            for name in dict.fromkeys((*before, *after)):
                if before.get(name) != after.get(name):
                    yield f"{place}{node}: {field}.{name} {_shown(before.get(name), name)} -> {_shown(after.get(name), name)}"
        else:
            yield f"{place}{node}: {field} {_shown(before, field)} -> {_shown(after, field)}"


def _changed_stack(old: list[dict[str, Any]], new: list[dict[str, Any]], where: str) -> Iterator[str]:
    before, after = {each["name"]: each for each in old}, {each["name"]: each for each in new}
    yield from (f"{where} {name!r} removed" for name in before if name not in after)
    yield from (f"{where} {name!r} added" for name in after if name not in before)
    for name, each in before.items():
        other = after.get(name, each)
        for field in dict.fromkeys((*each, *other)):
            if each.get(field) != other.get(field):
                yield f"{where} {name!r}: {field} {_shown(each.get(field), field)} -> {_shown(other.get(field), field)}"
    if [name for name in before if name in after] != [name for name in after if name in before]:
        yield f"{where}: order {', '.join(before)} -> {', '.join(after)}"


def _changed_branches(old: list[dict[str, Any]], new: list[dict[str, Any]], node: str) -> Iterator[str]:
    before, after = {branch["name"]: branch for branch in old}, {branch["name"]: branch for branch in new}
    yield from (f"{node}: branch {name!r} removed" for name in before if name not in after)
    yield from (f"{node}: branch {name!r} added" for name in after if name not in before)
    common = [name for name in before if name in after]
    if common != [name for name in after if name in before]:
        yield f"{node}: order of branches {', '.join(before)} -> {', '.join(after)}"
    for name in common:
        was, becomes = before[name].get("timeout"), after[name].get("timeout")
        if was != becomes:
            yield f"{node}: branch {name!r}: timeout {_shown(was, 'timeout')} -> {_shown(becomes, 'timeout')}"
        yield from _changed_scope(before[name], after[name], f"{node}: branch {name!r}: ")


def _changed_edges(old: list[dict[str, Any]], new: list[dict[str, Any]], place: str) -> Iterator[str]:
    before, after = [edge_text(edge) for edge in old], [edge_text(edge) for edge in new]
    yield from (f"{place}edge {text} removed" for text in before if text not in after)
    yield from (f"{place}edge {text} added" for text in after if text not in before)
    if before != after and sorted(before) == sorted(after):
        moved = dict.fromkeys(edge["from"] for edge, other in zip(old, new, strict=True) if edge != other)
        yield from (f"{place}node {name!r}: its edges are asked in another order" for name in moved)


def edge_text(edge: dict[str, Any]) -> str:
    """``checks -> pay when low_risk``."""
    said = f"{edge['from']} -> {edge['to']}"
    if edge["kind"] == "conditional":
        said += f" when {edge.get('when')}"
    elif edge["kind"] == "fallback":
        said += f" on {' or '.join(edge.get('on') or ['any failure'])}"
    return said + (f" (at most {edge['max_visits']} times)" if edge.get("max_visits") is not None else "")


def _shown(value: Any, field: str = "") -> str:
    if value is None:
        return "none"
    return f"{value:g} s" if field in _TIMES else json.dumps(value, ensure_ascii=False)


def described(definition: dict[str, Any], warnings: Iterable[Warn] = ()) -> str:
    """The flow in readable lines."""
    lines = [f"flow {definition['flow']} (version {definition['version']})"]
    if definition.get("description"):
        lines.append(f"  {definition['description']}")
    lines += _described_scope(definition, "  ")
    lines += [f"  warning ({warning.code}): {warning.message}" for warning in warnings]
    return "\n".join(lines)


def _child_text(node: dict[str, Any], branch: dict[str, Any]) -> str:
    if node["kind"] == "map":
        return f"for each of {node['over']}: {branch['name']}" + (f", collected in {node['to']}" if node["to"] else "")
    return f"{'flow' if node['kind'] == 'subflow' else 'branch'} {branch['name']}"


def _described_scope(definition: dict[str, Any], indent: str) -> Iterator[str]:
    if "keys" in definition:
        said = (key if reducer == "error" else f"{key} ({reducer})" for key, reducer in definition["keys"].items())
        yield f"{indent}keys: {', '.join(said) or 'none'}"
    yield f"{indent}entry: {definition['entry']}"
    for name, node in definition["nodes"].items():
        told = f": {node['description']}" if node.get("description") else ""
        yield f"{indent}{node['kind']} {name}{told}"
        for branch in node.get("branches", ()):
            yield f"{indent}  {_child_text(node, branch)}"
            yield from _described_scope(branch, indent + "    ")
        for edge in definition["edges"]:
            if edge["from"] == name:
                text = edge_text(edge).split(" -> ", 1)[1].replace(END, "the end")
                yield f"{indent}  -> {text}"
