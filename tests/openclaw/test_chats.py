"""What people read in their chats, nothing faked but the two models: notices by the matrix, reports, routes, and
who is asked when an agent has answered often enough."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from attrs import frozen

from opencode_actors.door.client import open_client
from opencode_actors.testing.provider import ScriptedProvider, open_provider
from tests.openclaw.gateway import GatewayClient
from tests.openclaw.house import PATIENCE, House, open_house, until_ended
from tests.openclaw.model import obedient

pytestmark = [pytest.mark.openclaw, pytest.mark.podman, pytest.mark.image]


@pytest.fixture(scope="module")
def house() -> Iterator[House]:
    settings = {
        "remindAfter": 0,
        "maxAutoAnswers": 1,
        "notifyEvery": 1,
        "notifyKinds": ["started"],
        "routes": ["/=agent:blue:routed"],
    }
    with open_house(("main", "blue"), settings) as house:
        yield house


@frozen(kw_only=True)
class Chat:
    """A person at the gateway's own chat."""

    client: GatewayClient
    provider: ScriptedProvider
    session: str

    async def read(self) -> list[str]:
        """All that stands there and the person has not typed."""
        history = await self.client.request("chat.history", sessionKey=self.session)
        return [_text(message) for message in history["messages"] if message["role"] == "assistant"]

    async def type(self, text: str) -> None:
        await self.client.request(
            "chat.send", sessionKey=self.session, message=text, idempotencyKey=f"{self.session} {text}"
        )

    async def until(self, *words: str) -> str:
        """The first message with all of these words."""
        with trio.fail_after(PATIENCE):
            while True:
                for said in await self.read():
                    if all(word in said for word in words):
                        return said
                await trio.sleep(0.2)

    def agent_was_told(self, words: str) -> bool:
        """Whether these words were put before a model as somebody's word to it."""
        for exchange in self.provider.exchanges:
            messages: list[dict[str, Any]] = exchange.request.body["messages"]
            if any(words in _text(message) for message in messages if message["role"] == "user"):
                return True
        return False


@asynccontextmanager
async def a_chat(house: House, session: str) -> AsyncGenerator[Chat]:
    async with (
        open_provider(port=house.model_port, script=obedient) as provider,
        house.gateway.client() as client,
    ):
        yield Chat(client=client, provider=provider, session=session)


def _text(message: dict[str, Any]) -> str:
    content: str | list[dict[str, Any]] | None = message.get("content")
    if isinstance(content, str):
        return content
    return "\n".join(str(part.get("text", "")) for part in content or [])


async def test_a_person_reads_how_far_a_job_is_and_what_was_chosen_and_no_agent_is_woken_for_it_C6_D3(
    house: House,
) -> None:
    async with a_chat(house, "agent:main:reports") as chat:
        await chat.type(
            "/opencode start --name paint --report-every 10 "
            "::todo mix the colours; paint the wall\n::bash sleep 20\n::say all of it is blue"
        )
        await chat.until("paint (job_", "has started")
        await chat.type("/opencode notify paint +tool")
        await chat.until("Told, for session")
        report = await chat.until("0 of 2 todos are done, 2 to go")
        assert report.startswith("paint (job_")
        await chat.until("> [bash]")
        # The end is for the agent, which is told the whole of the last answer.
        with trio.fail_after(PATIENCE):
            await chat.provider.wait_until(lambda _: chat.agent_was_told("is completed, after"))
        assert chat.agent_was_told("Its last answer, in OpenCode's own words")
        assert chat.agent_was_told("> all of it is blue")
        for words in ("has started", "2 to go\n", "> [bash]"):
            assert not chat.agent_was_told(words)


async def test_an_agent_answers_once_and_then_the_person_is_asked_in_the_chat_C13(house: House) -> None:
    async with a_chat(house, "agent:main:answers") as chat:
        prompt = json.dumps(
            {
                "prompt": "::ask Which colour? | Red | Blue\n::say And then\n::ask Which size? | Small | Large",
                "name": "shirt",
            }
        )
        answer = json.dumps({"job_id": "JOB", "request_id": "REQUEST", "answers": ["Blue"]})
        run = await chat.client.request(
            "agent",
            message=f"CALL:opencode_start {prompt};; THEN:opencode_answer {answer};;",
            agentId="main",
            sessionKey=chat.session,
            idempotencyKey="run-answers",
        )
        await chat.client.request("agent.wait", runId=run["runId"], timeoutMs=PATIENCE * 1000)
        asked = await chat.until("shirt (job_", "asks, and waits for you", "> Which size?")
        assert "/opencode answer shirt ANSWER" in asked
        assert chat.agent_was_told("> Which colour?")
        assert not chat.agent_was_told("> Which size?")
        await chat.type("/opencode answer shirt Large")
        status = await until_ended(chat.client, "shirt")
        assert (status["status"], status["error"]) == ("completed", None)
        assert "Large" in status["tailOutput"]


async def test_a_job_of_the_command_line_is_told_where_its_directory_belongs_C10(house: House) -> None:
    async with a_chat(house, "agent:blue:routed") as chat:
        async with open_client(house.sessions_dir) as door:
            started = await door.call("start", prompt="::say it is in the shop", session_id="shop")
        with trio.fail_after(PATIENCE):
            await chat.provider.wait_until(lambda _: chat.agent_was_told(f"job {started['jobId']} ("))
        assert chat.agent_was_told("> it is in the shop")


async def test_a_chat_follows_a_job_and_shows_first_what_was_missed_C3(house: House) -> None:
    async with a_chat(house, "agent:main:follows") as chat:
        await chat.type(
            "/opencode start --name wall --session wall ::say I mix the colours\n"
            "::bash until test -e go; do sleep 0.2; done\n::say the wall is blue"
        )
        await chat.until("wall (job_", "has started")
        with trio.fail_after(PATIENCE):
            while True:
                output = await chat.client.request("opencode.output", job_id="wall")
                if "I mix" in output["text"]:
                    break
                await trio.sleep(0.2)
        await chat.type("/opencode follow wall")
        await chat.until("Following wall (job_")
        missed = await chat.until("wall:", "> I mix the colours")
        assert "the wall is blue" not in missed
        (workspace,) = house.workspaces.glob("wall-*")
        (workspace / "go").touch()
        last = await chat.until("> the wall is blue", "> completed, after")
        assert "I mix the colours" not in last
