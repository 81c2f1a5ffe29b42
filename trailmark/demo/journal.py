"""Which node bodies really ran, noted by the processes that ran them, and compared with what was committed.

The journal is no part of trailmark's own books: it is a second witness, a file to which every body adds a line when it
begins.  A killed process leaves its lines behind, also those of work that was never committed.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from checkpoint_stores.records import Row
from engine.callables import name_of, node_takes
from trailmark import StepContext
from trailmark.demo.environment_audit import Body

_WITHOUT_BODY = frozenset({"start", "attempt", "parallel", "join", "barrier", "decision", "suspended", "limit", "cancelled"})
"""Kinds of checkpoints for which no function of the flow ran."""


class Entry(NamedTuple):
    """One entry of a node: what must be committed exactly once."""

    path: str
    node: str
    visit: int


class Ran(NamedTuple):
    """One line of the journal: a body began."""

    entry: Entry
    attempt: int
    """Which process drove the run: 1 the first, 2 the one that resumed it ..."""
    process: int
    key: str
    """The step's idempotency key."""


class Account(NamedTuple):
    """What ran, set against what was committed."""

    committed: Counter[str]
    """Committed entries by node."""
    ran: Counter[str]
    """Begun bodies by node."""
    in_flight: list[Ran]
    """Begun, and not committed."""
    repeated: list[tuple[Ran, Ran]]
    """Bodies that ran twice, because the first process died before it could commit them."""
    redone: list[Ran]
    """Bodies that ran although their entry was committed before their process took the run.  Must be empty."""


def journalled(file: Path, finished: Callable[[StepContext], None]) -> Callable[[Body], Body]:
    """Return what to put around a node's function: a line in ``file`` when it begins, a call of ``finished`` when it is through."""

    def around(body: Body) -> Body:
        wants_context = node_takes(body) == "state_context"

        def noted(state: Any, ctx: StepContext) -> dict[str, Any]:
            entry = [ctx.path, ctx.node, ctx.visit]
            line = json.dumps({"entry": entry, "attempt": ctx.run_attempt, "process": os.getpid(), "key": ctx.idempotency_key})
            with file.open("ab") as journal:  # one write at the end of the file: lines of several threads do not mix
                journal.write(f"{line}\n".encode())
            update = body(state, ctx) if wants_context else body(state)
            finished(ctx)
            return update

        # The graph knows a function by its own name: runs of this flow and of the unwrapped one are the same.
        noted.__name__, noted.__doc__ = name_of(body), body.__doc__
        return noted

    return around


def read_journal(file: Path) -> list[Ran]:
    """Every body that ever began, in order; empty where none did."""
    if not file.exists():
        return []
    found = (json.loads(line) for line in file.read_text(encoding="utf-8").splitlines())
    return [Ran(Entry(*one["entry"]), one["attempt"], one["process"], one["key"]) for one in found]


def account(rows: Iterable[Row], journal: Sequence[Ran]) -> Account:
    """Set a run's journal against its checkpoints."""
    committed: dict[Entry, int] = {}
    taken = [0, 0]
    """By attempt: the checkpoint with which its process took the run."""
    visits: Counter[tuple[str, str]] = Counter()
    for row in rows:
        if row.kind == "attempt":
            taken.append(row.seq)
        elif row.kind not in _WITHOUT_BODY:
            visits[row.path, row.node] += 1
            committed[Entry(row.path, row.node, visits[row.path, row.node])] = row.seq
    first: dict[Entry, Ran] = {}
    repeated = [(first[ran.entry], ran) for ran in journal if first.setdefault(ran.entry, ran) is not ran]
    return Account(
        committed=Counter(entry.node for entry in committed),
        ran=Counter(ran.entry.node for ran in journal),
        in_flight=[ran for ran in journal if ran.entry not in committed],
        repeated=repeated,
        redone=[ran for ran in journal if committed.get(ran.entry, taken[ran.attempt]) < taken[ran.attempt]],
    )
