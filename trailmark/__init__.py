"""trailmark: durable graph workflows.

A flow is compiled into a graph, a `GraphExecutor` walks it, and every step is
committed to a database as a small checkpoint, so that a run that is killed
anywhere resumes exactly where it was.

    >>> import asyncio
    >>> from typing import Annotated
    >>> from trailmark import END, Flow, GraphExecutor
    >>> from trailmark.checkpoint_stores import MemoryCheckpointStore
    >>> from trailmark.reducers import append
    >>> flow = Flow("order", {"amount": int, "notes": Annotated[list[str], append]})
    >>> @flow.node
    ... async def check(state):
    ...     return {"notes": [f"checked {state['amount']}"]}
    >>> _ = flow.set_entry("check").add_edge("check", END)
    >>> async def main():
    ...     async with MemoryCheckpointStore() as store:
    ...         return await GraphExecutor(flow.compile(), store=store).execute({"amount": 3})
    >>> result = asyncio.run(main())
    >>> result.status, result.values
    ('completed', {'amount': 3, 'notes': ['checked 3']})

Import only from `trailmark`, `trailmark.checkpoint_stores`, `trailmark.events`, `trailmark.reducers`,
`trailmark.testing` and `trailmark.worker`; everything else may move.  Names are loaded when they are
first used: ``import trailmark`` loads neither networkx nor sqlalchemy.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from trailmark._origin import guard

guard()  # first: one clear error where a file of the user's shadows ours

if TYPE_CHECKING:
    from checkpoint_stores.errors import AmbiguousEffectError as AmbiguousEffectError
    from checkpoint_stores.errors import AmbiguousRunError as AmbiguousRunError
    from checkpoint_stores.errors import AmbiguousTicketError as AmbiguousTicketError
    from checkpoint_stores.errors import ArgumentError as ArgumentError
    from checkpoint_stores.errors import BarrierClosedError as BarrierClosedError
    from checkpoint_stores.errors import BarrierError as BarrierError
    from checkpoint_stores.errors import CheckpointCorruptError as CheckpointCorruptError
    from checkpoint_stores.errors import CheckpointNotFoundError as CheckpointNotFoundError
    from checkpoint_stores.errors import CodecError as CodecError
    from checkpoint_stores.errors import DecisionConflictError as DecisionConflictError
    from checkpoint_stores.errors import DuplicateTypeError as DuplicateTypeError
    from checkpoint_stores.errors import EffectError as EffectError
    from checkpoint_stores.errors import EffectNotInDoubtError as EffectNotInDoubtError
    from checkpoint_stores.errors import GrantError as GrantError
    from checkpoint_stores.errors import IllegalTransitionError as IllegalTransitionError
    from checkpoint_stores.errors import InvalidDecisionError as InvalidDecisionError
    from checkpoint_stores.errors import InvalidGrantError as InvalidGrantError
    from checkpoint_stores.errors import LeaseHeldError as LeaseHeldError
    from checkpoint_stores.errors import LeaseLostError as LeaseLostError
    from checkpoint_stores.errors import NotAnApproverError as NotAnApproverError
    from checkpoint_stores.errors import NotDelegatedError as NotDelegatedError
    from checkpoint_stores.errors import RunEndedError as RunEndedError
    from checkpoint_stores.errors import RunExistsError as RunExistsError
    from checkpoint_stores.errors import RunFileError as RunFileError
    from checkpoint_stores.errors import RunMovedError as RunMovedError
    from checkpoint_stores.errors import RunNotEndedError as RunNotEndedError
    from checkpoint_stores.errors import RunNotFoundError as RunNotFoundError
    from checkpoint_stores.errors import SchemaVersionError as SchemaVersionError
    from checkpoint_stores.errors import StalePayloadError as StalePayloadError
    from checkpoint_stores.errors import StoreError as StoreError
    from checkpoint_stores.errors import StoreUnavailableError as StoreUnavailableError
    from checkpoint_stores.errors import TenantError as TenantError
    from checkpoint_stores.errors import TransactionError as TransactionError
    from checkpoint_stores.errors import TransactionOverError as TransactionOverError
    from checkpoint_stores.errors import TransactionTimeoutError as TransactionTimeoutError
    from checkpoint_stores.errors import TransactionUnavailableError as TransactionUnavailableError
    from checkpoint_stores.errors import UnknownBarrierError as UnknownBarrierError
    from checkpoint_stores.errors import UnknownEffectError as UnknownEffectError
    from checkpoint_stores.errors import UnknownFlowError as UnknownFlowError
    from checkpoint_stores.errors import UnknownGrantError as UnknownGrantError
    from checkpoint_stores.errors import UnserialisableError as UnserialisableError
    from checkpoint_stores.registered import register_type as register_type
    from engine.cancelling import CancelToken as CancelToken
    from engine.compatibility import Objection as Objection
    from engine.conditions import approved as approved
    from engine.conditions import rejected as rejected
    from engine.context import StepContext as StepContext
    from engine.context import current_step as current_step
    from engine.contracts import EdgeCount as EdgeCount
    from engine.contracts import RunCheck as RunCheck
    from engine.decisions import Decision as Decision
    from engine.errors import BadEventIdError as BadEventIdError
    from engine.errors import BarrierTimeoutError as BarrierTimeoutError
    from engine.errors import BranchError as BranchError
    from engine.errors import BranchTimeoutError as BranchTimeoutError
    from engine.errors import BreakError as BreakError
    from engine.errors import BulkheadFullError as BulkheadFullError
    from engine.errors import CapabilityDenied as CapabilityDenied
    from engine.errors import ChildInputError as ChildInputError
    from engine.errors import CircuitOpenError as CircuitOpenError
    from engine.errors import ConditionError as ConditionError
    from engine.errors import ContractError as ContractError
    from engine.errors import DrivenHereError as DrivenHereError
    from engine.errors import EditError as EditError
    from engine.errors import EffectInDoubtError as EffectInDoubtError
    from engine.errors import ExecutorClosedError as ExecutorClosedError
    from engine.errors import FallbackRequested as FallbackRequested
    from engine.errors import FinalStateError as FinalStateError
    from engine.errors import FlowError as FlowError
    from engine.errors import FlowValidationError as FlowValidationError
    from engine.errors import ForkedWaitError as ForkedWaitError
    from engine.errors import ForkError as ForkError
    from engine.errors import GotoError as GotoError
    from engine.errors import GraphChangedError as GraphChangedError
    from engine.errors import InputError as InputError
    from engine.errors import LoopLimitExceeded as LoopLimitExceeded
    from engine.errors import MergeConflictError as MergeConflictError
    from engine.errors import MergeError as MergeError
    from engine.errors import MiddlewareError as MiddlewareError
    from engine.errors import MigrationError as MigrationError
    from engine.errors import MissingResourceError as MissingResourceError
    from engine.errors import NodeCancelledError as NodeCancelledError
    from engine.errors import NodeError as NodeError
    from engine.errors import NodeTimeoutError as NodeTimeoutError
    from engine.errors import NoItemsError as NoItemsError
    from engine.errors import NoStepError as NoStepError
    from engine.errors import ReadOnlyStateError as ReadOnlyStateError
    from engine.errors import RejectedError as RejectedError
    from engine.errors import ResourceError as ResourceError
    from engine.errors import ReturnTypeError as ReturnTypeError
    from engine.errors import RunFailedError as RunFailedError
    from engine.errors import RunKeyConflictError as RunKeyConflictError
    from engine.errors import RunningLoopError as RunningLoopError
    from engine.errors import SignalTypeError as SignalTypeError
    from engine.errors import SlowConsumerError as SlowConsumerError
    from engine.errors import StaleContextError as StaleContextError
    from engine.errors import TimerError as TimerError
    from engine.errors import UndeclaredKeyError as UndeclaredKeyError
    from engine.errors import UndeclaredResourceError as UndeclaredResourceError
    from engine.errors import UndeclaredSignalError as UndeclaredSignalError
    from engine.errors import UndeclaredWriteError as UndeclaredWriteError
    from engine.errors import UnroutedError as UnroutedError
    from engine.errors import UnsetKeyError as UnsetKeyError
    from engine.errors import UpdateNotStorableError as UpdateNotStorableError
    from engine.errors import UpdateTypeError as UpdateTypeError
    from engine.errors import WaitOrderError as WaitOrderError
    from engine.errors import WaitTimeoutError as WaitTimeoutError
    from engine.errors import WrongFlowError as WrongFlowError
    from engine.errors import WrongThreadError as WrongThreadError
    from engine.errors import YieldedAfterResultError as YieldedAfterResultError
    from engine.executor import GraphExecutor as GraphExecutor
    from engine.failures import BranchesFailedError as BranchesFailedError
    from engine.flow import Flow as Flow
    from engine.flow import best_effort as best_effort
    from engine.flow import branch as branch
    from engine.forking import PartContext as PartContext
    from engine.graph import FlowGraph as FlowGraph
    from engine.handle import RunHandle as RunHandle
    from engine.middleware import Backpressure as Backpressure
    from engine.middleware import Bulkhead as Bulkhead
    from engine.middleware import CircuitBreaker as CircuitBreaker
    from engine.middleware import Middleware as Middleware
    from engine.middleware import NodeCall as NodeCall
    from engine.middleware import RateLimit as RateLimit
    from engine.middleware import Timeout as Timeout
    from engine.middleware import without as without
    from engine.migration import Migration as Migration
    from engine.notices import NodeWarning as NodeWarning
    from engine.notices import NotSavedWarning as NotSavedWarning
    from engine.notices import ObserverFailedWarning as ObserverFailedWarning
    from engine.notices import ResourceNotClosedWarning as ResourceNotClosedWarning
    from engine.notices import StrayBodyWarning as StrayBodyWarning
    from engine.notices import TrailmarkWarning as TrailmarkWarning
    from engine.observing import Committed as Committed
    from engine.outcomes import DELETE as DELETE
    from engine.outcomes import Break as Break
    from engine.outcomes import End as End
    from engine.outcomes import Fallback as Fallback
    from engine.outcomes import Goto as Goto
    from engine.outcomes import Update as Update
    from engine.plan import END as END
    from engine.plan import Escalation as Escalation
    from engine.plan import Retry as Retry
    from engine.pruning import Pruned as Pruned
    from engine.pruning import Retention as Retention
    from engine.pruning import prune as prune
    from engine.result import PendingRetry as PendingRetry
    from engine.result import RunResult as RunResult
    from engine.saving import SavePolicy as SavePolicy
    from engine.statistics import ExecutorStatistics as ExecutorStatistics
    from engine.statistics import MiddlewareStatistics as MiddlewareStatistics
    from reducers.errors import ReducerAnnotationError as ReducerAnnotationError
    from reducers.errors import ReducerError as ReducerError
    from reducers.errors import ReducerFunctionError as ReducerFunctionError
    from reducers.errors import ReducerTypeError as ReducerTypeError
    from reducers.errors import TrailmarkError as TrailmarkError
    from trailmark.metrics import Metrics as Metrics
    from trailmark.metrics import MetricsUnavailableError as MetricsUnavailableError
    from trailmark.settings import ExecutorSettings as ExecutorSettings
    from trailmark.settings import Settings as Settings
    from trailmark.settings import StoreSettings as StoreSettings
    from trailmark.settings import WorkerSettings as WorkerSettings

_HOMES = {
    "checkpoint_stores.errors": (
        "AmbiguousEffectError", "AmbiguousRunError", "AmbiguousTicketError", "ArgumentError", "BarrierClosedError", "BarrierError", "CheckpointCorruptError",
        "CheckpointNotFoundError", "CodecError", "DecisionConflictError", "DuplicateTypeError", "EffectError", "EffectNotInDoubtError", "GrantError",
        "IllegalTransitionError", "InvalidDecisionError", "InvalidGrantError", "LeaseHeldError", "LeaseLostError", "NotAnApproverError", "NotDelegatedError",
        "RunEndedError", "RunExistsError", "RunFileError", "RunMovedError", "RunNotEndedError", "RunNotFoundError", "SchemaVersionError", "StalePayloadError",
        "StoreError", "StoreUnavailableError", "TenantError", "TransactionError", "TransactionOverError", "TransactionTimeoutError",
        "TransactionUnavailableError", "UnknownBarrierError", "UnknownEffectError", "UnknownFlowError", "UnknownGrantError", "UnserialisableError",
    ),
    "checkpoint_stores.registered": ("register_type",),
    "engine.compatibility": ("Objection",),
    "engine.cancelling": ("CancelToken",),
    "engine.context": ("StepContext", "current_step"),
    "engine.conditions": ("approved", "rejected"),
    "engine.contracts": ("EdgeCount", "RunCheck"),
    "engine.decisions": ("Decision",),
    "engine.errors": (
        "BadEventIdError", "BarrierTimeoutError", "BranchError", "BranchTimeoutError", "BreakError", "BulkheadFullError", "CapabilityDenied", "ChildInputError", "CircuitOpenError", "ConditionError",
        "ContractError", "DrivenHereError", "EditError", "EffectInDoubtError", "ExecutorClosedError", "FallbackRequested", "FinalStateError", "FlowError",
        "FlowValidationError", "ForkError", "ForkedWaitError", "GotoError", "GraphChangedError", "InputError", "LoopLimitExceeded", "MergeConflictError",
        "MergeError", "MiddlewareError", "MissingResourceError", "MigrationError", "NodeCancelledError", "NodeError", "NodeTimeoutError", "NoItemsError", "NoStepError", "ReadOnlyStateError", "RejectedError", "ResourceError",
        "ReturnTypeError", "RunFailedError", "RunKeyConflictError", "RunningLoopError", "SignalTypeError", "SlowConsumerError", "StaleContextError", "TimerError",
        "UndeclaredKeyError", "UndeclaredResourceError", "UndeclaredSignalError", "UndeclaredWriteError", "UnroutedError", "UnsetKeyError", "UpdateNotStorableError",
        "UpdateTypeError", "WaitOrderError", "WaitTimeoutError", "WrongFlowError", "WrongThreadError", "YieldedAfterResultError",
    ),
    "engine.executor": ("GraphExecutor",),
    "engine.failures": ("BranchesFailedError",),
    "engine.flow": ("Flow", "best_effort", "branch"),
    "engine.forking": ("PartContext",),
    "engine.graph": ("FlowGraph",),
    "engine.handle": ("RunHandle",),
    "engine.pruning": ("Pruned", "Retention", "prune"),
    "engine.saving": ("SavePolicy",),
    "engine.result": ("PendingRetry", "RunResult"),
    "engine.migration": ("Migration",),
    "engine.notices": ("NodeWarning", "NotSavedWarning", "ObserverFailedWarning", "ResourceNotClosedWarning", "StrayBodyWarning", "TrailmarkWarning"),
    "engine.middleware": ("Backpressure", "Bulkhead", "CircuitBreaker", "Middleware", "NodeCall", "RateLimit", "Timeout", "without"),
    "engine.observing": ("Committed",),
    "engine.outcomes": ("DELETE", "Break", "End", "Fallback", "Goto", "Update"),
    "engine.plan": ("END", "Escalation", "Retry"),
    "engine.statistics": ("ExecutorStatistics", "MiddlewareStatistics"),
    "trailmark.settings": ("ExecutorSettings", "Settings", "StoreSettings", "WorkerSettings"),
    "trailmark.metrics": ("Metrics", "MetricsUnavailableError"),
    "reducers.errors": ("ReducerAnnotationError", "ReducerError", "ReducerFunctionError", "ReducerTypeError", "TrailmarkError"),
}  # fmt: skip
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__version__ = "0.1.0"
__all__ = sorted(_HOME_OF)  # noqa: PLE0605 - one table says where each name lives


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module 'trailmark' has no attribute {name!r}")
    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME_OF})
