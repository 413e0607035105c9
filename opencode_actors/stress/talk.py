"""Prompts of the scripted model, and what has to stand in a job's output after each of them.

What is expected is made from the prompt's own steps, and never from what the system under test said.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Sequence

from attrs import frozen

from opencode_actors.stress.scenario import ASKED_FOR, Talk
from opencode_actors.testing.provider_markers import steps_of
from opencode_actors.testing.provider_script import CallTool, Hang, Say, Step

_INTERRUPTED = re.compile(r"(?:^|\n)\[interrupted: ", re.MULTILINE)
_TAIL = "é漢🙂 done."


@frozen
class Words:
    text: str


@frozen
class ToolLine:
    """`[bash] make test (exit 0, 3.2 s)`; how long it took is the world's. One that is `asked_for` may be refused, and
    the model goes on."""

    tool: str
    asked_for: bool = False


Expected = tuple[Words | ToolLine, ...]


def write_prompt(talk: Talk, number: int, rng: random.Random, *, pace: float = 1.0) -> str:
    """The words of a prompt tell whose they are: an answer in another job's output is seen. Pauses are as long
    as `pace` makes them."""
    name, end = f"job {number}", _echo(f"job {number} {_TAIL}")
    match talk:
        case Talk.SHORT:
            return end
        case Talk.STREAM:
            count, pause = rng.randint(3, 30), rng.choice((0.1, 0.5, 2.0, 7.0)) * pace
            lines = [f"{_echo(f'{name} piece {index} ')}\n::pause {pause:g}" for index in range(count)]
            return "\n".join((*lines, end))
        case Talk.BURST:
            return f"{_echo(name + chr(10))}\n::text {rng.choice((10_000, 300_000))} chunk=97\n{end}"
        case Talk.TOOL:
            # What is in a process session of its own outlives an abort. While it holds the command's output the
            # real server's tool does not end; and any other command it ends after 120 s.
            stays = "" if number % 2 else f"setsid -f sh -c 'sleep 300' job-{number} >/dev/null 2>&1; "
            first = f"::bash {stays}echo {number}; sleep {rng.choice((0, 1, 15, 110)) * pace:g}"
            return f"{_echo(f'{name} begins ')}\n{first}\n{_echo('between ')}\n::bash echo again\n{end}"
        case Talk.CHILD:
            inner = f"::pause {rng.randint(0, 20) * pace:g}\\n::say the child of {number}"
            return f"{_echo(f'{name} asks a child')}\n::task {inner}\n{end}"
        case Talk.QUESTION:
            return f"{_echo(f'{name} asks')}\n::ask Shall job {number} go on? | yes | no\n{end}"
        case Talk.PERMISSION:
            return f"{_echo(f'{name} asks')}\n::bash {ASKED_FOR}\n{end}"
        case Talk.HANG:
            return f"{_echo(f'{name} falls silent')}\n::pause {rng.randint(0, 5) * pace:g}\n::hang"


def _echo(text: str) -> str:
    return f"::echo {json.dumps(text)}"


def expected_of(prompt: str) -> Expected:
    """The whole answer, in the pieces that can be told apart."""
    found: list[Words | ToolLine] = []
    words = ""
    for step in steps_of(prompt):
        if isinstance(step, Say) and not step.reasoning:
            words += "".join(step.pieces)
        elif isinstance(step, CallTool):
            if words:
                found.append(Words(words))
            found.append(ToolLine(step.name, ASKED_FOR in step.arguments))
            words = ""
    return (*found, Words(words)) if words else tuple(found)


def ends_by_itself(prompt: str) -> bool:
    steps: Sequence[Step] = steps_of(prompt)
    return not any(isinstance(step, Hang) for step in steps)


def without_remark(output: str) -> str:
    """Of an output that is full: its last line says so, and is nobody's answer."""
    return output.rpartition("\n[output ends here: ")[0]


def until_interrupted(output: str) -> str:
    """Of one that was gone on with after a crash: what the model says when it is asked to go on is no part of it."""
    return _INTERRUPTED.split(output, maxsplit=1)[0]


def wrong_output(expected: Expected, output: str, *, whole: bool) -> str | None:
    """What is wrong with it, if anything. Of a job that was not completed it may be any beginning, and the
    tool that was running may have ended anyhow."""
    at = 0
    for piece in expected:
        rest = output[at:]
        start = "" if at == 0 or output[at - 1] == "\n" else "\n"
        if isinstance(piece, Words):
            want = start + piece.text
            if not rest.startswith(want):
                return _unfinished(want, rest, at, whole=whole)
            at += len(want)
            continue
        line = re.match(rf"{start}\[{piece.tool}\] [^\n]*\n", rest)
        if line is None:
            return None if not whole and not rest else _differs(f"{start}[{piece.tool}] …", rest, at)
        at += line.end()
        if not piece.asked_for and not _ended_well(piece.tool, line.group()):
            if whole or at != len(output):
                return f"a tool that failed did not end the answer at {at}: {line.group()!r}"
            return None
    return _differs("", output[at:], at) if at != len(output) else None


def repeats(expected: Expected, output: str) -> bool:
    """Whether each of its lines is one that was said, or begins one, however often and in whatever order."""
    lines = {line for piece in expected if isinstance(piece, Words) for line in piece.text.splitlines()}
    tools = tuple(f"[{piece.tool}] " for piece in expected if isinstance(piece, ToolLine))
    return all(
        line.startswith(tools) or any(one.startswith(line) for one in lines) for line in output.splitlines()
    )


def _ended_well(tool: str, line: str) -> bool:
    return "(exit 0" in line if tool == "bash" else "(failed" not in line


def _unfinished(want: str, rest: str, at: int, *, whole: bool) -> str | None:
    return None if not whole and want.startswith(rest) else _differs(want, rest, at)


def _differs(want: str, got: str, at: int) -> str:
    same = next(
        (i for i, (a, b) in enumerate(zip(want, got, strict=False)) if a != b), min(len(want), len(got))
    )
    return (
        f"at character {at + same} comes {got[same : same + 40]!r} where {want[same : same + 40]!r} was said"
    )
