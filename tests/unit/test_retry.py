"""When a failed node is tried again: a table."""

from __future__ import annotations

from datetime import timedelta

import pytest

from checkpoint_stores.moments import LAST
from engine.errors import NodeTimeoutError
from engine.plan import Retry
from engine.retry import chance, retry_due

STEADY = Retry(attempts=5, first=timedelta(seconds=1), factor=3, longest=timedelta(seconds=20), jitter=0)


@pytest.mark.parametrize(("failed", "seconds"), [(1, 1), (2, 3), (3, 9), (4, 20)])
def test_each_wait_is_longer_up_to_the_longest(failed: int, seconds: int) -> None:
    assert retry_due(STEADY, ValueError(), failed, 500, "key") == 500 + seconds * 1_000_000


@pytest.mark.parametrize("factor", [2.0, 2])
@pytest.mark.parametrize(("first", "seconds"), [(timedelta(seconds=1), 20), (timedelta(0), 0)])
def test_a_step_that_fails_for_weeks_waits_the_longest_every_time(first: timedelta, seconds: int, factor: float) -> None:
    patient = Retry(attempts=1_000_000, first=first, factor=factor, longest=timedelta(seconds=20), jitter=0)
    assert retry_due(patient, ValueError(), 5_000, 500, "key") == 500 + seconds * 1_000_000


def test_the_longest_wait_of_all_ends_with_the_calendar() -> None:
    assert retry_due(Retry(attempts=2, first=timedelta.max, longest=timedelta.max, jitter=0), ValueError(), 1, 500, "key") == LAST


@pytest.mark.parametrize(
    ("policy", "error", "failed"),
    [
        (None, ValueError(), 1),
        (STEADY, ValueError(), 5),
        (STEADY, ValueError(), 6),
        (Retry(attempts=1), ValueError(), 1),
        (Retry(on=(ConnectionError,)), ValueError(), 1),
    ],
)
def test_some_failures_are_for_good(policy: Retry | None, error: Exception, failed: int) -> None:
    assert retry_due(policy, error, failed, 0, "key") is None


def test_a_timeout_is_an_error_like_others() -> None:
    assert retry_due(Retry(on=(TimeoutError,)), NodeTimeoutError("n", "", 1.0), 1, 0, "key") is not None


def test_chance_is_the_same_for_the_same_step_and_shortens_the_wait_by_at_most_the_jitter() -> None:
    policy = Retry(first=timedelta(seconds=10), factor=1, jitter=0.4)
    dues = [retry_due(policy, ValueError(), 1, 0, f"key {number}") for number in range(200)]
    assert dues == [retry_due(policy, ValueError(), 1, 0, f"key {number}") for number in range(200)]
    assert all(due is not None and 6_000_000 <= due <= 10_000_000 for due in dues)
    assert len(set(dues)) > 190
    assert chance("key", 1) != chance("key", 2)
    assert all(0 <= chance(f"{number}", 1) < 1 for number in range(200))
