"""Writes actions to the terminal, or to whatever stands in its place.

Everything here blocks when the reader of a pipe is slow or a terminal is held, so the running job calls
it from a thread of its own (`write`), and goes on supervising meanwhile.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from typing import Protocol, TextIO, assert_never

import trio
from attrs import define, field
from rich.console import Console
from rich.status import Status as Spinner
from rich.text import Text

from opencode_actors.cli.render import Action, Answer, Busy, Line, Tone

_STYLES = {
    Tone.PLAIN: "",
    Tone.FAINT: "dim",
    Tone.GOOD: "green",
    Tone.WARNING: "yellow",
    Tone.BAD: "red",
}


class Screen(Protocol):
    def perform(self, actions: Iterable[Action]) -> None: ...

    def close(self) -> None: ...


@define
class Output:
    """Where the answer goes. `shared`: what is said beside it goes to the same place."""

    stream: TextIO
    shared: bool
    _in_line: bool = False

    def write(self, text: str) -> None:
        self.stream.write(harmless(text) if self.stream.isatty() else text)
        self.stream.flush()
        self._in_line = not text.endswith("\n")

    def make_room(self) -> None:
        """Ends a line that is half written, on a terminal only: a file keeps the answer as it came."""
        if self._in_line and self.shared:
            self.stream.write("\n")
            self.stream.flush()
            self._in_line = False

    @property
    def has_room(self) -> bool:
        return not (self._in_line and self.shared)


@define
class TerminalScreen:
    """A person watches: a spinner for what is waited for, colours for what is said beside the answer."""

    console: Console
    output: Output
    _spinner: Spinner | None = None

    def perform(self, actions: Iterable[Action]) -> None:
        for action in actions:
            match action:
                case Busy():
                    self._busy(action)
                case Line():
                    self.close()
                    self.output.make_room()
                    self.console.print(Text(action.text, style=_STYLES[action.tone]), soft_wrap=True)
                case Answer():
                    self.close()
                    self.output.write(action.text)
                case _:
                    assert_never(action)

    def close(self) -> None:
        if self._spinner is not None:
            self._spinner.stop()
            self._spinner = None

    def _busy(self, busy: Busy) -> None:
        if busy.passing and not self.output.has_room:
            return  # the spinner would overwrite the answer's last line
        self.output.make_room()
        # one line, or the spinner would leave the others behind
        room = max(self.console.width - 6, 10)
        shown = busy.text if len(busy.text) <= room else busy.text[: room - 1] + "…"
        label = Text(shown, style="dim")
        if self._spinner is None:
            self._spinner = self.console.status(label)
            self._spinner.start()
        else:
            self._spinner.update(label)


@define
class PlainScreen:
    """Nobody watches, or the lines go into a log: one plain line for each thing."""

    errors: TextIO
    output: Output

    def perform(self, actions: Iterable[Action]) -> None:
        for action in actions:
            match action:
                case Busy(passing=True):
                    pass
                case Busy() | Line():
                    self.output.make_room()
                    self.errors.write(action.text + "\n")
                    self.errors.flush()
                case Answer():
                    self.output.write(action.text)
                case _:
                    assert_never(action)

    def close(self) -> None:
        """Nothing is held."""


@define
class SilentAnswer:
    """For `--json`: what is said beside the answer is shown, the answer itself is kept for the document."""

    beside: Screen
    _kept: list[str] = field(factory=list[str])

    @property
    def answer(self) -> str:
        return "".join(self._kept)

    def perform(self, actions: Iterable[Action]) -> None:
        for action in actions:
            if isinstance(action, Answer):
                self._kept.append(action.text)
            else:
                self.beside.perform((action,))

    def close(self) -> None:
        self.beside.close()


def open_screen() -> Screen:
    output = Output(sys.stdout, shared=_same_place(sys.stdout, sys.stderr))
    if sys.stderr.isatty():
        return TerminalScreen(console=Console(stderr=True, highlight=False), output=output)
    return PlainScreen(errors=sys.stderr, output=output)


def _same_place(one: TextIO, other: TextIO) -> bool:
    try:
        return os.path.sameopenfile(one.fileno(), other.fileno())
    except (OSError, ValueError):  # a stream that is no file
        return False


async def write(screen: Screen, actions: tuple[Action, ...]) -> None:
    """Raises `BrokenPipeError` when nobody reads any more. A cancel leaves a held terminal to its thread."""
    if actions:
        await trio.to_thread.run_sync(screen.perform, actions, abandon_on_cancel=True)


_ALLOWED = frozenset("\n\t")


def harmless(text: str) -> str:
    """What a model says may hold codes that a terminal obeys (title, clipboard, cursor): they are shown instead."""
    if text.isprintable():
        return text
    return "".join(
        character
        if character.isprintable() or character in _ALLOWED or not _is_control(character)
        else f"\\x{ord(character):02x}"
        for character in text
    )


def _is_control(character: str) -> bool:
    return ord(character) < 0x20 or 0x7F <= ord(character) < 0xA0
