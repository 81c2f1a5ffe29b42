"""The catalog of events: what a run tells whoever watches it.  Public.

    async with run.events() as events:
        async for envelope in events:
            print(envelope.id, envelope.event.kind)

Every event is one of a closed set of models, told apart by ``kind``; `Envelope` says whose it is and where it stands.  `parse`
reads one back from JSON; `sse` renders a stream as server-sent events.
"""

from __future__ import annotations

from engine.catalog import (
    BACKEND,
    KINDS,
    MODELS,
    TERMINATORS,
    AnyEvent,
    BarrierResolved,
    BarrierWaiting,
    BranchComplete,
    Cancelled,
    CheckpointSaved,
    Custom,
    Degraded,
    Dropped,
    Envelope,
    Event,
    EventId,
    FlowComplete,
    FlowError,
    FlowStart,
    Merged,
    Migrated,
    MovedStep,
    ParallelStarted,
    Retrying,
    StateChanged,
    StepComplete,
    StepStart,
    StepToken,
    Suspended,
    ToolCall,
    Waiting,
    Woken,
)
from engine.errors import BadEventIdError
from engine.following import EventStream, follow, last_events
from engine.queues import Delivery
from engine.sse import MEDIA_TYPE, block, sse

__all__ = [
    "BACKEND", "KINDS", "MEDIA_TYPE", "MODELS", "TERMINATORS", "AnyEvent", "BadEventIdError", "BarrierResolved", "BarrierWaiting", "BranchComplete", "Cancelled",
    "CheckpointSaved", "Custom", "Degraded", "Delivery", "Dropped", "Envelope", "Event", "EventId", "EventStream", "FlowComplete", "FlowError", "FlowStart", "Merged",
    "Migrated", "MovedStep", "ParallelStarted", "Retrying", "StateChanged", "StepComplete", "StepStart", "StepToken", "Suspended", "ToolCall", "Waiting", "Woken", "block", "follow", "last_events", "parse", "sse",
]  # fmt: skip


def parse(text: str | bytes) -> Envelope:
    """Read an event from its JSON.  Raises pydantic.ValidationError, also for a kind that is not in the catalog."""
    return Envelope.model_validate_json(text)
