"""Says at the end how much of the run was real: a green run without containers proves little."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable

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
STRESSED = pytest.StashKey[list[str]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_ran] = Counter()
    config.stash[STRESSED] = []


@pytest.fixture
def fresh_seed(request: pytest.FixtureRequest) -> Callable[[str, str], int]:
    """A seed that nobody chose, for a world and a scenario. The command that has it again is printed at the end,
    whatever the outcome, for whoever wonders later what was different that day."""

    def make(world: str, scenario: str) -> int:
        seed = random.SystemRandom().randrange(1 << 32)
        where = f' "{scenario}"' if scenario else ""
        request.config.stash[STRESSED].append(
            f"opencode-actors stress --world {world}{where} --replay {seed}"
        )
        return seed

    return make


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
    for line in config.stash[STRESSED]:
        terminalreporter.write_line(f"stressed with a fresh seed, again with: {line}")
