"""`run` on a fake engine and a fake server: what is written, and what signals do."""

from __future__ import annotations

import io
import json
import os
import signal
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio
import trio.testing
from attrs import define, field

from opencode_actors.cli import run as command
from opencode_actors.cli.main import main
from opencode_actors.cli.render import Action, Answer, Busy, Line, Tone
from opencode_actors.cli.run import Wish
from opencode_actors.cli.screen import Output, PlainScreen, SilentAnswer
from opencode_actors.cli.status import Status
from opencode_actors.errors import (
    ContainerMissing,
    EngineRefused,
    EngineUnavailable,
    OpencodeActorsError,
    StoreError,
    UnknownJob,
    UsageError,
)
from opencode_actors.kernel.hub import NoticesMissed
from opencode_actors.kernel.opening import open_system
from opencode_actors.kernel.system import System
from opencode_actors.machines.notices import Notice, OutputAdded
from opencode_actors.machines.vocabulary import JobId, JobSnapshot
from opencode_actors.ports import ContainerId
from opencode_actors.settings_sources import LoadedSettings, load_settings
from opencode_actors.testing.fake_engine import FakeEngine
from opencode_actors.testing.fake_opencode import open_fake_servers

PLENTY = 60  # seconds; nothing here waits for time


@define
class Recorder:
    """A screen that remembers, and calls `react` for each action it is shown."""

    react: Callable[[Action], None] = field(default=lambda _: None)
    seen: list[Action] = field(factory=list[Action])

    def perform(self, actions: Iterable[Action]) -> None:
        for action in actions:
            self.seen.append(action)
            self.react(action)

    def close(self) -> None:
        pass

    @property
    def answer(self) -> str:
        return "".join(action.text for action in self.seen if isinstance(action, Answer))

    @property
    def lines(self) -> list[str]:
        return [action.text for action in self.seen if isinstance(action, Line)]


