"""A process that is killed anywhere loses nothing that was committed and repeats at most what was in flight.

A child drives a run and kills itself (SIGKILL) at one point: before or behind each commit, or inside each node body.
New processes then go on until the run has ended, and the end is compared with that of a run nobody killed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio

from trailmark import Decision
from trailmark.checkpoint_stores import Row, SQLCheckpointStore

pytestmark = pytest.mark.asyncio(loop_scope="module")

INPUT = {"amount": 7}

BODIES = [
    ("", "collect", 1, 1),
    ("", "collect", 2, 1),
    ("", "collect", 3, 1),
    ("", "estimate", 1, 1),
    ("checks[0]", "fraud", 1, 1),
    ("checks[1]", "fetch", 1, 1),
    ("checks[1]", "fetch", 1, 2),
    ("checks[1]", "fetch", 1, 3),
    ("checks[1]", "rate", 1, 1),
    ("checks[2]", "look", 1, 1),
    ("checks[2].shots[0]", "front", 1, 1),
    ("checks[2].shots[1]", "back", 1, 1),
    ("checks[2]", "sign", 1, 1),
    ("", "pay", 1, 1),
    ("", "queue_up", 1, 1),
]
"""(path, node, visit, attempt) of everything that runs when nobody is killed."""

COMMITTED = [*range(2, 18), *range(19, 23), *range(24, 27)]
"""The rows that the owner commits; 1 is written at the creation, 18 and 23 when the run is taken up after a barrier."""

COMMITS = [("dies_before", seq) for seq in COMMITTED] + [("dies_behind", seq) for seq in COMMITTED]
TAKINGS = [(moment, taking) for taking in ("create", "take_up", "acquire") for moment in ("dies_before", "dies_after")]

STEPS_OF_WORK = {"step", "retry", "fallback", "failure"}
"""Kinds of the rows that an ended body leads to."""


@dataclass
class Ended:
    """A run that came to its end, and how."""

    result: dict[str, Any]
    journal: list[dict[str, Any]]
    rows: list[Row]
    rows_at_the_kill: list[Row]
    lines_at_the_kill: int
    processes: int
    """That took the run."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def store(shared_url: str) -> AsyncIterator[SQLCheckpointStore]:
    """The store through which the test itself decides and looks."""
    async with SQLCheckpointStore(shared_url, synchronous="OFF") as store:
        yield store


async def drive_to_the_end(children: Any, url: str, store: SQLCheckpointStore, **kill: Any) -> Ended:
    """Run the claim, with a process that dies as told; then as many others as it takes."""
    said = children.run("start", url, flow="claim", input=INPUT, run_key=None, **kill)
    if said["ended"] == -9 and not await store.runs():
        raise AssertionError("the process died before there was a run")
    run_id = said["result"]["run_id"] if "result" in said else (await store.runs(limit=1))[0].run_id
    processes, killed = 1, said["ended"] == -9
    at_the_kill = [row async for row in store.history(run_id)] if killed else []
    lines = len(children.journal(run_id)) if killed else 0
    while said.get("result", {}).get("status") != "completed":
        assert said["ended"] == (-9 if "result" not in said else 0), said.get("error", said)
        for ticket in said.get("result", {}).get("waiting_for", ()):
            await store.decide(run_id, ticket, Decision.approve(by="ana"))
        said = children.run("resume", url, flow="claim", run_id=run_id, **({} if killed else kill))
        if said["ended"] == -9:
            assert not killed, "only one process was to die"
            killed, lines = True, len(children.journal(run_id))
            at_the_kill = [row async for row in store.history(run_id)]
        processes += 1
        assert processes < 10
    assert killed == bool(kill), "the process was to die and did not"
    rows = [row async for row in store.history(run_id)]
    return Ended(said["result"], children.journal(run_id), rows, at_the_kill, lines, processes)


def bodies_behind(rows: Sequence[Row]) -> Counter[tuple[str, str, int, int]]:
    """The bodies whose outcome these rows hold."""
    found: Counter[tuple[str, str, int, int]] = Counter()
    visits: Counter[tuple[str, str]] = Counter()
    attempts: Counter[tuple[str, str]] = Counter()
    for row in rows:
        if row.kind in STEPS_OF_WORK:
            place = (row.path, row.node)
            attempts[place] += 1
            found[row.path, row.node, visits[place] + 1, attempts[place]] += 1
            if row.kind != "retry":
                visits[place] += 1
                attempts[place] = 0
    return found


def work_of(rows: Sequence[Row]) -> Counter[tuple[str, str, str, str]]:
    """What the rows say was done, but for who did it and in which order branches came in."""
    return Counter((row.kind, row.path, row.node, row.next) for row in rows if row.kind != "attempt")


def without_keys(values: dict[str, Any]) -> dict[str, Any]:
    """The state's values; what is made from an idempotency key differs from run to run, and is checked on its own."""
    return {**values, "photos": sorted(values["photos"])}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def unharmed(nursery: str, shared_url: str, store: SQLCheckpointStore, tmp_path_factory: Any, children_of: Any) -> Ended:
    """The run that nobody kills."""
    return await drive_to_the_end(children_of(tmp_path_factory.mktemp("unharmed") / "journal"), shared_url, store)


