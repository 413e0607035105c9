"""What the built image promises, looked at from outside, on the real engine."""

from __future__ import annotations

import json
import tempfile
from collections.abc import AsyncGenerator, Generator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
import trio
from attrs import frozen

from opencode_actors.adapters.engine import engine_http_client, open_engine
from opencode_actors.errors import ImageMissing
from opencode_actors.image import load_context, show_image
from opencode_actors.settings import Settings
from tests.contract.engines import missing, podman_service

__all__ = ["podman_service"]  # pytest finds the fixture by its name here

pytestmark = [pytest.mark.image, pytest.mark.podman, pytest.mark.usefixtures("podman_service")]

IMAGE = Settings().image
SOMEBODY = 1234  # a user that the image's /etc/passwd does not know
PROVIDER_PORT = 4097

# A request and its answer through the entry script's forwarder, from within the container.
ASK_PROVIDER = f"until curl -sf --max-time 5 http://127.0.0.1:{PROVIDER_PORT}/v1/models; do sleep 0.05; done"


@frozen(kw_only=True)
class Run:
    exit_code: int
    printed: str


@frozen(kw_only=True)
class Engine:
    """The engine's own API: the image must keep its promises to whoever starts it."""

    api: httpx.AsyncClient
    folder: Path

    def place(self, name: str) -> Path:
        path = self.folder / name
        path.mkdir()
        path.chmod(0o777)
        return path

    @asynccontextmanager
    async def container(
        self,
        command: Sequence[str] | None = None,
        *,
        binds: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        network: str = "none",
    ) -> AsyncGenerator[str]:
        """A started one: read-only, without capabilities, as somebody whom the image does not know."""
        body: dict[str, object] = {
            "Image": IMAGE,
            "User": f"{SOMEBODY}:{SOMEBODY}",
            "Env": [f"{name}={value}" for name, value in (env or {}).items()],
            "Labels": {"opencode-actors-test": "image"},
            "ExposedPorts": {"4096/tcp": {}},
            "HostConfig": {
                "ReadonlyRootfs": True,
                "CapDrop": ["ALL"],
                "SecurityOpt": ["no-new-privileges"],
                "Init": True,
                "Memory": 1 << 30,
                "MemorySwap": 1 << 30,
                "NetworkMode": network,
                "Tmpfs": {"/tmp": "rw,nosuid,nodev,exec,size=64m"},  # noqa: S108 - inside
                "Binds": list(binds),
            },
        }
        if command is not None:
            body["Cmd"] = list(command)
        name = f"oa-test-image-{uuid4().hex[:12]}"
        created = await self.api.post("/containers/create", params={"name": name}, json=body)
        assert created.status_code == 201, created.text
        try:
            started = await self.api.post(f"/containers/{name}/start")
            assert started.status_code == 204, started.text
            yield name
        finally:
            with trio.move_on_after(30, shield=True):
                await self.api.delete(f"/containers/{name}", params={"force": "true"})

    async def run(self, script: str, *, binds: Sequence[str] = ()) -> Run:
        async with self.container(("sh", "-ec", script), binds=binds) as name:
            waited = await self.api.post(f"/containers/{name}/wait")
            return Run(exit_code=int(waited.json()["StatusCode"]), printed=await self.log(name))

    async def log(self, name: str) -> str:
        """Each piece of the log has a head of eight bytes, whose last four are its length."""
        raw = (await self.api.get(f"/containers/{name}/logs", params={"stdout": "1", "stderr": "1"})).content
        pieces: list[bytes] = []
        while len(raw) >= 8:
            end = 8 + int.from_bytes(raw[4:8], "big")
            pieces.append(raw[8:end])
            raw = raw[end:]
        return b"".join(pieces).decode(errors="replace")

    async def logged(self, name: str, words: str) -> str:
        """The log, once it has the words."""
        while words not in (log := await self.log(name)):  # noqa: ASYNC110 - nothing tells us
            await trio.sleep(0.05)
        return log

    async def execute(self, name: str, script: str) -> str:
        body = {"Cmd": ["sh", "-ec", script], "AttachStdout": True, "AttachStderr": True, "Tty": True}
        made = await self.api.post(f"/containers/{name}/exec", json=body)
        ran = await self.api.post(f"/exec/{made.json()['Id']}/start", json={"Detach": False, "Tty": True})
        return ran.text


@pytest.fixture
def folder() -> Generator[Path]:
    """Rootless, the containers' files belong to a user whose directories ours may not empty."""
    with tempfile.TemporaryDirectory(prefix="oa-image-", ignore_cleanup_errors=True) as name:
        path = Path(name)
        path.chmod(0o755)
        yield path


