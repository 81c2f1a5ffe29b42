"""A process that is killed while it speaks: the log has every durable word once, and whoever comes back misses nothing."""

from __future__ import annotations

from typing import Any

import pytest

from trailmark.checkpoint_stores import SQLCheckpointStore
from trailmark.events import Envelope, follow, parse
from trailmark.testing import StreamChecker

STORY = ["Once ", "upon ", "a time", "there ", "was ", "a process", "that ", "never died."]


def heard_until_the_body_waits(child: Any) -> list[Envelope]:
    """The events a child tells until its chosen node waits, and the two words that come before that."""
    heard: list[Envelope] = []
    is_waiting = False
    while not is_waiting or tokens(heard)[-1:] != ["was "]:
        line = child._line()
        if "in_body" in line:
            is_waiting = True
        else:
            heard.append(parse(line["event"]))
    return heard


def heard_to_the_end(child: Any) -> list[Envelope]:
    heard = []
    while "event" in (line := child._line()):
        heard.append(parse(line["event"]))
    assert line["result"]["status"] == "completed", line
    child.end()
    return heard


def tokens(envelopes: list[Envelope]) -> list[str]:
    return [envelope.event.content for envelope in envelopes if envelope.event.kind == "step_token"]


@pytest.mark.parametrize("kills", [1, 3])
async def test_a_run_that_is_killed_while_it_speaks_is_told_as_if_it_had_not_been(children: Any, store_url: str, kills: int) -> None:
    child = children.start("watch", store_url, flow="story", input={}, waits_in="middle")
    heard = heard_until_the_body_waits(child)
    run_id = heard[0].run_id
    for left in range(kills, 0, -1):
        child.kill()
        child.end()
        waits = {"waits_in": "middle"} if left > 1 else {}
        child = children.start("watch", store_url, flow="story", run_id=run_id, after=heard[-1].id, **waits)
        heard += heard_until_the_body_waits(child) if left > 1 else heard_to_the_end(child)

    async with SQLCheckpointStore(store_url) as store:
        log = [envelope async for envelope in follow(store, run_id)]

    StreamChecker.check(log)
    assert tokens(log) == STORY
    indices = [envelope.event.token_index for envelope in log if envelope.event.kind == "step_token"]
    assert indices == list(range(1, len(STORY) + 1))
    kinds = [envelope.event.kind for envelope in log]
    assert (kinds.count("flow_start"), kinds.count("retrying"), kinds[-1]) == (1, kills, "flow_complete")
    assert log[-1].event.tokens_output == len(STORY)

    StreamChecker.check(heard)
    got = [bare(envelope) for envelope in heard]
    assert [envelope for envelope in log if bare(envelope) not in got] == []


def bare(envelope: Envelope) -> tuple[str, dict[str, Any]]:
    """An event without its id and its time: a database may date two rows of one commit a moment apart from what it told of it."""
    return envelope.path, envelope.event.model_dump(exclude={"timestamp_ms", "latency_ms"})
