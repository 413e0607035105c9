"""Nothing faked but the two models: OpenClaw's own gateway, the plugin installed as a user would, the service
that it starts, a container of Podman, OpenCode."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest
import trio

from opencode_actors.door.client import open_client
from opencode_actors.testing.provider import ScriptedProvider, open_provider
from tests.openclaw.gateway import GatewayClient
from tests.openclaw.house import PATIENCE, House, open_house, result_of, until_ended
from tests.openclaw.model import obedient

pytestmark = [pytest.mark.openclaw, pytest.mark.podman, pytest.mark.image]


@pytest.fixture(scope="module")
def house() -> Iterator[House]:
    with open_house(("main", "blue", "red"), {"remindAfter": 20}) as house:
        yield house


async def agents_start(
    client: GatewayClient, provider: ScriptedProvider, session: str, prompt: str, then: str = ""
) -> str:
    """An agent's turn that starts a job; its id, as the model was told it. When a notice of the job's end wakes
    the agent, it reads the output, and `then` is what it does when another one does."""
    arguments = json.dumps({"prompt": prompt})
    run = await client.request(
        "agent",
        message=f'CALL:opencode_start {arguments};; THEN:opencode_output {{"job_id": "JOB"}};; {then}',
        agentId=session.split(":")[1],
        sessionKey=session,
        idempotencyKey=f"run-{session}",
    )
    await client.request("agent.wait", runId=run["runId"], timeoutMs=PATIENCE * 1000)
    started: dict[str, Any] = json.loads(last_result(provider, session).splitlines()[0])
    return str(started["jobId"])


def last_result(provider: ScriptedProvider, session: str) -> str:
    """What the model was told last of a tool's result in this session; empty when nothing was."""
    for exchange in reversed(provider.exchanges):
        messages: list[dict[str, Any]] = exchange.request.body["messages"]
        results = [message["content"] for message in messages if message["role"] == "tool"]
        if results and f"session={session} " in json.dumps(messages):
            found = results[-1]
            return str(found if isinstance(found, str) else found[0]["text"])
    return ""


async def until_the_agent_has_read(provider: ScriptedProvider, session: str, words: str) -> None:
    with trio.fail_after(PATIENCE):
        await provider.wait_until(lambda _: words in last_result(provider, session))


async def until_said(client: GatewayClient, job: str, words: str) -> None:
    with trio.fail_after(PATIENCE):
        while True:
            output = await result_of(client, "opencode.output", job_id=job)
            if words in output["text"]:
                return
            await trio.sleep(0.2)


async def test_each_of_two_agents_is_woken_by_the_end_of_its_own_job_P16(house: House) -> None:
    async with (
        open_provider(port=house.model_port, script=obedient) as provider,
        house.gateway.client() as client,
    ):
        jobs: dict[str, str] = {}
        for agent in ("blue", "red"):
            prompt = f"::bash sleep 2; uname\n::say all of it is done by {agent}"
            jobs[agent] = await agents_start(client, provider, f"agent:{agent}:work", prompt)
        for agent, other in (("blue", "red"), ("red", "blue")):
            session = f"agent:{agent}:work"
            await until_the_agent_has_read(provider, session, f"all of it is done by {agent}")
            history = await client.request("chat.history", sessionKey=session)
            assert jobs[other] not in json.dumps(history)
            status = await until_ended(client, jobs[agent])
            assert (status["status"], status["error"]) == ("completed", None)


async def test_a_question_wakes_the_agent_whose_answer_completes_the_job_C7(house: House) -> None:
    session = "agent:blue:asked"
    async with (
        open_provider(port=house.model_port, script=obedient) as provider,
        house.gateway.client() as client,
    ):
        answer = json.dumps({"job_id": "JOB", "request_id": "REQUEST", "answers": ["Blue"]})
        prompt = "::ask Which colour? | Red | Blue"
        job = await agents_start(client, provider, session, prompt, f"THEN:opencode_answer {answer};;")
        status = await until_ended(client, job)
        assert (status["status"], status["error"]) == ("completed", None)
        # What the scripted model makes of the tool's result, in its last words.
        await until_the_agent_has_read(provider, session, "Blue")
        history = json.dumps(await client.request("chat.history", sessionKey=session))
        assert "answered" in history
        asked = [one for one in provider.exchanges if f"job {job} (" in json.dumps(one.request.body)]
        assert "> Which colour?" in json.dumps(asked[0].request.body)
        assert f"session={session} " in json.dumps(asked[0].request.body)


