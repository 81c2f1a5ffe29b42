"""Events as server-sent events: the text that an EventSource in a browser reads.

One event is one block: its id (for Last-Event-ID), its kind, its envelope as
one line of JSON.  Knows no server; whoever has one sends the blocks.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator

from engine.catalog import Envelope

MEDIA_TYPE = "text/event-stream"


def block(envelope: Envelope) -> str:
    """One event as text.

    >>> from engine.catalog import FlowError
    >>> envelope = Envelope(id="1.3.4", run_id="r", seq=3, event=FlowError(flow_name="f", error="broken", timestamp_ms=0))
    >>> print(block(envelope), end="")
    id: 1.3.4
    event: flow_error
    data: {"id":"1.3.4","run_id":"r","seq":3,"event":{"kind":"flow_error","flow_name":"f","error":"broken","timestamp_ms":0}}
    <BLANKLINE>
    """
    return f"id: {envelope.id}\nevent: {envelope.event.kind}\ndata: {envelope.model_dump_json()}\n\n"


async def sse(events: AsyncIterable[Envelope]) -> AsyncIterator[str]:
    """The blocks of a stream, for a response of type ``text/event-stream``.

    The last block is the terminator's (or ``suspended``); then the response ends.  A browser that reconnects sends the last id it
    got as ``Last-Event-ID``: give it to `GraphExecutor.events` as ``after``.
    """
    async for envelope in events:
        yield block(envelope)
