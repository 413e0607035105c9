"""A gateway with the plugin in it, installed as a user would, whose service is real."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import trio
from attrs import frozen

from opencode_actors.cli.plugin import own_command
from opencode_actors.containers import OWNER_LABEL
from tests.e2e.rig import owner_in, short_folder
from tests.openclaw.gateway import Gateway, GatewayClient, free_port
from tests.openclaw.installation import installation

PATIENCE = 180  # seconds; a loaded machine starts a gateway, a service and a container


@frozen(kw_only=True)
class House:
    gateway: Gateway
    model_port: int

    @property
    def sessions_dir(self) -> Path:
        return self.gateway.base / "sessions"

    @property
    def workspaces(self) -> Path:
        return self.gateway.base / "workspaces"

    def door(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.sessions_dir / "door.json").read_text())
        return found

    async def end_service(self) -> None:
        with suppress(FileNotFoundError, ProcessLookupError), trio.fail_after(PATIENCE):
            pid = self.door()["pid"]
            os.kill(pid, signal.SIGTERM)
            while True:
                await trio.sleep(0.1)
                os.kill(pid, 0)

    def remove_containers(self) -> None:
        """A service that ends leaves those in which jobs are at work, as after a test that failed."""
        if not (self.sessions_dir / "journal.sqlite").exists():
            return
        label = f"label={OWNER_LABEL}={owner_in(self.sessions_dir)}"
        listing = ["podman", "ps", "-aq", "--filter", label]
        left = subprocess.run(listing, capture_output=True, text=True, check=True).stdout.split()
        if left:
            subprocess.run(["podman", "rm", "-f", "-t", "0", *left], capture_output=True, check=True)


@contextmanager
def open_house(agents: tuple[str, ...], settings: Mapping[str, object]) -> Generator[House]:
    """The first of the agents is the default one. `settings` are the plugin's."""
    with short_folder() as base:
        house = House(gateway=Gateway(installation(), base, free_port()), model_port=free_port())
        gateway = house.gateway
        gateway.write_config(
            f"http://127.0.0.1:{house.model_port}/v1",
            agents={name: {"workspace": str(base / name), "default": name == agents[0]} for name in agents},
            plugins={},
        )
        done = subprocess.run(
            [*own_command(), "plugin", "install"],
            env=gateway.full_environment(),
            cwd=base,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        config = gateway.config()
        own = {
            "sessionsDir": str(house.sessions_dir),
            "workspacesDir": str(house.workspaces),
            "doorPort": 0,
        }
        config["plugins"]["entries"]["opencode"]["config"].update({**own, **settings})
        gateway.config_file.write_text(json.dumps(config))
        trio.run(gateway.start)
        try:
            yield house
        finally:
            trio.run(gateway.stop)
            trio.run(house.end_service)
            house.remove_containers()


async def result_of(client: GatewayClient, method: str, **params: object) -> dict[str, Any]:
    found: dict[str, Any] = await client.request(method, **params)
    return found


async def until_ended(client: GatewayClient, job: str) -> dict[str, Any]:
    with trio.fail_after(PATIENCE):
        while True:
            status = await result_of(client, "opencode.status", job_id=job)
            if status["status"] not in ("pending", "running"):
                return status
            await trio.sleep(0.2)
