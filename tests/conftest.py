"""Says at the end how much of the run was real: a green run without containers proves little."""

from __future__ import annotations

from collections import Counter

import pytest

REAL = {
    "podman": "on Podman",
    "docker": "on Docker Engine",
    "image": "of the container image",
    "opencode": "with the real OpenCode server",
    "openclaw": "with the real OpenClaw gateway",
}
WITH_CONTAINERS = {"podman", "docker", "image"}

_ran = pytest.StashKey[Counter[str]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_ran] = Counter()


def pytest_runtest_call(item: pytest.Item) -> None:
    """Not reached by a test that is skipped, or whose engine is missing."""
    marks = {mark.name for mark in item.iter_markers()}
    ran = item.config.stash[_ran]
    ran.update(marks & REAL.keys())
    ran["containers"] += bool(marks & WITH_CONTAINERS)


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, exitstatus: int, config: pytest.Config
) -> None:
    ran = config.stash[_ran]
    parts = ", ".join(f"{ran[mark]} {words}" for mark, words in REAL.items())
    terminalreporter.write_line(f"tests with real containers: {ran['containers']} ({parts})")
