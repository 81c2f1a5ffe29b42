"""Two processes want the same thing at the same instant, or one believes it still has what another has taken.

The rivals open the store, say that they are ready, and act on one word from the test.  A process that is stopped
(SIGSTOP) past its lease is the only thing here that real time has to pass for, and it is the database's clock that says so.
"""

from __future__ import annotations

import signal
from collections import Counter
from datetime import datetime, timedelta
from typing import Any

import pytest

from trailmark import Decision
from trailmark.checkpoint_stores import LeaseHeldError, SQLCheckpointStore

ROUNDS = 20


def begin(*rivals: Any) -> None:
    """Let all go at once, when all are ready."""
    for rival in rivals:
        rival.next("ready")
    for rival in rivals:
        rival.say("go")


def parked(children: Any, url: str) -> str:
    """A run that waits at its barrier, held by nobody."""
    said = children.run("start", url, flow="approval", input={})
    assert said["result"]["waiting_for"] == ["gate#1"]
    run_id: str = said["result"]["run_id"]
    return run_id


# --- two at once ----------------------------------------------------------------------------------------------------
async def test_of_two_processes_that_resume_one_run_exactly_one_wins(children: Any, store_url: str, tables: Any) -> None:
    for _ in range(5):
        said = children.run("start", store_url, flow="relay", input={}, dies_behind=2)
        assert said["ended"] == -9
        async with SQLCheckpointStore(store_url) as store:
            run_id = (await store.runs(limit=1))[0].run_id
            rivals = [children.start("resume", store_url, flow="relay", run_id=run_id, on_a_word=True, waits_in="second") for _ in range(2)]
            begin(*rivals)
            first, second = (rival._line() for rival in rivals)
            winner, loser = (rivals, rivals[::-1])["in_body" in second]
            refused = second if winner is rivals[0] else first
            assert refused["error"]["type"] == "LeaseHeldError", refused
            assert refused["error"]["run_id"] == run_id
            assert refused["error"]["owner"] == (await store.run(run_id)).owner
            assert f":{winner.pid}:" in refused["error"]["owner"]
            until = refused["error"]["message"].split(" until ")[1].split(";")[0]
            assert datetime.fromisoformat(until).timestamp() * 1_000_000 > await store.now()

            winner.say("go on")
            assert winner.end()["result"]["values"]["trail"] == ["first in attempt 1", "second in attempt 2", "third in attempt 2"]
            loser.end()
            assert children.places(run_id) == ["first", "second", "third"]
            assert await store.verify(run_id) == []


async def test_of_two_people_who_decide_one_barrier_differently_exactly_one_wins(children: Any, store_url: str) -> None:
    run_ids = [parked(children, store_url) for _ in range(ROUNDS)]
    people = {
        name: children.start("decide_often", store_url, run_ids=run_ids, barrier="gate", by=name, action=action, on_a_word=True)
        for name, action in (("ana", "approve"), ("ben", "reject"))
    }
    winners = []
    async with SQLCheckpointStore(store_url) as store:
        for run_id in run_ids:
            begin(*people.values())
            answers = {name: person._line() for name, person in people.items()}

            (winner,) = [name for name, answer in answers.items() if "decided" in answer]
            (loser,) = [name for name, answer in answers.items() if "refused" in answer]
            winners.append(winner)
            assert answers[loser]["refused"]["type"] == "DecisionConflictError"
            assert answers[loser]["refused"]["winner"] == winner
            assert [record.actor for record in await store.decisions(run_id)] == [winner]
            (barrier,) = await store.barriers(run_id=run_id, status=None)
            assert barrier.status == "decided"
            assert (await store.run(run_id)).inbox_rev == 1

    for person in people.values():
        person.end()
    assert len(winners) == ROUNDS


