"""The child scopes of map and subflow nodes: what is opened, what they are given.

A child with a state of its own is lent values of the flow around it: it reads them where they are, nothing is stored
twice.  Only what its own state class makes of them (a default, a coerced value) is written down.  Pure.
"""

from __future__ import annotations

from typing import Any

from checkpoint_stores.codec import encode, materialise
from checkpoint_stores.fold import Scope
from checkpoint_stores.moments import later
from checkpoint_stores.ops import Op
from engine.errors import ChildInputError, InputError, NoItemsError
from engine.plan import EachPlan, NodePlan, Plan
from engine.updates import first_line
from reducers.changes import ABSENT


def opened(node: NodePlan, scope: Scope, now: int) -> dict[str, Any]:
    """What the checkpoint that opens ``node`` says (see the op ``each``).  Raises NoItemsError."""
    opens = node.opens
    assert isinstance(opens, EachPlan)  # noqa: S101 - only such nodes are opened so
    count = 1
    if opens.over is not None:
        items = scope.read(opens.over)
        if not isinstance(items, list | tuple):
            held = "nothing" if items is ABSENT else f"a {type(items).__name__}"
            raise NoItemsError(node.name, scope.path, opens.over, held)
        count = len(items)
    mapped = opens.mapped
    return {
        "entry": opens.plan.entry,
        "count": count,
        "over": opens.over,
        "item": mapped.item if mapped else None,
        "lent": dict(mapped.inputs) if mapped else None,
        "due": None if opens.timeout is None else later(now, opens.timeout),
    }


def own_values(opener: NodePlan, plan: Plan, child: Scope) -> list[Op]:
    """The value ops of a child that begins: what its state class makes of what it was lent, where that is something else.

    Raises ChildInputError, UnserialisableError.
    """
    opens = opener.opens
    assert isinstance(opens, EachPlan)  # noqa: S101
    if opens.mapped is None or not opens.mapped.checked:
        return []
    lent = child.lent or {}
    try:
        values = plan.schema.validate_input(plan.flow, {key: materialise(value) for key, value in lent.items()})
    except InputError as error:
        raise ChildInputError(child.node, child.path, plan.flow, error.problems) from error
    except Exception as error:  # the author's validators may raise anything
        raise ChildInputError(child.node, child.path, plan.flow, [first_line(error)]) from error
    return [["set", key, value] for key, value in values.items() if key not in lent or encode(value, key) != encode(lent[key])]
