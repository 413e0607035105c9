"""The benchmarks, one after another, and docs/performance.md made from what they print.

python -m tests.benchmarks            # all: some ten minutes; on a machine that has nothing else to do
python -m tests.benchmarks scale      # these alone; the page keeps what it has of the others
"""

from __future__ import annotations

import importlib
import os
import platform
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "performance.md"
BENCHMARKS = ("start", "warm", "calls", "streaming", "cancel", "death", "history", "recovery", "scale")

_HEAD = """\
# Performance

Figures of one machine say little; ratios to something that was measured in the same run, in turns, say more. Each
benchmark prints its own; `python -m tests.benchmarks` runs all of them and writes this page, and with names it runs
those alone. Nothing in the tests depends on the figures.
"""
_ONE = """\
## {title}

{about}

{day}, on {cores} cores ({machine}, Python {python}), load {load:.1f} at the beginning:

```
{printed}
```
"""


def main(names: tuple[str, ...]) -> int:
    if unknown := set(names) - set(BENCHMARKS):
        print(f"there is no {', '.join(unknown)}: choose of {', '.join(BENCHMARKS)}", file=sys.stderr)  # noqa: T201
        return 2
    there = sections(PAGE.read_text(encoding="utf-8")) if PAGE.exists() else {}
    for name in BENCHMARKS:
        if names and name not in names:
            continue
        print(f"{name} …", file=sys.stderr)  # noqa: T201
        load = os.getloadavg()[0]
        done = subprocess.run(
            [sys.executable, "-m", f"tests.benchmarks.{name}"], stdout=subprocess.PIPE, text=True, check=False
        )
        if done.returncode:
            return done.returncode
        there[name] = _ONE.format(
            title=name.capitalize(),
            about=_about(name),
            day=datetime.now(UTC).date(),
            load=load,
            cores=os.cpu_count(),
            machine=platform.machine(),
            python=platform.python_version(),
            printed=done.stdout.rstrip(),
        )
        found = (there[one] for one in (*BENCHMARKS, "before and after") if one in there)
        PAGE.write_text("\n".join([_HEAD, *found]), encoding="utf-8")
    return 0


def sections(page: str) -> dict[str, str]:
    """What the page has, by the names of the benchmarks; what was written by hand is kept."""
    _, *found = re.split(r"^(?=## )", page, flags=re.MULTILINE)
    return {part.splitlines()[0].removeprefix("## ").lower(): part.rstrip("\n") + "\n" for part in found}


def _about(name: str) -> str:
    """What it says of itself, with its command as a command."""
    text = importlib.import_module(f"tests.benchmarks.{name}").__doc__ or ""
    paragraphs = [part.strip("\n") for part in text.split("\n\n")]
    return "\n\n".join(
        f"`{part.strip()}`" if part.startswith("    ") else part for part in paragraphs if part
    )


if __name__ == "__main__":
    sys.exit(main(tuple(sys.argv[1:])))
