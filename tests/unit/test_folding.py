"""Rows folded as they are read come to what they come to when all are loaded and checked first, or to nothing."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import event as noted
from hypothesis import given, settings
from hypothesis import strategies as st

from checkpoint_stores.chain import Chain
from checkpoint_stores.codec import encode
from checkpoint_stores.errors import CheckpointCorruptError, CheckpointNotFoundError
from checkpoint_stores.fold import RunState
from checkpoint_stores.folding import _AT_A_TIME, folded, folded_as_read
from checkpoint_stores.records import Row, Snapshot
from checkpoint_stores.soundness import Stored, sound_part

RUN = "01a31857-2e97-7bb0-89f5-7c9e0dd70b11"


def rows_of(chain: Chain, number: int, first_seq: int = 1) -> list[Row]:
    rows: list[Row] = []
    previous = chain.genesis(RUN)
    for seq in range(first_seq, first_seq + number):
        kind, payload = ("start", encode([])) if not rows else ("step", encode([["append", "log", [seq]]]))
        step = len(rows)
        rows.append(chain.seal(previous, RUN, seq, 1, step, kind, "", "work" if step else "", "work", payload, 0))
        previous = rows[-1].digest
    return rows


def snapshot_at(rows: list[Row], seq: int) -> Snapshot:
    state = folded(RUN, None, [row for row in rows if row.seq <= seq])
    return Snapshot(RUN, seq, encode(state.dump()), state.digest)


def stored(chain: Chain, rows: list[Row], snapshots: list[Snapshot], anchor: int, first_seq: int = 1) -> Stored:
    return Stored(RUN, chain.genesis(RUN), first_seq, anchor, b"", snapshots, rows)


def seen(state: RunState | None) -> Any:
    return None if state is None else (state.seq, state.digest, state.weight, state.dump())


def loaded(chain: Chain, part: Stored, upto: int | None) -> Any:
    """What the long way comes to: the state, or the error's name."""
    try:
        return seen(folded(RUN, *sound_part(chain, part, upto)))
    except (CheckpointCorruptError, CheckpointNotFoundError) as error:
        return type(error).__name__


def edited(row: Row, **changes: Any) -> Row:
    return row._replace(**changes)


DAMAGES: dict[str, Any] = {
    "a row is gone": lambda rows, at: [*rows[:at], *rows[at + 1 :]],
    "a payload was edited": lambda rows, at: [*rows[:at], edited(rows[at], payload=encode([["set", "n", 0]])), *rows[at + 1 :]],
    "a payload is text": lambda rows, at: [*rows[:at], edited(rows[at], payload="[]"), *rows[at + 1 :]],
    "a digest was edited": lambda rows, at: [*rows[:at], edited(rows[at], digest=bytes(32)), *rows[at + 1 :]],
    "a row stands twice": lambda rows, at: [*rows[: at + 1], *rows[at:]],
    "two rows changed places": lambda rows, at: [*rows[:at], *reversed(rows[at : at + 2]), *rows[at + 2 :]],
    "the end is cut off": lambda rows, at: rows[:at],
    "the beginning is cut off": lambda rows, at: rows[at + 1 :],
}


@st.composite
def cases(draw: st.DrawFn) -> tuple[list[Row], list[Snapshot], int, int | None, str, int]:
    chain = Chain()
    first_seq = draw(st.sampled_from([0, 1]))
    number = draw(st.one_of(st.integers(1, 12), st.sampled_from([_AT_A_TIME - 1, _AT_A_TIME, _AT_A_TIME + 1, 2 * _AT_A_TIME + 3])))
    rows = rows_of(chain, number, first_seq)
    head = rows[-1].seq
    upto = draw(st.one_of(st.none(), st.integers(first_seq, head + 1)))
    snapshots: list[Snapshot] = []
    if draw(st.booleans()):
        snapshots = [snapshot_at(rows, draw(st.integers(first_seq, head)))]
    last = head if upto is None else upto
    snapshots = [snapshot for snapshot in snapshots if snapshot.seq <= last]
    # As the statement of `newest_part` has it.
    since = snapshots[0].seq if snapshots else 0
    part = [row for row in rows if since <= row.seq <= last]
    if snapshots and draw(st.booleans()):
        part = [row for row in part if row.seq > snapshots[0].seq]  # what it stands on was pruned
    damage = draw(st.sampled_from(["", *DAMAGES])) if part else ""
    if damage:
        part = DAMAGES[damage](part, draw(st.integers(0, len(part) - 1)))
    return part, snapshots, head + draw(st.sampled_from([-1, 0, 0, 0, 1])), upto, damage, first_seq


