"""Permissions of a session: built into its container, changed between two jobs, kept, and put on conversations
of servers elsewhere."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio.testing

from opencode_actors import JobStatus, Leave, SessionChanged, SessionStatus, UsageError
from opencode_actors.containers import HostAgents
from opencode_actors.testing.fake_server import FakeBehaviour

from .world import World, open_world

BEHAVIOUR = FakeBehaviour(start_up=1.0)


def permission(world: World) -> Any:
    """Of the container that runs."""
    (container,) = world.engine.containers.values()
    return json.loads(container.spec.environment["OPENCODE_CONFIG_CONTENT"])["permission"]


def writable(world: World) -> bool:
    (container,) = world.engine.containers.values()
    return not any(mount.read_only and mount.target == "/workspace" for mount in container.spec.mounts)


async def test_a_mode_is_in_the_container_and_a_change_gets_a_new_one_between_two_jobs(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_world(BEHAVIOUR) as world, world.system() as system:
        first = await system.start("::words 50 rate=10", session="demo", permission_mode="plan")
        second = await system.start(
            "::words 50 rate=10", session="demo", permission_mode="allow", permission_rules=["bash:rm *=deny"]
        )
        following = system.follow(session="demo", since=0)
        assert (await first.wait()).status is JobStatus.COMPLETED
        assert permission(world)["**"] == "deny"
        assert not writable(world)
        assert (await second.wait()).status is JobStatus.COMPLETED
        assert permission(world)["b*ash"] == {"rm *": "deny"}
        assert writable(world)
        (conversation,) = {key for server in world.servers.running() for key in server.disk.conversations}
        assert conversation  # both in one
        async for notice in following:
            if isinstance(notice, SessionChanged) and "other permissions" in notice.detail:
                assert notice.status is SessionStatus.STOPPING
                break
        # The same again costs no new container.
        (before,) = world.engine.containers
        await (await system.start("::say x", session="demo")).wait()
        assert list(world.engine.containers) == [before]


async def test_an_agent_of_the_hosts_config_may_no_more_than_the_mode_says(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_world(BEHAVIOUR) as world, world.system() as system:
        world.directories.agents = HostAgents(agents=("free",), modes=("old",))
        await (await system.start("::say x", session="demo", permission_mode="ask")).wait()
        (container,) = world.engine.containers.values()
        config = json.loads(container.spec.environment["OPENCODE_CONFIG_CONTENT"])
        assert config["agent"]["free"]["permission"]["**"] == "ask"
        assert config["mode"]["old"]["permission"]["***"] == "ask"
        assert config["agent"].keys() == {"free"}  # to name one is to make it


async def test_a_session_keeps_what_it_used_last_and_forgets_it_at_a_word(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_world(BEHAVIOUR) as world:
        async with world.system(leave=Leave.NOTHING) as system:
            await (
                await system.start(
                    "::say x", session="demo", agent="plan", system="be brief", permission_mode="ask"
                )
            ).wait()
        async with world.system() as system:
            job = await system.start("::say y", session="demo")
            await job.wait()
            assert permission(world)["**"] == "ask"
            assert [plan.prompt.agent for plan in world.store._accepted.values()] == ["plan", "plan"]
            assert [plan.prompt.system for plan in world.store._accepted.values()] == ["be brief"] * 2
            await (
                await system.respond(
                    "demo", "::say z", agent="default", system="default", permission_mode="default"
                )
            ).wait()
            last = [*world.store._accepted.values()][-1].prompt
            assert (last.agent, last.system, last.permissions) == (None, None, None)
            assert permission(world)["*"] == "allow"
            other = await system.start("::say x", session="other")
            await other.wait()
            assert [*world.store._accepted.values()][-1].prompt.agent is None


async def test_a_branch_may_no_more_than_the_session_that_it_comes_from(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_world(BEHAVIOUR) as world, world.system(leave=Leave.NOTHING) as system:
        await (await system.start("::say x", session="demo", permission_mode="plan")).wait()
        await system.cleanup()
        await system.fork("demo", session="branch")
        await (await system.respond("branch", "::say y")).wait()
        assert permission(world)["**"] == "deny"


async def test_elsewhere_they_are_put_on_the_conversation(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THEIR_PASSWORD", "x")
    async with open_world(BEHAVIOUR) as world:
        url = "http://127.0.0.1:4096"
        server = world.servers.start(url, password="x", behaviour=FakeBehaviour())
        async with world.system() as system:
            await system.attach("far", url, password_env="THEIR_PASSWORD")
            await (await system.start("::say x", session="far")).wait()
            (stored,) = server.disk.conversations.values()
            assert stored.rules == ()  # theirs, untouched
            await (await system.start("::say x", session="far", permission_mode="plan")).wait()
            (stored,) = server.disk.conversations.values()
            assert stored.rules[0] == {"permission": "bash", "pattern": "*", "action": "deny"}
            put = stored.rules
            await (await system.start("::say x", session="far")).wait()
            assert stored.rules is put  # once for each change: the server keeps all of them
            for mode, rules in (("allow", []), ("ask", []), (None, ["*=allow"]), ("plan", ["bash=ask"])):
                with pytest.raises(UsageError, match="not widened"):
                    await system.start("::say x", session="far", permission_mode=mode, permission_rules=rules)
            # No model or agent of our settings is asked of their server.
            assert {plan.prompt.model for plan in world.store._accepted.values()} == {None}
