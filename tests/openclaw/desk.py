"""What a test of the plugin has before it: the gateway and a client of it, the service's door, and the model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import trio
from attrs import frozen

from opencode_actors.testing.provider import Exchange, ScriptedProvider
from tests.openclaw.gateway import Gateway, GatewayClient
from tests.openclaw.scripted_door import ScriptedDoor, Visitor

PATIENCE = 90  # seconds until what must happen has happened; a loaded machine is slow


@frozen(kw_only=True)
class Running:
    gateway: Gateway
    model_port: int

    @property
    def sessions_dir(self) -> Path:
        return self.gateway.base / "sessions"


@frozen(kw_only=True)
class Desk:
    gateway: Gateway
    client: GatewayClient
    door: ScriptedDoor
    provider: ScriptedProvider

    async def until_attended(self) -> Visitor:
        """A tool's call brings the plugin back at once, where its own next try may be seconds away."""
        with trio.fail_after(PATIENCE):
            await self.gateway.invoke("opencode_sessions")
            return await self.door.until_attended()

    async def say(self, session: str, message: str, run: str | None = None) -> str:
        """A person's message to an agent; returns the run's id as soon as it is accepted."""
        accepted = await self.client.request(
            "agent",
            message=message,
            agentId=session.split(":")[1],
            sessionKey=session,
            idempotencyKey=run or f"run-{session}-{len(self.provider.exchanges)}",
        )
        name: str = accepted["runId"]
        return name

    async def turn(self, session: str, message: str) -> str:
        """A person's message, and the agent's last word on it."""
        run = await self.say(session, message)
        with trio.fail_after(PATIENCE):
            done = await self.client.request("agent.wait", runId=run, timeoutMs=PATIENCE * 1000)
        assert done["status"] == "ok", done
        return await self.last_word(session)

    async def last_word(self, session: str) -> str:
        history = await self.client.request("chat.history", sessionKey=session)
        words = [_text(message) for message in history["messages"] if message["role"] == "assistant"]
        return words[-1] if words else ""

    def last_tool_result(self) -> str:
        """As the model got it: the history that people read is cut."""
        messages: list[dict[str, Any]] = self.provider.exchanges[-1].request.body["messages"]
        return [_text(message) for message in messages if message["role"] == "tool"][-1]

    async def until_model_is_told(self, text: str) -> Exchange:
        """The first request to the model in which `text` stands."""
        found: list[Exchange] = []

        def holds(exchanges: Any) -> bool:
            found[:] = [one for one in exchanges if text in json.dumps(one.request.body, ensure_ascii=False)]
            return bool(found)

        with trio.fail_after(PATIENCE):
            await self.provider.wait_until(holds)
        return found[0]


def session_of(exchange: Exchange) -> str:
    """The session that a request of the model belongs to, as OpenClaw's prompt names it."""
    text = json.dumps(exchange.request.body)
    return text.rsplit("session=", 1)[1].split(" ", 1)[0]


def _text(message: dict[str, Any]) -> str:
    content = message.get("content")
    if isinstance(content, str):
        return content
    parts = cast(list[dict[str, Any]], content or [])
    return "\n".join(str(part.get("text", "")) for part in parts)
