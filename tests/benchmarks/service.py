"""A service of its own for a benchmark, as it runs for its users: `opencode-actors serve` with the demo model."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import httpx
import trio
from attrs import frozen

from opencode_actors.door.client import Client, open_client
from opencode_actors.machines.vocabulary import Leave
from opencode_actors.testing.provider import MODEL
from tests.e2e.rig import short_folder

# One container for all of it: a server that has grown is not what is measured.
MEMORY = 4 << 30
_STARTS_WITHIN = 60
_ENDS_WITHIN = 60


@frozen
class Service:
    sessions_dir: Path
    pid: int

    def server(self, session: str) -> httpx.AsyncClient:
        """A client of OpenCode's own server in the session's container, by hand."""
        url, password = self.server_access(session)
        return httpx.AsyncClient(base_url=url, auth=("opencode", password), timeout=60, trust_env=False)

    def server_access(self, session: str) -> tuple[str, str]:
        """Its address and its password."""
        with closing(sqlite3.connect(self.sessions_dir / "journal.sqlite")) as database:
            found = database.execute(
                "SELECT url, password FROM sessions WHERE key = ?", (session,)
            ).fetchone()
        url, password = found
        return str(url), str(password)

    def container(self, session: str) -> str:
        with closing(sqlite3.connect(self.sessions_dir / "journal.sqlite")) as database:
            (container,) = database.execute(
                "SELECT container FROM sessions WHERE key = ?", (session,)
            ).fetchone()
        return str(container)


@asynccontextmanager
async def open_service(provider: Path | None = None) -> AsyncGenerator[tuple[Service, Client]]:
    """What answers in its containers is the provider that listens on this socket, or its own demo model."""
    with short_folder() as base:
        environment = {
            **{name: os.environ[name] for name in ("PATH", "XDG_RUNTIME_DIR") if name in os.environ},
            "HOME": str(base),
            "OPENCODE_ACTORS_SESSIONS_DIR": str(base / "sessions"),
            "OPENCODE_ACTORS_WORKSPACES_DIR": str(base / "workspaces"),
            "OPENCODE_ACTORS_DOOR_PORT": "0",
            "OPENCODE_ACTORS_MEMORY": str(MEMORY),
            "OPENCODE_ACTORS_RECYCLE_MEMORY_SHARE": "0",
        }
        if provider is None:
            command = ["opencode_actors.cli", "serve", "--stop-sessions"]
        else:
            command = ["opencode_actors.stress.served", Leave.NOTHING.value, str(provider)]
            environment["OPENCODE_ACTORS_MODEL"] = MODEL
        process = await trio.lowlevel.open_process(
            [sys.executable, "-m", *command], env=environment, stderr=subprocess.DEVNULL
        )
        try:
            with trio.fail_after(_STARTS_WITHIN):
                while not (base / "sessions" / "door.json").exists():  # noqa: ASYNC110 - another process
                    await trio.sleep(0.05)
            async with open_client(base / "sessions") as client:
                yield Service(base / "sessions", process.pid), client
        finally:
            process.terminate()
            with trio.CancelScope(shield=True, deadline=trio.current_time() + _ENDS_WITHIN):
                await process.wait()
