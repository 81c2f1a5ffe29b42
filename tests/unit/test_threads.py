"""The threads of plain nodes."""

from __future__ import annotations

import threading

import pytest

from engine.threads import NodeThreads


async def test_a_thread_that_cannot_be_started_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    def cannot(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    threads = NodeThreads()
    monkeypatch.setattr(threading.Thread, "start", cannot)
    with pytest.raises(RuntimeError, match="can't start"):
        threads.start(int)
    assert threads.running == 0
