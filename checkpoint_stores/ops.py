"""The words of a checkpoint's payload: value ops and position ops.

An op is a short list, ready for JSON; the first element names it.  `fold`
applies them; nothing here or there knows a graph, a reducer or a database.
Every op acts on the row's own scope (its branch path) unless it names a path.

Value ops (what changed in the scope's view of the state)::

    ["set",       key, value]            ["append", key, items]
    ["delete",    key, None]             ["merge",  key, mapping]
    ["increment", key, number]           ["patch",  key, mapping]
    ["same",      key, None, updates]    nothing changed in this branch's view, but the join must know of the updates

    A fourth element holds the raw updates that made the change.  It stands only
    in rows of a branch, and only where the change depends on the value it was
    made from, so that the join can reduce the updates again over what the other
    branches wrote.

    ["take", path, key]                  apply here what branch ``path`` did to ``key``

What the columns of a row say is not said again by an op (see `fold`): a ``step`` one higher than before entered ``node``, and
where the row's kind is a move (step, fallback, join, decision, start) the scope now stands before ``next``.

Position ops (where the run stands)::

    ["hop",   edge]                      the traversal count of a capped edge goes up by one ("a->b"; of several between the two "a->b[1]")
    ["done"]                             the scope reached its end
    ["cut"]                              behind ``done``: the map this item belongs to is over; its items that are not over are gone, none begins any more
    ["fail",  error]                     the scope failed (error: mapping)
    ["open",  node, visit, entries, due] one child scope for each name in ``entries`` (its entry node) opens under ``node``; the scope waits for them;
                                         ``due`` holds the time each must be over (microseconds) or None, and is None where no branch has one
    ["each", node, visit, each]          a map or subflow node is open: ``each["count"]`` child scopes begin, one by one, at its node ``each["entry"]``.
                                         ``over``: the key that holds the items (None: a subflow); ``item``: the child's key that reads its item;
                                         ``lent``: which of the child's keys read which key of this scope (None: the child is an overlay, as a
                                         branch is); ``due``: the time the child must be over, or None
    ["close"]                            the child scopes are gone
    ["park",  ticket, details]           a barrier is open (details: mapping, all of BarrierRecord that is not identity)
    ["nudge", n, approvers]              people were reminded of the open ticket: ``n`` of its reminders and escalations have come; ``approvers`` may
                                         decide it from now on as well (None: it was no escalation)
    ["retry", n, due, error]             attempt ``n`` failed; try again at ``due`` (microseconds)
    ["wait", kind, name, due]            the scope waits for a time (kind timer), for the signal ``name`` (kind signal), or its node's body does (kind body);
                                         ``due``: until when (microseconds), or None
    ["heard", name, payload, in_time]    what the body of its node waited for: the body runs again, and is told
    ["error", error]                     what the next node (a fallback's) can read as its cause; None clears it
    ["decision", node, decision]         a barrier's outcome, readable by later nodes
    ["status", status]                   the run's status
    ["edited", details]                  an operator wrote the values of this row (details: mapping: by, reason)
    ["shows", path, details]             the open ticket of scope ``path`` shows something else (details: as in ``park``)
    ["restore", data]                    a fork begins: the parent's materialised state
    ["migrate", data, details]           the run goes over to another version of its flow: all of its state in the new names, and (details: mapping)
                                         graph_hash, flow_version, changed_from, versions, paths? (new paths of open scopes by their old ones)
    ["attempt", n, details]              a process took the run (details: mapping: owner, max_steps?, forced? ...)

What is told of a step (counted, and no part of the values; see engine.telling)::

    ["index", i]                         first in a row: the step's index, where it is not the next one (something else began in between)
    ["said", first, entries, in, out]    last in a row: what the body said, in order, and how many tokens it counted going in and out.
                                         A token is [ms, text], counted on from ``first``, or [ms, text, index] where others spoke in between;
                                         a tool call ["tool", ms, name, content]; anything else ["custom", ms, name, data].
                                         ``ms``: milliseconds since the body began
"""

from __future__ import annotations

from typing import Any, Final, TypeAlias

Op: TypeAlias = list[Any]

VALUE_OPS: Final = frozenset({"set", "delete", "append", "merge", "patch", "increment", "same"})

MOVES: Final = frozenset({"start", "step", "fallback", "join", "decision", "begin", "signal", "timer"})
"""Kinds of rows whose ``next`` is the node their scope now stands before."""
