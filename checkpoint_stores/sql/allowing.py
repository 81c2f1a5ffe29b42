"""What a transaction does about grants: giving them, taking them back, using them while tickets open.

Like `transactions`: inside a transaction that somebody else begins and ends, through its wire.  The run's line is
locked before any grant's, and grants are locked oldest first, so that nobody waits for nobody in a circle.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from checkpoint_stores.deciding import node_of
from checkpoint_stores.errors import UnknownGrantError
from checkpoint_stores.ids import new_id
from checkpoint_stores.records import Grant
from checkpoint_stores.sql import statements
from checkpoint_stores.sql.lines import (
    BarrierLine,
    DecisionLine,
    GrantLine,
    RunLine,
    barrier_of,
    decision_line,
    decision_of,
    grant_line,
    grant_of,
    run_of,
)
from checkpoint_stores.sql.transactions import Scribe, locked
from checkpoint_stores.sql.transitions import Transition
from checkpoint_stores.sql.wires import Wire

if TYPE_CHECKING:  # every writer asks for grants, few find any: what judges them is loaded with the first
    from checkpoint_stores import granting


def give(wire: Wire, scribe: Scribe, asked: granting.GrantAsked) -> Grant:
    """Judge and store a grant.  Raises what `granting.given_for_run` and `granting.given_for_flow` raise, and RunNotFoundError."""
    from checkpoint_stores import granting

    if asked.run_id is None:
        now: int = wire.fetch(statements.CLOCK, scribe.time())[0][0]
        definitions = [text for (text,) in wire.fetch(statements.GRAPHS_NAMING, statements.naming(asked.flow or ""))]
        grant = granting.given_for_flow(asked, definitions, now=now, grant_id=new_id(now))
    else:
        line, now = locked(wire, scribe, asked.run_id)
        found = wire.fetch(statements.BARRIERS_OF_NODE, line.run_id, node_of(asked.barrier), asked.barrier)
        graphs = wire.fetch(statements.GRAPH, line.graph_hash)
        known = [barrier_of(BarrierLine(*values)) for values in found]
        grant = granting.given_for_run(asked, run_of(line), known, graphs[0][0] if graphs else None, now=now, grant_id=new_id(now))
    wire.fetch(statements.INSERT_GRANT, *grant_line(grant))
    return grant


def revoke(wire: Wire, scribe: Scribe, grant_id: str, by: str, reason: str) -> Grant:
    """Take a grant back.  Raises UnknownGrantError, InvalidGrantError."""
    found = wire.fetch(statements.GRANT_BY_ID, grant_id)
    if not found:
        raise UnknownGrantError(grant_id)
    now: int = wire.fetch(statements.CLOCK, scribe.time())[0][0]
    from checkpoint_stores import granting

    before = grant_of(GrantLine(*found[0]))
    after = granting.revoked(before, by=by, reason=reason, now=now)
    if after is not before:
        wire.fetch(statements.REVOKE_GRANT, grant_id, after.revoked_at, grant_line(after).details)
    return after


def with_uses(wire: Wire, work: Transition, now: int) -> Transition:
    """Use the allowances that decide what a commit opens; the commit, with its tickets as they stand then.

    Before the run's line is changed: the inbox has moved when the owner would park, so it stays and reads it.
    """
    grants = _allowances(wire, work, now)
    if not grants:
        return work
    from checkpoint_stores import granting

    (*values, _), *_ = wire.fetch(statements.LOCK_RUN, work.key, now)
    opened = [replace(barrier, status=line["status"]) for barrier, line in zip(work.commit.opened, work.opened, strict=True)]
    consumed = {decision_id for decision_id, _ in work.consumed}
    pending = [decision_of(DecisionLine(*line)) for line in wire.fetch(statements.PENDING_DECISIONS, work.key)]
    said = [each for each in pending if each.id not in consumed]
    uses = granting.uses_of(run_of(RunLine(*values)), opened, grants, said, now=now, new_id=partial(new_id, now))
    statuses = {}
    for record, status in uses:
        line = decision_line(record)
        wire.fetch(statements.INSERT_DECISION, *(line[name] for name in DecisionLine._fields))
        wire.fetch(statements.USE_GRANT, record.grant)
        wire.fetch(statements.BUMP_INBOX, work.key, now, None, False)
        statuses[record.ticket] = status
    # Whoever watches hears of it as of any commit; the owner by its receipt.
    return work._replace(opened=[line | {"status": statuses.get(line["ticket"], line["status"])} for line in work.opened])


def _allowances(wire: Wire, work: Transition, now: int) -> list[Grant]:
    found: list[Any] = []
    for tenant, flow in wire.fetch(statements.RUN_REACH, work.key):
        for node in (work.asks or "").split(","):
            found += wire.fetch(statements.ALLOWANCES, work.key, tenant, flow, node, now)
    return [grant_of(GrantLine(*line)) for line in found]
