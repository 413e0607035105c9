"""A script written in the prompt itself: lines that begin with `::` are steps.

    ::say TEXT                  answer with TEXT, word by word
    ::echo JSON                 answer with the text that JSON stands for, in one piece
    ::words N [rate=R]          N numbered words, R a second
    ::text N [chunk=C]          N characters in pieces of C, as fast as they are read
    ::think TEXT                reasoning
    ::bash COMMAND              a call of the bash tool
    ::write PATH TEXT           a call of the write tool
    ::task PROMPT               a sub-agent; `\\n` in PROMPT stands for a new line
    ::todo A; B; C              a call of the todowrite tool
    ::ask QUESTION | A | B      a call of the question tool
    ::tool NAME ARGUMENTS       any tool; ARGUMENTS are passed on as they are, also broken ones
    ::pause SECONDS
    ::hang                      never answer; as a first step not even with headers
    ::status N [times=T] [retry-after=S] [code=C]     an HTTP error, for the first T tries
    ::drop [times=T]            break the connection, in the first T tries
    ::garble                    a line that is not JSON
    ::error [TEXT]              an error object in mid-stream
    ::finish REASON
    ::empty                     an answer without text

A tool call ends the model's turn, unless the next step is a tool call too (they run side by side);
the steps behind it are the next turn's, once the result is there. When nothing is left to say, the
answer is `done: ` and the beginning of the last tool result.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

from opencode_actors.testing.provider_script import (
    CallTool,
    ChatRequest,
    Drop,
    Finish,
    Garble,
    Hang,
    Pause,
    Refuse,
    Say,
    Step,
    StreamError,
    words,
)

_RESULT_SHOWN = 200  # characters of a tool result that the closing word repeats


class BadMarker(ValueError):
    """A test's prompt says something that this file does not know."""


def steps_of(prompt: str) -> list[Step]:
    """The steps that the prompt's marker lines stand for; empty when there are none."""
    lines = (line.strip() for line in prompt.splitlines())
    return [_step(line[2:]) for line in lines if line.startswith("::")]


def turn_of(steps: Sequence[Step], request: ChatRequest) -> tuple[Step, ...]:
    """The part of `steps` that answers this request."""
    turns: list[list[Step]] = [[]]
    for step in steps:
        ended = bool(turns[-1]) and isinstance(turns[-1][-1], CallTool)
        if ended and not isinstance(step, CallTool):
            turns.append([])
        turns[-1].append(step)
    if request.turn < len(turns):
        return tuple(turns[request.turn])
    last = request.results[-1] if request.results else ""
    return (words(f"done: {last[:_RESULT_SHOWN]}"),)


def _step(text: str) -> Step:
    name, _, rest = text.partition(" ")
    make = _STEPS.get(name)
    if make is None:
        raise BadMarker(f"no step is called {name!r}; there are {', '.join(sorted(_STEPS))}")
    try:
        return make(rest.strip())
    except (ValueError, IndexError) as wrong:
        raise BadMarker(f"the step {text!r} cannot be read: {wrong}") from wrong


def _options(text: str) -> tuple[list[str], dict[str, str]]:
    """Plain words, and the `name=value` ones."""
    plain = [word for word in text.split() if "=" not in word]
    return plain, dict(word.split("=", 1) for word in text.split() if "=" in word)


def _numbered(text: str) -> Say:
    plain, options = _options(text)
    pieces = tuple(f"word{index} " for index in range(int(plain[0])))
    return Say(pieces=pieces, rate=float(options.get("rate", "0")))


def _long_text(text: str) -> Say:
    plain, options = _options(text)
    length, chunk = int(plain[0]), int(options.get("chunk", "64"))
    line = "0123456789abcdefghijklmnopqrstuvwxyz-0123456789ABCDEFGHIJKLMNO\n"
    whole = (line * (length // len(line) + 1))[:length]
    return Say(pieces=tuple(whole[at : at + chunk] for at in range(0, length, chunk)))


def _bash(command: str) -> CallTool:
    return _call("bash", command=command, description="a scripted command")


def _write(text: str) -> CallTool:
    path, _, content = text.partition(" ")
    return _call("write", filePath=path, content=content)


def _task(prompt: str) -> CallTool:
    lines = prompt.replace("\\n", "\n")
    return _call("task", description="a scripted sub-task", prompt=lines, subagent_type="general")


def _todo(text: str) -> CallTool:
    contents = [content.strip() for content in text.split(";")]
    return _call(
        "todowrite", todos=[{"content": c, "status": "pending", "priority": "medium"} for c in contents]
    )


def _ask(text: str) -> CallTool:
    question, *labels = [piece.strip() for piece in text.split("|")]
    options = [{"label": label, "description": label} for label in labels]
    return _call("question", questions=[{"question": question, "header": "Scripted", "options": options}])


def _tool(text: str) -> CallTool:
    name, _, arguments = text.partition(" ")
    return CallTool(name=name, arguments=arguments)


def _call(tool: str, **arguments: object) -> CallTool:
    return CallTool(name=tool, arguments=json.dumps(arguments))


def _refuse(text: str) -> Refuse:
    plain, options = _options(text)
    return Refuse(
        status=int(plain[0]),
        times=int(options.get("times", "1000000")),
        retry_after=options.get("retry-after", ""),
        code=options.get("code", ""),
    )


def _drop(text: str) -> Drop:
    return Drop(times=int(_options(text)[1].get("times", "1000000")))


_STEPS: dict[str, Callable[[str], Step]] = {
    "say": words,
    "echo": lambda text: Say(pieces=(json.loads(text),)),
    "words": _numbered,
    "text": _long_text,
    "think": lambda text: words(text, reasoning=True),
    "bash": _bash,
    "write": _write,
    "task": _task,
    "todo": _todo,
    "ask": _ask,
    "tool": _tool,
    "pause": lambda text: Pause(seconds=float(text)),
    "hang": lambda _: Hang(),
    "status": _refuse,
    "drop": _drop,
    "garble": lambda _: Garble(),
    "error": lambda text: StreamError(message=text) if text else StreamError(),
    "finish": lambda text: Finish(reason=text),
    "empty": lambda _: Say(pieces=()),
}
