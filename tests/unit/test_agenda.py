"""Which run a worker takes next: pure, so that every order of things can be played."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from checkpoint_stores.records import RunRecord
from trailmark.worker.agenda import ISOLATION, LONGEST_PAUSE, SECOND, Agenda, Quarantine, Take


def take(run_id: str, recoveries: int = 0) -> Take:
    return Take(RunRecord(run_id, "flow", "1", "hash", "running", 10), recoveries)


def names(orders: list[Take | Quarantine]) -> list[str]:
    return [order.run.run_id for order in orders]


def test_no_more_runs_are_taken_than_there_is_room_for() -> None:
    agenda = Agenda(2, 3)
    assert names(agenda.chosen([take("a"), take("b"), take("c")], 0)) == ["a", "b"]
    assert (agenda.room(0), agenda.in_hand) == (0, 2)
    assert agenda.chosen([take("c")], 0) == []
    agenda.over("a")
    assert names(agenda.chosen([take("b"), take("c")], 0)) == ["c"], "what is in hand is not taken twice"


def test_a_first_recovery_is_nothing_to_be_suspected_for() -> None:
    agenda = Agenda(10, 3)
    assert names(agenda.chosen([take("a", 1), take("b", 1)], 0)) == ["a", "b"]


def test_of_the_suspects_one_at_a_time_is_driven_the_least_suspected_first_and_nothing_beside_it() -> None:
    agenda = Agenda(10, 5)
    assert names(agenda.chosen([take("worse", 3), take("bad", 2), take("new")], 0)) == ["bad"]
    assert set(agenda.hidden(0)) == {"bad", "worse"}
    assert (agenda.room(0), agenda.chosen([take("new")], 0)) == (0, [])
    agenda.over("bad")
    assert names(agenda.chosen([take("new")], 0)) == ["worse"]
    agenda.over("worse")
    assert agenda.is_idle
    assert names(agenda.chosen([take("new")], 0)) == ["new"]


def test_a_suspect_begins_when_all_that_is_in_hand_has_made_a_checkpoint() -> None:
    agenda = Agenda(10, 5)
    assert names(agenda.chosen([take("a"), take("b")], 0)) == ["a", "b"]
    assert agenda.chosen([take("bad", 2), take("new")], 0) == []
    assert agenda.progressed("a"), "the suspect waits for it"
    assert agenda.chosen([], 0) == []
    agenda.over("b")
    assert names(agenda.chosen([], 0)) == ["bad"]
    assert not agenda.progressed("a"), "a second checkpoint is no news"


def test_neither_a_suspect_nor_those_who_wait_for_one_wait_for_ever() -> None:
    agenda = Agenda(10, 5)
    agenda.chosen([take("long")], 0)
    assert agenda.chosen([take("bad", 2)], 5) == []
    turn = agenda.next_return(5)
    assert turn == 5 + ISOLATION
    assert agenda.chosen([], turn - 1) == []
    assert names(agenda.chosen([take("new")], turn)) == ["bad", "new"]
    agenda = Agenda(10, 5)
    assert names(agenda.chosen([take("bad", 2), take("worse", 3)], 5)) == ["bad"]
    assert (agenda.room(turn - 1), agenda.room(turn)) == (0, 9)
    assert names(agenda.chosen([take("new")], turn)) == ["worse", "new"]


def test_a_suspect_that_made_a_checkpoint_is_none_any_more() -> None:
    agenda = Agenda(10, 5)
    assert names(agenda.chosen([take("a", 2), take("b", 2)], 0)) == ["a"]
    assert not agenda.progressed("b")
    assert agenda.progressed("a")
    assert not agenda.progressed("a")
    assert names(agenda.chosen([], 0)) == ["b"]
    assert agenda.in_hand == 2


def test_a_run_taken_up_in_vain_too_often_is_quarantined_even_where_there_is_no_room() -> None:
    agenda = Agenda(1, 2)
    orders = agenda.chosen([take("new"), take("poison", 3), take("bad", 2)], 0)
    assert orders == [Quarantine(take("poison").run, 2)]
    agenda.over("poison")
    assert names(agenda.chosen([], 0)) == ["bad"]


@given(data=st.data(), concurrency=st.integers(1, 5), innocents=st.integers(1, 8), poisons=st.integers(1, 3))
def test_who_is_in_flight_beside_a_poison_run_is_taken_up_in_vain_twice_at_most(
    data: st.DataObject, concurrency: int, innocents: int, poisons: int
) -> None:
    """A poison brings the process down before it makes a checkpoint; an innocent makes one, and ends, at any time."""
    counts = {**{f"poison {n}": 0 for n in range(poisons)}, **{f"run {n}": 0 for n in range(innocents)}}
    quarantined: list[str] = []
    most = 0
    while counts:
        agenda = Agenda(concurrency, 3)
        driven: dict[str, bool] = {}
        while counts:
            offered = data.draw(st.permutations([name for name in counts if name not in agenda.hidden(0)]))
            for order in agenda.chosen([take(name, counts[name]) for name in offered], 0):
                name = order.run.run_id
                if isinstance(order, Quarantine):
                    quarantined.append(name)
                    del counts[name]
                    agenda.over(name)
                else:
                    driven[name] = False
            if not driven:
                continue
            name = data.draw(st.sampled_from(sorted(driven)))
            if name.startswith("poison"):
                break
            if driven[name]:
                del driven[name], counts[name]
                agenda.over(name)
            else:
                driven[name] = True
                agenda.progressed(name)
        for name, is_proven in driven.items():  # the process is dead; so much for the runs it had in hand
            counts[name] = 0 if is_proven else counts[name] + 1
            most = max(most, counts[name] if name.startswith("run") else 0)
    assert sorted(quarantined) == [f"poison {n}" for n in range(poisons)]
    assert most <= 2


def test_a_run_that_could_not_be_driven_is_left_alone_longer_each_time() -> None:
    agenda = Agenda(10, 3)
    pauses = []
    now = 0
    for _ in range(12):
        agenda.chosen([take("a")], 0)
        until = agenda.put_aside("a", now)
        assert agenda.hidden(now) == ["a"]
        assert agenda.next_return(now) == until
        pauses.append((until - now) // SECOND)
        now = until
        assert agenda.hidden(now) == []
    assert pauses == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]
    assert agenda.is_idle
    agenda.over("a")
    assert agenda.put_aside("a", now) == now + SECOND, "once it went well all is forgotten"


def test_what_nobody_offers_any_more_is_forgotten() -> None:
    agenda = Agenda(10, 3)
    assert agenda.put_aside("a", 0, long=True) == LONGEST_PAUSE
    assert agenda.hidden(3 * LONGEST_PAUSE) == []
    assert agenda.put_aside("a", 0) == SECOND


@pytest.mark.parametrize("recoveries", [0, 1])
def test_an_innocent_run_does_not_wait_behind_a_suspect_that_has_made_a_checkpoint(recoveries: int) -> None:
    agenda = Agenda(2, 9)
    agenda.chosen([take("s1", 2)], 0)
    assert agenda.chosen([take("new", recoveries)], 0) == []
    assert agenda.progressed("s1")
    assert names(agenda.chosen([take("new", recoveries)], 0)) == ["new"]