@asynccontextmanager
async def fake_world(monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[FakeEngine, None]:
    async with open_fake_servers() as servers:
        engine = FakeEngine(servers.on_start, servers.on_exit)
        monkeypatch.setattr(
            command, "open_system", partial(open_system, engine=engine, connect=servers.connect)
        )
        yield engine


def settings(tmp_path: Path, **flags: str) -> LoadedSettings:
    home = {"HOME": str(tmp_path)}
    places = {"sessionsDir": str(tmp_path / "sessions"), "workspacesDir": str(tmp_path / "workspaces")}
    return load_settings(environment=home, flags={"model": "scripted/demo", **places, **flags})


async def run(loaded: LoadedSettings, prompt: str, screen: Recorder | SilentAnswer) -> Status:
    with trio.fail_after(PLENTY):
        return await command._run(loaded, Wish(prompt=prompt, session="demo", max_cost_usd=None), screen)


def interrupt(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGINT)


async def test_the_answer_streams_and_the_end_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = Recorder()
    async with fake_world(monkeypatch) as engine:
        status = await run(settings(tmp_path), "::say one two three", screen)
        assert engine.containers == {}
    assert status is Status.OK
    assert screen.answer.strip() == "one two three"
    assert [action.text for action in screen.seen if isinstance(action, Busy)][:2] == [
        "connecting to podman",
        "creating the container",
    ]
    assert screen.lines[-1].startswith("completed in ")
    assert "session demo" in screen.lines[-1]


async def test_a_failure_is_told_with_its_cause_and_the_next_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = Recorder()
    async with fake_world(monkeypatch):
        status = await run(settings(tmp_path), "::status 401", screen)
    assert status is Status.FAILED
    headline, error, hint = screen.lines[-3:]
    assert headline.startswith("failed (auth) after ")
    assert error.startswith("error: the model provider refused the credentials")
    assert hint.startswith("hint: log in again")


async def test_a_missing_image_is_the_hosts_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Recorder()
    async with fake_world(monkeypatch):
        status = await run(settings(tmp_path, image="localhost/other:1"), "::say x", screen)
    assert status is Status.ENVIRONMENT
    assert screen.lines[-1].startswith("hint: build it with `opencode-actors image build`")


async def test_ctrl_c_cancels_the_job_once_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def at_first_word(action: Action) -> None:
        if isinstance(action, Answer) and len([a for a in screen.seen if isinstance(a, Answer)]) == 1:
            interrupt()

    screen = Recorder(at_first_word)
    async with fake_world(monkeypatch) as engine:
        status = await run(settings(tmp_path), "::words 100000 rate=50", screen)
        assert engine.containers == {}
    assert status is Status.CANCELLED
    assert "cancelling: asking OpenCode to abort" in screen.lines
    assert screen.lines[-1].startswith("cancelled after ")
    assert "ended by abort" in screen.lines[-1]


async def test_a_second_ctrl_c_kills_the_container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The abort never gets through: a killed container is what ends the job, long before `abortGrace`."""

    def react(action: Action) -> None:
        if action == Busy("waiting for the model") or (
            isinstance(action, Line) and action.text == "cancelling: asking OpenCode to abort"
        ):
            interrupt()

    screen = Recorder(react)
    async with open_fake_servers() as servers:
        engine = FakeEngine(servers.on_start, servers.on_exit)
        monkeypatch.setattr(
            command, "open_system", partial(open_system, engine=engine, connect=servers.connect)
        )

        async def deaf(self: object, conversation: object) -> None:
            await trio.sleep_forever()

        monkeypatch.setattr("opencode_actors.testing.fake_opencode.FakeOpenCode.abort", deaf)
        status = await run(settings(tmp_path, abortGrace="1000"), "::hang", screen)
        assert engine.containers == {}
    assert status is Status.CANCELLED
    assert "killing the container" in screen.lines


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ContainerMissing("no such container"), []),
        (EngineRefused("it is not running", status=409), ["killing the container failed: it is not running"]),
        (EngineUnavailable("nobody answers"), ["killing the container failed: nobody answers"]),
    ],
)
async def test_a_kill_that_comes_too_late_is_still_a_cancelled_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OpencodeActorsError, told: list[str]
) -> None:
    def react(action: Action) -> None:
        if action == Busy("waiting for the model") or (
            isinstance(action, Line) and action.text == "cancelling: asking OpenCode to abort"
        ):
            interrupt()

    async def deaf(self: object, conversation: object) -> None:
        await trio.sleep_forever()

    screen = Recorder(react)
    async with fake_world(monkeypatch) as engine:
        kill = FakeEngine.kill

        async def late(self: FakeEngine, container: ContainerId) -> None:
            await kill(self, container)
            raise error

        monkeypatch.setattr(FakeEngine, "kill", late)
        monkeypatch.setattr("opencode_actors.testing.fake_opencode.FakeOpenCode.abort", deaf)
        status = await run(settings(tmp_path, abortGrace="1000"), "::hang", screen)
        assert engine.containers == {}
    assert status is Status.CANCELLED
    assert [line for line in screen.lines if " failed: " in line] == told


@pytest.mark.parametrize(
    ("error", "told"),
    [(UnknownJob("no such job"), []), (StoreError("disk full"), ["cancelling the job failed: disk full"])],
)
async def test_a_cancel_that_fails_does_not_end_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OpencodeActorsError, told: list[str]
) -> None:
    def react(action: Action) -> None:
        if action == Busy("waiting for the model"):
            interrupt()

    cancel = System.cancel

    async def failing(self: System, job: JobId) -> JobSnapshot:
        await cancel(self, job)
        raise error

    monkeypatch.setattr(System, "cancel", failing)
    screen = Recorder(react)
    async with fake_world(monkeypatch):
        assert await run(settings(tmp_path), "::hang", screen) is Status.CANCELLED
    assert [line for line in screen.lines if " failed: " in line] == told


async def test_ctrl_c_before_the_job_is_a_clean_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def react(action: Action) -> None:
        if action == Busy("connecting to podman"):
            interrupt()

    screen = Recorder(react)

    @asynccontextmanager
    async def never(*_: object, **__: object) -> AsyncGenerator[None, None]:
        with trio.CancelScope():
            await trio.sleep_forever()
        yield

    monkeypatch.setattr(command, "open_system", never)
    assert await run(settings(tmp_path), "::say x", screen) is Status.CANCELLED
    assert screen.lines == ["cancelled"]


async def test_a_reader_that_goes_away_cancels_the_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def react(action: Action) -> None:
        if isinstance(action, Answer):
            raise BrokenPipeError

    screen = Recorder(react)
    async with fake_world(monkeypatch) as engine:
        gone = 0
        try:
            await run(settings(tmp_path), "::words 100000 rate=50", screen)
        except* BrokenPipeError:
            gone += 1
        assert gone == 1
        assert engine.containers == {}
    assert "cancelling: nobody reads the output any more" in screen.lines


async def test_json_is_one_document(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    beside = Recorder()
    async with fake_world(monkeypatch):
        status = await run(settings(tmp_path), "::say one two", SilentAnswer(beside=beside))
    assert status is Status.OK
    document = json.loads(capsys.readouterr().out)
    assert document["status"] == "completed"
    assert document["output"].strip() == "one two"
    assert document["sessionKey"] == "demo"
    assert document["workspace"].startswith(str(tmp_path / "workspaces"))
    assert beside.answer == ""


def miss_all_output(monkeypatch: pytest.MonkeyPatch) -> None:
    follow = System.follow

    async def without_output(system: System, job: JobId) -> AsyncIterator[Notice | NoticesMissed]:
        following = follow(system, job)
        yield NoticesMissed(count=7)
        async for notice in following:
            if not isinstance(notice, OutputAdded):
                yield notice

    monkeypatch.setattr(System, "follow", without_output)


async def test_what_was_missed_is_told_beside_the_answer_and_never_put_into_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    miss_all_output(monkeypatch)
    screen = Recorder()
    async with fake_world(monkeypatch):
        assert await run(settings(tmp_path), "::bash echo one", screen) is Status.OK
    assert screen.answer == ""
    (told,) = [line for line in screen.lines if line.startswith("7 notices were missed")]
    assert "[bash]" in await trio.Path(told.rpartition(" is in ")[2]).read_text()


async def test_json_says_that_notices_were_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    miss_all_output(monkeypatch)
    async with fake_world(monkeypatch):
        await run(settings(tmp_path), "::bash echo one", SilentAnswer(beside=Recorder()))
    made = json.loads(capsys.readouterr().out)
    assert (made["output"], made["noticesMissed"]) == ("", 7)


async def test_one_thread_at_a_time_writes_to_the_screen() -> None:
    alone = threading.Lock()

    def look(_: Action) -> None:
        assert alone.acquire(blocking=False)
        # whoever else wants to write would be here by then
        trio.from_thread.run(trio.testing.wait_all_tasks_blocked)
        alone.release()

    screen = Recorder(look)
    both = command.Run(screen=screen)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(both.say, Line("one"))
        nursery.start_soon(both.say, Line("two"))
    assert sorted(screen.lines) == ["one", "two"]


async def test_warnings_come_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Recorder()
    async with fake_world(monkeypatch):
        await run(settings(tmp_path, memory="700m"), "::say x", screen)
    assert isinstance(screen.seen[0], Line)
    assert screen.seen[0].tone is Tone.WARNING
    assert screen.seen[0].text.startswith("warning: memory: ")


async def test_without_credentials_the_demo_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.endswith("_API_KEY")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    screen = Recorder()
    async with fake_world(monkeypatch):
        loaded = load_settings(environment={"HOME": str(tmp_path)})
        assert await run(loaded, "::say x", screen) is Status.OK
    assert screen.lines[0].startswith("no provider credentials found (looked at ")


def test_the_prompt_can_come_from_stdin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO("grüße\n".encode())))
    assert command.prompt_of("-") == "grüße\n"
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"\xff")))
    with pytest.raises(UsageError, match="not UTF-8"):
        command.prompt_of("-")


@pytest.mark.parametrize("key", ["../up", "", "a b", "x" * 65])
def test_a_wrong_session_key_is_refused_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], key: str
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(trio, "run", None)
    assert main(["run", "x", "--session", key]) == Status.USAGE
    assert capsys.readouterr().err.startswith("error: ")


def test_an_answer_in_a_file_is_the_answer_alone(tmp_path: Path) -> None:
    with (tmp_path / "answer").open("w+") as file, (tmp_path / "log").open("w+") as log:
        screen = PlainScreen(errors=log, output=Output(file, shared=False))
        screen.perform((Answer("half a "), Line("retrying"), Answer("line\n")))
        assert (tmp_path / "answer").read_text() == "half a line\n"
        assert (tmp_path / "log").read_text() == "retrying\n"


def test_on_one_terminal_lines_do_not_run_into_each_other() -> None:
    both = io.StringIO()
    screen = PlainScreen(errors=both, output=Output(both, shared=True))
    screen.perform((Answer("half"), Busy("tool", passing=True), Line("note"), Answer("rest\n"), Line("end")))
    assert both.getvalue() == "half\nnote\nrest\nend\n"