async def test_two_processes_that_start_one_run_key_get_one_run(children: Any, store_url: str) -> None:
    async with SQLCheckpointStore(store_url) as store:
        for number in range(5):
            key = f"order-{number}"
            rivals = [children.start("start", store_url, flow="relay", input={}, run_key=key, on_a_word=True) for _ in range(2)]
            begin(*rivals)
            one, other = [rival.end()["result"] for rival in rivals]

            assert one["run_id"] == other["run_id"]
            assert one["status"] == other["status"] == "completed"
            assert Counter(children.places(one["run_id"])) == Counter(["first", "second", "third"])
        assert len(await store.runs()) == 5


async def test_of_two_processes_that_insist_on_a_new_run_exactly_one_wins(children: Any, store_url: str) -> None:
    async with SQLCheckpointStore(store_url) as store:
        for number in range(5):
            key = f"order-{number}"
            rivals = [
                children.start("start", store_url, flow="relay", input={}, run_key=key, if_exists="error", on_a_word=True) for _ in range(2)
            ]
            begin(*rivals)
            answers = [rival.end() for rival in rivals]

            (won,) = [answer["result"] for answer in answers if "result" in answer]
            (lost,) = [answer["error"] for answer in answers if "error" in answer]
            assert lost["type"] == "RunExistsError", lost
            assert lost["run_key"] == key
            assert lost["run_id"] == won["run_id"]
            assert Counter(children.places(won["run_id"])) == Counter(["first", "second", "third"])
        assert len(await store.runs()) == 5


async def test_two_processes_that_open_a_fresh_database_at_once_both_can_use_it(children: Any, store_url: str) -> None:
    rivals = [children.start("start", store_url, flow="relay", input={}) for _ in range(4)]

    assert [rival.end()["result"]["status"] for rival in rivals] == ["completed"] * 4


# --- the dead and the stopped ---------------------------------------------------------------------------------------
async def test_the_run_of_a_killed_process_is_taken_at_once_though_its_lease_lasts_for_a_day(children: Any, store_url: str) -> None:
    child = children.start("start", store_url, flow="relay", input={}, waits_in="second", lease=86_400)
    assert child.next("in_body") == "second"
    async with SQLCheckpointStore(store_url, lease=timedelta(days=1)) as store:
        run_id = (await store.runs(limit=1))[0].run_id
        with pytest.raises(LeaseHeldError):
            await store.acquire(run_id)
        child.kill()
        assert child.end()["ended"] == -9

        said = children.run("resume", store_url, flow="relay", run_id=run_id)

        assert said["result"]["status"] == "completed"
        assert children.places(run_id) == ["first", "second", "second", "third"]


async def expiry_of(store: SQLCheckpointStore, run_id: str) -> int | None:
    """When the lease of the run's owner ends, by the refusal we get; None where we got the run (and gave it back)."""
    try:
        lease = await store.acquire(run_id)
    except LeaseHeldError as refusal:
        held = refusal
    else:
        await store.release(run_id, lease.epoch)
        return None
    assert held.owner
    assert held.expires_at is not None
    return round(held.expires_at.timestamp() * 1_000_000)


async def when_expired(url: str, run_id: str) -> None:
    """Try to take the run until the database's clock lets us, and not before the expiry that was told."""
    async with SQLCheckpointStore(url) as store:
        expires_at = await expiry_of(store, run_id)
        assert expires_at is not None, "the lease of a process that may come back was not respected"
        while (again := await expiry_of(store, run_id)) is not None:
            assert again == expires_at, "a stopped process prolonged its lease"
        assert await store.now() >= expires_at


async def test_a_process_that_slept_past_its_lease_inside_a_node_can_write_nothing(children: Any, store_url: str, tables: Any) -> None:
    sleeper = children.start("start", store_url, flow="relay", input={}, waits_in="second", lease=1)
    sleeper.next("in_body")
    sleeper.kill(signal.SIGSTOP)
    sleeper.next("stopped")
    run_id = children.journal()[0]["run"]

    await when_expired(store_url, run_id)
    said = children.run("resume", store_url, flow="relay", run_id=run_id)
    assert said["result"]["status"] == "completed"
    before = await tables(store_url).of_run(run_id)

    sleeper.kill(signal.SIGCONT)
    sleeper.say("go on")
    answer = sleeper.end()

    assert answer["error"]["type"] == "LeaseLostError", answer
    assert answer["error"]["run_id"] == run_id
    assert answer["error"]["epoch"] == 1
    assert await tables(store_url).of_run(run_id) == before
    ran = [(line["place"][1], line["pid"] == sleeper.pid) for line in children.journal(run_id)]
    assert ran == [("first", True), ("second", True), ("second", False), ("third", False)]


