"""How PostgreSQL takes a commit that opens what an allowance may decide: one transaction of several statements.

The short way (`postgres_statements.TRANSITION`) refuses such a commit, since nothing in it can be judged.  Without allowances
nobody comes here.
"""

from __future__ import annotations

from checkpoint_stores.errors import LeaseLostError, RunNotFoundError
from checkpoint_stores.records import Receipt
from checkpoint_stores.sql import faults, postgres_statements
from checkpoint_stores.sql.allowing import with_uses
from checkpoint_stores.sql.postgres_writer import arrays_of
from checkpoint_stores.sql.transactions import Scribe, locked
from checkpoint_stores.sql.transitions import Transition
from checkpoint_stores.sql.wires import Wire


def commit(wire: Wire, scribe: Scribe, work: Transition) -> Receipt:
    """Write all of a transition, and what allowances decide of it.  Raises LeaseLostError."""
    run_id, epoch = work.commit.run_id, work.commit.epoch
    try:
        line, clock = locked(wire, scribe, run_id)
    except RunNotFoundError:
        raise LeaseLostError(run_id, epoch) from None
    lost = LeaseLostError(run_id, epoch, owner=line.owner, current_epoch=line.epoch)
    if line.epoch != epoch:
        raise lost
    work = with_uses(wire, work, clock)._replace(asks=None)
    try:
        found = wire.fetch(postgres_statements.TRANSITION, scribe.time(), *arrays_of([work]))
    except Exception as error:
        if faults.is_taken(error):
            raise lost from error
        raise
    if not found:
        raise lost
    return Receipt(found[0][1], found[0][2])
