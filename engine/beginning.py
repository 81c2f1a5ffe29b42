"""What a new run begins with: a caller's words, checked, and the first row made of them.  Pure; knows no store and no clock."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from checkpoint_stores.chain import Chain
from checkpoint_stores.codec import pack
from checkpoint_stores.ops import Op
from checkpoint_stores.records import NewRun, Row
from engine import arguments
from engine.graph import FlowGraph
from engine.keyed import INPUT, fingerprint


@dataclass(frozen=True, slots=True)
class Beginning:
    """A run to be, as its caller wants it."""

    values: Mapping[str, Any]
    max_steps: int
    run_id: str | None
    run_key: str | None
    tenant: str
    labels: dict[str, str]
    capabilities: Collection[str] = ()
    given: Mapping[str, Any] = field(default_factory=dict)
    """Of a run with a key: the values that the caller gave, without defaults."""
    supersedes: str | None = None
    """A run that has ended and gives its key up to this one."""

    def sealed(self, graph: FlowGraph, chain: Chain, *, run_id: str, owner: str | None, now: int) -> tuple[NewRun, Row, list[Op]]:
        """The run, its first row, and this row's ops as they will be decoded; without ``owner`` it is left for whoever takes it.

        Raises UnserialisableError.
        """
        plan = graph.plan
        held = int(owner is not None)
        details: dict[str, Any] = {"max_steps": self.max_steps} | ({"owner": owner} if held else {})
        if self.capabilities:
            details["capabilities"] = sorted(self.capabilities)
        if self.run_key is not None:
            details[INPUT] = fingerprint(self.given)
        if self.supersedes is not None:
            details["supersedes"] = self.supersedes
        payload, folded = pack([["set", key, value] for key, value in self.values.items()] + [["attempt", held, details]])
        row = chain.seal(chain.genesis(run_id), run_id, 1, held, 0, "start", "", "", plan.entry, payload, now)
        new = NewRun(
            run_id=run_id, flow=plan.flow, flow_version=plan.version, graph_hash=plan.graph_hash, max_steps=self.max_steps,
            status="running" if held else "created", tenant=self.tenant, run_key=self.run_key, labels=self.labels,
            definition=graph.definition_text, hold=bool(held), supersedes=self.supersedes,
        )  # fmt: skip
        return new, row, folded


def checked(
    graph: FlowGraph, input: object, *, max_steps: int | None, run_id: str | None, run_key: str | None, tenant: str,  # noqa: A002
    labels: Mapping[str, str] | None, default_max_steps: int, capabilities: Collection[str] = (),
) -> Beginning:  # fmt: skip
    """What a caller says of a new run.  Raises InputError (all problems at once), ArgumentError."""
    schema = graph.plan.schema
    values = schema.validate_input(graph.plan.flow, input)
    return Beginning(
        max_steps=default_max_steps if max_steps is None else arguments.step_limit(max_steps),
        run_id=None if run_id is None else arguments.new_run_id(run_id),
        run_key=arguments.text("run_key", run_key, or_none=True),
        tenant=arguments.text("tenant", tenant),
        labels=arguments.labels(labels),
        capabilities=arguments.capabilities(capabilities),
        values=values,
        given={key: values[key] for key in schema.given(input) if key in values} if run_key is not None else {},
    )
