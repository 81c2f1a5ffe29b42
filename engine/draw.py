"""Pictures of a definition as text: Mermaid and Graphviz DOT.

A function of the definition alone, so that any stored run can be drawn without the author's code.  ``visited`` and ``current`` hold
nodes to highlight, by name or, in branches, by branch path and name: ``checks[1].review`` (visit numbers are ignored).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any, Final, NamedTuple

from engine.plan import END

_SHAPES: Final = {
    "task": ("[", "]"),
    "barrier": ("{{", "}}"),
    "parallel": ("[[", "]]"),
    "map": ("[/", "/]"),
    "subflow": ("[[", "]]"),
    "timer": ("([", "])"),
    "wait": ("([", "])"),
    "end": ("((", "))"),
}
_DOT_SHAPES: Final = {
    "task": "box",
    "barrier": "hexagon",
    "parallel": "box3d",
    "map": "folder",
    "subflow": "component",
    "timer": "cds",
    "wait": "cds",
    "end": "doublecircle",
}
_VISIT: Final = re.compile(r"#\d+")


class Picture(NamedTuple):
    """One scope of a definition, ready to be drawn: names made unique, labels made."""

    place: str
    """Path of the scope: "" or ``checks[1]``."""
    title: str
    nodes: list[tuple[str, str, str]]
    """(id, kind, label)"""
    edges: list[tuple[str, str, str, str]]
    """(from id, to id, kind, label)"""
    entry: str
    """Id of the node a run begins with."""
    inner: dict[str, list[Picture]]
    """The pictures of what a parallel, map or subflow node opens, by the node's id; of a map there is one, for all items."""


def picture(definition: dict[str, Any], place: str = "", title: str = "") -> Picture:
    """Return what is to be drawn of a scope and all within it."""

    def named(name: str) -> str:
        return f"{place}.{name}" if place else name

    nodes = [(named(name), node["kind"], _label(name, node)) for name, node in definition["nodes"].items()]
    edges = [(named(edge["from"]), named(edge["to"]), edge["kind"], edge_label(edge)) for edge in definition["edges"]]
    if any(edge["to"] == END for edge in definition["edges"]):
        nodes.append((named(END), "end", "end"))
    inner = {
        named(name): [picture(branch, f"{named(name)}[{index}]", branch["name"]) for index, branch in enumerate(node["branches"])]
        for name, node in definition["nodes"].items()
        if "branches" in node
    }
    return Picture(place, title or definition["flow"], nodes, edges, named(definition["entry"]), inner)


def _label(name: str, node: dict[str, Any]) -> str:
    if node["kind"] == "barrier" and node.get("approvers"):
        votes = f"{node['quorum']} of " if node.get("quorum", 1) > 1 else ""
        return f"{name}\n{votes}{', '.join(node['approvers'])}"
    if node["kind"] == "parallel":
        return f"{name}\n{node['on_error']['policy']}"
    if node["kind"] == "wait":
        return f"{name}\nsignal {node['event']}"
    if node["kind"] == "timer":
        return f"{name}\n" + (f"{node['delay']:g} s" if node["delay"] is not None else f"as {node['key']} says")
    if node["kind"] == "map":
        return f"{name}\neach of {node['over']}"
    return name


def edge_label(edge: dict[str, Any]) -> str:
    """What stands on an edge: its condition, or the errors it takes."""
    if edge["kind"] == "conditional":
        return str(edge.get("when", ""))
    return " | ".join(edge.get("on") or ["any failure"]) if edge["kind"] == "fallback" else ""


def highlighted(nodes: Iterable[str], definition: dict[str, Any] | None = None) -> frozenset[str]:
    """Node names as they stand in pictures: without visit numbers, and with one picture for all items of a map.

    >>> sorted(highlighted(["checks#2[1].review", "pay"]))
    ['checks[1].review', 'pay']
    """
    bare = {_VISIT.sub("", name) for name in nodes}
    return frozenset(bare if definition is None else {_any_item(definition, name) for name in bare})


def _any_item(definition: dict[str, Any], name: str) -> str:
    parts = name.split(".")
    for at, part in enumerate(parts[:-1]):
        opener, _bracket, index = part.rstrip("]").partition("[")
        node = definition["nodes"].get(opener, {})
        if not index or "branches" not in node:
            return name
        if node["kind"] == "map":
            parts[at], index = f"{opener}[0]", "0"
        if int(index) >= len(node["branches"]):
            return name
        definition = node["branches"][int(index)]
    return ".".join(parts)


