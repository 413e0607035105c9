"""One gateway for all tests of the plugin: it takes its time to start, and a gigabyte."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator

import pytest
import trio

from opencode_actors.openclaw_manifest import PLUGIN
from opencode_actors.testing.provider import open_provider
from tests.e2e.rig import short_folder
from tests.openclaw.desk import Desk, Running
from tests.openclaw.gateway import Gateway, free_port
from tests.openclaw.installation import installation
from tests.openclaw.model import obedient
from tests.openclaw.scripted_door import ScriptedDoor

PROFILES = ("minimal", "coding", "messaging", "full")

# An agent is woken only a few times a minute, so each test that wakes one has its own.
AGENTS = (
    "main",
    "blue",
    "red",
    "busy",
    "asked",
    "again",
    "aborting",
    "chatting",
    "person",
    "fresh",
    "following",
    "there",
    "choosing",
)


@pytest.fixture(scope="session")
def running() -> Iterator[Running]:
    with short_folder() as base:
        running = Running(gateway=Gateway(installation(), base, free_port()), model_port=free_port())
        agents: dict[str, object] = {name: {"workspace": str(base / name)} for name in AGENTS}
        agents |= {name: {"workspace": str(base / name), "tools": {"profile": name}} for name in PROFILES}
        config = {"sessionsDir": str(running.sessions_dir), "autoStart": False}
        running.gateway.write_config(
            f"http://127.0.0.1:{running.model_port}/v1",
            agents=agents,
            plugins={
                "load": {"paths": [str(PLUGIN)]},
                "allow": ["opencode"],
                "entries": {"opencode": {"enabled": True, "config": config}},
            },
        )
        trio.run(running.gateway.start)
        try:
            yield running
        finally:
            trio.run(running.gateway.stop)


@pytest.fixture
async def desk(running: Running) -> AsyncGenerator[Desk]:
    """A door and a model of the test's own; the plugin has found the door."""
    door = ScriptedDoor(running.sessions_dir)
    async with (
        open_provider(port=running.model_port, script=obedient) as provider,
        door.listening(),
        running.gateway.client() as client,
    ):
        desk = Desk(gateway=running.gateway, client=client, door=door, provider=provider)
        await desk.until_attended()
        yield desk