async def test_a_question_that_a_gateway_was_not_there_for_is_told_when_it_is_back_C7(house: House) -> None:
    session = "agent:red:asked"
    async with open_provider(port=house.model_port, script=obedient) as provider:
        async with house.gateway.client() as client:
            answer = json.dumps({"job_id": "JOB", "request_id": "REQUEST", "answers": ["Red"]})
            prompt = "::bash sleep 15\n::ask Which colour? | Red | Blue"
            job = await agents_start(client, provider, session, prompt, f"THEN:opencode_answer {answer};;")
        await house.gateway.stop()
        async with open_client(house.sessions_dir) as door:
            with trio.fail_after(PATIENCE):
                while not (await door.call("status", job_id=job))["pending"]:  # noqa: ASYNC110
                    await trio.sleep(0.2)
        await house.gateway.start()
        async with house.gateway.client() as client:
            status = await until_ended(client, job)
            assert (status["status"], status["error"]) == ("completed", None)
            await until_the_agent_has_read(provider, session, "Red")


async def test_an_agent_is_told_that_its_job_runs_long_C6(house: House) -> None:
    session = "agent:red:long"
    async with (
        open_provider(port=house.model_port, script=obedient) as provider,
        house.gateway.client() as client,
    ):
        job = await agents_start(client, provider, session, "::say begun\n::bash sleep 600")
        with trio.fail_after(PATIENCE):
            told = f"OpenCode job {job} ("
            await provider.wait_until(
                lambda all_: any(
                    told in (text := json.dumps(one.request.body)) and "is still running" in text
                    for one in all_
                )
            )
        cancelled = await result_of(client, "opencode.cancel", job_id=job)
        assert cancelled["status"] == "cancelled"


async def test_a_job_outlives_the_gateway_and_a_killed_service_is_started_again(house: House) -> None:
    async with open_provider(port=house.model_port, script=obedient) as provider:
        async with house.gateway.client() as client:
            prompt = "::bash sleep 25; echo outlived\n::say and done"
            job = await agents_start(client, provider, "agent:main:long", prompt)
        first = house.door()["pid"]
        await house.gateway.stop()
        await house.gateway.start()
        async with house.gateway.client() as client:
            status = await until_ended(client, job)
            assert (status["status"], house.door()["pid"]) == ("completed", first)
            output = await result_of(client, "opencode.output", job_id=job)
            assert output["text"].count("and done") == 1
            await until_the_agent_has_read(provider, "agent:main:long", "and done")
            os.kill(first, signal.SIGKILL)
            again = await result_of(client, "opencode.status", job_id=job)
            assert (again["status"], again["seq"] >= status["seq"]) == ("completed", True)
            assert house.door()["pid"] != first


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
async def test_a_service_that_ends_in_mid_job_is_started_again_and_its_agent_is_woken_P18(
    house: House, how: signal.Signals
) -> None:
    """One that was killed is missed at once; one that was told to end is started by the next call."""
    session = f"agent:main:{how.name.lower()}"
    async with (
        open_provider(port=house.model_port, script=obedient) as provider,
        house.gateway.client() as client,
    ):
        prompt = "::say begun\n::bash sleep 12; echo survived\n::say and all is done"
        job = await agents_start(client, provider, session, prompt)
        await until_said(client, job, "begun")
        first = house.door()["pid"]
        os.kill(first, how)
        status = await until_ended(client, job)
        assert (status["status"], status["error"]) == ("completed", None)
        assert house.door()["pid"] != first
        output = (await result_of(client, "opencode.output", job_id=job))["text"]
        assert output.count("begun") == output.count("and all is done") == 1
        await until_the_agent_has_read(provider, session, "and all is done")
