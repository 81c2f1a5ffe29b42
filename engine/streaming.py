"""Nodes that are async generators: what they yield.

A piece of text is a token.  Anything else is the node's result, as another node
would return it (a mapping, Update, Goto, Fallback, End; for an item of a map
whatever it gives), and must come last; without one the node changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import aclosing
from typing import Any, Final

from engine.context import StepContext
from engine.errors import ReturnTypeError, YieldedAfterResultError
from engine.outcomes import End, Fallback, Goto, Update
from engine.plan import NodePlan

_RESULTS: Final = (Mapping, Update, Goto, Fallback, End)


async def streamed(node: NodePlan, arguments: tuple[Any, ...], context: StepContext) -> Any:
    """Run an async generator: send its tokens, return its result.

    Raises ReturnTypeError for something that is neither, YieldedAfterResultError, and whatever the generator raises.
    """
    assert node.fn is not None  # noqa: S101 - only tasks stream
    result: Any = None
    has_result = False
    async with aclosing(node.fn(*arguments)) as yielded:
        async for item in yielded:
            if has_result:
                raise YieldedAfterResultError(context.node, context.path)
            if isinstance(item, str):
                await context.emit_token(item)
            elif node.gives != "update" or isinstance(item, _RESULTS):
                result, has_result = item, True
            else:
                raise ReturnTypeError(context.node, context.path, item)
    return result
