"""All benchmarks, one after another, and docs/performance.md made from what they print.

python -m tests.benchmarks            # some minutes; on a machine that has nothing else to do
"""

from __future__ import annotations

import importlib
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "performance.md"
BENCHMARKS = ("start", "calls", "streaming", "cancel", "death", "history", "recovery", "scale")

_HEAD = """\
# Performance

Figures of one machine say little; ratios to something that was measured in the same run, in turns, say more. Each
benchmark prints its own; `python -m tests.benchmarks` runs all of them and writes this page. Nothing in the tests
depends on them.

Measured {day} on {cores} cores ({machine}, Python {python}), load {load:.1f} at the beginning.
"""


def main() -> int:
    page = [_page_head()]
    for name in BENCHMARKS:
        print(f"{name} …", file=sys.stderr)  # noqa: T201
        done = subprocess.run(
            [sys.executable, "-m", f"tests.benchmarks.{name}"], stdout=subprocess.PIPE, text=True, check=False
        )
        if done.returncode:
            return done.returncode
        page.append(f"## {name.capitalize()}\n\n{_about(name)}\n\n```\n{done.stdout.rstrip()}\n```\n")
    PAGE.write_text("\n".join(page), encoding="utf-8")
    return 0


def _page_head() -> str:
    return _HEAD.format(
        day=datetime.now(UTC).date(),
        cores=os.cpu_count(),
        machine=platform.machine(),
        python=platform.python_version(),
        load=os.getloadavg()[0],
    )


def _about(name: str) -> str:
    """What it says of itself, with its command as a command."""
    text = importlib.import_module(f"tests.benchmarks.{name}").__doc__ or ""
    paragraphs = [part.strip("\n") for part in text.split("\n\n")]
    return "\n\n".join(
        f"`{part.strip()}`" if part.startswith("    ") else part for part in paragraphs if part
    )


if __name__ == "__main__":
    sys.exit(main())
