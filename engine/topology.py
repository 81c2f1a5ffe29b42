"""The shape of a flow as data: nodes and edges with their kinds, cycles, depth, fan-in and fan-out.

A function of the definition alone, so that the shape of any stored run's flow can be had without the author's code.  Knows no plan and no
run.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import networkx as nx

from engine.definition import hash_of
from engine.plan import END


def topology_of(definition: dict[str, Any]) -> dict[str, Any]:
    """Plain data, ready for JSON::

        flow, version, graph_hash, entry
        depth        nodes on the longest way from the entry, each cycle counted as one node; inside a parallel node the deepest branch counts
        nodes        name, path, kind, depth, fan_in, fan_out, cycle; of tasks: middleware, reads, writes where declared
        edges        path, from, to, kind; when, on, max_visits where there are any
        cycles       path, nodes: each strongly connected component that a run can go round in

    ``path`` is the branch path of the scope: ``""``, ``checks[1]``.  ``depth`` of a node counts from 0 at the entry of its scope; ``cycle``
    is the index of its cycle in ``cycles``, or null.  Edges to the end lead to ``__end__``, which is no node.
    """
    scopes = list(_scopes(definition, ""))
    made: dict[str, Any] = {
        "flow": definition["flow"],
        "version": definition["version"],
        "graph_hash": hash_of(definition),
        "entry": definition["entry"],
        "depth": _total_depth(definition),
        "nodes": [],
        "edges": [{"path": path, **edge} for path, scope in scopes for edge in scope["edges"]],
        "cycles": [],
    }
    for path, scope in scopes:
        made["nodes"] += _nodes(path, scope, made["cycles"])
    return made


def _scopes(scope: dict[str, Any], path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, scope
    for name, node in scope["nodes"].items():
        for index, branch in enumerate(node.get("branches", ())):
            yield from _scopes(branch, f"{path}.{name}[{index}]" if path else f"{name}[{index}]")


def _graph(scope: dict[str, Any]) -> nx.MultiDiGraph[str]:
    graph: nx.MultiDiGraph[str] = nx.MultiDiGraph()
    graph.add_nodes_from(scope["nodes"])
    graph.add_edges_from((edge["from"], edge["to"]) for edge in scope["edges"] if edge["to"] != END)
    return graph


def _nodes(path: str, scope: dict[str, Any], cycles: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The nodes of one scope; the cycles found in it are added to ``cycles``."""
    graph = _graph(scope)
    order = {name: index for index, name in enumerate(graph)}
    cycle_of: dict[str, int] = {}
    components = (sorted(found, key=order.__getitem__) for found in nx.strongly_connected_components(graph))
    for members in sorted(components, key=lambda found: order[found[0]]):
        if len(members) > 1 or graph.has_edge(members[0], members[0]):
            cycle_of |= dict.fromkeys(members, len(cycles))
            cycles.append({"path": path, "nodes": members})
    ends = [edge["from"] for edge in scope["edges"] if edge["to"] == END]
    depths = _depths(scope, graph)
    for name, node in scope["nodes"].items():
        said = {"name": name, "path": path, "kind": node["kind"], "depth": depths.get(name), "fan_in": graph.in_degree(name)}
        said |= {"fan_out": graph.out_degree(name) + ends.count(name), "cycle": cycle_of.get(name)}
        yield said | {field: node[field] for field in ("middleware", "reads", "writes") if field in node}


def _depths(scope: dict[str, Any], graph: nx.MultiDiGraph[str]) -> dict[str, int]:
    """How many nodes lie on the longest way from the entry to each node; a cycle counts as one."""
    whole: Any = nx.condensation(nx.DiGraph(graph))
    member_of = whole.graph["mapping"]
    depth = {member_of[scope["entry"]]: 0}
    for component in nx.topological_sort(whole):
        for following in whole.successors(component) if component in depth else ():
            depth[following] = max(depth.get(following, 0), depth[component] + 1)
    return {name: depth[component] for name, component in member_of.items() if component in depth}


def _total_depth(scope: dict[str, Any]) -> int:
    """Nodes on the longest way through a scope; a node with branches is as deep as its deepest branch, and one for itself."""
    graph = _graph(scope)
    whole: Any = nx.condensation(nx.DiGraph(graph))
    own = {name: 1 + max((_total_depth(branch) for branch in node.get("branches", ())), default=0) for name, node in scope["nodes"].items()}
    longest: dict[int, int] = {}
    for component in reversed(list(nx.topological_sort(whole))):
        weight = max(own[name] for name in whole.nodes[component]["members"])
        longest[component] = weight + max((longest[following] for following in whole.successors(component)), default=0)
    return longest[whole.graph["mapping"][scope["entry"]]]
