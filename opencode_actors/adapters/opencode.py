"""OpenCode's HTTP API behind the `OpenCodeServer` port."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from secrets import token_hex
from typing import Any, TypeVar
from urllib.parse import quote

import httpx
import trio
from attrs import define, field, frozen

from opencode_actors.adapters import opencode_decode as decode
from opencode_actors.adapters.opencode_connection import get, instance, tls, unreachable
from opencode_actors.adapters.opencode_replies import check_json, refused
from opencode_actors.adapters.opencode_retelling import in_batches, retold
from opencode_actors.adapters.opencode_stream import open_events
from opencode_actors.adapters.opencode_wire import (
    WireAgent,
    WireHealth,
    WireMessage,
    WirePermission,
    WireProviders,
    WireQuestion,
    WireSession,
    WireStatus,
    WireTodo,
    load,
    structure,
)
from opencode_actors.errors import ServerSilent, ServerUnintelligible, UsageError
from opencode_actors.machines.server_events import (
    ConversationId,
    Message,
    MessageId,
    ServerEvent,
    Todo,
)
from opencode_actors.machines.transcript import from_prompt
from opencode_actors.ports import (
    Agent,
    Catalog,
    Conversation,
    ConversationState,
    Endpoint,
    PendingPermission,
    PendingQuestion,
    PermissionReply,
    Prompt,
    ServerHealth,
)
from opencode_actors.settings_knobs import show_size

T = TypeVar("T")

# A call takes 2 to 60 ms. While the server sends a burst of 65,536 deltas it has taken 8.6 s, and that
# is no fault; what takes three times as long is.
_CALL_WITHIN = 30.0
# The first instance loads in 1.5 s, and in 34 s when a configured MCP server never answers.
_WARM_WITHIN = 60.0
# One page is about 100 ms of the server's time; one prompt rarely has more than a page of messages.
_PAGE = 50
_LISTED = 100  # conversations
# Messages have their tools' outputs in them (50 KB each at most) and the files that were given with a prompt, of which a
# page may hold dozens of a few MB. What is read becomes some five times as large in memory.
_LARGEST_ANSWER = 128 << 20
_LARGEST_HEALTH = 64 << 10
# Of one prompt: 10,000 steps.
_MOST_PAGES = 200
_CONNECTIONS = 8  # one session's calls at the same time: its job's, a probe's, and a user's or two


@frozen
class _Answer:
    status: int
    headers: Mapping[str, str]
    content: bytes


@define
class HttpOpenCode:
    """One server; safe to use from many tasks. See `OpenCodeServer` for what each method promises."""

    endpoint: Endpoint
    _client: httpx.AsyncClient = field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        self._client = httpx.AsyncClient(
            base_url=self.endpoint.url,
            auth=httpx.BasicAuth(self.endpoint.user, self.endpoint.password),
            headers=instance(self.endpoint),
            verify=tls(),
            # Each call has one deadline, its own, which also bounds the wait for a free connection.
            timeout=None,  # noqa: S113
            limits=httpx.Limits(max_connections=_CONNECTIONS, max_keepalive_connections=_CONNECTIONS),
            trust_env=False,  # a proxy of the user's is not for 127.0.0.1, and would see the password
        )

    # ---- the server

    async def health(self, *, within: float) -> ServerHealth:
        what = "GET /global/health"
        body = bytearray()
        with trio.move_on_after(within) as scope:
            async with get(self.endpoint, "/global/health") as response:
                while (received := await response.receive()) is not None:
                    body += received
                    if len(body) > _LARGEST_HEALTH:
                        raise _too_large(what, _LARGEST_HEALTH)
                if response.status >= 400:
                    raise refused(response.status, bytes(body), what=what)
                check_json(response.content_type, what=what)
        if scope.cancelled_caught:
            raise self._silent(what, within)
        health = structure(WireHealth, load(bytes(body), what=what), what=what)
        if not health.healthy:
            raise ServerUnintelligible(f"{what}: the server says that it is not healthy")
        return ServerHealth(version=health.version)

    async def warm_up(self) -> Catalog:
        # The second answer has the providers' API keys in clear: of it only names are kept.
        agents = await self._get("/agent", tuple[WireAgent, ...], within=_WARM_WITHIN)
        providers = await self._get("/config/providers", WireProviders, within=_WARM_WITHIN)
        return Catalog(agents=tuple(decode.agent(wire) for wire in agents), models=decode.models(providers))

    async def has_directory(self) -> bool:
        # Any other call takes a directory that is not there without a word; the list of its files ends with a 500.
        answer = await self._call("GET", "/file", query={"path": "."}, allowed=(404, 500))
        return answer.status < 300

    async def agents(self) -> tuple[Agent, ...]:
        return tuple(decode.agent(wire) for wire in await self._get("/agent", tuple[WireAgent, ...]))

    def events(self) -> AbstractAsyncContextManager[AsyncIterator[tuple[ServerEvent, ...]]]:
        return open_events(self.endpoint, self._knock)

    # ---- conversations

    async def create_conversation(self, *, title: str) -> Conversation:
        answer = await self._call("POST", "/session", {"title": title})
        return self._conversation(answer, "POST /session")

    async def conversation(self, conversation: ConversationId) -> Conversation | None:
        path = _path(conversation)
        answer = await self._call("GET", path, allowed=(404,))
        return None if answer.status == 404 else self._conversation(answer, f"GET {path}")

    async def conversations(self) -> tuple[Conversation, ...]:
        wires = await self._get("/session", tuple[WireSession, ...], query={"limit": str(_LISTED)})
        found = (decode.conversation(wire) for wire in wires if wire.parent_id is None)
        return tuple(sorted(found, key=lambda one: one.updated_at, reverse=True))[:_LISTED]

    async def children(self, conversation: ConversationId) -> tuple[Conversation, ...]:
        wires = await self._get(_path(conversation, "children"), tuple[WireSession, ...])
        return tuple(decode.conversation(wire) for wire in wires)

    async def fork(self, conversation: ConversationId, *, before: MessageId | None = None) -> Conversation:
        path = _path(conversation, "fork")
        answer = await self._call("POST", path, {} if before is None else {"messageID": before})
        return self._conversation(answer, f"POST {path}")

    async def newest(self, conversation: ConversationId) -> float | None:
        path = _path(conversation, "message")
        answer = await self._call("GET", path, query={"limit": "1"})
        found = _messages(self._body(answer, f"GET {path}"), path)
        return max((message.info.created_at for message in found), default=None)

    async def retell(self, conversation: ConversationId, *, earlier: float) -> Conversation:
        path = _path(conversation)
        session = await self._get(path, dict[str, Any])
        messages = await self._get(_path(conversation, "message"), tuple[dict[str, Any], ...])
        # Nobody else's: an event that is told twice is refused, and so is one that continues another's.
        copy = ConversationId(f"ses_{token_hex(13)}")
        try:
            directory, told = session["directory"], retold(session, messages, to=copy, earlier=earlier)
        except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as wrong:
            # It is read as it is, to be told as it is; who answers in a container may be the agent itself.
            raise ServerUnintelligible(f"GET {path}: that is no conversation ({wrong!r})") from wrong
        for events in in_batches(told):
            await self._post("/sync/replay", {"directory": directory, "events": events})
        return decode.conversation(await self._get(_path(copy), WireSession))

    async def todos(self, conversation: ConversationId) -> tuple[Todo, ...]:
        wires = await self._get(_path(conversation, "todo"), tuple[WireTodo, ...])
        return tuple(decode.todo(wire) for wire in wires)

    async def status(self) -> Mapping[ConversationId, ConversationState]:
        wires = await self._get("/session/status", dict[str, WireStatus])
        return {
            ConversationId(key): ConversationState.RETRY if wire.type == "retry" else ConversationState.BUSY
            for key, wire in wires.items()
            if wire.type != "idle"
        }

    # ---- prompts

    async def submit(self, conversation: ConversationId, prompt: Prompt) -> None:
        path = _path(conversation, "prompt_async")
        answer = await self._call("POST", path, _prompt_body(prompt))
        if answer.status != 204:
            check_json(answer.headers.get("content-type", ""), what=f"POST {path}")

    async def restrict(self, conversation: ConversationId, rules: Sequence[Mapping[str, str]]) -> None:
        path = _path(conversation)
        body = {"permission": [dict(rule) for rule in rules]}
        self._body(await self._call("PATCH", path, body), f"PATCH {path}")

    async def abort(self, conversation: ConversationId) -> None:
        path = _path(conversation, "abort")
        self._body(await self._call("POST", path, {}), f"POST {path}")

    async def messages(
        self, conversation: ConversationId, *, since: MessageId | None = None
    ) -> tuple[Message, ...]:
        path = _path(conversation, "message")
        if since is None:
            return _messages(self._body(await self._call("GET", path), f"GET {path}"), path)
        pages: list[tuple[Message, ...]] = []
        cursors, left = [""], _LARGEST_ANSWER
        while True:
            query = {"limit": str(_PAGE), "before": cursors[-1]} if cursors[-1] else {"limit": str(_PAGE)}
            answer = await self._call("GET", path, query=query, at_most=left)
            left -= len(answer.content)
            pages.append(_messages(self._body(answer, f"GET {path}"), path))
            ids = [message.info.id for message in pages[-1]]
            cursor = answer.headers.get("x-next-cursor", "")
            # Ids sort by time: behind one that is older than `since` there is nothing to look for.
            if since in ids or not cursor or not ids or ids[0] < since:
                break
            if cursor in cursors or len(pages) == _MOST_PAGES:
                raise ServerUnintelligible(
                    f"GET {path}: the server tells of messages without end: {len(pages)} pages, "
                    f"and {'the same again' if cursor in cursors else 'more'}"
                )
            cursors.append(cursor)
        return from_prompt(tuple(message for page in reversed(pages) for message in page), since)

    # ---- questions and permissions

    async def questions(self) -> tuple[PendingQuestion, ...]:
        return tuple(decode.question(wire) for wire in await self._get("/question", tuple[WireQuestion, ...]))

    async def answer_question(self, request: str, answers: tuple[tuple[str, ...], ...]) -> None:
        await self._post(f"/question/{_quoted(request)}/reply", {"answers": answers})

    async def reject_question(self, request: str) -> None:
        await self._post(f"/question/{_quoted(request)}/reject", {})

    async def permissions(self) -> tuple[PendingPermission, ...]:
        wires = await self._get("/permission", tuple[WirePermission, ...])
        return tuple(decode.permission(wire) for wire in wires)

    async def answer_permission(
        self, request: str, reply: PermissionReply, *, message: str | None = None
    ) -> None:
        body = {"reply": reply.value} if message is None else {"reply": reply.value, "message": message}
        await self._post(f"/permission/{_quoted(request)}/reply", body)

    async def aclose(self) -> None:
        await self._client.aclose()

    # ---- one call

    async def _knock(self, word: str) -> None:
        """The only event that can be had for the asking: a notice that a terminal would show, were there one."""
        await self._post(
            "/tui/show-toast", {"message": f"opencode-actors listens ({word})", "variant": "info"}
        )

    async def _get(
        self,
        path: str,
        kind: type[T],
        *,
        query: Mapping[str, str] | None = None,
        within: float = _CALL_WITHIN,
    ) -> T:
        what = f"GET {path}"
        answer = await self._call("GET", path, query=query, within=within)
        return structure(kind, self._body(answer, what), what=what)

    async def _post(self, path: str, body: Mapping[str, Any]) -> None:
        self._body(await self._call("POST", path, body), f"POST {path}")

    async def _call(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        query: Mapping[str, str] | None = None,
        within: float = _CALL_WITHIN,
        allowed: tuple[int, ...] = (),
        at_most: int | None = None,
    ) -> _Answer:
        """The answer, if it is no refusal; `allowed` are refusals that the caller understands."""
        what = f"{method} {path}"
        bound = _LARGEST_ANSWER if at_most is None else at_most  # nothing may be left of it
        try:
            with trio.fail_after(within):
                async with self._client.stream(method, path, json=body, params=query) as response:
                    content = await _content(response, bound, what)
        except trio.TooSlowError as slow:
            raise self._silent(what, within) from slow
        except httpx.RequestError as broken:
            raise unreachable(
                self.endpoint.url, f"{what}: {str(broken) or type(broken).__name__}"
            ) from broken
        if response.status_code >= 400 and response.status_code not in allowed:
            raise refused(response.status_code, content, what=what)
        return _Answer(response.status_code, response.headers, content)

    def _body(self, answer: _Answer, what: str) -> Any:
        check_json(answer.headers.get("content-type", ""), what=what)
        return load(answer.content, what=what)

    def _conversation(self, answer: _Answer, what: str) -> Conversation:
        return decode.conversation(structure(WireSession, self._body(answer, what), what=what))

    def _silent(self, what: str, within: float) -> ServerSilent:
        return ServerSilent(
            f"{what}: OpenCode's server at {self.endpoint.url} did not answer in {within:g} s"
        )


async def _content(response: httpx.Response, at_most: int, what: str) -> bytes:
    """A server that somebody else runs may send for ever. What is larger is cancelled, as at a deadline: the
    generators below would otherwise be left in the middle."""
    content = bytearray()
    with trio.CancelScope() as scope:
        async for piece in response.aiter_bytes():
            content += piece
            if len(content) > at_most:
                scope.cancel()
    if len(content) > at_most:
        raise _too_large(what, at_most)
    return bytes(content)


def _too_large(what: str, at_most: int) -> ServerUnintelligible:
    return ServerUnintelligible(f"{what}: the server's answer is larger than {show_size(at_most)}")


def _messages(body: object, path: str) -> tuple[Message, ...]:
    wires = structure(tuple[WireMessage, ...], body, what=f"GET {path}")
    return tuple(decode.message(wire) for wire in wires)


def _prompt_body(prompt: Prompt) -> Mapping[str, Any]:
    body: dict[str, Any] = {
        "messageID": prompt.message_id,
        "parts": [{"type": "text", "id": prompt.part_id, "text": prompt.text}],
    }
    if prompt.model is not None:
        provider, slash, model = prompt.model.partition("/")
        if not (provider and slash and model):
            raise UsageError(f"the model {prompt.model!r} is not of the form provider/model")
        body["model"] = {"providerID": provider, "modelID": model}
    if prompt.agent is not None:
        body["agent"] = prompt.agent
    if prompt.system is not None:
        body["system"] = prompt.system
    return body


def _path(conversation: ConversationId, *rest: str) -> str:
    return "/".join(("/session", _quoted(conversation), *rest))


def _quoted(value: str) -> str:
    return quote(value, safe="")
