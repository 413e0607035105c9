"""Sessions as users live with them, in real containers on the real OpenCode."""

from __future__ import annotations

import json
import shlex

import pytest
from attrs import evolve

from opencode_actors import Cause, JobStatus, SessionChanged, SessionStatus
from tests.contract.engines import within

from .rig import PLENTY, Rig, containers, open_rig, the_container, until

pytestmark = [pytest.mark.opencode, pytest.mark.image, pytest.mark.podman]

OLD = {"type": "oauth", "access": "a1", "refresh": "r1", "expires": 1000}
NEW = {"type": "oauth", "access": "a2", "refresh": "r2", "expires": 2000}


def _has_a_past(rig: Rig) -> bool:
    first, last = rig.provider.exchanges[0].request, rig.provider.exchanges[-1].request
    return last.session == first.session and last.length > first.length


@within(PLENTY)
async def test_an_idle_container_is_stopped_and_the_next_job_goes_on_in_a_new_one() -> None:
    async with (
        open_rig("podman") as rig,
        rig.system(evolve(rig.settings, session_idle_timeout=0.5)) as system,
    ):
        following = system.follow()
        assert (await (await system.start("::say one", session="demo")).wait()).status is JobStatus.COMPLETED
        await until(following, SessionChanged, str(SessionStatus.ABSENT))
        assert not await containers(system)
        assert (await (await system.start("::say two", session="demo")).wait()).status is JobStatus.COMPLETED
        assert _has_a_past(rig)


@within(PLENTY)
async def test_a_session_is_made_from_the_image_that_its_start_names() -> None:
    nowhere = "localhost/oa-no-such-image:1"
    async with open_rig("podman") as rig, rig.system(evolve(rig.settings, image=nowhere)) as system:
        failed = await (await system.start("::say one", session="demo")).wait()
        assert failed.failure is not None
        assert failed.failure.cause is Cause.IMAGE_MISSING
        assert nowhere in failed.failure.message
        done = await (await system.start("::say one", session="demo", image=rig.settings.image)).wait()
        assert done.status is JobStatus.COMPLETED, done.failure
        assert (await the_container(system)).image.endswith(rig.settings.image)
        await system.cleanup()
        assert not await containers(system)
        again = await (await system.start("::say two", session="demo")).wait()
        assert again.status is JobStatus.COMPLETED, again.failure


@within(PLENTY)
async def test_the_longest_idle_session_makes_room() -> None:
    async with open_rig("podman") as rig, rig.system(evolve(rig.settings, max_sessions=1)) as system:
        await (await system.start("::say one", session="a")).wait()
        ended = await (await system.start("::say two", session="b")).wait()
        assert ended.status is JobStatus.COMPLETED, ended
        assert [session.key for session in await system.sessions()] == ["b"]
        await the_container(system)


@within(PLENTY)
async def test_p12_a_server_beyond_its_share_of_memory_is_replaced_between_two_jobs() -> None:
    async with (
        open_rig("podman") as rig,
        rig.system(evolve(rig.settings, recycle_memory_share=0.05)) as system,
    ):
        following = system.follow()
        first = await system.start("::say one\n::pause 1\n::say more", session="demo")
        second = await system.start("::say two", session="demo")
        assert (await first.wait()).status is JobStatus.COMPLETED
        await until(following, SessionChanged, "the next job gets a new container")
        ended = await second.wait()
        assert ended.status is JobStatus.COMPLETED, ended
        assert _has_a_past(rig)
        assert all(session.crashes == 0 for session in await system.sessions())


@within(PLENTY)
async def test_p11_a_login_that_is_renewed_in_the_container_is_on_the_host_after_it() -> None:
    async with open_rig("podman") as rig:
        auth = rig.base / "auth.json"
        before = {"one": OLD, "two": OLD, "key": {"type": "api", "key": "sk-1"}}
        auth.write_text(json.dumps(before))
        renewed = {**before, "one": NEW, "key": {"type": "api", "key": "sk-planted"}, "evil": NEW}
        command = f"printf %s {shlex.quote(json.dumps(renewed))} > /data/opencode/auth.json"
        logged_in = evolve(rig, access=evolve(rig.access, auth_file=auth))
        async with logged_in.system() as system:
            ended = await (await system.start(f"::bash {command}", session="demo")).wait()
            assert ended.status is JobStatus.COMPLETED, ended
        assert json.loads(auth.read_text()) == {**before, "one": NEW}
