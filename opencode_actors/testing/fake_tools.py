"""The tools of a fake OpenCode server: enough of a shell to take time, print and fail."""

from __future__ import annotations

import re
from collections.abc import Callable

import trio
from attrs import define

TOOLS = frozenset({"bash", "edit", "glob", "grep", "question", "read", "task", "todowrite", "write"})
_SEPARATOR = re.compile(r"\s*(?:;|&&|\n)\s*")


@define
class Shell:
    """Knows `sleep`, `echo`, `true`, `false`, `exit` and `setsid`; anything else succeeds without a word.

    `output` and `exit_code` grow while it runs. `spawn` begins what outlives it.
    """

    command: str
    spawn: Callable[[str], object] | None = None
    output: str = ""
    exit_code: int = 0

    async def run(self, report: Callable[[], None]) -> None:
        """Calls `report` after each output, as the real tool tells of its progress."""
        await trio.lowlevel.checkpoint()
        for single in _SEPARATOR.split(self.command):
            name, _, rest = single.partition(" ")
            match name:
                case "sleep":
                    await trio.sleep(float(rest))
                case "echo":
                    self.output += rest.strip("'\"") + "\n"
                    report()
                case "setsid":
                    if self.spawn is not None:
                        self.spawn(rest.partition(" >")[0])
                case "exit":
                    self.exit_code = int(rest or "0")
                    return
                case _:
                    self.exit_code = 1 if name == "false" else 0
