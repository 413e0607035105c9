"""A service that is killed in the middle of its work, for real: SIGKILL, Podman or Docker, OpenCode, SQLite."""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import trio
from attrs import evolve

from opencode_actors import Cause, JobId, JobStatus, System
from opencode_actors.adapters.opencode import HttpOpenCode
from opencode_actors.machines.notices import JobEnded, OutputAdded, OutputKind
from opencode_actors.machines.server_events import ConversationId, MessageId
from opencode_actors.machines.transcript import Transcript, conversation_read
from opencode_actors.ports import Endpoint
from opencode_actors.testing.provider_script import ChatRequest
from tests.contract.engines import within

from .rig import PLENTY, Rig, container_of, containers, open_rig, until, whole_output

pytestmark = [pytest.mark.opencode, pytest.mark.image]
ENGINES = [
    pytest.param("podman", marks=pytest.mark.podman),
    pytest.param("docker", marks=pytest.mark.docker),
]

# The second of a session waits for the first; the third has a tool that outlives a kill or two.
WORK = (
    ("a", "::words 60 rate=15"),
    ("a", "::say Let me see. \n::bash sleep 1; echo seen\n::words 20 rate=10"),
    ("b", "::text 20000 chunk=200\n::bash sleep 3; echo slept\n::say done, é漢🙂."),
)
KILLS = 15


async def run_and_kill(rig: Rig, file: Path, after: float | None) -> bool:
    """Whether it came to its end; `after` so many seconds it is killed."""
    service = await trio.lowlevel.open_process(
        [sys.executable, "-m", "tests.e2e.service_process", str(file)], stderr=subprocess.PIPE
    )
    with trio.move_on_after(after if after is not None else PLENTY):
        await service.wait()
        assert service.stderr is not None
        assert service.returncode == 0, bytes(await service.stderr.receive_some()).decode()
        return True
    service.send_signal(signal.SIGKILL)
    await service.wait()
    return False


@pytest.mark.parametrize(("engine", "seed"), [("podman", 1), ("podman", 2), ("podman", 3), ("docker", 4)])
@within(3 * PLENTY)
async def test_p18_p25_killed_again_and_again_it_loses_nothing_and_tells_nothing_twice(
    engine: str, seed: int
) -> None:
    rng = random.Random(seed)
    async with open_rig(engine) as rig:
        file = rig.base / "given.json"
        given = {
            "base": str(rig.base),
            "runtime": rig.settings.runtime,
            "engine_socket": rig.settings.engine_socket,
            "work": WORK,
        }
        await trio.Path(file).write_text(json.dumps(given), encoding="utf-8")
        kills = 0
        while kills < KILLS:
            # Long enough to begin, and mostly too short to end: what is hit is anything from the first
            # line of the journal to the last.
            if await run_and_kill(rig, file, after=0.4 + rng.expovariate(0.8)):
                break
            kills += 1
        else:
            assert await run_and_kill(rig, file, None)
        assert kills >= 3
        await check(rig)


async def check(rig: Rig) -> None:
    journal = rig.settings.sessions_dir / "journal.sqlite"
    with closing(sqlite3.connect(journal)) as database:
        jobs = rows(database, "SELECT id, session, begun FROM jobs ORDER BY number")
        ends = rows(database, "SELECT job, COUNT(*) FROM notices WHERE kind = 'JobEnded' GROUP BY job")
    assert sorted(ends) == sorted((job, 1) for job, _, _ in jobs)
    assert len(jobs) == len(WORK)
    async with rig.system() as system:
        kept = await containers(system)
        assert {one.name for one in kept} == {one.container for one in await system.sessions()}
        for session in {session for _, session, _ in jobs}:  # its server runs again
            await (await system.start("::say and on", session=session)).wait()
        with closing(sqlite3.connect(journal)) as database:
            homes = {row[0]: row for row in rows(database, "SELECT key, url, password FROM sessions")}
        for job, session, begun in jobs:
            ended = await system.wait(JobId(job))
            assert ended.status is JobStatus.COMPLETED, ended
            _, url, password = homes[session]
            told = await as_the_server_has_it(Endpoint(url=url, password=password), json.loads(begun))
            output = await whole_output(system, JobId(job))
            assert output == told
            assert ended.output_bytes == len(output.encode())
            heard = [n async for n in system.follow(JobId(job), since=0)]
            assert "".join(n.text for n in heard if isinstance(n, OutputAdded)) == output
            assert isinstance(heard[-1], JobEnded)
    async with rig.system() as system:
        assert not await containers(system)


