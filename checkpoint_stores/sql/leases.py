"""Who this process is, and whether another process still lives.

A lease normally ends by the database's clock.  One shortcut: a process that is
provably dead on this very machine has no lease any more.  Proof needs the same
machine, boot and pid namespace, and a pid that is gone, a zombie, or another
process by now.  Knows no database.
"""

from __future__ import annotations

import os
import socket
from functools import lru_cache
from pathlib import Path
from typing import Final

_BOOT: Final = Path("/proc/sys/kernel/random/boot_id")
_NAMESPACE: Final = Path("/proc/self/ns/pid")
_STATE, _START = 0, 19
"""Positions in /proc/<pid>/stat behind the command's name."""


@lru_cache(maxsize=1)
def this_host() -> str:
    """Machine, boot and pid namespace of this process; only the host's name where the system does not tell them."""
    try:
        return f"{socket.gethostname()}/{_BOOT.read_text().strip()}/{_NAMESPACE.readlink()}"
    except OSError:
        return socket.gethostname()


def start_of(pid: int) -> int:
    """When the process started, in the kernel's ticks; 0 where there is no such process or nothing tells."""
    fields = _stat_of(pid)
    return int(fields[_START]) if fields else 0


def is_known_dead(host: str, pid: int, pid_started: int) -> bool:
    """Whether the process (host, pid, start) has certainly ended.  False whenever it cannot be proved."""
    if "/" not in host or host != this_host() or pid_started == 0:
        return False
    try:
        fields = _stat_of(pid)
    except OSError:
        return False
    return not fields or fields[_STATE] in ("Z", "X") or int(fields[_START]) != pid_started


def is_over(expires_at: int, clock: int, host: str, pid: int, pid_started: int) -> bool:
    """Whether a process holds its runs no longer: its lease is over at ``clock`` (the database's), or it is known to be dead."""
    return expires_at <= clock or is_known_dead(host, pid, pid_started)


def _stat_of(pid: int) -> list[str]:
    try:
        # The command's name stands in parentheses and may hold anything, parentheses too.
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def worker_line(worker_id: str) -> dict[str, str | int]:
    """This process's line of ``workers``, without times."""
    return {"worker_id": worker_id, "host": this_host(), "pid": os.getpid(), "pid_started": start_of(os.getpid())}
