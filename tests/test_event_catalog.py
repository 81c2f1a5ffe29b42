"""The catalog of events: what is on the wire never changes without a test that says so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest
from pydantic import ValidationError

from checkpoint_stores.memory import MemoryCheckpointStore
from engine.executor import GraphExecutor
from engine.flow import Flow
from engine.masking import masked
from engine.plan import END
from trailmark.events import KINDS, MODELS, BadEventIdError, Envelope, EventId, parse, sse

GOLDEN: list[dict[str, Any]] = orjson.loads((Path(__file__).parent / "golden" / "events.json").read_bytes())

# Exactly these, in this order: they are the contract with whoever reads a stream.
FIRST_SEVEN = {
    "flow_start": ["flow_name", "backend", "timestamp_ms"],
    "step_start": ["step_name", "step_index", "step_type", "timestamp_ms"],
    "step_token": ["step_name", "content", "token_index", "timestamp_ms"],
    "step_complete": ["step_name", "step_index", "success", "full_output", "tokens_input", "tokens_output", "timestamp_ms"],
    "tool_call": ["step_name", "tool_name", "content", "timestamp_ms"],
    "flow_complete": [
        "flow_name", "backend", "success", "steps_executed", "tokens_input", "tokens_output", "latency_ms", "timestamp_ms",
    ],
    "flow_error": ["flow_name", "error", "timestamp_ms"],
}  # fmt: skip


def test_the_corpus_holds_every_kind() -> None:
    assert {line["event"]["kind"] for line in GOLDEN} == set(KINDS)


@pytest.mark.parametrize("line", GOLDEN, ids=lambda line: line["event"]["kind"])
def test_every_kind_survives_the_way_to_json_and_back_byte_for_byte(line: dict[str, Any]) -> None:
    text = orjson.dumps(line).decode()
    envelope = parse(text)
    assert envelope.model_dump_json() == text
    assert parse(envelope.model_dump_json()) == envelope
    assert type(envelope.event) is MODELS[line["event"]["kind"]]


@pytest.mark.parametrize(("kind", "fields"), FIRST_SEVEN.items())
def test_the_fields_of_the_seven_are_exactly_these(kind: str, fields: list[str]) -> None:
    assert list(MODELS[kind].model_fields) == ["kind", *fields]


@pytest.mark.parametrize("line", GOLDEN, ids=lambda line: line["event"]["kind"])
def test_no_field_may_be_missing_and_none_may_be_added(line: dict[str, Any]) -> None:
    for field in line["event"]:
        with pytest.raises(ValidationError):
            Envelope.model_validate({**line, "event": {key: value for key, value in line["event"].items() if key != field}})
    with pytest.raises(ValidationError):
        Envelope.model_validate({**line, "event": {**line["event"], "more": 1}})


def test_an_unknown_kind_is_rejected() -> None:
    with pytest.raises(ValidationError, match="step_thought"):
        Envelope.model_validate({"id": "1.1.0", "run_id": "r", "seq": 1, "event": {"kind": "step_thought", "timestamp_ms": 0}})


def test_the_predicates_answer_for_every_kind() -> None:
    events = {line["event"]["kind"]: parse(orjson.dumps(line)).event for line in GOLDEN}
    assert {kind for kind, event in events.items() if event.is_terminator} == {"flow_complete", "flow_error"}
    assert {kind for kind, event in events.items() if not event.is_step_scoped} == {
        "flow_start", "flow_complete", "flow_error", "suspended", "cancelled", "state_changed", "checkpoint_saved", "retrying", "migrated",
    }  # fmt: skip
    assert all(event.kind == kind for kind, event in events.items())


def test_a_retry_is_about_a_step_and_a_resume_about_the_run() -> None:
    retrying = [parse(orjson.dumps(line)).event for line in GOLDEN if line["event"]["kind"] == "retrying"]
    assert [event.is_step_scoped for event in retrying] == [True, False]


@pytest.mark.parametrize("given", ["", "1.2", "1.2.3.4", "a.b.c", "1.2.-3", "1.2.3 "])
def test_what_is_no_event_id_is_refused_with_its_shape(given: str) -> None:
    with pytest.raises(BadEventIdError, match="an id looks like"):
        EventId.parse(given)


async def test_server_sent_events_carry_the_id_the_kind_and_one_line_of_data() -> None:
    async def stream() -> Any:
        for line in GOLDEN[:4]:
            yield parse(orjson.dumps(line))

    told = [part async for part in sse(stream())]
    assert told[3].splitlines()[:2] == ["id: 1.2.1", "event: step_token"]
    assert all(part.endswith("\n\n") and part.count("\ndata: ") == 1 for part in told)
    assert [parse(part.splitlines()[2].removeprefix("data: ")).id for part in told] == ["1.1.0", "1.1.1", "1.2.0", "1.2.1"]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("no secret here: 12 tokens=3", "no secret here: 12 tokens=3"),
        ("postgresql+asyncpg://ana:hunter2@db:5432/runs", "postgresql+asyncpg://ana:***@db:5432/runs"),
        ("GET https://x.io/?api_key=abc123&q=1 failed", "GET https://x.io/?api_key=***&q=1 failed"),
        ('{"password": "hunter 2", "user": "ana"}', '{"password": ***, "user": "ana"}'),
        ("Authorization: Bearer abcdef123456", "Authorization: Bearer ***"),
        ("invalid key sk-proj-0123456789abcdef", "invalid key ***"),
        ("AKIAIOSFODNN7EXAMPLE is not allowed", "*** is not allowed"),
    ],
)
def test_what_looks_like_a_secret_is_hidden(text: str, shown: str) -> None:
    assert masked(text) == shown


async def test_server_sent_events_of_a_run_end_with_its_terminator_and_then_the_stream_is_over() -> None:
    flow = Flow("told", {"n": int})

    @flow.node
    async def only(state: Any) -> dict[str, Any]:
        return {"n": 1}

    executor = GraphExecutor(flow.set_entry("only").add_edge("only", END).compile(), store=MemoryCheckpointStore())
    run = await executor.execute({})
    told = [part async for part in sse(executor.events(run.run_id))]
    kinds = [part.splitlines()[1].removeprefix("event: ") for part in told]
    assert (kinds[0], kinds[-1]) == ("flow_start", "flow_complete")
    assert [kind for kind in kinds if kind in {"flow_complete", "flow_error"}] == ["flow_complete"]
    last = parse(told[-1].splitlines()[2].removeprefix("data: "))
    assert (told[-1].splitlines()[0], told[-1][-2:]) == (f"id: {last.id}", "\n\n")
    assert [part async for part in sse(executor.events(run.run_id, after=last.id))] == [], "nothing is behind it"