@pytest.fixture
async def engine(folder: Path) -> AsyncGenerator[Engine]:
    async with open_engine(runtime="podman") as opened, engine_http_client(opened.socket) as api:
        try:
            await show_image(api, reference=IMAGE, context=load_context())
        except ImageMissing as error:
            missing(f"{error.message}. {error.hint}")
        yield Engine(api=api, folder=folder)


async def test_the_image_is_made_of_these_files(engine: Engine) -> None:
    state = await show_image(engine.api, reference=IMAGE, context=load_context())
    assert state.current, "opencode-actors image build"
    assert state.opencode_version in load_context().files["Containerfile"].decode()
    assert state.image.size_bytes < 700e6


async def test_every_promised_tool_is_there(engine: Engine) -> None:
    tools = "git rg fd jq curl sqlite3 python3 node npm socat ps"
    ran = await engine.run(
        f"for tool in {tools}; do command -v $tool >/dev/null || echo missing: $tool; done;"
        "node --version; python3 -m venv /tmp/venv && /tmp/venv/bin/python -c 'print(6 * 7)';"
        "npm --version >/dev/null; echo '{\"a\": 1}' | jq .a; fd --version; id -u; getent passwd opencode"
    )
    assert ran.exit_code == 0, ran.printed
    assert "missing" not in ran.printed
    lines = ran.printed.splitlines()
    assert lines[0].startswith("v22.")
    assert lines[1:3] == ["42", "1"]
    assert lines[-2] == str(SOMEBODY)
    assert lines[-1].startswith("opencode:x:1000:1000:")


async def test_git_works_in_a_workspace_that_belongs_to_somebody_else(engine: Engine) -> None:
    workspace = engine.place("workspace")  # this user's, on the host
    ran = await engine.run("git init -q && git status", binds=[f"{workspace}:/workspace"])
    assert ran.exit_code == 0, ran.printed
    assert "No commits yet" in ran.printed


async def test_the_configuration_lets_agents_work_and_the_server_be_quiet(engine: Engine) -> None:
    ran = await engine.run('cat "$XDG_CONFIG_HOME/opencode/opencode.json"')
    config = json.loads(ran.printed)
    assert config["permission"] == "allow"
    assert config["autoupdate"] is False
    assert config["share"] == "disabled"
    assert config["snapshot"] is False


async def test_the_server_starts_read_only_and_without_a_network_and_asks_for_nothing(engine: Engine) -> None:
    """P1: nothing is updated, installed or asked for; a first instance is there within seconds."""
    data, workspace = engine.place("data"), engine.place("workspace")
    binds = [f"{data}:/data", f"{workspace}:/workspace"]
    async with engine.container(binds=binds) as name:
        with trio.fail_after(60):
            await engine.logged(name, "opencode server listening")
            answer = await engine.execute(
                name,
                "curl -sf --max-time 20 -w '\\n%{http_code} %{time_total}' http://127.0.0.1:4096/agent | tail -n 1",
            )
            status, seconds = answer.split()
            assert status == "200"
            assert float(seconds) < 5, "something waited for the network"
            written = await engine.execute(
                name, "find /tmp /workspace -name node_modules -o -name .npm; true"
            )
        assert not written.split(), "an npm install was begun"
    logs = "".join(path.read_text() for path in (data / "opencode" / "log").glob("*.log"))
    for wish in ("models.dev", "models.opencode.ai", "ConnectionRefused", "ENOTFOUND", "EAI_AGAIN", "npm"):
        assert wish not in logs


async def test_a_provider_behind_a_mounted_socket_is_reached_without_a_network(engine: Engine) -> None:
    data, provider = engine.place("data"), engine.place("provider")
    listener = trio.socket.socket(trio.socket.AF_UNIX, trio.socket.SOCK_STREAM)
    await listener.bind(str(provider / "provider.sock"))
    await trio.Path(provider / "provider.sock").chmod(0o666)
    listener.listen()

    async def answer(stream: trio.SocketStream) -> None:
        async with stream:
            head = await stream.receive_some()
            assert head.startswith(b"GET /v1/models ")
            await stream.send_all(b"HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\nanswered")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, answer, [trio.SocketListener(listener)])
        async with engine.container(
            binds=[f"{data}:/data", f"{provider}:/run/provider:ro"],
            env={"OPENCODE_ACTORS_PROVIDER_SOCKET": "/run/provider/provider.sock"},
        ) as name:
            with trio.fail_after(30):
                assert "answered" in await engine.execute(name, ASK_PROVIDER)
        nursery.cancel_scope.cancel()
