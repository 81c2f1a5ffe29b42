"""`trailmark demo`: the door to `trailmark.demo.drama`."""

from __future__ import annotations

from trailmark.cli.terminal import Terminal


def demo(terminal: Terminal) -> int | None:
    """See it happen: a real flow is killed halfway, resumed, approved and checked, on this machine and without network."""
    from trailmark.demo.drama import run_demo

    code: int | None = run_demo()
    return code
