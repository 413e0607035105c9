"""A person in a chat of OpenClaw: what is typed, and what is seen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import trio
from attrs import Factory, define

from tests.openclaw.gateway import GatewayClient
from tests.openclaw.house import PATIENCE

_LOOKS_AGAIN_AFTER = 0.3  # the gateway tells its clients of no message that they did not ask for


@define
class Person:
    """In one chat, over as many connections to the gateway as it takes."""

    session: str
    _sent: int = 0
    _aside: list[str] = Factory(list[str])

    async def types(self, client: GatewayClient, message: str) -> str:
        """A command, and the answer to it, which stands right behind it."""
        self._sent += 1
        key = f"{self.session} {self._sent}"
        await client.request("chat.send", sessionKey=self.session, message=message, idempotencyKey=key)

        def answer(seen: Sequence[dict[str, Any]]) -> str:
            return next((_text(one) for one in seen if one.get("idempotencyKey") == key), "")

        return await self._until(client, answer)

    async def asks(self, client: GatewayClient, message: str) -> None:
        """The agent, in a sentence."""
        self._sent += 1
        key = f"{self.session} {self._sent}"
        await client.request("chat.send", sessionKey=self.session, message=message, idempotencyKey=key)

    async def until_told(self, client: GatewayClient, *words: str) -> str:
        """By the agent, in one message, with all of `words` in it."""

        def told(seen: Sequence[dict[str, Any]]) -> str:
            said = [_text(one) for one in seen if one["role"] == "assistant" and not _is_answer(one)]
            return next((text for text in said if all(word in text for word in words)), "")

        return await self._until(client, told)

    async def _until(self, client: GatewayClient, found: Callable[[Sequence[dict[str, Any]]], str]) -> str:
        seen: list[dict[str, Any]] = []
        with trio.move_on_after(PATIENCE):
            while True:
                seen = await self._history(client)
                if text := found(seen):
                    return text
                await trio.sleep(_LOOKS_AGAIN_AFTER)
        raise AssertionError("this never came; what was seen is:\n" + _screen(seen))

    async def _history(self, client: GatewayClient) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = (
            await client.request("chat.history", sessionKey=self.session, limit=1000)
        )["messages"]
        return found

    async def screen(self, client: GatewayClient) -> str:
        """What stands in the chat, from its beginning. What is only for the scripted models is not shown."""
        return _screen(await self._history(client))


def _screen(messages: Sequence[dict[str, Any]]) -> str:
    lines: list[str] = []
    for message in messages:
        text = _text(message)
        if message["role"] == "user":
            lines += ["", *_under("person", _without_scripts(text))]
        elif message["role"] == "assistant" and text:
            lines += _under("opencode" if _is_answer(message) else "agent", text)
    return "\n".join(lines)


def _is_answer(message: dict[str, Any]) -> bool:
    """Of a command, which no model has seen."""
    return message.get("model") == "gateway-injected"


def _under(who: str, text: str) -> list[str]:
    first, *rest = text.splitlines() or [""]
    return [f"{who:>9}  {first}", *(f"{'':>9}  {line}" for line in rest)]


def _without_scripts(text: str) -> str:
    kept = [line for line in text.splitlines() if not line.startswith("::")]
    return "\n".join(kept).partition(" CALL:")[0]


def _text(message: dict[str, Any]) -> str:
    content: Any = message.get("content") or ""
    if isinstance(content, str):
        return content
    return "\n".join(part["text"] for part in content if part.get("type") == "text")
