"""The verbs of the front door on the command line, against a real door with a system of fakes behind it."""

from __future__ import annotations

import argparse
import io
import json
import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from attrs import define

from opencode_actors.cli import remote
from opencode_actors.cli.main import build_parser
from opencode_actors.cli.status import Status
from opencode_actors.cli.typed import check
from opencode_actors.door.files import Whereabouts, announce, door_file, token_file
from opencode_actors.errors import CallRefused
from opencode_actors.machines.notices import InputWanted, OutputAdded
from opencode_actors.machines.vocabulary import JobId, SessionKey
from tests.door.room import TOKEN
from tests.door.service import Service, a_service

ASK = "::ask Which colour? | Red | Blue"


def typed(*words: str) -> argparse.Namespace:
    """As it is when the service is asked."""
    arguments = build_parser().parse_args(words)
    check(arguments)
    return arguments


@define
class Shell:
    """Types commands, and reads what they print."""

    service: Service
    folder: Path
    capsys: pytest.CaptureFixture[str]

    async def type(self, *words: str) -> str:
        arguments = typed(*words, "--set", f"sessionsDir={self.folder}")
        self.capsys.readouterr()
        assert await remote.ask(arguments) is Status.OK
        return self.capsys.readouterr().out

    async def json(self, *words: str) -> Any:
        return json.loads(await self.type(*words, "--json"))

    async def asking(self, prompt: str = ASK, *words: str) -> tuple[str, str]:
        """A job that waits for an answer, and the request."""
        job: str = (await self.json("start", prompt, "--session", "demo", *words))["jobId"]
        async for notice in self.service.system.follow(JobId(job)):
            if isinstance(notice, InputWanted):
                return job, notice.request
        raise AssertionError("nothing was asked")

    async def ended(self, job: str) -> str:
        await self.service.system.wait(JobId(job))
        return await self.type("output", job)


@pytest.fixture
def no_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))


@asynccontextmanager
async def a_shell(folder: Path, capsys: pytest.CaptureFixture[str]) -> AsyncGenerator[Shell]:
    async with a_service() as service:
        announced(folder, service.door.url)
        yield Shell(service, folder, capsys)


def announced(folder: Path, url: str) -> None:
    folder.mkdir()
    token = token_file(folder)
    token.touch(mode=0o600)
    token.write_text(TOKEN)
    where = Whereabouts(url=url, token_file=token, pid=1, version="0.1.0", started_at=1_760_000_000.5)
    announce(door_file(folder), where)


pytestmark = pytest.mark.usefixtures("no_home")


