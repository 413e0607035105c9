"""One attempt to post something to a webhook.

It believes nothing of whoever answers: one deadline over all of it, no redirects, a few kilobytes
of an answer at most, and the connection is closed. The status is all that counts: 200 says that the
gateway took it, and not that anybody has read it.
"""

from __future__ import annotations

import email.utils
import json
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from datetime import UTC
from typing import Any, cast

import httpx
import trio
from attrs import define, evolve, field

from opencode_actors.ports import HookAnswer, HookRequest, Webhook
from opencode_actors.settings import Settings

_log = logging.getLogger("opencode_actors")

# OpenClaw's longest error is below a hundred bytes.
_ANSWER_AT_MOST = 4 << 10
_SAID_AT_MOST = 200


@define(eq=False)
class HttpWebhook:
    """`within` bounds one whole attempt, in seconds. The caller closes it."""

    token: str = field(repr=False)
    within: float
    wall: Callable[[], float]
    _client: httpx.AsyncClient = field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        self._client = httpx.AsyncClient(
            timeout=None,  # noqa: S113 - the deadline of `post` is over all of it
            follow_redirects=False,
            trust_env=False,
            limits=httpx.Limits(max_keepalive_connections=0),
        )

    async def post(self, request: HookRequest) -> HookAnswer:
        answer = HookAnswer(status=None, said=f"no answer within {self.within:g} s")
        headers = {
            "authorization": f"Bearer {self.token}",
            "idempotency-key": request.key,
            "content-type": "application/json",
            "connection": "close",
        }
        # In ASCII: a server's words may have half a character in them, which UTF-8 has no bytes for.
        body = json.dumps(dict(request.body)).encode()
        with trio.move_on_after(self.within):
            await trio.lowlevel.checkpoint()
            try:
                async with self._client.stream(
                    "POST", request.url, content=body, headers=headers
                ) as response:
                    # The status stands, whatever becomes of the words.
                    answer = self._head(response)
                    answer = evolve(answer, said=await _said(response))
            except httpx.TransportError as error:
                if answer.status is None:
                    answer = HookAnswer(status=None, said=_why(error))
        return answer

    def _head(self, response: httpx.Response) -> HookAnswer:
        return HookAnswer(
            status=response.status_code,
            said=f"HTTP {response.status_code}",
            retry_after=retry_after(response.headers.get("retry-after", ""), self.wall()),
        )

    async def aclose(self) -> None:
        await self._client.aclose()


async def _said(response: httpx.Response) -> str:
    status = f"HTTP {response.status_code}"
    if response.is_success:
        return status  # there is nothing in it that anybody needs
    if location := response.headers.get("location", ""):
        return f"{status}, a redirect to {_line(location)}"
    words = _line(_error_of(await _beginning(response)))
    return f"{status}: {words}" if words else status


async def _beginning(response: httpx.Response) -> bytes:
    body = b""
    with trio.CancelScope() as enough:
        async for piece in response.aiter_raw():
            body += piece[:_ANSWER_AT_MOST]
            if len(body) >= _ANSWER_AT_MOST:
                # Not `break`: the client's generators, one in another, are then left to the collector.
                enough.cancel()
    return body[:_ANSWER_AT_MOST]


@asynccontextmanager
async def open_webhook(settings: Settings, wall: Callable[[], float]) -> AsyncGenerator[Webhook | None]:
    """The one that the settings name. None when they name none, or no token for it; that is said once."""
    if not settings.notify_webhook_url:
        yield None
        return
    if not settings.hooks_token:
        _log.warning(
            "OpenClaw is not told when a job ends: no hooks token is known "
            "(set hooks.enabled and hooks.token in OpenClaw's config, or hooksToken)"
        )
        yield None
        return
    webhook = HttpWebhook(token=settings.hooks_token, within=settings.notify_timeout, wall=wall)
    try:
        yield webhook
    finally:
        await webhook.aclose()


def retry_after(text: str, now: float) -> float | None:
    """Seconds, of both forms that HTTP has for it. None for what is neither."""
    text = text.strip()
    if text.isascii() and text.isdecimal():
        return float(text[:12])
    try:
        date = email.utils.parsedate_to_datetime(text)
    except ValueError:
        return None
    # "-0000" and no zone at all are UTC here.
    aware = date if date.tzinfo is not None else date.replace(tzinfo=UTC)
    return max(aware.timestamp() - now, 0.0)


def _error_of(body: bytes) -> str:
    """OpenClaw says `{"ok": false, "error": "…"}`; others say what they like."""
    text = body.decode(errors="replace")
    try:
        document: Any = json.loads(text)
    except (ValueError, RecursionError):
        return text
    if isinstance(document, dict):
        error = cast("dict[str, object]", document).get("error")
        return error if isinstance(error, str) else text
    return text


def _line(text: str) -> str:
    words = " ".join("".join(character if character.isprintable() else " " for character in text).split())
    return words if len(words) <= _SAID_AT_MOST else words[: _SAID_AT_MOST - 1] + "…"


def _why(error: httpx.TransportError) -> str:
    if isinstance(error, httpx.ConnectError):
        return f"it cannot be reached ({_line(str(error))})"
    if isinstance(error, httpx.RemoteProtocolError):
        return f"what answers there breaks off or does not speak HTTP ({_line(str(error))})"
    return _line(str(error)) or type(error).__name__
