"""How the plugin comes to its service: two gateways that start one at once, and one that serves TLS."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
import trio

from opencode_actors.door.serving import Address, open_door
from opencode_actors.openclaw_manifest import PLUGIN
from tests.door.room import PLENTY, TOKEN, FakeDesk
from tests.e2e.rig import eventually, living, short_folder
from tests.openclaw.test_javascript import NODE

_START = """
import { Starter } from "PLUGIN/starter.js";
import { findDoor } from "PLUGIN/door.js";
import { readConfig } from "PLUGIN/config.js";
const config = readConfig(CONFIG, {});
await new Starter(config, { info() {} }).start();
console.log((await findDoor(config)).url);
process.exit(0);
"""
_PING = """
import { Link } from "PLUGIN/link.js";
import { readConfig } from "PLUGIN/config.js";
const link = new Link(readConfig(CONFIG, {}), { info() {}, warn() {} });
try { console.log(JSON.stringify(await link.call("ping", {}))); } catch (error) { console.log(error.message); }
process.exit(0);
"""


async def in_node(script: str, config: dict[str, object], environment: dict[str, str]) -> str:
    text = script.replace("PLUGIN", str(PLUGIN)).replace("CONFIG", json.dumps(config))
    done = await trio.run_process(
        [NODE, "--input-type=module", "--eval", text],
        capture_stdout=True,
        capture_stderr=True,
        check=False,
        env={"PATH": os.environ["PATH"], **environment},
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode().strip()


@pytest.mark.podman
async def test_two_gateways_that_start_a_service_at_once_get_one() -> None:
    with short_folder() as base:
        sessions = base / "sessions"
        config: dict[str, object] = {
            "sessionsDir": str(sessions),
            "command": [
                sys.executable,
                "-m",
                "opencode_actors.cli",
                "serve",
                "--set",
                f"sessionsDir={sessions}",
            ],
        }
        environment = {"HOME": str(base), "OPENCODE_ACTORS_DOOR_PORT": "0"}
        if "XDG_RUNTIME_DIR" in os.environ:
            environment["XDG_RUNTIME_DIR"] = os.environ["XDG_RUNTIME_DIR"]
        found: list[str] = []

        async def gateway() -> None:
            found.append(await in_node(_START, config, environment))

        try:
            with trio.fail_after(PLENTY):
                async with trio.open_nursery() as nursery:
                    for _ in range(3):
                        nursery.start_soon(gateway)
                # Those that were refused the state directory have ended, or are about to.
                await eventually(lambda: len(living(str(sessions))) <= 1)
            assert len(set(found)) == 1
            assert living(str(sessions))
        finally:
            end_service(sessions)


def end_service(sessions: Path) -> None:
    with suppress(FileNotFoundError, ProcessLookupError):
        pid: int = json.loads((sessions / "door.json").read_text())["pid"]
        process = os.pidfd_open(pid)
        os.kill(pid, signal.SIGTERM)
        select.select([process], [], [], PLENTY)
        os.close(process)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tls")
    request = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=door.example "
        "-addext subjectAltName=IP:127.0.0.1"
    )
    subprocess.run(
        [*request.split(), "-keyout", str(folder / "key"), "-out", str(folder / "cert")],
        check=True,
        capture_output=True,
    )
    return folder


async def test_a_gateway_that_is_given_the_certificate_speaks_tls(certificate: Path) -> None:
    address = Address(host="127.0.0.1", port=0, certificate=certificate / "cert", key=certificate / "key")
    with trio.fail_after(PLENTY):
        async with open_door(address, FakeDesk(), token=TOKEN, report=lambda _: None) as door:
            assert door.url.startswith("wss://")
            config: dict[str, object] = {"url": door.url, "token": TOKEN, "autoStart": False}
            trusted = {"NODE_EXTRA_CA_CERTS": str(certificate / "cert")}
            assert json.loads(await in_node(_PING, config, trusted)) == {"did": "ping"}
            refused = await in_node(_PING, config, {})
            assert "did" not in refused
