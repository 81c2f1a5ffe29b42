"""Which run a worker takes next: pure, so that every order of things can be played."""

from __future__ import annotations

import pytest

from checkpoint_stores.records import RunRecord
from trailmark.worker.agenda import LONGEST_PAUSE, SECOND, Agenda, Quarantine, Take


def take(run_id: str, recoveries: int = 0) -> Take:
    return Take(RunRecord(run_id, "flow", "1", "hash", "running", 10), recoveries)


def names(orders: list[Take | Quarantine]) -> list[str]:
    return [order.run.run_id for order in orders]


def test_no_more_runs_are_taken_than_there_is_room_for() -> None:
    agenda = Agenda(2, 3)
    assert names(agenda.chosen([take("a"), take("b"), take("c")])) == ["a", "b"]
    assert (agenda.room, agenda.in_hand) == (0, 2)
    assert agenda.chosen([take("c")]) == []
    agenda.over("a")
    assert names(agenda.chosen([take("b"), take("c")])) == ["c"], "what is in hand is not taken twice"


def test_a_first_recovery_is_nothing_to_be_suspected_for() -> None:
    agenda = Agenda(10, 3)
    assert names(agenda.chosen([take("a", 1), take("b", 1)])) == ["a", "b"]


def test_of_the_suspects_one_at_a_time_is_driven_the_least_suspected_first() -> None:
    agenda = Agenda(10, 5)
    assert names(agenda.chosen([take("worse", 3), take("bad", 2), take("new")])) == ["new", "bad"]
    assert set(agenda.hidden(0)) == {"new", "bad", "worse"}
    assert agenda.chosen([]) == []
    agenda.over("new")
    assert agenda.chosen([]) == []
    agenda.over("bad")
    assert names(agenda.chosen([])) == ["worse"]
    agenda.over("worse")
    assert agenda.is_idle


def test_a_suspect_that_made_a_checkpoint_is_none_any_more() -> None:
    agenda = Agenda(10, 5)
    assert names(agenda.chosen([take("a", 2), take("b", 2)])) == ["a"]
    assert not agenda.progressed("b")
    assert agenda.progressed("a")
    assert not agenda.progressed("a")
    assert names(agenda.chosen([])) == ["b"]
    assert agenda.in_hand == 2


def test_a_run_taken_up_in_vain_too_often_is_quarantined_even_where_there_is_no_room() -> None:
    agenda = Agenda(1, 2)
    orders = agenda.chosen([take("new"), take("poison", 3), take("bad", 2)])
    assert orders == [take("new"), Quarantine(take("poison").run, 2)]


def test_who_is_in_flight_beside_a_poison_run_is_never_quarantined_for_it() -> None:
    """The poison brings the process down whenever it is driven; everybody else in hand then has made no progress."""
    counts = dict.fromkeys(["poison", "a", "b", "c", "d"], 0)
    quarantined: list[str] = []
    done: list[str] = []
    for _ in range(20):
        agenda = Agenda(4, 3)
        driven: list[str] = []
        while counts:
            orders = agenda.chosen([take(name, count) for name, count in counts.items() if name not in agenda.hidden(0)])
            for order in orders:
                name = order.run.run_id
                if isinstance(order, Quarantine):
                    quarantined.append(name)
                    del counts[name]
                    agenda.over(name)
                else:
                    driven.append(name)
            if "poison" in driven:
                break
            if not driven:
                continue
            name = driven.pop(0)
            done.append(name)
            del counts[name]
            agenda.over(name)
        if not counts:
            break
        for name in driven:  # the process is dead; so much for the runs it had in hand
            counts[name] += 1
    assert quarantined == ["poison"]
    assert sorted(done) == ["a", "b", "c", "d"]


def test_a_run_that_could_not_be_driven_is_left_alone_longer_each_time() -> None:
    agenda = Agenda(10, 3)
    pauses = []
    now = 0
    for _ in range(12):
        agenda.chosen([take("a")])
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
def test_an_innocent_run_does_not_wait_behind_suspects(recoveries: int) -> None:
    agenda = Agenda(2, 9)
    agenda.chosen([take("s1", 2), take("s2", 2)])
    assert names(agenda.chosen([take("new", recoveries)])) == ["new"]