@settings(max_examples=400, deadline=None)
@given(cases())
def test_what_is_folded_as_it_is_read_is_what_is_loaded_and_folded(
    case: tuple[list[Row], list[Snapshot], int, int | None, str, int],
) -> None:
    rows, snapshots, anchor, upto, damage, first_seq = case
    chain = Chain()
    expected = loaded(chain, stored(chain, rows, snapshots, anchor, first_seq), upto)
    came = seen(folded_as_read(chain, stored(chain, [], snapshots, anchor, first_seq), iter(rows), upto))
    noted(f"damaged: {damage or 'no'}; {'folded' if came is not None else 'left to the long way'}")
    if came is not None:
        assert came == expected
    elif not damage:
        assert isinstance(expected, str)  # there is nothing sound to be folded


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("at", [0, _AT_A_TIME - 1, _AT_A_TIME, _AT_A_TIME + 7])
def test_no_damage_is_folded(damage: str, at: int) -> None:
    chain = Chain()
    rows = rows_of(chain, _AT_A_TIME + 9)
    head = rows[-1].seq
    assert folded_as_read(chain, stored(chain, [], [], head), iter(rows), None) is not None
    assert folded_as_read(chain, stored(chain, [], [], head), iter(DAMAGES[damage](rows, at)), None) is None


def test_a_snapshot_that_stands_on_another_row_is_left_to_the_long_way() -> None:
    chain = Chain()
    rows = rows_of(chain, 5)
    strange = snapshot_at(rows, 3)._replace(digest=bytes(32))
    assert folded_as_read(chain, stored(chain, [], [strange], 5), iter(rows[2:]), None) is None


@pytest.mark.parametrize("payload", [encode([]), b"9[]", b""])
def test_a_snapshot_that_cannot_be_read_is_left_to_the_long_way(payload: bytes) -> None:
    chain = Chain()
    rows = rows_of(chain, 5)
    damaged = snapshot_at(rows, 3)._replace(payload=payload)
    assert folded_as_read(chain, stored(chain, [], [damaged], 5), iter(rows[2:]), None) is None


def test_a_sound_row_that_cannot_be_folded_is_left_to_the_long_way() -> None:
    chain = Chain()
    rows = rows_of(chain, 3)
    rows.append(chain.seal(rows[-1].digest, RUN, 4, 1, 3, "step", "", "work", "work", encode([["unheard-of"]]), 0))
    assert folded_as_read(chain, stored(chain, [], [], 4), iter(rows), None) is None
    with pytest.raises(CheckpointCorruptError, match="4"):
        folded(RUN, None, rows)


def test_a_fork_whose_beginning_nobody_knows_is_left_to_the_long_way() -> None:
    chain = Chain()
    part = stored(chain, [], [], 3)._replace(genesis=b"")
    assert folded_as_read(chain, part, iter(rows_of(chain, 3)), None) is None


def test_no_more_than_a_few_rows_are_asked_for_before_they_are_folded() -> None:
    chain = Chain()
    rows = rows_of(chain, 5 * _AT_A_TIME)
    broken = _AT_A_TIME + 1
    asked = 0

    def counted() -> Any:
        nonlocal asked
        for row in DAMAGES["a digest was edited"](rows, broken):
            asked += 1
            yield row

    assert folded_as_read(chain, stored(chain, [], [], len(rows)), counted(), None) is None
    assert asked == 2 * _AT_A_TIME
