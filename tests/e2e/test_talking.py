"""Interrupting and resuming, in real containers, on the real OpenCode; only the model is a script."""

from __future__ import annotations

import json

import pytest

from opencode_actors import JobStatus, Rung
from opencode_actors.machines.notices import OutputAdded, ToolStarted
from opencode_actors.testing.provider import ScriptedProvider
from tests.contract.engines import within

from .rig import PLENTY, containers, eventually, living, open_rig, the_container, until, whole_output

pytestmark = [pytest.mark.opencode, pytest.mark.image, pytest.mark.podman]


def shown(provider: ScriptedProvider) -> str:
    """What the model was shown the last time."""
    return json.dumps(provider.exchanges[-1].request.body)


@within(PLENTY)
async def test_a_turn_is_interrupted_and_the_message_goes_before_those_that_wait() -> None:
    marker = "31.4159"
    async with open_rig("podman") as rig, rig.system() as system:
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