async def test_the_points_at_which_processes_are_killed_are_all_there_are(unharmed: Ended, store: SQLCheckpointStore) -> None:
    assert sorted(line["place"] for line in unharmed.journal) == sorted(BODIES)
    assert [row.seq for row in unharmed.rows if row.kind not in ("start", "attempt")] == COMMITTED
    assert bodies_behind(unharmed.rows) == Counter(BODIES)
    assert unharmed.result["steps"] == 17
    assert unharmed.processes == 3
    kinds = {row.kind for row in unharmed.rows}
    assert kinds == {"start", "attempt", "step", "retry", "parallel", "join", "barrier", "decision", "fallback"}


def check(ended: Ended, unharmed: Ended) -> None:
    """What must be true of a run one of whose processes was killed."""
    # The same end, the same work, each piece of it committed once.
    assert ended.result["status"] == "completed"
    assert without_keys(ended.result["values"]) == without_keys(unharmed.result["values"])
    assert ended.result["steps"] == unharmed.result["steps"]
    assert work_of(ended.rows) == work_of(unharmed.rows)
    assert [row.seq for row in ended.rows] == list(range(1, len(ended.rows) + 1))
    assert ended.rows[: len(ended.rows_at_the_kill)] == ended.rows_at_the_kill, "what was committed was changed"

    # What was committed did not run again; what was in flight ran twice at most; everything else once.
    ran = Counter(line["place"] for line in ended.journal)
    assert set(ran) == set(BODIES)
    committed = bodies_behind(ended.rows_at_the_kill)
    begun = {line["place"] for line in ended.journal[: ended.lines_at_the_kill]}
    for place, times in ran.items():
        allowed = {1, 2} if place in begun and place not in committed else {1}
        assert times in allowed, f"{place} ran {times} times"

    # One key for each entry of a node, whichever process and attempt; retries were counted on.
    keys: dict[tuple[str, str, int], set[str]] = {}
    for line in ended.journal:
        keys.setdefault(line["place"][:3], set()).add(line["key"])
    assert all(len(found) == 1 for found in keys.values())
    assert len({key for found in keys.values() for key in found}) == len(keys)
    photos = {"front": ("checks[2].shots[0]", "front", 1), "back": ("checks[2].shots[1]", "back", 1)}
    assert ended.result["values"]["photos"] == {name: next(iter(keys[place]))[:6] for name, place in photos.items()}
    attempts = [line["place"][3] for line in ended.journal if line["place"][1] == "fetch"]
    assert attempts == sorted(attempts)

    # Each process that took the run is an attempt of it, and says so to its bodies.
    taken = sum(row.kind == "attempt" for row in ended.rows) + 1
    assert ended.result["attempt"] == taken
    by_process = [line["run_attempt"] for line in ended.journal]
    assert by_process == sorted(by_process)
    assert all(line["run_attempt"] > 1 for line in ended.journal[ended.lines_at_the_kill :]) or not ended.lines_at_the_kill


@pytest.mark.parametrize(("moment", "seq"), COMMITS)
async def test_a_process_killed_beside_a_commit(
    children: Any, shared_url: str, store: SQLCheckpointStore, unharmed: Ended, moment: str, seq: int
) -> None:
    ended = await drive_to_the_end(children, shared_url, store, **{moment: seq})

    check(ended, unharmed)
    assert ended.processes == unharmed.processes + 1
    assert await store.verify(ended.result["run_id"]) == []
    if moment == "dies_before":
        assert len(ended.rows_at_the_kill) < seq
    else:
        assert len(ended.rows_at_the_kill) >= seq


@pytest.mark.parametrize("place", BODIES, ids=lambda place: "-".join(str(part) for part in place if part))
async def test_a_process_killed_inside_a_node(
    children: Any, shared_url: str, store: SQLCheckpointStore, unharmed: Ended, place: tuple[str, str, int, int]
) -> None:
    ended = await drive_to_the_end(children, shared_url, store, dies_in=place)

    check(ended, unharmed)
    assert Counter(line["place"] for line in ended.journal)[place] == 2
    assert await store.verify(ended.result["run_id"]) == []


@pytest.mark.parametrize(("moment", "taking"), [taking for taking in TAKINGS if taking != ("dies_before", "create")])
async def test_a_process_killed_while_it_takes_a_run(
    children: Any, shared_url: str, store: SQLCheckpointStore, unharmed: Ended, moment: str, taking: str
) -> None:
    # Who takes a run over from whomever takes it the long way.
    ended = await drive_to_the_end(children, shared_url, store, **{moment: taking}, takeover=taking == "acquire")

    check(ended, unharmed)
    assert await store.verify(ended.result["run_id"]) == []


