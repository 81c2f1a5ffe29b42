"""``python -m trailmark`` is the command ``trailmark``."""

from __future__ import annotations

import sys

from trailmark.cli import main

if __name__ == "__main__":
    sys.exit(main())
