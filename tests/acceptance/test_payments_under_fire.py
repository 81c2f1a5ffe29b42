"""A payment happens at most once, wherever its process is killed, and one that may have happened is named.

A child carries out two side effects (one in an async node, one in a plain node's thread) and kills itself (SIGKILL)
between two moments of one of them.  New processes, and a person where somebody has to look, bring the run to its end.
"""

from __future__ import annotations

from typing import Any

import pytest

from trailmark.checkpoint_stores import SQLCheckpointStore

MOMENTS = [
    # (how it dies, whether the effect has happened by then, what the store knows of it)
    ({"dies_before": "begin {}"}, False, []),
    ({"dies_after": "begin {}"}, False, ["in_doubt"]),
    ({"dies_in": ("{}", "before")}, False, ["in_doubt"]),
    ({"dies_in": ("{}", "behind")}, True, ["in_doubt"]),
    ({"dies_before": "end {}"}, True, ["in_doubt"]),
    ({"dies_after": "end {}"}, True, ["done"]),
]
STEPS = {"debit": 2, "credit": 3}
"""The rows of the two steps."""


def filled(moment: Any, name: str) -> dict[str, Any]:
    ((how, when),) = moment.items()
    return {how: when.format(name) if isinstance(when, str) else tuple(part.format(name) for part in when)}


@pytest.mark.parametrize("name", ["debit", "credit"])
@pytest.mark.parametrize(("moment", "has_happened", "known"), MOMENTS)
async def test_a_payment_whose_process_is_killed(
    children: Any, store_url: str, name: str, moment: dict[str, Any], *, has_happened: bool, known: list[str]
) -> None:
    said = children.run("start", store_url, flow="payment", input={"amount": 7}, **filled(moment, name))
    assert said["ended"] == -9
    async with SQLCheckpointStore(store_url, synchronous="OFF") as store:
        run_id = (await store.runs())[0].run_id
        assert children.places(run_id).count(name) == has_happened
        assert [effect.status for effect in await store.effects(run_id) if effect.name == name] == known

        said = children.run("resume", store_url, flow="payment", run_id=run_id)
        if known == ["in_doubt"]:
            # Nobody carries it out again by himself, however often the run is resumed.
            assert said["result"]["status"] == "suspended"
            assert children.run("resume", store_url, flow="payment", run_id=run_id)["result"]["status"] == "suspended"
            assert children.places(run_id).count(name) == has_happened
            await store.resolve_effect(run_id, name, done=has_happened, outcome=f"{name} by hand", by="ana")
            said = children.run("resume", store_url, flow="payment", run_id=run_id)
        assert said["result"]["status"] == "completed"
        assert sorted(children.places(run_id)) == ["credit", "debit"]
        assert [effect.status for effect in await store.effects(run_id)] == ["done", "done"]
        outcomes = {effect.name: effect.outcome for effect in await store.effects(run_id)}
        assert said["result"]["values"]["receipts"] == [outcomes["debit"], outcomes["credit"]]
        assert {effect.key for effect in await store.effects(run_id)} == {line["key"] for line in children.journal(run_id)}
        assert await store.verify(run_id) == []


@pytest.mark.parametrize("name", ["debit", "credit"])
async def test_a_payment_whose_process_is_killed_beside_the_checkpoint_of_its_step(children: Any, store_url: str, name: str) -> None:
    for kill in ({"dies_before": STEPS[name]}, {"dies_after": STEPS[name]}):
        said = children.run("start", store_url, flow="payment", input={"amount": 7}, **kill)
        assert said["ended"] == -9
        async with SQLCheckpointStore(store_url, synchronous="OFF") as store:
            run_id = (await store.runs())[0].run_id
        said = children.run("resume", store_url, flow="payment", run_id=run_id)
        assert said["result"]["status"] == "completed"
        assert sorted(children.places(run_id)) == ["credit", "debit"]