async def test_a_process_that_slept_past_its_lease_between_two_nodes_starts_no_other(children: Any, store_url: str, tables: Any) -> None:
    sleeper = children.start("start", store_url, flow="relay", input={}, stops_behind=2, lease=1)
    sleeper.next("stopped")
    run_id = children.journal()[0]["run"]

    await when_expired(store_url, run_id)
    said = children.run("resume", store_url, flow="relay", run_id=run_id)
    assert said["result"]["status"] == "completed"
    before = await tables(store_url).of_run(run_id)

    sleeper.kill(signal.SIGCONT)
    answer = sleeper.end()

    assert answer["error"]["type"] == "LeaseLostError", answer
    assert await tables(store_url).of_run(run_id) == before
    assert [line["place"][1] for line in children.journal(run_id) if line["pid"] == sleeper.pid] == ["first"]


async def test_a_process_that_slept_past_its_lease_at_a_barrier_does_not_park_what_another_drives(
    children: Any, store_url: str, tables: Any
) -> None:
    said = children.run("start", store_url, flow="approval", input={})
    run_id = said["result"]["run_id"]
    # It takes the run over from whomever, and so before it goes on with it.
    sleeper = children.start("resume", store_url, flow="approval", run_id=run_id, stops_after="inbox", lease=1, takeover=True)
    sleeper.next("stopped")
    await when_expired(store_url, run_id)
    async with SQLCheckpointStore(store_url) as store:
        await store.decide(run_id, "gate", Decision.approve(by="ana"))
        heir = children.start("resume", store_url, flow="approval", run_id=run_id, waits_in="after")
        heir.next("in_body")
        before = await tables(store_url).of_run(run_id)

        sleeper.kill(signal.SIGCONT)
        answer = sleeper.end()

        assert answer["error"]["type"] == "LeaseLostError", answer
        assert await tables(store_url).of_run(run_id) == before
        heir.say("go on")
        assert heir.end()["result"]["status"] == "completed"
        assert [line["pid"] for line in children.journal(run_id)][1:] == [heir.pid]
        assert await store.verify(run_id) == []


async def test_a_process_that_slept_between_reading_a_run_and_taking_it_does_not_take_what_another_drives(
    children: Any, store_url: str, tables: Any
) -> None:
    run_id = children.run("start", store_url, flow="approval", input={})["result"]["run_id"]
    async with SQLCheckpointStore(store_url) as store:
        await store.decide(run_id, "gate", Decision.approve(by="ana"))
        sleeper = children.start("resume", store_url, flow="approval", run_id=run_id, stops_after="standing")
        sleeper.next("stopped")
        heir = children.start("resume", store_url, flow="approval", run_id=run_id, waits_in="after")
        heir.next("in_body")
        before = await tables(store_url).of_run(run_id)

        sleeper.kill(signal.SIGCONT)
        answer = sleeper.end()

        assert answer["error"]["type"] == "LeaseHeldError", answer
        assert await tables(store_url).of_run(run_id) == before
        heir.say("go on")
        assert heir.end()["result"]["status"] == "completed"
        assert [line["pid"] for line in children.journal(run_id)][1:] == [heir.pid]
        assert await store.verify(run_id) == []


