"""The worker: a process that drives runs nobody else drives.  See `Worker`."""

from __future__ import annotations

from trailmark.worker.dispatching import Dispatcher as Dispatcher
from trailmark.worker.dispatching import StoreDispatcher as StoreDispatcher
from trailmark.worker.reports import Report as Report
from trailmark.worker.worker import Worker as Worker

__all__ = ["Dispatcher", "Report", "StoreDispatcher", "Worker"]
