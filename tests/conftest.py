"""Says at the end how much of the run was real: a green run without containers proves little."""

from __future__ import annotations

from collections import Counter

import pytest

REAL = {
    "podman": "on Podman",
    "docker": "on Docker Engine",
    "image": "of the container image",
    "opencode": "with the real OpenCode server",
}
_CONTAINERS = ("podman", "docker", "image")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    ran: Counter[str] = Counter()
    for outcome in ("passed", "failed"):
        for report in terminalreporter.getreports(outcome):
            marks = [mark for mark in REAL if mark in report.keywords]
            ran.update(marks)
            ran["container"] += any(mark in _CONTAINERS for mark in marks)
    parts = ", ".join(f"{ran[mark]} {words}" for mark, words in REAL.items())
    terminalreporter.write_line(f"tests with real containers: {ran['container']} ({parts})")
