"""An error as data: what a checkpoint keeps of an exception, and how a fallback matches it.

No exception object is ever stored and no class is imported on load: a stored
error is type names, a message and a place.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from engine.errors import EffectInDoubtError, RejectedError
from engine.plan import EdgePlan

LONGEST_MESSAGE: Final = 4000
"""Characters kept of an error's message."""

_TO_BE_NAMED: Final = (RejectedError, EffectInDoubtError)


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
        "message": _readable(error),
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


def _readable(error: BaseException) -> str:
    try:
        message = str(error)
    except Exception as broken:  # noqa: BLE001 - the author's own __str__; the failure must be recorded all the same
        message = f"(its text cannot be read: {type(broken).__name__})"
    clean = message.encode("utf-8", "backslashreplace").decode()
    return clean if len(clean) <= LONGEST_MESSAGE else f"{clean[:LONGEST_MESSAGE]} ... ({len(clean)} characters)"


def beyond_exception(error: BaseException) -> RuntimeError:
    """What a node raised that is no Exception, as one: only of those there are retries, fallbacks and records."""
    failure = RuntimeError(f"the node function raised {type(error).__name__}: {_readable(error)}")
    failure.__cause__ = error
    return failure


def fallback_for(fallbacks: Sequence[EdgePlan], error: BaseException, data: dict[str, Any]) -> EdgePlan | None:
    """The first fallback edge that takes this error.

    An edge without ``on`` takes everything but a rejection and a side effect in doubt; these must be named, by their own class and
    also where they are a branch's.  A branch's failure also matches by the class names of its cause, because the cause may have been
    committed by another process.
    """
    unnamed = [kind for kind in _TO_BE_NAMED if isinstance(error, kind) or _named(kind.__qualname__, data)]
    for edge in fallbacks:
        if unnamed and not any(issubclass(kind, tuple(unnamed)) for kind in edge.on):
            continue
        if not edge.on:
            return edge
        if isinstance(error, edge.on) or any(_named(kind.__qualname__, data) for kind in edge.on):
            return edge
    return None


def _named(kind: str, data: dict[str, Any]) -> bool:
    return any(kind in cause["kinds"] or _named(kind, cause) for cause in data.get("causes", ()))
