"""What a power cut would take: the pages of the database that the kernel has not written to the disk when a step is acknowledged."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import Any, Final

import pytest

from trailmark import END, Committed, Flow, GraphExecutor
from trailmark.checkpoint_stores import SQLCheckpointStore

_CACHESTAT: Final = 451
"""The number of the system call of Linux (6.5 and later; the same on every architecture)."""


class _Range(ctypes.Structure):
    _fields_ = (("offset", ctypes.c_uint64), ("length", ctypes.c_uint64))


class _Pages(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_uint64) for name in ("cached", "dirty", "writeback", "evicted", "recently_evicted"))


def unwritten_pages(file: Path) -> int | None:
    """How many pages of the file are not on the disk; None where this kernel, or this file system, cannot tell."""
    probe = file.with_name("probe")
    descriptor = os.open(probe, os.O_RDWR | os.O_CREAT)
    try:
        os.write(descriptor, b"x" * 10_000)
        before = _unwritten(descriptor)
        os.fsync(descriptor)
        if not before or _unwritten(descriptor) != 0:
            return None
    finally:
        os.close(descriptor)
        probe.unlink()
    descriptor = os.open(file, os.O_RDONLY)
    try:
        return _unwritten(descriptor)
    finally:
        os.close(descriptor)


def _unwritten(descriptor: int) -> int | None:
    pages = _Pages()
    try:
        failed = ctypes.CDLL(None).syscall(_CACHESTAT, descriptor, ctypes.byref(_Range(0, 0)), ctypes.byref(pages), 0)
    except (OSError, AttributeError):
        return None
    return None if failed else pages.dirty + pages.writeback


@pytest.mark.parametrize("synchronous", ["FULL", "NORMAL"])
async def test_when_a_step_is_acknowledged_not_one_page_of_it_waits_for_the_disk(tmp_path: Path, synchronous: str) -> None:
    """What a power cut takes is what the kernel has not written.  NORMAL may lose the last commits in one, as its settings say."""
    waiting: list[int | None] = []
    wal = tmp_path / "runs.db-wal"

    def look(_committed: Committed) -> None:
        waiting.append(unwritten_pages(wal))

    flow = Flow("counting", {"n": int})

    @flow.node
    async def count(state: Any) -> dict[str, Any]:
        return {"n": state["n"] + 1}

    flow.set_entry("count").add_edge("count", "count", when=lambda state: state["n"] < 20, name="more").add_edge("count", END)
    async with SQLCheckpointStore(f"sqlite+aiosqlite:///{tmp_path}/runs.db", synchronous=synchronous) as store:  # type: ignore[arg-type]
        await GraphExecutor(flow.compile(), store=store, observers=[look]).execute({"n": 0})
    assert len(waiting) == 20
    if waiting[0] is None:
        assert set(waiting) == {None}, "this kernel, or this file system, cannot tell"
    elif synchronous == "FULL":
        assert set(waiting) == {0}
    else:
        assert max(pages or 0 for pages in waiting) > 0, "the look can tell what is written from what is not"
