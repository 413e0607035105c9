"""A second, real OpenCode server that somebody else runs: jobs, the one rung, TLS, freezes, deaths, kill -9."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from opencode_actors import (
    Cause,
    Job,
    JobStatus,
    OpenCodeError,
    OutputAdded,
    Rung,
    SessionChanged,
    SessionStatus,
    Settings,
    System,
    UsageError,
    open_system,
)
from opencode_actors.adapters import opencode_connection
from opencode_actors.machines.notices import InputWanted
from opencode_actors.testing.fake_engine import FakeEngine
from tests.contract.engines import within
from tests.contract.servers import ASKED_FOR, IMPATIENT, PASSWORD

from .elsewhere import a_remote, with_tls
from .rig import PLENTY, containers, eventually, open_rig, short_folder, until, whole_output

pytestmark = [pytest.mark.opencode]

VARIABLE = "THEIR_PASSWORD"


@pytest.fixture(autouse=True)
def password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, PASSWORD)


def here(base: Path, *, server_lost_after: float = 60.0) -> Settings:
    return Settings(
        sessions_dir=base / "sessions",
        workspaces_dir=base / "workspaces",
        server_lost_after=server_lost_after,
    )


async def speaking(system: System, prompt: str) -> Job:
    """A job on their server that has begun to answer."""
    job = await system.start(prompt, session="far")
    await until(system.follow(job.id), OutputAdded)
    return job


@pytest.mark.podman
@pytest.mark.image
@within(2 * PLENTY)
async def test_jobs_on_their_server_beside_one_in_a_container_P6() -> None:
    async with open_rig("podman") as rig, a_remote(rig.base) as remote, rig.system() as system:
        attached = await system.attach("far", remote.url, password_env=VARIABLE)
        assert attached.version.startswith("1.")
        near = await system.start("::words 20 rate=10", session="near")
        job = await system.start("::write made.txt hello\n::say done there", session="far")
        assert (await job.wait()).status is JobStatus.COMPLETED
        assert (remote.workspace / "made.txt").read_text().strip() == "hello"
        assert "done there" in await whole_output(system, job.id)

        asking = await system.start(f"::bash {ASKED_FOR}\n::say granted", session="far")
        asked = await until(system.follow(asking.id, since=0), InputWanted)
        assert isinstance(asked, InputWanted)
        await asking.answer(asked.request, reply="once")
        assert (await asking.wait()).status is JobStatus.COMPLETED

        working = await system.start("::bash sleep 98765", session="far")
        await eventually(lambda: "sleep 98765" in _processes())
        cancelled = await working.cancel()
        assert cancelled.status is JobStatus.CANCELLED
        assert cancelled.climb is not None
        assert cancelled.climb.ended_by is Rung.ABORT
        await eventually(lambda: "sleep 98765" not in _processes())

        assert (await near.wait()).status is JobStatus.COMPLETED
        assert len(await containers(system)) == 1  # near's
        far = next(one for one in await system.sessions() if one.key == "far")
        assert (far.server, far.container) == (remote.url, None)
        assert remote.process.is_running


def _processes() -> str:
    return subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout


@within(PLENTY)
async def test_a_server_may_know_its_user_by_another_name() -> None:
    with short_folder() as base:
        async with (
            a_remote(base, user="maria") as remote,
            open_system(here(base), engine=FakeEngine()) as system,
        ):
            with pytest.raises(UsageError, match="does not take this password") as refused:
                await system.attach("far", remote.url, password_env=VARIABLE)
            assert "user" in refused.value.hint
            await system.attach("far", remote.url, user="maria", password_env=VARIABLE)
            job = await system.start("::say hello maria", session="far")
            assert (await job.wait()).status is JobStatus.COMPLETED
            assert "hello maria" in await whole_output(system, job.id)
            assert [one.ours for one in await system.conversations("far")] == [True]


@within(PLENTY)
async def test_their_conversations_are_listed_and_joined_in_their_own_directory() -> None:
    with short_folder() as base:
        async with a_remote(base) as remote:
            other = base / "other"
            other.mkdir()
            async with open_system(here(base), engine=FakeEngine()) as system:
                await system.attach("one", remote.url, password_env=VARIABLE, directory=str(other))
                await (await system.start("::write here.txt x", session="one")).wait()
                assert (other / "here.txt").exists()
                (ours,) = await system.conversations("one")
                assert (ours.ours, ours.about.directory) == (True, str(other))
                joined = await system.attach(
                    "two", remote.url, password_env=VARIABLE, conversation=ours.about.id
                )
                assert joined.attachment.directory == str(other)
                # While somebody is at work in it, a second prompt would be merged with theirs.
                busy = await system.start("::words 100 rate=10", session="one")
                await until(system.follow(busy.id), OutputAdded)
                refused = await (await system.start("::say mine", session="two")).wait()
                assert refused.failure is not None
                assert refused.failure.cause is Cause.SERVER_REFUSED
                await busy.cancel()
                again = await (await system.start("::say mine", session="two")).wait()
                assert again.status is JobStatus.COMPLETED
                models = await system.offered("one")
                assert {model.name for model in models.catalog.models} == {"scripted/demo", IMPATIENT}
                assert all(model.priced for model in models.catalog.models)
                assert {"build", "plan"} <= {agent.name for agent in models.catalog.agents}
                with pytest.raises(UsageError, match=r"no agent 'biuld'; nearest: build"):
                    await system.start("::say x", session="one", agent="biuld")
                with pytest.raises(UsageError, match="does not take this password"):
                    await system.attach("three", remote.url)


@within(PLENTY)
async def test_tls_is_verified_and_works_P14(monkeypatch: pytest.MonkeyPatch) -> None:
    with short_folder() as base:
        async with (
            a_remote(base) as remote,
            with_tls(remote, base) as (url, certificate),
            open_system(here(base), engine=FakeEngine()) as system,
        ):
            opencode_connection.tls.cache_clear()
            with pytest.raises(OpenCodeError, match="certificate verify failed"):
                await system.attach("far", url, password_env=VARIABLE)
            monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
            opencode_connection.tls.cache_clear()
            await system.attach("far", url, password_env=VARIABLE)
            done = await (await system.start("::words 30 rate=30", session="far")).wait()
            assert done.status is JobStatus.COMPLETED
    opencode_connection.tls.cache_clear()


@within(PLENTY)
async def test_a_server_that_freezes_and_thaws_costs_nothing() -> None:
    with short_folder() as base:
        async with a_remote(base) as remote, open_system(here(base), engine=FakeEngine()) as system:
            await system.attach("far", remote.url, password_env=VARIABLE)
            job = await speaking(system, "::words 120 rate=20")
            following = system.follow(session="far")
            remote.process.freeze()
            while (await _status(system)) is not SessionStatus.UNREADY:
                await until(following, SessionChanged)
            remote.process.thaw()
            assert (await job.wait()).status is JobStatus.COMPLETED
            words = [word for word in (await whole_output(system, job.id)).split() if word.startswith("word")]
            assert words == [f"word{number}" for number in range(120)]


async def _status(system: System) -> SessionStatus:
    return next(one.status for one in await system.sessions() if one.key == "far")


@within(PLENTY)
async def test_a_server_that_dies_is_lost_or_its_turn_is_and_the_next_job_finds_it_again() -> None:
    with short_folder() as base:
        settings = here(base, server_lost_after=8.0)
        async with a_remote(base) as remote, open_system(settings, engine=FakeEngine()) as system:
            await system.attach("far", remote.url, password_env=VARIABLE)
            job = await speaking(system, "::words 1000 rate=10")
            remote.process.kill()
            lost = await job.wait()
            assert lost.failure is not None
            assert lost.failure.cause is Cause.SERVER_LOST
            assert remote.url in lost.failure.message
            remote.process.start()
            await remote.wait_ready()
            again = await speaking(system, "::words 1000 rate=10")  # in the same conversation
            assert len(await system.conversations("far")) == 1
            # Dead for a moment only: the server is back, and knows nothing of a turn.
            remote.process.kill()
            remote.process.start()
            gone = await again.wait()
            assert gone.status is JobStatus.FAILED
            assert gone.failure is not None
            assert gone.failure.cause in (Cause.LOST, Cause.SERVER_LOST)


@within(2 * PLENTY)
async def test_killed_in_the_middle_the_next_service_follows_it_on_P18() -> None:
    with short_folder() as base:
        async with a_remote(base) as remote:
            given = base / "given.json"
            given.write_text(
                json.dumps({"base": str(base), "url": remote.url, "variable": VARIABLE, "prompt": PROMPT})
            )
            for kill in (True, True, False):
                service = await trio.lowlevel.open_process(
                    [sys.executable, "-m", "tests.e2e.elsewhere_process", str(given)],
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                )
                assert service.stdout is not None
                assert service.stderr is not None
                said = b""
                while kill and not said.endswith(b"spoke\n"):
                    more = await service.stdout.receive_some()
                    assert more, bytes(await service.stderr.receive_some()).decode()
                    said += more
                if kill:
                    service.send_signal(signal.SIGKILL)
                await service.wait()
                assert kill or service.returncode == 0, bytes(await service.stderr.receive_some()).decode()
            async with open_system(here(base), engine=FakeEngine()) as system:
                (session,) = await system.sessions()
                assert session.server == remote.url
                job = await system.find("the long one")
                assert (await system.status(job)).status is JobStatus.COMPLETED
                words = (await whole_output(system, job)).split()
                assert words == [f"word{number}" for number in range(900)]
                sent = [one for one in remote.provider.exchanges if PROMPT in str(one.request.body)]
                assert len(sent) == 1
            # and the password is nowhere
            for file in (base / "sessions").rglob("*"):
                if file.is_file():
                    assert PASSWORD.encode() not in file.read_bytes(), file


PROMPT = "::words 900 rate=15"