def rows(database: sqlite3.Connection, query: str) -> Sequence[Any]:
    return database.execute(query).fetchall()


async def as_the_server_has_it(endpoint: Endpoint, begun: dict[str, Any]) -> str:
    """The whole answer, as whoever reads it for the first time would write it down."""
    conversation, prompt = ConversationId(begun["conversation"]), MessageId(begun["message"])
    server = HttpOpenCode(endpoint)
    messages = await server.messages(conversation, since=prompt)
    await server.aclose()
    later = [m.info.id for m in messages if m.info.role == "user" and m.info.id > prompt]
    mine = [m for m in messages if not later or m.info.id < later[0]]
    _, pieces = conversation_read(Transcript(conversation=conversation, prompt=prompt), mine)
    return "".join(piece.text for piece in pieces)


# ---- a server that is killed


async def kill_server(system: System, session: str) -> None:
    os.kill((await container_of(system, session)).pid, signal.SIGKILL)


@pytest.mark.parametrize("engine", ENGINES)
@within(PLENTY)
async def test_p18_a_job_whose_server_is_killed_goes_on_in_the_same_conversation_when_it_is_told_to(
    engine: str,
) -> None:
    async with open_rig(engine) as rig, rig.system(evolve(rig.settings, on_crash="resume")) as system:
        before = await (await system.start("::say the word is amaranth", session="demo")).wait()
        assert before.status is JobStatus.COMPLETED
        job = await system.start("::say begun\n::bash echo one\n::say two\n::hang", session="demo")
        following = system.follow(job.id)
        await until(following, OutputAdded, "two")
        await kill_server(system, "demo")
        ended = await job.wait()
        assert ended.status is JobStatus.COMPLETED, ended
        output = (await job.output()).text
        assert output.startswith("begun\n[bash] ")
        assert output.count("begun") == 1
        told = [n async for n in following if isinstance(n, OutputAdded) and n.kind is OutputKind.REMARK]
        assert ["killed by SIGKILL" in remark.text for remark in told] == [True]
        # The model is asked with all that was said before, and told what happened.
        asked = last_asked(rig)
        assert "You were interrupted" in asked.prompt
        assert "amaranth" in json.dumps(asked.body)
        assert "::hang" in json.dumps(asked.body)


def last_asked(rig: Rig) -> ChatRequest:
    return [seen.request for seen in rig.provider.exchanges if "interrupted" in seen.request.prompt][-1]


@pytest.mark.parametrize("engine", ENGINES)
@within(PLENTY)
async def test_p18_a_job_whose_server_is_killed_fails_once_and_its_conversation_stays(engine: str) -> None:
    async with open_rig(engine) as rig, rig.system() as system:
        job = await system.start(
            "::say the word is amaranth\n::bash echo one\n::say two\n::hang", session="demo"
        )
        await until(system.follow(job.id), OutputAdded, "two")
        await kill_server(system, "demo")
        ended = await job.wait()
        assert ended.failure is not None
        assert (ended.failure.cause, ended.failure.exit_code) == (Cause.CRASH, 137)
        sent = len(rig.provider.exchanges)
        again = await (await system.start("::say still here", session="demo")).wait()
        assert again.status is JobStatus.COMPLETED
        more = [seen.request for seen in rig.provider.exchanges[sent:] if seen.request.prompt]
        assert all("::hang" not in request.prompt for request in more), "the prompt was run again"
        assert any("amaranth" in json.dumps(request.body) for request in more)
