"""What went wrong beside a run and did not change it: Python warnings, with the facts as fields.

Each is emitted when it happens and kept in `RunResult.warnings`.  Knows no loop and no store.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from engine.errors import place


class TrailmarkWarning(UserWarning):
    """The root of every warning that trailmark emits while a run is driven; the run itself is sound."""

    def __init__(self, run_id: str, message: str) -> None:
        self.run_id = run_id
        super().__init__(message)


class ObserverFailedWarning(TrailmarkWarning):
    """An observer raised (``error``, also chained).  It is told nothing more of this run, which goes on."""

    def __init__(self, run_id: str, seq: int, observer: Callable[..., Any], error: BaseException) -> None:
        self.seq = seq
        self.observer = observer
        self.error = error
        name = getattr(observer, "__qualname__", None) or type(observer).__qualname__
        super().__init__(
            run_id,
            f"observer {name} raised {type(error).__name__}: {error} when told of checkpoint {seq} of run {run_id}; "
            "it is told nothing more of this run, which goes on",
        )
        self.__cause__ = error


class NodeWarning(TrailmarkWarning):
    """What a node itself warned of: ``ctx.warn(...)``.  Also an event of the run (``custom``, named ``warning``), kept with the step."""

    def __init__(self, run_id: str, node: str, path: str, said: str) -> None:
        self.node = node
        self.path = path
        self.said = said
        super().__init__(run_id, f"{place(node, path)} of run {run_id} warns: {said}")


class NotSavedWarning(TrailmarkWarning):
    """The store could not be written (``error``, also chained).  The run goes on, its newest steps are kept for the next try."""

    def __init__(self, run_id: str, held: int, error: BaseException) -> None:
        self.held = held
        self.error = error
        super().__init__(
            run_id,
            f"{held} checkpoint(s) of run {run_id} could not be saved ({error}); they are kept for the next try, a crash now loses them",
        )
        self.__cause__ = error


class ResourceNotClosedWarning(TrailmarkWarning):
    """What a flow needed (``Flow(..., needs=...)``) raised when it was closed (``error``, also chained).  The run is not touched by it."""

    def __init__(self, run_id: str, error: BaseException) -> None:
        self.error = error
        super().__init__(
            run_id, f"a resource of run {run_id} could not be closed ({type(error).__name__}: {error}); the run is as it is stored"
        )
        self.__cause__ = error


class StrayBodyWarning(TrailmarkWarning):
    """An async node was told to stop and was still running when the grace was over.  Its result will not be used."""

    def __init__(self, run_id: str, node: str, path: str, seconds: float) -> None:
        self.node = node
        self.path = path
        self.seconds = seconds
        super().__init__(
            run_id,
            f"{place(node, path)} of run {run_id} was cancelled and still runs after {seconds:g} s; the run goes on without it and "
            "nothing it returns is used (let CancelledError pass in the node)",
        )
