"""Starts the process of one system, asks it for rounds, and sees to it that nothing of it is left."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

QUIET = {"LANGSMITH_TRACING": "false", "LANGCHAIN_TRACING_V2": "false", "PYTHONWARNINGS": "ignore"}
"""No system sends anything anywhere."""

GRACE = 20
"""Seconds for a process to end by itself after its last round, or after its round should have been over."""


class PeerProcess:
    """One system at one workload."""

    def __init__(self, name: str, key: str) -> None:
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `end`
        self._process = subprocess.Popen(
            [sys.executable, "-m", "peers.child", name, key], cwd=Path(__file__).parent.parent, env={**os.environ, **QUIET},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log,
        )  # fmt: skip

    def round(self, place: dict[str, str], sizes: dict[str, int], *, looks: bool, seconds: int) -> dict[str, Any]:
        """What the system says of its round, or ``{"error": ...}`` where it did not come back from it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        asked = {"place": place, "sizes": sizes, "looks": looks, "seconds": seconds}
        try:
            self._process.stdin.write(json.dumps(asked).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            return {"error": f"its process ended: {self._last_line()}"}
        ready, _, _ = select.select([self._process.stdout], [], [], seconds + GRACE)
        line = self._process.stdout.readline() if ready else b""
        if line:
            told: dict[str, Any] = json.loads(line)
            return told
        return {"error": f"no answer after {seconds} s: {self._last_line()}" if not ready else f"its process ended: {self._last_line()}"}

    def end(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.close()
            self._process.wait(GRACE)
        except (BrokenPipeError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._log.close()

    def _last_line(self) -> str:
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        timed_out = [line for line in lines if line.startswith("Timeout")]
        return (timed_out or lines or ["it said nothing"])[-1][:200]
