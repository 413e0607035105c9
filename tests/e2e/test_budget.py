"""A job that costs more than it may, by the prices that the real OpenCode reckons with (P15)."""

from __future__ import annotations

from typing import Any

import pytest

from opencode_actors import Cause, JobStatus, ModelAccess, OutputAdded, open_system
from tests.contract.engines import within

from .rig import PLENTY, living, open_rig, until, whole_output

pytestmark = [pytest.mark.opencode, pytest.mark.image, pytest.mark.podman]

# Less than one token costs; the first step passes it.
NEXT_TO_NOTHING = 1e-7


@within(PLENTY)
async def test_a_job_that_has_cost_too_much_is_ended_and_what_it_did_is_kept_P15() -> None:
    async with open_rig("podman") as rig, rig.system() as system:
        prompt = "::say I begin.\n::bash echo done > kept.txt\n::say Now the rest.\n::bash sleep 87654"
        job = await system.start(prompt, session="demo", max_cost_usd=NEXT_TO_NOTHING)
        final = await job.wait()
        assert final.status is JobStatus.FAILED
        assert final.failure is not None
        assert final.failure.cause is Cause.BUDGET, final.failure
        assert "$0.0000 at most" in final.failure.message
        assert final.cost_usd > NEXT_TO_NOTHING
        assert final.cost_known
        assert final.climb is not None
        assert not living("sleep 87654")
        assert (system.workspace(job.session) / "kept.txt").read_text() == "done\n"
        assert "I begin." in await whole_output(system, job.id)
        # The session goes on, and a bound is of one job alone.
        assert (await (await system.start("::say more", session="demo")).wait()).status is JobStatus.COMPLETED


@within(PLENTY)
async def test_a_sub_agent_can_use_up_the_bound_while_its_parent_waits_P15() -> None:
    async with open_rig("podman") as rig, rig.system() as system:
        inside = "::bash true\\n::say Now the rest.\\n::bash sleep 87655"
        job = await system.start(f"::task {inside}", session="demo", max_cost_usd=NEXT_TO_NOTHING)
        final = await job.wait()
        assert final.failure is not None
        assert final.failure.cause is Cause.BUDGET, final.failure
        assert not living("sleep 87655")


@within(PLENTY)
async def test_a_model_without_a_price_has_an_unknown_cost_and_its_bound_is_no_promise_P15() -> None:
    async with open_rig("podman") as rig:
        config: dict[str, Any] = dict(rig.access.config)
        del config["provider"]["scripted"]["models"]["demo"]["cost"]
        access = ModelAccess(provider_socket=rig.access.provider_socket, config=config)
        async with open_system(rig.settings, access=access) as system:
            job = await system.start("::bash true\n::say done", session="demo", max_cost_usd=NEXT_TO_NOTHING)
            await until(system.follow(job.id), OutputAdded, "done")
            final = await job.wait()
            assert final.status is JobStatus.COMPLETED
            assert final.tokens.input > 0
            assert final.cost_usd == 0
            assert not final.cost_known
            assert final.max_cost_usd == NEXT_TO_NOTHING
