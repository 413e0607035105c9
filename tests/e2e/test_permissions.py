"""Permission modes and rules, by the real OpenCode's own events, in real containers and on a server elsewhere."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from attrs import evolve

from opencode_actors import Job, JobStatus, SessionChanged, SessionKey, System, UsageError, open_system
from opencode_actors.machines.notices import InputWanted
from opencode_actors.testing.fake_engine import FakeEngine
from tests.contract.engines import within
from tests.contract.servers import PASSWORD

from .elsewhere import a_remote
from .rig import PLENTY, open_rig, short_folder, until, whole_output
from .test_elsewhere import here

pytestmark = [pytest.mark.opencode]

WRITES = "::write made.txt hello\n::bash touch touched\n::bash echo x > redirected"


async def started(system: System, prompt: str, **asked: object) -> Job:
    return await system.start(prompt, session="demo", **asked)  # type: ignore[arg-type]


def files(folder: Path) -> set[str]:
    return {entry.name for entry in folder.iterdir() if not entry.name.startswith(".")}


@pytest.mark.podman
@pytest.mark.image
@within(3 * PLENTY)
async def test_each_mode_holds_in_a_container_and_a_change_takes_effect_with_the_next_job() -> None:
    async with open_rig("podman") as rig, rig.system() as system:
        workspace = system.workspace(SessionKey("demo"))
        # plan: nothing is written, not by a sub-agent either, and reading works
        job = await started(system, "::bash ls", permission_mode="plan")
        assert (await job.wait()).status is JobStatus.COMPLETED
        (workspace / "read.me").write_text("the words in it\n")
        job = await started(system, WRITES)
        assert (await job.wait()).status is JobStatus.COMPLETED
        job = await started(system, "::task ::write sub.txt x\\n::bash touch sub")
        assert (await job.wait()).status is JobStatus.COMPLETED
        job = await started(system, '::tool read {"filePath": "/workspace/read.me"}')
        assert (await job.wait()).status is JobStatus.COMPLETED
        assert "the words in it" in await whole_output(system, job.id)
        assert files(workspace) == {"read.me"}
        # a pattern that lets more through than it should meets a workspace that cannot be written to
        container = (await system.sessions())[0].container

        # ask: each is asked for, of a sub-agent too, and what is refused is not done
        job = await started(system, "::bash touch asked", permission_mode="ask")
        following = system.follow(job.id, since=0)
        asked = await until(following, InputWanted)
        assert isinstance(asked, InputWanted)
        assert "touch asked" in asked.text
        await job.answer(asked.request, reply="once")
        assert (await job.wait()).status is JobStatus.COMPLETED
        assert files(workspace) == {"read.me", "asked"}
        assert (await system.sessions())[0].container == container  # the same name, another container
        details = [
            notice.detail
            async for notice in system.follow(job.id, since=0)
            if isinstance(notice, SessionChanged)
        ]
        assert any("other permissions" in detail for detail in details)
        job = await started(system, "::task ::bash touch by_a_sub_agent")
        asked = await until(system.follow(job.id, since=0), InputWanted)
        assert isinstance(asked, InputWanted)
        assert asked.sub_agent
        await job.answer(asked.request, reply="reject", message="not that")
        await job.wait()
        assert "by_a_sub_agent" not in files(workspace)

        # rules by pattern
        rules = ["bash:touch *=deny", "bash:touch good*=allow", "edit:docs/*=deny"]
        job = await started(
            system,
            "::bash touch good\n::bash touch bad\n::write docs/no.md x\n::write yes.md x",
            permission_mode="allow",
            permission_rules=rules,
        )
        assert (await job.wait()).status is JobStatus.COMPLETED
        assert files(workspace) == {"read.me", "asked", "good", "yes.md"}


# As a host's config may have them: each may do everything by what it says of itself.
FREE = {"bash": {"*": "allow"}, "edit": "allow", "webfetch": "allow", "*": "allow"}
HOST = {
    "permission": FREE,
    "agent": {
        "free": {"mode": "primary", "description": "may do all", "prompt": "do it", "permission": FREE},
        "helper": {"mode": "subagent", "description": "helps", "prompt": "do it", "permission": FREE},
    },
    "mode": {"old": {"prompt": "do it", "tools": {"bash": True, "write": True}}},
}
HELPER = '::tool task {"subagent_type": "helper", "description": "x", "prompt": "::bash touch sub"}'


@pytest.mark.podman
@pytest.mark.image
@within(3 * PLENTY)
async def test_an_agent_of_the_hosts_config_may_not_do_more_than_the_mode_and_the_rules_say() -> None:
    async with open_rig("podman") as rig:
        config = rig.base / "opencode.json"
        config.write_text(json.dumps(HOST))
        access = evolve(rig.access, config_file=config)
        async with open_system(rig.settings, access=access) as system:
            workspace = system.workspace(SessionKey("demo"))
            for agent in ("free", "old"):
                job = await started(system, WRITES, agent=agent, permission_mode="plan")
                ended = await job.wait()
                assert ended.status is JobStatus.COMPLETED, ended.failure
            job = await started(system, HELPER, agent="free")
            assert (await job.wait()).status is JobStatus.COMPLETED
            assert files(workspace) == set()
            # what is asked for is asked for, of a sub-agent with permissions of its own, too
            for agent, prompt in (
                ("free", "::bash touch main"),
                ("old", "::bash touch main"),
                ("free", HELPER),
            ):
                job = await started(system, prompt, agent=agent, permission_mode="ask")
                asked = await until(system.follow(job.id, since=0), InputWanted)
                assert isinstance(asked, InputWanted)
                assert asked.sub_agent == (prompt is HELPER)
                await job.answer(asked.request, reply="reject", message="no")
                await job.wait()
            assert files(workspace) == set()
            job = await started(
                system,
                f"::bash touch good\n::write docs/no.md x\n::bash touch bad\n{HELPER}",
                agent="free",
                permission_mode="allow",
                permission_rules=["bash:touch *=deny", "bash:touch good=allow", "edit:docs/*=deny"],
            )
            assert (await job.wait()).status is JobStatus.COMPLETED
            assert files(workspace) == {"good"}


@within(PLENTY)
async def test_on_a_server_elsewhere_a_conversation_is_narrowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THEIR_PASSWORD", PASSWORD)
    with short_folder() as base:
        async with a_remote(base) as remote, open_system(here(base), engine=FakeEngine()) as system:
            await system.attach("demo", remote.url, password_env="THEIR_PASSWORD")
            job = await started(system, "::bash touch before", permission_mode="default")
            assert (await job.wait()).status is JobStatus.COMPLETED
            assert files(remote.workspace) == {"before"}
            job = await started(system, WRITES, permission_mode="plan")
            assert (await job.wait()).status is JobStatus.COMPLETED
            job = await started(system, "::task ::write sub.txt x\\n::bash touch sub")
            assert (await job.wait()).status is JobStatus.COMPLETED
            assert files(remote.workspace) == {"before"}
            with pytest.raises(UsageError, match="not widened"):
                await started(system, "::bash touch asked", permission_mode="ask")
