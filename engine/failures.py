"""An error as data: what a checkpoint keeps of an exception, and how a fallback matches it.

No exception object is ever stored and no class is imported on load: a stored
error is type names, a message and a place.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from engine.errors import RejectedError
from engine.plan import EdgePlan

LONGEST_MESSAGE: Final = 4000
"""Characters kept of an error's message."""


class BranchesFailedError(ExceptionGroup[Exception]):
    """Several branches of a parallel node may have failed; one `BranchError` for each that did."""

    node: str = ""
    path: str = ""

    def derive(self, excs: Sequence[Exception], /) -> BranchesFailedError:  # type: ignore[override]
        return BranchesFailedError(self.message, excs)


def error_data(error: BaseException, node: str, path: str) -> dict[str, Any]:
    """What is stored of ``error``: type, message, node, path, the names of its classes, and its parts.

    >>> error_data(TimeoutError("slow"), "pay", "")["kinds"][:2]
    ['TimeoutError', 'OSError']
    """
    data: dict[str, Any] = {
        "type": type(error).__qualname__,
        "message": _readable(str(error)),
        "node": node,
        "path": path,
        "kinds": [kind.__qualname__ for kind in type(error).__mro__[:-2]],
    }
    inner = getattr(error, "error", None)
    if isinstance(inner, dict) and "kinds" in inner:  # a BranchError carries its branch's stored error
        data["causes"] = [{**inner, "branch": getattr(error, "branch", "")}]
    elif isinstance(error, BaseExceptionGroup):
        data["causes"] = [error_data(part, node, path) for part in error.exceptions]
    return data


def _readable(message: str) -> str:
    clean = message.encode("utf-8", "backslashreplace").decode()
    return clean if len(clean) <= LONGEST_MESSAGE else f"{clean[:LONGEST_MESSAGE]} ... ({len(clean)} characters)"


def fallback_for(fallbacks: Sequence[EdgePlan], error: BaseException, data: dict[str, Any]) -> EdgePlan | None:
    """The first fallback edge that takes this error.

    An edge without ``on`` takes everything but a rejection; a rejection must be named.  A branch's failure also
    matches by the class names of its cause, because the cause may have been committed by another process.
    """
    for edge in fallbacks:
        if not edge.on:
            if not isinstance(error, RejectedError):
                return edge
        elif isinstance(error, edge.on) or any(_named(kind.__qualname__, data) for kind in edge.on):
            return edge
    return None


def _named(kind: str, data: dict[str, Any]) -> bool:
    return any(kind in cause["kinds"] or _named(kind, cause) for cause in data.get("causes", ()))
