"""The service with a clock that somebody has set forward: `python tomorrow.py FILE serve`, FILE with the seconds."""

from __future__ import annotations

import sys
import time
from pathlib import Path

ahead = float(Path(sys.argv[1]).read_text(encoding="utf-8"))
right = time.time
time.time = lambda: right() + ahead

from opencode_actors.cli.main import main  # noqa: E402 - whoever keeps time.time is to keep this one

sys.exit(main(sys.argv[2:]))
