"""What jobs are called, and what a session's containers are made from."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from opencode_actors import Cause, JobId, JobStatus, UnknownJob, UsageError
from opencode_actors.testing.fake_server import FakeBehaviour
from opencode_actors.testing.provider_demo import demo_script

from .world import SETTINGS, World, open_world

BEHAVIOUR = FakeBehaviour(script=demo_script, start_up=1.0)
OTHER = "localhost/other:1"
UNKNOWN = JobId("job_0123456789abcdef")


def images(world: World) -> list[str]:
    return [container.spec.image for container in world.engine.containers.values()]


# ---- names


async def test_a_name_stands_for_its_job_while_it_runs_and_afterwards(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_world(BEHAVIOUR) as world:
        async with world.system() as system:
            job = await system.start("::say one", session="demo", name="the login page")
            assert (await job.status()).name == "the login page"
            assert await system.find("the login page") == job.id
            await job.wait()
            assert await system.find("the login page") == await system.find(job.id) == job.id
        async with world.system() as system:
            assert await system.find("the login page") == job.id
            assert (await system.known_session(job.session)).name == "the login page"


async def test_a_name_is_its_jobs_own_until_it_has_settled(autojump_clock: trio.testing.MockClock) -> None:
    async with open_world(BEHAVIOUR) as world, world.system() as system:
        first = await system.start("::hang", session="a", name="it")
        with pytest.raises(UsageError, match=f"job {first.id} is called"):
            await system.start("::say two", session="b", name="it")
        assert [session.key for session in await system.sessions()] == ["a"]
        await first.cancel()
        second = await system.start("::hang", session="b", name="it")
        assert await system.find("it") == second.id  # the one under way


async def test_a_name_that_several_ended_jobs_had_lists_them(autojump_clock: trio.testing.MockClock) -> None:
    async with open_world(BEHAVIOUR) as world, world.system() as system:
        jobs = [await system.start("::say one", session="demo", name="it") for _ in range(1)]
        for _ in range(6):
            await jobs[-1].wait()
            jobs.append(await system.start("::say one", session="demo", name="it"))
        await jobs[-1].wait()
        with pytest.raises(UsageError) as caught:
            await system.find("it")
        assert f"{jobs[-1].id} (completed), {jobs[-2].id} (completed)" in caught.value.message
        assert caught.value.message.endswith("and more")
        assert jobs[0].id not in caught.value.message


async def test_the_same_key_is_the_same_job_also_with_a_name(autojump_clock: trio.testing.MockClock) -> None:
    async with open_world(BEHAVIOUR) as world, world.system() as system:
        first = await system.start("::hang", session="demo", name="it", key="k")
        again = await system.start("::hang", session="demo", name="it", key="k")
        assert again.id == first.id


async def test_a_word_that_means_no_job_is_unknown(autojump_clock: trio.testing.MockClock) -> None:
    async with open_world(BEHAVIOUR) as world, world.system() as system:
        with pytest.raises(UnknownJob):
            await system.find("nobody")
        assert await system.find(UNKNOWN) == UNKNOWN
        with pytest.raises(UnknownJob):
            await system.status(UNKNOWN)


@pytest.mark.parametrize("name", ["", " it", "a\nb", "x" * 81, "job_0123456789abcdef"])
async def test_what_cannot_be_a_name_is_refused(autojump_clock: trio.testing.MockClock, name: str) -> None:
    async with open_world(BEHAVIOUR) as world, world.system() as system:
        with pytest.raises(UsageError):
            await system.start("::say one", name=name)
        assert await system.sessions() == ()


# ---- images


async def test_a_session_has_its_image_from_its_first_job_on(autojump_clock: trio.testing.MockClock) -> None:
    async with open_world(BEHAVIOUR) as world:
        world.engine.images.add(OTHER)
        async with world.system() as system:
            await (await system.start("::say one", session="demo", image=OTHER)).wait()
            await (await system.start("::say two", session="plain")).wait()
            assert images(world) == [OTHER, SETTINGS.image]
            assert (await system.known_session((await system.sessions())[0].key)).image == OTHER
            await (await system.start("::say three", session="demo", image=OTHER)).wait()
            await system.cleanup()
            await (await system.start("::say four", session="demo")).wait()
            assert images(world) == [OTHER]
        async with world.system() as system:
            await (await system.start("::say five", session="demo")).wait()
            assert images(world) == [OTHER]


async def test_a_session_that_runs_with_another_image_says_so(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_world(BEHAVIOUR) as world, world.system() as system:
        world.engine.images.add(OTHER)
        await (await system.start("::say one", session="demo")).wait()
        with pytest.raises(UsageError, match=f"runs with the image {SETTINGS.image}, not with {OTHER}"):
            await system.start("::say two", session="demo", image=OTHER)
        await system.cleanup()
        assert (
            await (await system.start("::say two", session="demo", image=OTHER)).wait()
        ).status is JobStatus.COMPLETED
        assert images(world) == [OTHER]


async def test_an_image_that_is_not_there_is_named_and_another_one_mends_it(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_world(BEHAVIOUR) as world, world.system() as system:
        failed = await (await system.start("::say one", session="demo", image=OTHER)).wait()
        assert failed.failure is not None
        assert failed.failure.cause is Cause.IMAGE_MISSING
        assert OTHER in failed.failure.message
        mended = await (await system.start("::say one", session="demo", image=SETTINGS.image)).wait()
        assert mended.status is JobStatus.COMPLETED


async def test_of_two_images_for_a_new_session_the_second_is_refused(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_world(BEHAVIOUR) as world, world.system() as system:
        world.engine.images.add(OTHER)
        await system.start("::hang", session="demo", image=OTHER)
        with pytest.raises(UsageError, match=f"runs with the image {OTHER}"):
            await system.start("::hang", session="demo", image=SETTINGS.image)


@pytest.mark.parametrize("image", ["", "-v", "a b", "x" * 300, "a\n"])
async def test_what_cannot_be_an_image_is_refused(autojump_clock: trio.testing.MockClock, image: str) -> None:
    async with open_world(BEHAVIOUR) as world, world.system() as system:
        with pytest.raises(UsageError, match="cannot be an image"):
            await system.start("::say one", session="demo", image=image)
