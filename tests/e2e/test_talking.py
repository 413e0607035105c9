"""Interrupting and resuming, in real containers, on the real OpenCode; only the model is a script."""

from __future__ import annotations

import json

import pytest
from attrs import evolve

from opencode_actors import JobStatus, Rung
from opencode_actors.machines.notices import OutputAdded, ToolStarted
from opencode_actors.testing.provider import ScriptedProvider
from tests.contract.engines import within
from tests.test_directory_copy import everything

from .rig import PLENTY, containers, eventually, living, open_rig, the_container, until, whole_output

pytestmark = [pytest.mark.opencode, pytest.mark.image, pytest.mark.podman]


def shown(provider: ScriptedProvider) -> str:
    """What the model was shown the last time."""
    return json.dumps(provider.exchanges[-1].request.body)


@within(PLENTY)
async def test_a_turn_is_interrupted_and_the_message_goes_before_those_that_wait() -> None:
    marker = "31.4159"
    # A machine that is full ends a process late, and the next rung is not meant here.
    async with open_rig("podman") as rig, rig.system(evolve(rig.settings, abort_grace=60.0)) as system:
        running = await system.start(f"::say half of the answer\n::bash sleep {marker}", session="demo")
        waiting = await system.start("::say zebra", session="demo")
        following = system.follow(running.id)
        await until(following, OutputAdded, "half of the answer")
        await until(following, ToolStarted)
        await eventually(lambda: bool(living(marker)))
        container = await the_container(system)

        instead = await system.respond("demo", "::say another way", interrupt=True)
        ended = await running.wait()
        assert (ended.status, ended.failure) == (JobStatus.CANCELLED, None), ended
        assert ended.interrupted_by == instead.id
        assert ended.climb is not None
        assert ended.climb.ended_by is Rung.ABORT
        assert not living(marker)
        assert "half of the answer" in await whole_output(system, running.id)

        assert (await instead.wait()).status is JobStatus.COMPLETED
        assert (await waiting.wait()).status is JobStatus.COMPLETED
        redirected, last = (json.dumps(one.request.body) for one in rig.provider.exchanges[-2:])
        assert "half of the answer" in redirected  # what the turn had said is in the conversation
        assert "another way" in redirected
        assert "zebra" not in redirected
        assert "zebra" in last
        assert (await the_container(system)).id == container.id


@within(PLENTY)
async def test_a_session_goes_on_in_its_conversation_when_all_of_it_had_ended() -> None:
    async with open_rig("podman") as rig:
        async with rig.system() as system:
            first = await system.start("::say the secret is 4711")
            assert (await first.wait()).status is JobStatus.COMPLETED
        async with rig.system() as system:
            assert await system.sessions() == ()
            assert await containers(system) == ()
            again = await system.resume(first.session, "::say go on")
            assert (await again.wait()).status is JobStatus.COMPLETED
            assert again.session == first.session
            assert "the secret is 4711" in shown(rig.provider)
            first_time, last_time = rig.provider.exchanges
            assert last_time.request.session == first_time.request.session


GIT = "git init -q . && git add -A && git -c user.name=a -c user.email=a@b commit -qm first && echo more >> a.txt"


@pytest.mark.parametrize("repository", [False, True], ids=["directory", "repository"])
@within(PLENTY)
async def test_a_fork_has_the_conversation_and_the_files_and_the_first_one_stays_as_it_is(
    *, repository: bool
) -> None:
    async with open_rig("podman") as rig, rig.system() as system:
        make = "mkdir -p src && echo one > a.txt && ln -s a.txt link && echo x > src/b && chmod 755 src/b"
        prompt = f"::bash {make}{f' && {GIT}' if repository else ''}\n::say the secret is 4711"
        first = await system.start(prompt, session="demo")
        assert (await first.wait()).status is JobStatus.COMPLETED
        workspace = system.workspace(first.session)
        before = everything(workspace)

        look = "git log --oneline && git status --short && cat a.txt" if repository else "cat a.txt"
        forked, job = await system.fork("demo", f"::bash {look} && echo two > a.txt && rm src/b\n::say other")
        assert job is not None
        assert (await job.wait()).status is JobStatus.COMPLETED
        assert forked.copied is not None
        assert forked.copied.repository is repository
        assert everything(workspace) == before  # byte for byte, with rights and times
        branch = system.workspace(forked.session)
        assert (branch / "a.txt").read_text() == "two\n"
        assert not (branch / "src" / "b").exists()
        if repository:
            result = shown(rig.provider)
            assert "first" in result
            assert " M a.txt" in result  # what was not committed is there, too
            assert "a.txt" in await whole_output(system, job.id)
        assert "the secret is 4711" in shown(rig.provider)
        assert len(await containers(system)) == 2

        # The two know nothing of each other from here on.
        again = await system.respond("demo", "::say back")
        assert (await again.wait()).status is JobStatus.COMPLETED
        assert "::say other" not in shown(rig.provider)
        assert everything(workspace) == before


@within(PLENTY)
async def test_a_session_at_work_is_forked_before_its_turn_and_the_turn_goes_on() -> None:
    async with open_rig("podman") as rig:
        async with rig.system() as system:
            assert (await (await system.start("::say first things", session="demo")).wait()).failure is None
            running = await system.start("::say half of the answer\n::bash sleep 27.1828", session="demo")
            following = system.follow(running.id)
            await until(following, ToolStarted)
            await eventually(lambda: bool(living("27.1828")))
            forked, _ = await system.fork("demo", session="branch")
            assert forked.left_out == running.id
            assert (await running.status()).status is JobStatus.RUNNING
            await running.cancel()
        async with rig.system() as system:
            assert (await (await system.resume("branch", "::say on")).wait()).status is JobStatus.COMPLETED
            assert "first things" in shown(rig.provider)
            assert "half of the answer" not in shown(rig.provider)