# --- Mermaid --------------------------------------------------------------------------------------------------------
def mermaid(definition: dict[str, Any], *, visited: Iterable[str] = (), current: Iterable[str] = ()) -> str:
    """Mermaid flowchart text; the path taken is filled, where the run stands is outlined."""
    seen, here = highlighted(visited, definition), highlighted(current, definition)
    ids: dict[str, str] = {}
    whole = picture(definition)
    lines = ["flowchart TD", *_mermaid_scope(whole, ids, "    ")]
    lines += ["    classDef visited fill:#d3f0dd,stroke:#2b8a4b", "    classDef current fill:#fff3bf,stroke:#e67700,stroke-width:3px"]
    for word, names in (("visited", seen - here), ("current", here)):
        marked = [ids[name] for name in sorted(names) if name in ids]
        if marked:
            lines.append(f"    class {','.join(marked)} {word}")
    return "\n".join(lines) + "\n"


def _mermaid_scope(scope: Picture, ids: dict[str, str], indent: str) -> Iterator[str]:
    for name, kind, label in scope.nodes:
        # Mermaid's own words (end, class, graph) and dots must not be ids: nodes are numbered.
        ids[name] = f"n{len(ids)}"
        opening, closing = _SHAPES[kind]
        yield f"{indent}{ids[name]}{opening}{_mermaid_text(label)}{closing}"
    start = f"start_{ids[scope.entry]}"
    yield f'{indent}{start}((" ")) --> {ids[scope.entry]}'
    for source, target, kind, label in scope.edges:
        arrow = "-.->" if kind == "fallback" else "-->"
        said = f"|{_mermaid_text(label)}|" if label else ""
        yield f"{indent}{ids[source]} {arrow}{said} {ids[target]}"
    for node, branches in scope.inner.items():
        for index, branch in enumerate(branches):
            box = f"{ids[node]}_{index}"
            yield f"{indent}subgraph {box} [{_mermaid_text(branch.title)}]"
            yield from _mermaid_scope(branch, ids, indent + "    ")
            yield f"{indent}end"
            yield f"{indent}{ids[node]} ==> {box}"


def _mermaid_text(label: str) -> str:
    # Mermaid reads entity codes in quoted text; every other character stands for itself there.
    safe = (
        label.replace("#", "#35;")
        .replace("&", "#amp;")
        .replace('"', "#quot;")
        .replace("<", "#lt;")
        .replace(">", "#gt;")
        .replace("\n", "<br/>")
    )
    return f'"{safe}"'


# --- DOT ------------------------------------------------------------------------------------------------------------
def dot(definition: dict[str, Any], *, visited: Iterable[str] = (), current: Iterable[str] = ()) -> str:
    """Graphviz DOT text; the path taken is filled, where the run stands is outlined."""
    whole = picture(definition)
    lines = [
        f"digraph {_dot_text(whole.title)} {{",
        "  compound=true;",
        '  node [fontname="sans-serif"];',
        '  edge [fontname="sans-serif"];',
    ]
    lines += _dot_scope(whole, highlighted(visited, definition), highlighted(current, definition), "  ")
    return "\n".join([*lines, "}"]) + "\n"


def _dot_scope(scope: Picture, seen: frozenset[str], here: frozenset[str], indent: str) -> Iterator[str]:
    for name, kind, label in scope.nodes:
        style = f"shape={_DOT_SHAPES[kind]}, label={_dot_text(label)}"
        if name in here:
            style += ', style="filled,bold", fillcolor="#fff3bf", color="#e67700"'
        elif name in seen:
            style += ', style=filled, fillcolor="#d3f0dd", color="#2b8a4b"'
        yield f"{indent}{_dot_text(name)} [{style}];"
    start = _dot_text(f"{scope.entry} begins")
    yield f'{indent}{start} [shape=point, label=""];'
    yield f"{indent}{start} -> {_dot_text(scope.entry)};"
    for source, target, kind, label in scope.edges:
        looks = [f"label={_dot_text(label)}"] if label else []
        looks += ["style=dashed"] if kind == "fallback" else []
        yield f"{indent}{_dot_text(source)} -> {_dot_text(target)} [{', '.join(looks)}];"
    for node, branches in scope.inner.items():
        for branch in branches:
            box = f"cluster {branch.place}"
            yield f"{indent}subgraph {_dot_text(box)} {{"
            yield f"{indent}  label={_dot_text(branch.title)};"
            yield from _dot_scope(branch, seen, here, indent + "  ")
            yield f"{indent}}}"
            entry = _dot_text(f"{branch.entry} begins")
            yield f"{indent}{_dot_text(node)} -> {entry} [lhead={_dot_text(box)}, style=bold];"


def _dot_text(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
