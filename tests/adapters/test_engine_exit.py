"""Why a container ended, from what the engine says of it meanwhile; and how long that is waited for."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from opencode_actors.adapters.cgroup import Cgroups
from opencode_actors.adapters.engine_dialect import Inspected, inspected
from opencode_actors.adapters.engine_exit import REMOVED_WITHIN, wait_exit
from opencode_actors.errors import ContainerMissing, EngineRefused
from opencode_actors.ports import Container, ContainerId, Death

# No process has it: the highest that Linux gives is 4,194,304.
GONE = 4_194_305


def says(status: str, exit_code: int = 0) -> Inspected:
    state = {"Status": status, "Pid": GONE, "ExitCode": exit_code}
    return inspected({"Id": "c", "Name": "/c", "State": state, "Config": {}, "NetworkSettings": {}})


REMOVING = EngineRefused("it is being removed", status=500)
MISSING = ContainerMissing("no such container")
KILLED = Death(exit_code=137, oom_killed=False)
REMOVED = Death(exit_code=None, oom_killed=False, removed=True)


async def death_of(
    *answers: Inspected | Exception, by_us: bool = False, says_stopping: bool = True
) -> tuple[Death, float]:
    """What it was, and how long it took; the last answer is given again and again."""
    left = list(answers)

    async def inspect(container: ContainerId) -> Inspected:
        await trio.lowlevel.checkpoint()
        answer = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    container: Container = says("running").container
    begun = trio.current_time()
    death = await wait_exit(
        container, inspect=inspect, cgroups=Cgroups(), by_us=lambda: by_us, says_stopping=says_stopping
    )
    return death, trio.current_time() - begun


@pytest.mark.parametrize(
    ("answers", "death"),
    [
        # As Podman 4.3 answers while `podman rm --force` is at work, whenever the first look comes.
        ((says("stopping"), says("stopped", 137), says("stopped", 137), REMOVING, MISSING), REMOVED),
        ((says("stopped", 137), says("stopped", 137), REMOVING, MISSING), REMOVED),
        ((says("stopped", 143), REMOVING, MISSING), REMOVED),
        ((says("stopping"), says("exited", 137), says("exited", 137), *[REMOVING] * 9, MISSING), REMOVED),
        ((says("stopped", 137), says("exited", 137), REMOVING, MISSING), REMOVED),
        ((MISSING,), REMOVED),
        # Docker's way.
        ((says("exited", 137), says("removing", 137), MISSING), REMOVED),
        # `podman stop`, or the process killed: it is still there when it is cleaned up.
        ((says("stopping"), says("stopped", 137), says("exited", 137)), KILLED),
        ((says("stopped", 137), says("stopped", 137), says("exited", 137)), KILLED),
        # And where the clean-up never comes, it is not waited for.
        ((says("stopped", 137),), KILLED),
        ((says("stopped", 137), REMOVING), KILLED),
    ],
)
async def test_p25_one_that_is_removed_is_told_from_one_that_is_killed(
    answers: tuple[Inspected | Exception, ...], death: Death, autojump_clock: trio.testing.MockClock
) -> None:
    found, took = await death_of(*answers)
    assert found == death
    assert took <= REMOVED_WITHIN + 0.1


@pytest.mark.parametrize(
    "answers",
    [
        (says("running"), says("stopped", 137), MISSING),  # nobody was stopping it
        (says("stopped", 1), MISSING),  # nobody stops with that
        (says("running"), says("exited", 137), MISSING),
    ],
)
async def test_what_is_clear_is_told_at_once(
    answers: tuple[Inspected | Exception, ...], autojump_clock: trio.testing.MockClock
) -> None:
    found, took = await death_of(*answers)
    assert not found.removed
    assert took <= 0.01


async def test_docker_does_not_say_that_it_stops_one(autojump_clock: trio.testing.MockClock) -> None:
    answers = (says("running"), says("exited", 137), says("removing", 137), MISSING)
    assert (await death_of(*answers, says_stopping=False))[0] == REMOVED
    still_there = await death_of(says("running"), says("exited", 137), says_stopping=False)
    assert still_there[0] == KILLED
    assert still_there[1] <= 0.3


async def test_what_we_have_ended_ourselves_is_told_at_once(autojump_clock: trio.testing.MockClock) -> None:
    assert await death_of(says("stopped", 137), MISSING, by_us=True) == (KILLED, 0)


async def test_a_refusal_that_has_nothing_to_do_with_its_end_is_passed_on(
    autojump_clock: trio.testing.MockClock,
) -> None:
    for refusal in (REMOVING, EngineRefused("bad parameter", status=400)):
        with pytest.raises(EngineRefused):
            await death_of(refusal)
