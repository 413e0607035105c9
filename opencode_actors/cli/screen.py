"""Writes actions to the terminal, or to whatever stands in its place.

Everything here blocks when the reader of a pipe is slow or a terminal is held, so the running job calls
it from a thread of its own (`write`), and goes on supervising meanwhile.
"""

from __future__ import annotations

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
class TerminalScreen:
    """A person watches: a spinner for what is waited for, colours for what is said beside the answer."""

    console: Console
    output: TextIO
    _spinner: Spinner | None = None

    def perform(self, actions: Iterable[Action]) -> None:
        for action in actions:
            match action:
                case Busy():
                    self._busy(action.text)
                case Line():
                    self.close()
                    self.console.print(Text(action.text, style=_STYLES[action.tone]), soft_wrap=True)
                case Answer():
                    self.close()
                    self.output.write(harmless(action.text) if self.output.isatty() else action.text)
                    self.output.flush()
                case _:
                    assert_never(action)

    def close(self) -> None:
        if self._spinner is not None:
            self._spinner.stop()
            self._spinner = None

    def _busy(self, text: str) -> None:
        # one line, or the spinner would leave the others behind
        room = max(self.console.width - 6, 10)
        label = Text(text if len(text) <= room else text[: room - 1] + "…", style="dim")
        if self._spinner is None:
            self._spinner = self.console.status(label)
            self._spinner.start()
        else:
            self._spinner.update(label)


@define
class PlainScreen:
    """Nobody watches, or the lines go into a log: one plain line for each thing."""

    errors: TextIO
    output: TextIO

    def perform(self, actions: Iterable[Action]) -> None:
        for action in actions:
            match action:
                case Busy(passing=True):
                    pass
                case Busy() | Line():
                    self.errors.write(action.text + "\n")
                    self.errors.flush()
                case Answer():
                    self.output.write(harmless(action.text) if self.output.isatty() else action.text)
                    self.output.flush()
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
    if sys.stderr.isatty():
        return TerminalScreen(console=Console(stderr=True, highlight=False), output=sys.stdout)
    return PlainScreen(errors=sys.stderr, output=sys.stdout)


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
