"""Laws of seeing what others wrote to a SQLite file, over any order of their commits, of our own and of looks."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from checkpoint_stores.sql.watches import _Foreign


class File:
    """A file with a writer of our own, as two connections see it."""

    def __init__(self) -> None:
        self.version = 1
        """What the watcher's connection sees: it moves with every commit."""
        self.foreign = 1
        """What the writer's sees: it moves with those of others."""
        self.batches = 0
        self.is_asked = False
        self.answers = 0
        self.others: int | None = None

    def other_commits(self) -> None:
        self.version += 1
        self.foreign += 1

    def we_commit(self) -> None:
        self.version += 1
        self.batches += 1
        if self.is_asked:
            self.is_asked = False
            self.others = self.foreign
            self.answers += 1


MOVES = st.lists(st.sampled_from(["other", "ours", "look"]), min_size=6, max_size=30)


@settings(max_examples=2_000)
@given(moves=MOVES, is_busy=st.booleans())
def test_what_others_write_is_seen_within_two_looks_however_busy_our_own_writer_is(moves: list[str], is_busy: bool) -> None:
    file = File()
    foreign = _Foreign(file)
    unseen = False
    for move in moves:
        if move == "other":
            file.other_commits()
            unseen = True
        elif move == "ours":
            file.we_commit()
        elif move == "look" and foreign.wrote(file.version):
            unseen = False
    for _ in range(2):
        if foreign.wrote(file.version):
            unseen = False
        if is_busy:
            file.we_commit()
    assert not unseen


@given(steps=st.lists(st.integers(1, 3), min_size=5, max_size=40))
def test_what_we_write_ourselves_is_nothing_to_look_at(steps: list[int]) -> None:
    file = File()
    foreign = _Foreign(file)
    seen = []
    for commits in steps:
        for _ in range(commits):
            file.we_commit()
        seen.append(foreign.wrote(file.version))
    assert not any(seen[2:]), "the first looks know nothing yet"
