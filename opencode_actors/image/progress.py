"""What is heard while an image is fetched or built: the engine's lines of JSON, made into progress."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from enum import Enum
from typing import Any, cast

from attrs import define, field, frozen

from opencode_actors.errors import ImageBuildFailed

MAX_LINE = 1 << 20  # bytes; the engines' own lines are below 64 KB
KEPT_LINES = 15  # the end of the build's output, shown when it fails

_STEP = re.compile(
    r"^(?:\[(?P<stage>\d+)/(?P<stages>\d+)\] )?step (?P<step>\d+)/(?P<steps>\d+) ?: (?P<text>.*)",
    re.IGNORECASE | re.DOTALL,
)
# `--> 0123456789a`, `--> Using cache …`, ` ---> Running in …`: the engines' own book-keeping
_LAYER = re.compile(r"^ ?-{2,3}> |^Removing intermediate container |^[0-9a-f]{64}$")


class BuildPhase(Enum):
    UP_TO_DATE = "up to date"  # nothing was done
    PULL_BASE = "pull base"
    MAKE_BASE = "make base"
    BUILD = "build"
    DONE = "done"


@frozen(kw_only=True)
class BuildProgress:
    """One line for a person. `step` of `steps` is within its stage, where the engine says so."""

    phase: BuildPhase
    text: str
    step: int = 0
    steps: int = 0
    stage: int = 0
    stages: int = 0


Report = Callable[[BuildProgress], None]


@frozen(kw_only=True)
class EngineLine:
    """One object of the engine's answer: some output, or an error, or the id of what was made."""

    text: str = ""
    error: str = ""
    image_id: str = ""


@define(kw_only=True)
class LineReader:
    """Bytes in, as they come; the engine's objects out. Both engines end each object with a newline."""

    _rest: bytes = b""

    def feed(self, data: bytes) -> list[EngineLine]:
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > MAX_LINE:
            raise ImageBuildFailed(f"the engine sent a line of more than {MAX_LINE} bytes")
        return [parse_line(line) for line in lines if line.strip()]

    def end(self) -> list[EngineLine]:
        """What is left when the answer ends without a newline."""
        rest, self._rest = self._rest, b""
        return [parse_line(rest)] if rest.strip() else []


def parse_line(line: bytes) -> EngineLine:
    try:
        parsed: object = json.loads(line)
    except ValueError:
        return EngineLine(text=line.decode(errors="replace"))
    if not isinstance(parsed, dict):
        return EngineLine(text=line.decode(errors="replace"))
    fields = cast("dict[str, Any]", parsed)
    return EngineLine(
        text=str(fields.get("stream") or fields.get("status") or ""),
        error=str(fields.get("error") or ""),
        image_id=_image_id(fields),
    )


def _image_id(fields: dict[str, Any]) -> str:
    aux: object = fields.get("aux")
    found: object = cast("dict[str, Any]", aux).get("ID", "") if isinstance(aux, dict) else ""
    return str(found)


@define(kw_only=True)
class BuildLog:
    """Follows a build: reports each step once, keeps what was printed last for the case that it fails."""

    report: Report
    error: str = field(default="", init=False)
    built: bool = field(default=False, init=False)
    _tail: list[str] = field(factory=list[str], init=False)
    _unfinished: str = field(default="", init=False)

    def hear(self, line: EngineLine) -> None:
        self.error = line.error or self.error
        self.built = self.built or bool(line.image_id)
        # Podman cuts what a step prints anywhere, also within a word
        *finished, self._unfinished = (self._unfinished + line.text)[-MAX_LINE:].split("\n")
        for text in visible_lines("\n".join(finished)):
            self._hear_text(text)

    def _hear_text(self, text: str) -> None:
        step = parse_step(text)
        if step is not None:
            self.report(step)
        elif not _LAYER.match(text):
            self._tail = [*self._tail[-KEPT_LINES + 1 :], text]

    @property
    def printed(self) -> str:
        """The last lines that the steps themselves printed."""
        return "\n".join(self._tail)

    def failure(self, reason: str) -> str:
        printed = "".join(f"\n    {line}" for line in self._tail)
        return f"the image could not be built: {_shortened(reason, keep_end=60)}{printed}"


def parse_step(text: str) -> BuildProgress | None:
    """`[2/3] STEP 1/4: RUN x` (Podman) and `Step 3/12 : RUN x` (Docker)."""
    found = _STEP.match(text)
    if found is None:
        return None
    return BuildProgress(
        phase=BuildPhase.BUILD,
        text=_shortened(found["text"]),
        step=int(found["step"]),
        steps=int(found["steps"]),
        stage=int(found["stage"] or 0),
        stages=int(found["stages"] or 0),
    )


def visible_lines(text: str) -> list[str]:
    """What a terminal would show in the end: of a line that was written over, the last state."""
    shown = (line.rstrip("\r").rsplit("\r", 1)[-1].rstrip() for line in text.split("\n"))
    return [line for line in shown if line]


def _shortened(text: str, limit: int = 140, *, keep_end: int = 0) -> str:
    one_line = " ".join(text.split())
    if len(one_line) <= limit:
        return one_line
    return one_line[: limit - keep_end - 1] + "…" + one_line[len(one_line) - keep_end :]
