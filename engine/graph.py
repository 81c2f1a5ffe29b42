"""FlowGraph: a compiled flow, as data and as pictures.

Immutable: changing the `Flow` it came from does not change it.  Knows nothing of runs; the walk reads its ``plan``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from engine.plan import Plan, Warn

if TYPE_CHECKING:
    import networkx as nx

    from engine.migration import Migration
    from engine.resources import Provider


class FlowGraph:
    """What `Flow.compile` returns: the networkx graph, the routing plan, the hash, the definition and the warnings.

    >>> from trailmark import END, Flow
    >>> graph = Flow("ask", {"n": int}).add_barrier("ok").set_entry("ok").add_edge("ok", END).compile()
    >>> graph.name, graph.nx.nodes["ok"]["kind"], len(graph.graph_hash), graph.warnings
    ('ask', 'barrier', 64, ())
    """

    def __init__(
        self,
        graph: nx.MultiDiGraph[str],
        plan: Plan,
        definition: str,
        warnings: tuple[Warn, ...],
        migrations: tuple[Migration, ...] = (),
        needs: Mapping[str, Provider | None] | None = None,
    ) -> None:
        self.nx = graph
        """The `networkx.MultiDiGraph`, frozen; nodes carry ``kind``, edges ``kind``, ``order`` and ``condition``."""
        self.plan = plan
        """The flat tables that the walk reads."""
        self.definition_text = definition
        """The definition as JSON, as it is stored with the first run of this graph."""
        self.warnings = warnings
        """What the static analysis found worth a second look."""
        self.migrations = migrations
        """How runs of older versions go over to this one, oldest first.  No part of the definition or the hash."""
        self.needs: Mapping[str, Provider | None] = MappingProxyType(dict(needs or {}))
        """What is to be opened for its runs, those of inner flows too, and what opens it (None: whoever drives them says).  No part
        of the definition or the hash."""

    @property
    def name(self) -> str:
        return self.plan.flow

    @property
    def version(self) -> str:
        return self.plan.version

    @property
    def graph_hash(self) -> str:
        """SHA-256 (hex) of everything that decides how a run goes; descriptions do not change it."""
        return self.plan.graph_hash

    @property
    def definition(self) -> dict[str, Any]:
        """The graph as plain data: what tools need to draw and explain it without the author's code.  A fresh copy."""
        return dict(json.loads(self.definition_text))

    @cached_property
    def _definition(self) -> dict[str, Any]:
        return self.definition

    def bind(self, *, path: Mapping[str, Any] | None = None, query: Mapping[str, Any] | None = None, body: object = None) -> dict[str, Any]:
        """The input of a run from the parts of a request: path before query before body.

        Texts of path and query become what their keys are declared as (``"12"`` an int, ``"true"`` a bool, a repeated parameter
        a list); the body is data and is checked as any input is.  The answer holds what was given, for `GraphExecutor.start`.

        >>> from trailmark import END, Flow
        >>> flow = Flow("pay", {"vendor": str, "amount": int, "tags": list[str]})
        >>> graph = flow.add_node("pay", lambda state: {}).set_entry("pay").add_edge("pay", END).compile()
        >>> graph.bind(path={"vendor": "ACME"}, query={"amount": "12", "tags": ["a", "b"]}, body={"amount": 9})
        {'amount': 12, 'tags': ['a', 'b'], 'vendor': 'ACME'}

        Raises InputError: every problem at once (an undeclared key, a text that does not fit, what is missing), each with where it came from.
        """
        from engine.binding import bound

        return bound(self.plan.schema, self.name, path=path or {}, query=query or {}, body=body)

    def to_mermaid(self, *, visited: Iterable[str] = (), current: Iterable[str] = ()) -> str:
        """Mermaid text; nodes in ``visited`` and ``current`` are highlighted."""
        from engine.draw import mermaid

        return mermaid(self._definition, visited=visited, current=current)

    def to_dot(self, *, visited: Iterable[str] = (), current: Iterable[str] = ()) -> str:
        """Graphviz DOT text."""
        from engine.draw import dot

        return dot(self._definition, visited=visited, current=current)

    def to_svg(self, *, visited: Iterable[str] = (), current: Iterable[str] = ()) -> str:
        """A picture that needs no other program."""
        from engine.svg import svg

        return svg(self._definition, visited=visited, current=current)

    def topology(self) -> dict[str, Any]:
        """The shape as plain data: nodes, edges, kinds, cycles (strongly connected components), depth, fan-in, fan-out, middleware.

        Fields:: flow, version, graph_hash, entry, depth, nodes, edges, cycles; each node has name, path, kind, depth, fan_in, fan_out and
        cycle (index of its cycle, or None), and where there are any middleware, reads, writes.
        """
        from engine.topology import topology_of

        return topology_of(self._definition)

    def describe(self) -> str:
        """The flow in readable lines."""
        from engine.definition import described

        return described(self._definition, self.warnings)

    def __repr__(self) -> str:
        return f"<FlowGraph {self.name!r} version {self.version!r}, {len(self.plan.nodes)} nodes, {self.graph_hash[:12]}>"