async def test_a_sleeper_whose_run_is_being_driven_by_another_disturbs_nothing(children: Any, store_url: str, tables: Any) -> None:
    sleeper = children.start("start", store_url, flow="relay", input={}, stops_behind=2, lease=1)
    sleeper.next("stopped")
    run_id = children.journal()[0]["run"]
    await when_expired(store_url, run_id)
    async with SQLCheckpointStore(store_url) as store:
        heir = children.start("resume", store_url, flow="relay", run_id=run_id, waits_in="third")
        heir.next("in_body")
        before = await tables(store_url).of_run(run_id)

        sleeper.kill(signal.SIGCONT)
        answer = sleeper.end()

        assert answer["error"]["type"] == "LeaseLostError", answer
        assert f":{heir.pid}:" in answer["error"]["owner"]
        assert await tables(store_url).of_run(run_id) == before
        heir.say("go on")
        assert heir.end()["result"]["status"] == "completed"
        assert await store.verify(run_id) == []
    assert children.places(run_id) == ["first", "second", "third"]


async def test_a_sleeper_whose_run_nobody_took_goes_on(children: Any, store_url: str) -> None:
    sleeper = children.start("start", store_url, flow="relay", input={}, stops_behind=2, lease=1)
    sleeper.next("stopped")
    run_id = children.journal()[0]["run"]
    async with SQLCheckpointStore(store_url) as store:
        # Until the lease has expired by the database's clock; nobody takes the run.
        expires_at = await expiry_of(store, run_id)
        assert expires_at is not None
        while await store.now() <= expires_at:
            pass
    sleeper.kill(signal.SIGCONT)

    said = sleeper.end()

    assert said["result"]["status"] == "completed"
    assert said["result"]["attempt"] == 1
    assert children.places(run_id) == ["first", "second", "third"]


async def test_a_living_process_keeps_its_run_past_the_time_of_one_lease(children: Any, store_url: str) -> None:
    owner = children.start("start", store_url, flow="relay", input={}, waits_in="second", lease=2)
    owner.next("in_body")
    run_id = children.journal()[0]["run"]
    async with SQLCheckpointStore(store_url) as store:
        first = await expiry_of(store, run_id)
        assert first is not None
        while await store.now() <= first:
            assert (await store.run(run_id)).epoch == 1
        later = await expiry_of(store, run_id)
        assert later is not None, "a living process lost its run"
        assert later > first

    owner.say("go on")

    assert owner.end()["result"]["status"] == "completed"
    assert children.places(run_id) == ["first", "second", "third"]


async def test_a_living_run_taken_over_on_purpose_stops_its_old_owner(children: Any, store_url: str) -> None:
    owner = children.start("start", store_url, flow="relay", input={}, waits_in="second")
    owner.next("in_body")
    run_id = children.journal()[0]["run"]

    said = children.run("resume", store_url, flow="relay", run_id=run_id, takeover=True)
    assert said["result"]["status"] == "completed"
    owner.say("go on")

    assert owner.end()["error"]["type"] == "LeaseLostError"
    assert Counter(children.places(run_id)) == Counter(first=1, second=2, third=1)


async def test_processes_that_open_tickets_at_once_never_use_an_allowance_more_often_than_they_may(children: Any, store_url: str) -> None:
    parked(children, store_url)  # the store knows the flow
    async with SQLCheckpointStore(store_url) as store:
        grant = await store.allow("gate", Decision.approve(by="ana"), flow="approval", uses=5, until=timedelta(hours=1))
        for _ in range(3):
            rivals = [children.start("start", store_url, flow="approval", input={}, on_a_word=True) for _ in range(4)]
            begin(*rivals)
            results = [rival.end()["result"] for rival in rivals]
            (held,) = [each for each in await store.grants(live=False) if each.id == grant.id]
            uses = [each for run in await store.runs(limit=100) for each in await store.decisions(run.run_id) if each.grant == grant.id]
            assert held.used == len(uses) == len({each.run_id for each in uses})
            assert {each.run_id for each in uses} >= {result["run_id"] for result in results if result["status"] != "waiting"}
        assert held.used == 5
        assert Counter(run.status for run in await store.runs(limit=100)) == {"completed": 5, "waiting": 8}
        assert all(each.consumed_seq is not None for each in uses)
