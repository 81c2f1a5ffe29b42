"""What tests of flows and of stores are made of.  Public API.

    from trailmark.testing import VirtualClock, always_reload, crash_at_every_checkpoint

`VirtualClock`: time that a test moves.  `crash_at_every_checkpoint` and `always_reload`: does the flow survive being
interrupted anywhere?  `Process`: a store that dies at a commit.  `StoreContract`: every promise of a checkpoint store.
`StreamChecker`: every promise of a stream of events.
`replay`: what would today's flow have decided in stored runs?
`PostgresServer`: a throw-away server.  Names are fetched when they are first used: only who needs pytest or asyncpg imports it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from engine.replaying import Divergence as Divergence
    from engine.replaying import Replay as Replay
    from engine.replaying import Unchecked as Unchecked
    from trailmark.testing.clock import VirtualClock as VirtualClock
    from trailmark.testing.contract import StoreContract as StoreContract
    from trailmark.testing.crashes import CrashReport as CrashReport
    from trailmark.testing.crashes import crash_at_every_checkpoint as crash_at_every_checkpoint
    from trailmark.testing.crashing import Death as Death
    from trailmark.testing.crashing import Process as Process
    from trailmark.testing.crashing import SimulatedCrash as SimulatedCrash
    from trailmark.testing.postgres import PostgresServer as PostgresServer
    from trailmark.testing.postgres import PostgresUnavailableError as PostgresUnavailableError
    from trailmark.testing.reloading import always_reload as always_reload
    from trailmark.testing.replays import replay as replay
    from trailmark.testing.streams import StreamChecker as StreamChecker
    from trailmark.testing.streams import StreamViolationError as StreamViolationError

_HOMES: Final = {
    "CrashReport": "crashes",
    "Death": "crashing",
    "Divergence": "replays",
    "PostgresServer": "postgres",
    "PostgresUnavailableError": "postgres",
    "Process": "crashing",
    "Replay": "replays",
    "SimulatedCrash": "crashing",
    "StoreContract": "contract",
    "StreamChecker": "streams",
    "StreamViolationError": "streams",
    "Unchecked": "replays",
    "VirtualClock": "clock",
    "always_reload": "reloading",
    "crash_at_every_checkpoint": "crashes",
    "replay": "replays",
}

__all__ = sorted(_HOMES)  # noqa: PLE0605 - one table says where each name lives


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