@pytest.mark.parametrize("moment", ["dies_before", "dies_after"])
async def test_a_process_killed_while_it_decides_and_goes_on_has_done_both_or_neither(
    children: Any, shared_url: str, store: SQLCheckpointStore, moment: str
) -> None:
    parked = children.run("start", shared_url, flow="claim", input=INPUT)["result"]
    run_id, ticket = parked["run_id"], parked["waiting_for"][0]
    said = children.run(
        "decide_here", shared_url, flow="claim", run_id=run_id, barrier=ticket, action="approve", by="ana", **{moment: "take_up"}
    )

    assert (said["ended"], "decided" in said) == (-9, False)
    record = await store.run(run_id)
    newest = [row async for row in store.history(run_id, after=parked["seq"])]
    if moment == "dies_before":
        assert (record.status, record.owner, newest, await store.decisions(run_id)) == ("waiting", None, [], [])
        assert (await store.decide(run_id, ticket, Decision.approve(by="ben"))).actor == "ben"
    else:
        assert (record.status, record.orphaned, [row.kind for row in newest]) == ("running", True, ["attempt", "decision"])
        (decided,) = await store.decisions(run_id)
        assert (decided.actor, decided.ticket, decided.consumed_seq) == ("ana", ticket, newest[-1].seq)
    again = children.run("resume", shared_url, flow="claim", run_id=run_id)["result"]
    assert again["status"] == "waiting"
    assert again["waiting_for"] != [ticket]
    assert await store.verify(run_id) == []


async def test_a_process_killed_before_it_has_created_the_run_leaves_nothing(
    children: Any, shared_url: str, store: SQLCheckpointStore
) -> None:
    said = children.run("start", shared_url, flow="claim", input=INPUT, run_key="claim-4711", dies_before="create")

    assert said["ended"] == -9
    assert await store.run_by_key("claim", "claim-4711") is None
    assert children.journal() == []
    again = children.run("start", shared_url, flow="claim", input=INPUT, run_key="claim-4711")
    assert again["result"]["status"] == "waiting"


async def test_a_run_gets_done_though_every_process_dies_behind_its_second_commit(
    children: Any, shared_url: str, store: SQLCheckpointStore, unharmed: Ended
) -> None:
    said = children.run("start", shared_url, flow="claim", input=INPUT, dies_behind=3)
    run_id = (await store.runs(limit=1))[0].run_id
    deaths = 0
    while said.get("result", {}).get("status") != "completed":
        deaths += said["ended"] == -9
        assert deaths < 30
        for ticket in said.get("result", {}).get("waiting_for", ()):
            await store.decide(run_id, ticket, Decision.approve(by="ana"))
        head = [row.seq async for row in store.history(run_id)][-1]
        said = children.run("resume", shared_url, flow="claim", run_id=run_id, dies_behind=head + 3)

    assert deaths > 5
    assert without_keys(said["result"]["values"]) == without_keys(unharmed.result["values"])
    rows = [row async for row in store.history(run_id)]
    assert work_of(rows) == work_of(unharmed.rows)
    keys = {(*line["place"][:3], line["key"]) for line in children.journal(run_id)}
    assert len(keys) == len({place[:3] for place in BODIES})
    assert await store.verify(run_id) == []


@pytest.mark.parametrize("ticks", [1, 8, 20, 40])
@pytest.mark.parametrize("seq", [4, 16, 26])
async def test_a_process_killed_in_the_middle_of_a_statement_of_sqlite(children: Any, sqlite_url: str, seq: int, ticks: int) -> None:
    async with SQLCheckpointStore(sqlite_url, synchronous="OFF") as store:
        ended = await drive_to_the_end(children, sqlite_url, store, dies_before=seq, ticks=ticks)

        assert len(ended.rows_at_the_kill) < seq
        assert bodies_behind(ended.rows) == Counter(BODIES)
        assert await store.verify(ended.result["run_id"]) == []


PARCELS = [(f"scale[{index}]", "weigh", 1, 1) for index in range(6)]
POST = [*((f"post[0].stamps[{index}]", "stamp", 1, 1) for index in range(6)), ("post[0]", "add_up", 1, 1)]


@pytest.mark.parametrize(
    "kill",
    [*({"dies_in": place} for place in (PARCELS[0], PARCELS[4], POST[0], POST[3], POST[-1])), *({"dies_behind": seq} for seq in (2, 5, 9, 13, 16))],
    ids=str,
)  # fmt: skip
async def test_items_of_a_map_that_are_finished_are_never_done_again(
    children: Any, shared_url: str, store: SQLCheckpointStore, kill: dict[str, Any]
) -> None:
    said = children.run("start", shared_url, flow="parcels", input={"parcels": [1, 2, 3, 4, 5, 6]}, **kill)
    assert said["ended"] == -9
    run_id = (await store.runs(limit=1))[0].run_id
    committed = {(row.path, row.node, 1, 1) async for row in store.history(run_id) if row.kind == "step"}
    said = children.run("resume", shared_url, flow="parcels", run_id=run_id)

    assert (said["result"]["status"], said["result"]["values"]["price"]) == ("completed", 216)
    assert said["result"]["steps"] == 16
    ran = Counter(line["place"] for line in children.journal(run_id))
    assert set(ran) == {*PARCELS, *POST}
    assert all(ran[place] == 1 for place in committed)
    assert sum(ran.values()) <= len(ran) + 2, "only what was in flight ran again"
    assert await store.verify(run_id) == []
