"""What the scripted model says: steps, requests, and the scripts that turn the one into the other.

A script is a pure function from a request to the steps of its answer. It keeps no memory: where a
conversation stands is read from the messages of the request, as a real model would, so an answer is
the same after a crash, a retry or a restart.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeGuard

from attrs import field, frozen

# ---- what an answer is made of


@frozen(kw_only=True)
class Say:
    """Text, streamed in pieces; `rate` is pieces a second, 0 for as fast as the client reads."""

    pieces: tuple[str, ...] = field(repr=False)
    rate: float = 0.0
    reasoning: bool = False


@frozen(kw_only=True)
class CallTool:
    """`arguments` is JSON text as the model would write it, which may be broken on purpose."""

    name: str
    arguments: str = field(repr=False)


@frozen(kw_only=True)
class Pause:
    seconds: float


@frozen(kw_only=True)
class Hang:
    """Never goes on: before the answer's headers as a first step, in mid-stream as a later one."""


@frozen(kw_only=True)
class Refuse:
    """An HTTP error instead of an answer; only as a first step. Holds for the first `times` tries."""

    status: int
    times: int = 1_000_000
    retry_after: str = ""
    code: str = ""


@frozen(kw_only=True)
class Drop:
    """Breaks the connection in mid-stream. Holds for the first `times` tries of the same request."""

    times: int = 1_000_000


@frozen(kw_only=True)
class Garble:
    """A line of the stream that is not JSON."""


@frozen(kw_only=True)
class StreamError:
    """An error object in mid-stream, as providers send it when they are overloaded."""

    message: str = "the scripted provider is overloaded"


@frozen(kw_only=True)
class Finish:
    """The reason to stop, in place of `stop` or `tool_calls`."""

    reason: str


Step = Say | CallTool | Pause | Hang | Refuse | Drop | Garble | StreamError | Finish


# ---- what is asked


@frozen(kw_only=True)
class ChatRequest:
    """One chat completion request, as far as a script looks at it.

    `prompt` is the last user message; `results` are the tool results that came after it, one for each
    tool call; `turn` counts the model's own turns since then, so it is 0 on the first request of a prompt.
    """

    session: str
    model: str
    system: str = field(repr=False)
    prompt: str
    turn: int
    results: tuple[str, ...] = field(repr=False)
    length: int  # messages in the conversation
    tools: frozenset[str] = field(repr=False)
    stream: bool
    body: Mapping[str, Any] = field(repr=False)

    @property
    def wants_title(self) -> bool:
        return "title generator" in self.system

    @property
    def key(self) -> tuple[str, str, int, int]:
        """The same for each try of one request, and for no other."""
        return (self.session, self.prompt, self.turn, self.length)


Script = Callable[[ChatRequest], Sequence[Step]]


def read_request(body: Mapping[str, Any], *, session: str) -> ChatRequest:
    messages = _objects(body.get("messages"))
    roles = [message.get("role") for message in messages]
    last_user = len(roles) - 1 - roles[::-1].index("user") if "user" in roles else -1
    since = messages[last_user + 1 :]
    return ChatRequest(
        session=session,
        model=str(body.get("model", "")),
        system="\n".join(_text(m.get("content")) for m in messages if m.get("role") == "system"),
        prompt=_text(messages[last_user].get("content")) if last_user >= 0 else "",
        turn=sum(message.get("role") == "assistant" for message in since),
        results=tuple(_text(m.get("content")) for m in since if m.get("role") == "tool"),
        length=len(messages),
        tools=frozenset(_tool_name(tool) for tool in _objects(body.get("tools"))),
        stream=body.get("stream") is True,
        body=body,
    )


def is_object(value: object) -> TypeGuard[dict[str, Any]]:
    return isinstance(value, dict)


def _is_list(value: object) -> TypeGuard[list[Any]]:
    return isinstance(value, list)


def _objects(value: object) -> list[dict[str, Any]]:
    return [item for item in value if is_object(item)] if _is_list(value) else []


def _text(content: object) -> str:
    """A message's content is a text, or a list of parts of which some have a text."""
    if isinstance(content, str):
        return content
    return "\n".join(str(part["text"]) for part in _objects(content) if "text" in part)


def _tool_name(tool: Mapping[str, Any]) -> str:
    function = tool.get("function")
    return str(function.get("name", "")) if is_object(function) else ""


# ---- words


def words(text: str, *, rate: float = 0.0, reasoning: bool = False) -> Say:
    """Text in the pieces in which models stream it: a word and the space after it."""
    pieces: list[str] = []
    start = 0
    for index in range(1, len(text)):
        if text[index - 1].isspace() and not text[index].isspace():
            pieces.append(text[start:index])
            start = index
    pieces.append(text[start:])
    return Say(pieces=tuple(pieces), rate=rate, reasoning=reasoning)
