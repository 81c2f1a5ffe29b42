"""The checker of streams objects to every promise that is broken, and to nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from trailmark.events import MODELS, Envelope
from trailmark.testing import StreamChecker, StreamViolationError

FILLED: dict[str, Any] = {
    "flow_start": {"flow_name": "f", "backend": "trailmark"},
    "step_start": {"step_name": "a", "step_index": 0, "step_type": "task"},
    "step_token": {"step_name": "a", "content": "x", "token_index": 1},
    "step_complete": {"step_name": "a", "step_index": 0, "success": True, "full_output": "", "tokens_input": 0, "tokens_output": 0},
    "flow_complete": {
        "flow_name": "f", "backend": "trailmark", "success": True, "steps_executed": 1, "tokens_input": 0, "tokens_output": 0, "latency_ms": 1,
    },
    "flow_error": {"flow_name": "f", "error": "no"},
    "suspended": {"reason": "waiting", "detail": "", "waiting_for": []},
    "retrying": {
        "reason": "resumed", "step_name": "", "attempt": 2, "error": "", "due_ms": None, "open_steps": [], "last_token_index": 0,
    },
    "parallel_started": {"step_name": "a", "step_index": 0, "branches": ["a[0]"]},
    "branch_complete": {"step_name": "a", "branch": "a[0]", "success": True, "error": ""},
    "barrier_resolved": {"step_name": "a", "step_index": 0, "ticket": "a#1", "action": "approve", "by": "ana", "reason": ""},
}  # fmt: skip


def stream(*told: Any) -> list[Envelope]:
    """Events from kinds, or from pairs of a kind and what differs; ``path``, ``run_id`` and ``id`` are the envelope's."""
    envelopes = []
    for number, each in enumerate(told):
        kind, given = (each, {}) if isinstance(each, str) else each
        around = {"id": f"1.{number}.0", "run_id": "r", "seq": number, "path": ""}
        around |= {name: given[name] for name in given if name in around}
        fields = {name: value for name, value in given.items() if name not in around}
        event = MODELS[kind](**{**FILLED[kind], "timestamp_ms": 0, **fields})
        envelopes.append(Envelope(**around, event=event))
    return envelopes


GOOD = [
    ("nothing", []),
    ("a step", ["flow_start", "step_start", "step_token", "step_complete", "flow_complete"]),
    ("a failure", ["flow_start", "step_start", ("step_complete", {"success": False}), "flow_error"]),
    ("a pause", ["flow_start", "suspended", "retrying", "step_start", "step_complete", "flow_complete"]),
    ("a step lost with its process, and told again",
     ["flow_start", "step_start", "step_token", "retrying", "step_start", "step_token", "step_complete", "flow_complete"]),
    ("branches", ["flow_start", "step_start", "parallel_started", ("step_start", {"path": "a[0]", "step_index": 1, "step_name": "b"}),
                  ("step_complete", {"path": "a[0]", "step_index": 1, "step_name": "b"}), ("branch_complete", {"path": "a[0]"}),
                  "step_complete", "flow_complete"]),
]  # fmt: skip

BAD = [
    ("no flow_start", ["step_start"], "the first event is no flow_start"),
    ("two flow_starts", ["flow_start", "flow_start"], "flow_start is not the first"),
    ("no terminator", ["flow_start", "suspended"], "without a terminator"),
    ("two terminators", ["flow_start", "flow_complete", "flow_error"], "follows the terminator"),
    ("an open step at the end", ["flow_start", "step_start", "flow_complete"], "while steps are open"),
    ("a step in a step", ["flow_start", "step_start", ("step_start", {"step_index": 1})], "is open there already"),
    ("an index twice", ["flow_start", "step_start", "step_complete", "step_start"], "given before"),
    ("a complete without a start", ["flow_start", "step_complete"], "no step is open"),
    ("another step's complete", ["flow_start", "step_start", ("step_complete", {"step_index": 3})], "has the index 0"),
    ("a token outside", ["flow_start", "step_token"], "no step is open"),
    ("a token of another step", ["flow_start", "step_start", ("step_token", {"step_name": "b"})], "is 'a'"),
    ("a token twice", ["flow_start", "step_start", "step_token", "step_token"], "given before"),
    ("a token index that falls", ["flow_start", "step_start", ("step_token", {"token_index": 2}), "step_token"], "does not rise"),
    ("token zero", ["flow_start", "step_start", ("step_token", {"token_index": 0})], "count from 1"),
    ("another run", ["flow_start", ("step_start", {"run_id": "s"})], "another run"),
    ("an id that falls", ["flow_start", ("step_start", {"id": "1.0.0"})], "does not rise"),
    ("a branch nobody opened", ["flow_start", "step_start", ("branch_complete", {"path": "a[0]"})], "no parallel step"),
    ("a branch that ends twice", ["flow_start", "step_start", "parallel_started", ("branch_complete", {"path": "a[0]"}),
                                  ("branch_complete", {"path": "a[0]"})], "is not open"),
    ("a ticket nobody opened", ["flow_start", "step_start", "barrier_resolved"], "ticket is not open"),
]  # fmt: skip


@pytest.mark.parametrize(("what", "told"), GOOD, ids=[what for what, *_ in GOOD])
def test_a_good_stream_passes(what: str, told: list[Any]) -> None:
    assert len(StreamChecker.check(stream(*told))) == len(told)


@pytest.mark.parametrize(("what", "told", "problem"), BAD, ids=[what for what, *_ in BAD])
def test_a_broken_promise_is_named(what: str, told: list[Any], problem: str) -> None:
    with pytest.raises(StreamViolationError, match=problem):
        StreamChecker.check(stream(*told))


def test_a_segment_may_begin_in_the_middle_and_end_suspended() -> None:
    told = stream("retrying", "barrier_resolved", "step_complete", ("step_start", {"step_index": 1}), "suspended")
    StreamChecker.check(told, "segment")
    with pytest.raises(StreamViolationError):
        StreamChecker.check(told)


def test_a_segment_closes_no_step_twice() -> None:
    with pytest.raises(StreamViolationError, match="closed before"):
        StreamChecker.check(stream("retrying", "step_complete", "step_complete", "flow_complete"), "segment")
