"""`opencode-actors run` as a user calls it, in a real container; only the model is a script."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Generator
from pathlib import Path

import pytest
import trio
from attrs import define, field, frozen

from opencode_actors.adapters.engine import open_engine
from opencode_actors.cli.status import Status
from opencode_actors.containers import SESSION_LABEL
from opencode_actors.errors import EngineUnavailable, ImageMissing
from opencode_actors.ports import ListedContainer
from opencode_actors.settings import Settings
from tests.contract.engines import missing, within

PLENTY = 240  # seconds; a loaded machine takes long to start a server

pytestmark = [pytest.mark.podman, pytest.mark.image, pytest.mark.opencode]


@define
class Command:
    """A running `opencode-actors run`, whose streams are read as they come."""

    process: trio.Process
    output: str = ""
    errors: str = ""
    _changed: trio.Event = field(factory=trio.Event)

    async def read(self, nursery: trio.Nursery) -> None:
        nursery.start_soon(self._read, self.process.stdout, "output")
        nursery.start_soon(self._read, self.process.stderr, "errors")

    async def until(self, text: str) -> None:
        while text not in self.output + self.errors:
            assert self.process.returncode is None, self.errors
            await self._changed.wait()

    async def _read(self, stream: trio.abc.ReceiveStream | None, name: str) -> None:
        assert stream is not None
        async for data in stream:
            setattr(self, name, getattr(self, name) + data.decode())
            self._changed.set()
            self._changed = trio.Event()


@frozen(kw_only=True)
class House:
    """Where one user of the command lives, and the session that is tested."""

    home: Path
    session: str

    async def start(self, *arguments: str) -> trio.Process:
        names = ("PATH", "PYTHONPATH", "XDG_RUNTIME_DIR")
        inherited = {name: os.environ[name] for name in names if name in os.environ}
        return await trio.lowlevel.open_process(
            [sys.executable, "-m", "opencode_actors.cli", "run", "--session", self.session, *arguments],
            env={**inherited, "HOME": str(self.home), "TMPDIR": str(self.home)},
            cwd=Path(__file__).parents[2],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    async def run(self, *arguments: str, at: str = "", then: signal.Signals | None = None) -> Command:
        """To its end; `then` is sent once `at` was read."""
        command = Command(await self.start(*arguments))
        async with trio.open_nursery() as nursery:
            await command.read(nursery)
            if then is not None:
                await command.until(at)
                command.process.send_signal(then)
        await command.process.wait()
        return command

    async def containers(self) -> tuple[ListedContainer, ...]:
        async with open_engine(runtime="podman") as engine:
            return await engine.list({SESSION_LABEL: self.session})

    def leftovers(self) -> list[str]:
        return [path.name for path in self.home.iterdir() if path.name != ".openclaw"]


@pytest.fixture
async def house() -> House:
    try:
        async with open_engine(runtime="podman") as engine:
            await engine.image(Settings().image)
    except EngineUnavailable as error:
        missing(f"Podman: {error}")
    except ImageMissing as error:
        missing(f"{error}: `opencode-actors image build`")
    return House(home=Path(tempfile.mkdtemp(prefix="oa-cli-")), session=f"cli-{secrets.token_hex(4)}")


@pytest.fixture(autouse=True)
def cleared(house: House) -> Generator[None]:
    yield
    shutil.rmtree(house.home)


@within(PLENTY)
async def test_a_first_run_without_credentials(house: House) -> None:
    done = await house.run("say hello")
    assert done.process.returncode == Status.OK, done.errors
    assert "The command ran in the container and printed" in done.output
    assert "no provider credentials found" in done.errors
    assert "creating the container\n" in done.errors
    assert f"session {house.session}" in done.errors.splitlines()[-1]
    workspace = Path(done.errors.splitlines()[-1].rpartition(" workspace ")[2])
    assert (workspace / "hello-from-opencode-actors.txt").is_file()
    assert await house.containers() == ()
    assert house.leftovers() == []


@within(PLENTY)
async def test_a_second_run_of_a_session_goes_on_with_its_conversation(house: House) -> None:
    first = await house.run("--json", "::bash echo one > file.txt")
    second = await house.run("--json", "::bash cat file.txt")
    assert (first.process.returncode, second.process.returncode) == (0, 0), second.errors
    one, two = json.loads(first.output), json.loads(second.output)
    assert one["workspace"] == two["workspace"]
    # the second prompt carries the first one's turn along
    assert two["tokens"]["input"] > one["tokens"]["input"]


@within(PLENTY)
async def test_ctrl_c_leaves_nothing_behind(house: House) -> None:
    done = await house.run("::words 100000 rate=20", at="word3 ", then=signal.SIGINT)
    assert done.process.returncode == Status.CANCELLED, done.errors
    assert "cancelled after" in done.errors
    assert await house.containers() == ()
    assert house.leftovers() == []


@within(PLENTY)
@pytest.mark.parametrize("moment", ["connecting to podman", "creating the container", "waiting for OpenCode"])
async def test_a_signal_at_any_moment_of_the_start_leaves_nothing_behind(house: House, moment: str) -> None:
    done = await house.run("::hang", at=moment, then=signal.SIGTERM)
    assert done.process.returncode == Status.CANCELLED, done.errors
    assert await house.containers() == ()
    assert house.leftovers() == []


@within(PLENTY)
async def test_P25_a_killed_container_fails_the_job_with_its_true_cause(house: House) -> None:
    command = Command(await house.start("::words 100000 rate=20"))
    async with trio.open_nursery() as nursery:
        await command.read(nursery)
        await command.until("word3 ")
        async with open_engine(runtime="podman") as engine:
            (running,) = await engine.list({SESSION_LABEL: house.session})
            await engine.kill(running.id)
    await command.process.wait()
    assert command.process.returncode == Status.FAILED
    assert "failed (crash) after " in command.errors
    assert "killed by SIGKILL (exit code 137)" in command.errors
    assert await house.containers() == ()
    assert house.leftovers() == []


@within(PLENTY)
async def test_a_reader_that_goes_away_ends_the_job(house: House) -> None:
    process = await house.start("::words 100000 rate=50")
    assert process.stdout is not None
    await process.stdout.receive_some(10)
    await process.stdout.aclose()
    assert process.stderr is not None
    errors = b"".join([data async for data in process.stderr]).decode()
    assert await process.wait() == Status.CANCELLED, errors
    assert "nobody reads the output" in errors
    assert "Traceback" not in errors
    assert await house.containers() == ()