async def test_a_question_is_answered(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with a_shell(tmp_path / "sessions", capsys) as shell:
        job, request = await shell.asking(ASK, "--name", "paint it")
        shown = await shell.type("status", "paint it")
        assert f"asks\t{request}: Which colour? (Red | Blue)\n" in shown
        assert f"answer with\topencode-actors answer {job} {request} ANSWER\n" in shown
        assert await shell.type("answer", "paint it", request, "Blue") == "answered\n"
        assert "Blue" in await shell.ended(job)


async def test_a_question_is_rejected_with_a_word(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with a_shell(tmp_path / "sessions", capsys) as shell:
        job, request = await shell.asking()
        answered = await shell.json("answer", job, request, "--reject", "--message", "take what you like")
        assert answered == {"answered": True}
        assert "take what you like" in await shell.ended(job)


async def test_several_questions_are_answered_with_several_labels(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with a_shell(tmp_path / "sessions", capsys) as shell:
        job, request = await shell.asking()
        with pytest.raises(CallRefused, match="2 answers were given"):
            await shell.type("answer", job, request, "--choose", "Red", "Blue", "--choose", "Red")
        await shell.type("answer", job, request, "--choose", "Red", "Blue")
        assert "Red, Blue" in await shell.ended(job)


async def test_a_refused_param_is_said_in_the_words_of_who_typed_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with a_shell(tmp_path / "sessions", capsys) as shell:
        with pytest.raises(CallRefused, match="timeout must be") as caught:
            await shell.type("start", "x", "--timeout", "-1")
        assert caught.value.hint == "`opencode-actors start --help` shows what it takes"


async def test_what_cannot_be_an_answer_says_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with a_shell(tmp_path / "sessions", capsys) as shell:
        job, request = await shell.asking()
        with pytest.raises(CallRefused, match="is a question"):
            await shell.type("answer", job, request, "--reply", "once")
        with pytest.raises(CallRefused, match="nothing waits for an answer"):
            await shell.type("answer", job, "que_0", "Blue")
        with pytest.raises(CallRefused, match="there is no job nobody"):
            await shell.type("answer", "nobody", request, "Blue")


async def test_a_follow_up_goes_into_the_session_of_a_job_or_into_a_session(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with a_shell(tmp_path / "sessions", capsys) as shell:
        first = await shell.json("start", "::say one", "--session", "demo", "--name", "it")
        await shell.ended(first["jobId"])
        for place in (("--job", first["jobId"]), ("--job", "it"), ("--session", "demo")):
            again = await shell.json("respond", "::say two", *place)
            assert again["sessionKey"] == "demo"
            assert "two" in await shell.ended(again["jobId"])
        again = await shell.json("respond", "it", "--model", "scripted/demo", "::say three")
        assert "three" in await shell.ended(again["jobId"])
        (session,) = (await shell.json("sessions"))["sessions"]
        assert session["jobs"] == 5


async def test_a_turn_is_interrupted_and_a_session_that_ended_is_resumed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with a_shell(tmp_path / "sessions", capsys) as shell:
        first = await shell.json("start", "::say begun\n::hang", "--session", "demo")
        async for notice in shell.service.system.follow(JobId(first["jobId"])):
            if isinstance(notice, OutputAdded):
                break
        instead = await shell.json("respond", "::say instead", "--session", first["name"], "--interrupt")
        assert "begun" in await shell.ended(first["jobId"])
        assert f"interrupted\tfor job {instead['jobId']}\n" in await shell.type("status", first["name"])
        assert "instead" in await shell.ended(instead["jobId"])
        await shell.type("cleanup")
        assert await shell.type("sessions") == ""
        assert (await shell.type("sessions", "--all")).startswith(f"demo\t{instead['name']}\tended\t")
        resumed = await shell.json("resume", "demo", "::say on")
        assert resumed["sessionKey"] == "demo"
        assert "on" in await shell.ended(resumed["jobId"])
        again = await shell.json("resume", resumed["name"])
        await shell.ended(again["jobId"])
        with pytest.raises(CallRefused, match="there is no session dema") as caught:
            await shell.type("resume", "dema")
        assert "'demo'" in caught.value.hint


async def test_a_session_is_forked_with_a_message_or_without(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with a_shell(tmp_path / "sessions", capsys) as shell:
        first = await shell.json("start", "::say one", "--session", "demo")
        await shell.ended(first["jobId"])
        told = await shell.type("fork", "demo")
        assert told.startswith("session\tdemo-fork\nforked from\tdemo\ncopied\tdirectory, 0 files, 0 bytes\n")
        assert "job\t" not in told
        forked = await shell.json("fork", first["name"], "::say other", "--name", "branch")
        assert forked["sessionKey"] == forked["job"]["sessionKey"] == "branch"
        assert "other" in await shell.ended(forked["job"]["jobId"])


async def test_a_job_is_followed_by_its_name_and_its_end_is_the_exit_status(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with a_shell(tmp_path / "sessions", capsys) as shell:
        await shell.json("start", "::status 401", "--session", "demo", "--name", "it")
        arguments = typed("follow", "it", "--json", "--set", f"sessionsDir={shell.folder}")
        assert await remote.ask(arguments) is Status.FAILED
        last = json.loads(capsys.readouterr().out.splitlines()[-1])
        assert (last["kind"], last["status"]["name"]) == ("jobEnded", "it")


# ---- what a person sees on a terminal


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


async def on_a_terminal(shell: Shell, monkeypatch: pytest.MonkeyPatch, *words: str) -> str:
    screen = Terminal()
    arguments = typed(*words, "--set", f"sessionsDir={shell.folder}")
    with monkeypatch.context() as patched:
        patched.setenv("COLUMNS", "120")
        patched.setattr("sys.stdout", screen)
        assert await remote.ask(arguments) is Status.OK
    return re.sub(r"\x1b\[[0-9;]*m", "", screen.getvalue())


async def test_tables_on_a_terminal_say_it_in_columns(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with a_shell(tmp_path / "sessions", capsys) as shell:
        job, request = await shell.asking(ASK, "--name", "paint it", "--max-cost-usd", "0.5")
        shown = await on_a_terminal(shell, monkeypatch, "status", job)
        rows = dict(re.split(r" {2,}", line.strip(), maxsplit=1) for line in shown.strip().splitlines())
        assert rows["name"] == "paint it"
        assert rows["cost"] == "no cost of at most $0.5000"
        assert rows["status"].startswith("running (")
        assert rows["asks"] == f"{request}: Which colour? (Red | Blue)"
        assert rows["answer with"].startswith(f"opencode-actors answer {job}")
        sessions = await on_a_terminal(shell, monkeypatch, "sessions")
        titles, row = sessions.splitlines()[:2]
        assert titles.split()[:3] == ["session", "name", "status"]
        assert row.startswith("demo ")
        assert "paint it" in row


async def test_open_questions_choices_and_statistics(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with a_shell(tmp_path / "sessions", capsys) as shell:
        assert await on_a_terminal(shell, monkeypatch, "requests") == "no job asks anything\n"
        job, request = await shell.asking(ASK, "--name", "paint it", "--report-every", "60")
        asked = await shell.type("requests")
        assert asked.split("\t")[:3] == [job, "paint it", request]
        assert f"opencode-actors answer {job} {request} ANSWER" in asked
        chosen = await shell.type("notify", "--job", job, "--on", "text,tool", "--off", "running")
        assert "text\tyes\tsession\n" in chosen
        assert "running\tno\tsession\n" in chosen
        assert (await shell.json("notify", "--session", "demo"))["kinds"]["tool"]["on"]
        await shell.type("answer", job, request, "Blue")
        await shell.ended(job)
        found = await shell.json("statistics", "--days", "1")
        assert (found["jobs"], found["byOutcome"][0]["status"]) == (1, "completed")
        piped = await shell.type("statistics", "--days", "1")
        assert piped.startswith("1 job since ")
        assert "\ncompleted\t1\t" in piped
        table = await on_a_terminal(shell, monkeypatch, "statistics")
        assert table.startswith("1 job since ")
        assert "scripted/demo" in table


async def test_a_session_is_closed_and_one_that_was_given_up_is_reset(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with a_shell(tmp_path / "sessions", capsys) as shell:
        first = await shell.json("start", "::say one", "--session", "demo", "--name", "it")
        await shell.ended(first["jobId"])
        assert (await shell.type("reset", "it")).startswith("demo\tit\tready\t")
        assert await shell.type("close", "it") == "session\tdemo\ncontainer ended by\tstop\n"
        assert await shell.type("sessions") == ""
        with pytest.raises(CallRefused, match="no session demo is open"):
            await shell.type("reset", "demo")
        with pytest.raises(CallRefused, match="no session dema"):
            await shell.type("close", "dema")


async def test_a_clean_up_deletes_what_is_old_enough_and_no_more(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with a_shell(tmp_path / "sessions", capsys) as shell:
        await shell.ended((await shell.json("start", "::say one", "--session", "demo"))["jobId"])
        everything = ("--delete-workspaces", "--delete-data")
        kept = await shell.type("cleanup", *everything, "--older-than", "7d")
        assert kept == "demo\tkept\tit was used lately\n"
        gone = (await shell.json("cleanup", *everything, "--older-than", "0"))["deletedWorkspaces"]
        workspace = shell.service.system.workspace(SessionKey("demo"))
        assert str(workspace) in gone
        assert len(gone) == 2
