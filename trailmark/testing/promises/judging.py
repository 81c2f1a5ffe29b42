"""What is promised of judging a decision before it is kept: who says it, what was shown, and what its action takes.

What is refused leaves no trace.  How decisions that are sound count against each other is `decisions`.
"""

# ruff: noqa: S101 - a test asserts
from __future__ import annotations

import pytest

from checkpoint_stores.errors import InvalidDecisionError, NotAnApproverError, StalePayloadError, UnserialisableError
from checkpoint_stores.protocol import CheckpointStore
from trailmark.testing.owned_runs import Verdict, new_run


class JudgingContract:
    """A decision that is not sound is refused, and nothing of it is kept."""

    async def test_only_approvers_decide(self, store: CheckpointStore) -> None:
        run = await new_run(store)
        await run.open_barrier(approvers=("ana", "finance"))
        with pytest.raises(NotAnApproverError) as caught:
            await store.decide(run.run_id, "review", Verdict(by="ben", roles=("sales",)))
        assert caught.value.approvers == ("ana", "finance")
        assert await store.decisions(run.run_id) == []
        await store.decide(run.run_id, "review", Verdict(by="ben", roles=("sales", "finance")))

    @pytest.mark.parametrize("nobody", ["", "timeout"])
    async def test_nobody_decides_without_a_name_or_in_the_name_of_the_deadline(self, store: CheckpointStore, nobody: str) -> None:
        run = await new_run(store)
        await run.open_barrier()
        with pytest.raises(InvalidDecisionError):
            await store.decide(run.run_id, "review", Verdict(by=nobody))

    async def test_a_decision_over_another_payload_is_stale(self, store: CheckpointStore) -> None:
        run = await new_run(store)
        shown = await run.open_barrier()
        with pytest.raises(StalePayloadError) as caught:
            await store.decide(run.run_id, "review", Verdict(seen="e" * 64))
        assert (caught.value.seen, caught.value.current) == ("e" * 64, shown.digest)
        await store.decide(run.run_id, "review", Verdict(seen=shown.digest))

    async def test_edits_fit_the_form(self, store: CheckpointStore) -> None:
        form = {"type": "object", "properties": {"amount": {"type": "number", "maximum": 1000}}, "additionalProperties": False}
        run = await new_run(store)
        await run.open_barrier(form=form)
        for edits in ({"amount": "much"}, {"amount": 1001}, {"vendor": "x"}, None):
            with pytest.raises(InvalidDecisionError):
                await store.decide(run.run_id, "review", Verdict("modify", edits=edits))
        with pytest.raises(InvalidDecisionError, match="amount"):
            await store.decide(run.run_id, "review", Verdict("modify", edits={"amount": 1001}))
        assert await store.decisions(run.run_id) == []
        assert (await store.decide(run.run_id, "review", Verdict("modify", edits={"amount": 1000}))).edits == {"amount": 1000}

    async def test_edits_are_kept_as_data_and_nobody_can_change_them_afterwards(self, store: CheckpointStore) -> None:
        run = await new_run(store)
        await run.open_barrier(form={})
        with pytest.raises(UnserialisableError):
            await store.decide(run.run_id, "review", Verdict("modify", edits={"file": object()}))
        edits = {"lines": [1, 2]}
        await store.decide(run.run_id, "review", Verdict("modify", edits=edits))
        edits["lines"].append(3)
        assert [decision.edits for decision in await store.decisions(run.run_id)] == [{"lines": [1, 2]}]

    async def test_a_form_never_fetches_a_remote_schema(self, store: CheckpointStore) -> None:
        run = await new_run(store)
        await run.open_barrier(form={"$ref": "http://127.0.0.1:9/form.json"})
        with pytest.raises(InvalidDecisionError, match="not a usable JSON Schema"):
            await store.decide(run.run_id, "review", Verdict("modify", edits={}))

    async def test_what_an_action_does_not_take_is_refused(self, store: CheckpointStore) -> None:
        run = await new_run(store)
        await run.open_barrier(targets=("pay",))
        for wrong in (
            Verdict("modify", edits={"amount": 1}), Verdict("reroute", target="elsewhere"), Verdict("reroute"),
            Verdict("approve", edits={}), Verdict("approve", target="pay"), Verdict("wave"),
        ):  # fmt: skip
            with pytest.raises(InvalidDecisionError):
                await store.decide(run.run_id, "review", wrong)
        assert await store.decisions(run.run_id) == []
        assert (await store.decide(run.run_id, "review", Verdict("reroute", target="pay"))).target == "pay"

    @pytest.mark.parametrize("name", ["", " ", "timeout", " ana", "ana ", "ana\n", "a\x00b", "Jose\u0301"])
    async def test_what_names_nobody_or_somebody_in_another_spelling_decides_nothing(self, store: CheckpointStore, name: str) -> None:
        run = await new_run(store)
        await run.open_barrier(quorum=2)
        await store.decide(run.run_id, "review", Verdict(by="ana"))
        for decision in (Verdict(by=name), Verdict(by="ben", on_behalf_of=name)):
            with pytest.raises(InvalidDecisionError, match="names nobody"):
                await store.decide(run.run_id, "review", decision)
        assert [vote.actor for vote in await store.decisions(run.run_id)] == ["ana"]

    @pytest.mark.parametrize("amount", [float("nan"), float("inf"), 10**400])
    async def test_an_edit_that_cannot_be_checked_is_refused(self, store: CheckpointStore, amount: float) -> None:
        run = await new_run(store)
        await run.open_barrier(form={"properties": {"amount": {"type": "number", "multipleOf": 0.01}}})
        with pytest.raises(InvalidDecisionError, match="the edits cannot be checked"):
            await store.decide(run.run_id, "review", Verdict("modify", edits={"amount": amount}))

    async def test_a_form_with_a_pattern_that_python_does_not_read_is_said_to_be_unusable(self, store: CheckpointStore) -> None:
        run = await new_run(store)
        await run.open_barrier(form={"properties": {"vendor": {"pattern": r"^\p{L}+$"}}})
        with pytest.raises(InvalidDecisionError, match="not a usable JSON Schema: bad escape"):
            await store.decide(run.run_id, "review", Verdict("modify", edits={"vendor": "ACME"}))
