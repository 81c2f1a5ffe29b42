"""Barriers: what a ticket shows, what votes add up to."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from checkpoint_stores.fold import Scope
from checkpoint_stores.records import DecisionRecord
from engine.barriers import decision_data, details_of, opened, payload_digest, record_of, timed_out, verdict
from engine.decisions import Decision
from engine.errors import NodeError
from engine.plan import BarrierPlan, EdgePlan, NodePlan


def vote(action: str, actor: str = "ana", number: int = 1) -> DecisionRecord:
    approves = action == "approve"
    return DecisionRecord(f"v{number}", "r", "review#1", action, actor, approves=approves, decided_at=number)  # type: ignore[arg-type]


def barrier(**settings: Any) -> NodePlan:
    edges = {
        "conditional": (EdgePlan("pay", "conditional"),),
        "normal": EdgePlan("notify", "normal"),
        "fallbacks": (EdgePlan("later", "fallback"),),
    }
    return NodePlan("review", "barrier", barrier=BarrierPlan(**settings), **edges)  # type: ignore[arg-type]


def standing(**values: Any) -> Scope:
    scope = Scope("", None, "review")
    scope.values = values
    return scope


@pytest.mark.parametrize(
    ("quorum", "votes", "decides"),
    [
        (1, [], None),
        (1, [("approve", "ana")], 0),
        (1, [("skip", "ana")], 0),
        (1, [("modify", "ana")], 0),
        (1, [("reroute", "ana")], 0),
        (2, [("approve", "ana")], None),
        (2, [("approve", "ana"), ("approve", "ana")], None),
        (2, [("approve", "ana"), ("approve", "ben")], 1),
        (2, [("approve", "ana"), ("reject", "ben")], 1),
        (2, [("reject", "ana")], 0),
        (3, [("approve", "ana"), ("approve", "ben"), ("approve", "cleo"), ("approve", "dan")], 2),
    ],
)
def test_what_votes_add_up_to(quorum: int, votes: list[tuple[str, str]], decides: int | None) -> None:
    records = [vote(action, actor, number) for number, (action, actor) in enumerate(votes)]
    assert verdict(quorum, records) == (None if decides is None else records[decides])


def test_a_ticket_shows_the_declared_keys_and_offers_the_ways_that_are_no_fallback() -> None:
    node = barrier(
        prompt="Pay {vendor} {amount:.2f}?", show=("vendor", "amount", "missing"), timeout=timedelta(hours=1), on_timeout="reject"
    )
    record = opened("r", node, standing(vendor="ACME", amount=9.5, secret=1), 1_000, seq=3)
    assert (record.prompt, record.payload) == ("Pay ACME 9.50?", {"vendor": "ACME", "amount": 9.5})
    assert (record.ticket, record.targets, record.deadline, record.on_timeout) == ("review#1", ("pay", "notify"), 3_600_001_000, "reject")
    assert record.digest == payload_digest(record.prompt, record.payload)


def test_the_digest_tells_what_was_seen() -> None:
    one, other = (opened("r", barrier(prompt="{n}", show=("n",)), standing(n=n), 0, seq=1).digest for n in (1, 2))
    assert one != other
    assert one == opened("r2", barrier(prompt="{n}", show=("n",)), standing(n=1), 99, seq=2).digest


@pytest.mark.parametrize("prompt", ["{missing}", "{n.real.nothing}", "{n:%Y}"])
def test_a_prompt_that_cannot_be_written_is_the_nodes_error(prompt: str) -> None:
    with pytest.raises(NodeError, match="prompt of node 'review' cannot be written"):
        opened("r", barrier(prompt=prompt, show=("n", "missing")), standing(n=1), 0, seq=1)


def test_a_ticket_can_be_made_again_from_what_the_checkpoint_keeps() -> None:
    node = barrier(prompt="{n}", show=("n",), approvers=("ana", "finance"), quorum=2, timeout=timedelta(days=1), early=False)
    scope = standing(n=1)
    record = opened("r", node, scope, 7, seq=5)
    scope.detail = [record.ticket, details_of(record)]
    assert record_of("r", scope, seq=5) == record


def test_a_deadlines_decision_is_nobodys() -> None:
    record = timed_out("r", "review#1", "approve", "d", 5)
    assert (record.actor, record.source, record.approves, record.payload_digest, record.decided_at) == ("timeout", "timeout", True, "d", 5)
    assert not timed_out("r", "review#1", "skip", "d", 5).approves


def test_later_nodes_can_read_who_voted() -> None:
    votes = [vote("approve", "ana", 1), vote("approve", "ben", 2)]
    data = decision_data(votes[1], votes)
    assert Decision.of_data(data).by == "ben"
    assert [each["by"] for each in data["votes"]] == ["ana", "ben"]
    assert "votes" not in decision_data(votes[0], votes[:1])
