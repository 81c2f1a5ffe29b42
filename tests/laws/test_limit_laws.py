"""Laws of rate limits and breakers, over any arrivals and any answers."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from engine.limits import Breaker, Window


@given(calls=st.integers(1, 5), per=st.integers(1, 50), arrivals=st.lists(st.integers(0, 300), max_size=60))
def test_no_stretch_of_time_sees_more_starts_than_allowed_and_nobody_waits_without_need(calls: int, per: int, arrivals: list[int]) -> None:
    window = Window(calls, per)
    starts: list[int] = []
    now = 0
    for arrival in sorted(arrivals):
        now = max(now, arrival)
        free = window.free_at(now)
        if free > now:
            # A moment earlier would have been one too many.
            assert sum(free - 1 - per < start for start in starts) >= calls
        now = free
        window.start(now)
        starts.append(now)
    for start in starts:
        assert sum(start <= other < start + per for other in starts) <= calls


@given(
    failures=st.integers(1, 4), open_for=st.integers(1, 20), trials=st.integers(1, 3),
    moves=st.lists(st.tuples(st.sampled_from(["ask", "well", "badly", "cancelled"]), st.integers(0, 6)), max_size=80),
)  # fmt: skip
def test_a_breaker_never_admits_while_open_and_tries_with_so_many_at_most(
    failures: int, open_for: int, trials: int, moves: list[tuple[str, int]]
) -> None:
    breaker = Breaker(failures, open_for, trials)
    under_way: list[tuple[int, str]] = []
    now = row = 0
    for move, passed in moves:
        now += passed
        if move == "ask":
            was_open = breaker.state == "open" and now < breaker.opens_at
            turn = breaker.admit(now)
            assert not (was_open and turn is not None)
            if turn is not None:
                under_way.append((turn, breaker.state))
                assert sum(each == (turn, "trying") for each in under_way) <= trials
            continue
        if not under_way:
            continue
        turn, state = under_way.pop(0)
        was = breaker.state
        if move == "well":
            breaker.succeeded(turn)
            row = 0 if state == was == "closed" else row
        elif move == "badly":
            breaker.failed(turn, now)
            row = row + 1 if state == was == "closed" else row
            assert not (was == "trying" and state == "trying") or breaker.state in ("open", "trying")
        else:
            breaker.dropped(turn)
            assert breaker.state == was
        if was == "closed" and breaker.state == "open":
            assert row >= failures
        if breaker.state != was:
            row = 0


@given(trials=st.integers(1, 3), open_for=st.integers(1, 20))
def test_a_breaker_that_was_open_closes_after_exactly_so_many_trials_that_succeed(trials: int, open_for: int) -> None:
    breaker = Breaker(1, open_for, trials)
    breaker.failed(breaker.admit(0), 0)
    for number in range(trials):
        assert breaker.state == ("open" if number == 0 else "trying")
        breaker.succeeded(breaker.admit(open_for))
    assert breaker.state == "closed"
