"""The wire to an engine that misbehaves: what is repeated, what is told, and where engines are looked for."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from attrs import define, evolve, field

from opencode_actors.adapters import engine_sockets
from opencode_actors.adapters.engine import DockerApiEngine, connect_engine
from opencode_actors.adapters.engine_events import open_events
from opencode_actors.adapters.engine_http import EngineWire
from opencode_actors.adapters.engine_ports import FIRST, LAST, FreePorts
from opencode_actors.errors import EngineRefused, EngineUnavailable
from opencode_actors.ports import ContainerId, Death, EngineKind
from opencode_actors.testing.fake_container import FAKE_INFO

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"
HANG_UP = b""


@define
class Script:
    """A server that gives one connection after another the next answer, and notes what was asked."""

    answers: list[bytes]
    asked: list[str] = field(factory=list[str])

    async def serve(self, stream: trio.SocketStream) -> None:
        async with stream:
            request = await stream.receive_some(4096)
            if request:
                self.asked.append(" ".join(bytes(request).decode().split()[:2]))
                await stream.send_all(self.answers.pop(0))


@asynccontextmanager
async def _engine(socket: Path, answers: list[bytes]) -> AsyncGenerator[tuple[EngineWire, Script]]:
    script = Script(answers)
    listening = trio.socket.socket(trio.socket.AF_UNIX)
    await listening.bind(str(socket))
    listening.listen()
    wire = EngineWire(socket, name="Podman", prefix="/v1.41")
    async with trio.open_nursery() as nursery:
        await nursery.start(trio.serve_listeners, script.serve, [trio.SocketListener(listening)])
        yield wire, script
        nursery.cancel_scope.cancel()
    await wire.aclose()


async def test_a_call_whose_answer_was_lost_is_repeated_once_where_that_is_safe(tmp_path: Path) -> None:
    async with _engine(tmp_path / "s", [HANG_UP, OK]) as (wire, script):
        assert (await wire.call("GET", "/x", doing="look")).status_code == 200
        assert script.asked == ["GET /v1.41/x"] * 2
        assert wire.statistics().revivals == 1
        assert wire.statistics().in_flight == 0


async def test_a_create_whose_answer_was_lost_is_not_repeated(tmp_path: Path) -> None:
    async with _engine(tmp_path / "s", [HANG_UP, OK]) as (wire, script):
        with pytest.raises(EngineUnavailable, match="Podman could not create oa: it closed the connection"):
            await wire.call("POST", "/create", doing="create oa", repeatable=False)
        assert script.asked == ["POST /v1.41/create"]


@pytest.mark.parametrize("called", ["its-name", "its-id"])
async def test_what_we_have_ended_by_whatever_name_is_not_looked_at_for_somebody_who_removes_it(
    tmp_path: Path, called: str
) -> None:
    answers = [_about_one("running"), OK, _about_one("stopped"), HANG_UP, HANG_UP]
    async with _engine(tmp_path / "s", answers) as (wire, script):
        engine = DockerApiEngine(wire, evolve(FAKE_INFO, kind=EngineKind.PODMAN))
        container = await engine.inspect(called)
        await engine.kill(ContainerId(called))
        assert await engine.wait_exit(container) == Death(exit_code=137, oom_killed=False)
        assert len(script.asked) == 3


def _about_one(status: str) -> bytes:
    # No process has this number: the highest that Linux gives is 4,194,304.
    state = {"Status": status, "Pid": 4_194_305, "ExitCode": 137}
    about = {"Id": "its-id", "Name": "/its-name", "State": state, "Config": {}, "NetworkSettings": {}}
    body = json.dumps(about).encode()
    return b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)


async def test_an_engine_that_stays_away_is_told_after_the_second_attempt(tmp_path: Path) -> None:
    async with _engine(tmp_path / "s", [HANG_UP, HANG_UP]) as (wire, script):
        with pytest.raises(EngineUnavailable, match=r"closed the connection before .* \(socket /") as gone:
            await wire.call("GET", "/x", doing="look")
        assert gone.value.hint
        assert len(script.asked) == 2
        assert wire.statistics().errors == 1


async def test_a_socket_that_is_not_there_is_looked_for_again_by_whoever_can_revive_it(
    tmp_path: Path,
) -> None:
    revived: list[str] = []

    async def revive() -> None:
        await trio.lowlevel.checkpoint()
        revived.append("yes")

    wire = EngineWire(tmp_path / "s", name="Podman", revive=revive)
    with pytest.raises(EngineUnavailable, match="there is no such socket"):
        await wire.call("POST", "/create", doing="create oa", repeatable=False)
    with pytest.raises(EngineUnavailable, match="could not follow its events"):
        async with open_events(wire, {}):
            pass
    assert revived == ["yes", "yes"]
    await wire.aclose()


async def test_an_answer_that_does_not_come_is_told(tmp_path: Path) -> None:
    listening = trio.socket.socket(trio.socket.AF_UNIX)
    await listening.bind(str(tmp_path / "s"))
    listening.listen()
    wire = EngineWire(tmp_path / "s", name="Podman")
    with pytest.raises(EngineUnavailable, match="did not answer in time"):
        await wire.call("GET", "/x", doing="look", answer_within=0.01)
    await wire.aclose()
    listening.close()


async def test_a_refusal_carries_the_engines_words_and_status(tmp_path: Path) -> None:
    answer = b'HTTP/1.1 500 No\r\ncontent-length: 22\r\n\r\n{"message":"disk full"}'
    async with _engine(tmp_path / "s", [answer[:-1] + b"}"]) as (wire, _):
        with pytest.raises(EngineRefused, match="Podman could not start oa") as refused:
            await wire.call("POST", "/start", doing="start oa")
        assert refused.value.status == 500
        assert wire.statistics().errors == 1


def _events(*lines: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\n\r\n" + b"".join(line + b"\n" for line in lines)


async def test_events_are_read_across_reads_and_end_as_unavailable(tmp_path: Path) -> None:
    event = (
        b'{"Action":"die","Actor":{"ID":"abc","Attributes":{"exitCode":"7"}},"timeNano":9999999999999999999}'
    )
    other = event.replace(b'"exitCode":"7"', b'"exitCode":"8"')
    old = event.replace(b"9999999999999999999", b"1")
    async with _engine(tmp_path / "s", [_events(old, b"", event, other)]) as (wire, script):
        async with open_events(wire, {}) as events:
            assert wire.statistics().held == 1
            assert [(await anext(events)).exit_code, (await anext(events)).exit_code] == [7, 8]
            with pytest.raises(EngineUnavailable, match="the event stream ended"):
                await anext(events)
        assert wire.statistics().held == 0
        assert script.asked[0].startswith("GET /v1.41/events?filters=")


async def test_an_event_stream_that_is_refused_says_why(tmp_path: Path) -> None:
    answer = b'HTTP/1.1 400 No\r\ncontent-length: 24\r\n\r\n{"message":"bad filter"}'
    async with _engine(tmp_path / "s", [answer]) as (wire, _):
        with pytest.raises(EngineRefused, match="bad filter"):
            async with open_events(wire, {}):
                pass


async def test_events_that_are_no_json_end_the_stream(tmp_path: Path) -> None:
    async with _engine(tmp_path / "s", [_events(b"<html>")]) as (wire, _), open_events(wire, {}) as events:
        with pytest.raises(EngineUnavailable, match="<html>"):
            await anext(events)


# ---- looking for an engine


async def test_a_socket_from_the_settings_is_the_only_one_tried(tmp_path: Path) -> None:
    for runtime in ("podman", "docker"):
        with pytest.raises(EngineUnavailable, match=r"where engineSocket says .*no such socket") as gone:
            await connect_engine(runtime=runtime, socket=f"unix://{tmp_path}/s")
        assert gone.value.hint


async def test_an_engine_elsewhere_is_refused() -> None:
    with pytest.raises(EngineUnavailable, match=r"tcp://10\.0\.0\.1:2375") as refused:
        await connect_engine(runtime="docker", socket="tcp://10.0.0.1:2375")
    assert "this machine" in refused.value.hint


async def test_docker_behind_the_socket_of_a_podman_setting_is_refused(tmp_path: Path) -> None:
    answer = b"HTTP/1.1 200 OK\r\nserver: Docker/20.10 (linux)\r\ncontent-length: 2\r\n\r\nOK"
    async with _engine(tmp_path / "s", [answer]):
        with pytest.raises(EngineUnavailable, match="runtime is podman"):
            await connect_engine(runtime="podman", socket=str(tmp_path / "s"))


async def test_a_runtime_that_is_none_is_named() -> None:
    with pytest.raises(EngineUnavailable, match="lxc"):
        await connect_engine(runtime="lxc")


async def test_each_socket_tried_is_named_with_its_reason(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    answer, reasons = await engine_sockets.first_answer((tmp_path / "none", tmp_path / "file"))
    assert answer is None
    assert reasons == (
        f"{tmp_path}/none: there is no such socket",
        f"{tmp_path}/file: nothing listens on the socket",
    )


def test_where_podman_listens() -> None:
    rootless = engine_sockets.podman_sockets({"XDG_RUNTIME_DIR": "/run/user/1002"}, uid=1002)
    assert rootless == (Path("/run/user/1002/podman/podman.sock"),)
    assert engine_sockets.podman_sockets({}, uid=0) == (Path("/run/podman/podman.sock"),)
    assert engine_sockets.podman_sockets({}, uid=1002) == ()  # a rootful one only when it is asked for


def test_where_docker_listens() -> None:
    assert engine_sockets.docker_sockets({}) == (Path("/var/run/docker.sock"),)
    assert engine_sockets.docker_sockets({"DOCKER_HOST": "unix:///d.sock"}) == (Path("/d.sock"),)
    rootless = engine_sockets.docker_sockets({"XDG_RUNTIME_DIR": "/run/user/1002"})
    assert rootless == (Path("/run/user/1002/docker.sock"), Path("/var/run/docker.sock"))


@pytest.mark.parametrize(
    ("reason", "hint"), [("permission denied on the socket", "group docker"), ("no such socket", "docker.io")]
)
def test_what_to_do_about_docker(reason: str, hint: str) -> None:
    assert hint in engine_sockets.docker_hint((f"/var/run/docker.sock: {reason}",))


def test_p24_the_runtime_folder_leaves_room_for_a_sockets_path(tmp_path: Path) -> None:
    environment = {"XDG_RUNTIME_DIR": str(tmp_path)}
    assert engine_sockets.runtime_folder(environment, uid=1002) == tmp_path / "opencode-actors"
    long = tmp_path / ("x" * 100)
    long.mkdir()
    folder = engine_sockets.runtime_folder({"XDG_RUNTIME_DIR": str(long)}, uid=1002)
    assert folder == Path("/tmp/opencode-actors-1002")  # noqa: S108 - made private, or refused
    assert engine_sockets.runtime_folder({"XDG_RUNTIME_DIR": "/nowhere"}, uid=1002) == folder


# ---- ports


def test_p23_no_port_is_given_twice() -> None:
    ports = FreePorts()
    taken = [ports.take() for _ in range(500)]
    assert len(set(taken)) == 500
    assert min(taken) >= FIRST
    assert max(taken) < LAST < 32768


async def test_p23_a_port_that_somebody_listens_on_is_not_given() -> None:
    ports = FreePorts()
    first = ports.take()
    listeners = await trio.open_tcp_listeners(first, host="127.0.0.1")
    again = FreePorts(first, first + 1)
    with pytest.raises(EngineRefused, match="no free port"):
        again.take()
    for listener in listeners:
        await listener.aclose()
