"""A worker process as the demo sees it: started, listened to, and ended by its id.

Bounded in time: a worker that says nothing for `PATIENCE` is ended.  Knows nothing of runs.
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, Self

from reducers.errors import TrailmarkError

PATIENCE = timedelta(minutes=3)
"""How long a worker may be silent; one batch of files is verified in this time on any disk."""

MODULE = "trailmark.demo.worker"


class WorkerSilentError(TrailmarkError):
    """A worker said nothing for too long, and was ended."""


class WorkerProcess:
    """A child process that carries out one order; a context manager that leaves no process behind."""

    def __init__(self, order: Mapping[str, Any], *, patience: timedelta = PATIENCE) -> None:
        self._patience = patience
        # -P and an explicit path: a file of the working folder must not take the place of one of our modules.
        root = str(Path(__file__).parents[2])
        paths = [*filter(None, [os.environ.get("PYTHONPATH")]), *([] if _is_found_anyway(root) else [root])]
        self._process = subprocess.Popen(  # noqa: S603 - this very Python, and a module of ours
            [sys.executable, "-P", "-m", MODULE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            encoding="utf-8",
        )
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._listen, name="trailmark-demo-listener", daemon=True)
        self._reader.start()
        assert self._process.stdin is not None  # noqa: S101 - a pipe
        try:
            self._process.stdin.write(json.dumps(order) + "\n")
            self._process.stdin.flush()
        except OSError:
            pass  # it is gone already; its exit code will tell

    @property
    def pid(self) -> int:
        return self._process.pid

    def _listen(self) -> None:
        assert self._process.stdout is not None  # noqa: S101 - a pipe
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put("")

    def reports(self) -> Iterator[dict[str, Any]]:
        """What it says, until it ends.  Raises WorkerSilentError."""
        while True:
            try:
                line = self._lines.get(timeout=self._patience.total_seconds())
            except queue.Empty:
                self.kill()
                raise WorkerSilentError(f"process {self.pid} said nothing for {self._patience} and was ended") from None
            if not line:
                return
            yield json.loads(line)

    def wait(self) -> int:
        """Its exit code, once it has said everything; negative: the signal that ended it."""
        return self._process.wait(self._patience.total_seconds())

    def kill(self) -> int:
        """End it at once, without asking (SIGKILL), by its id; returns its exit code."""
        self._process.kill()
        return self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.kill()
        self._reader.join()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except OSError:
                    pass  # what was still to be written has no reader any more


def _is_found_anyway(root: str) -> bool:
    """Whether a new Python finds our packages without being told where: they are installed."""
    return Path(root).name in ("site-packages", "dist-packages")
