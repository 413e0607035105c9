"""A service in a process of its own, from outside: begun, looked at, killed, ended."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter, deque
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path

import trio
from attrs import define, field, fields, frozen

from opencode_actors.door.client import open_client
from opencode_actors.errors import NoService
from opencode_actors.machines.vocabulary import Leave
from opencode_actors.settings import Settings
from opencode_actors.settings_knobs import key_of
from opencode_actors.settings_sources import ENVIRONMENT_PREFIX
from opencode_actors.stress.door_face import open_face
from opencode_actors.stress.processes import kinds_of_files, open_files
from opencode_actors.stress.worlds import Live

_READY_WITHIN = 90.0
# All graces, and what shutting down may take beyond them.
_ENDS_WITHIN = 60.0
_LOG_LINES = 2_000


@frozen(kw_only=True)
class Home:
    """A place of its own: nothing of this host's settings, logins or temporary files is found from it, and what
    is left behind is seen."""

    base: Path
    settings: Settings
    provider: Path

    @property
    def temporary(self) -> Path:
        return self.base / "tmp"

    @property
    def crashes(self) -> Path:
        return self.base / "state" / "opencode-actors"

    def prepare(self) -> None:
        self.temporary.mkdir()
        config = self.base / "openclaw" / "openclaw.json"
        config.parent.mkdir(mode=0o700)
        entry = {"config": _written(self.settings)}
        config.write_text(json.dumps({"plugins": {"entries": {"opencode": entry}}}), encoding="utf-8")

    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(ENVIRONMENT_PREFIX)}
        return {
            **kept,
            "HOME": str(self.base),
            "TMPDIR": str(self.temporary),
            "XDG_STATE_HOME": str(self.base / "state"),
            "OPENCLAW_STATE_DIR": str(self.base / "openclaw"),
        }


def _written(settings: Settings) -> dict[str, object]:
    """As a person would write what is not a default."""
    usual = Settings()
    found: dict[str, object] = {}
    for knob in fields(Settings):
        value: object = getattr(settings, knob.name)
        if value != getattr(usual, knob.name):
            found[key_of(knob.name)] = str(value) if isinstance(value, Path) else value
    return found


@define(eq=False)
class ServedProcess:
    """`log` is what it said last on stderr; `held` the files that it held when it was ready."""

    process: trio.Process
    log: deque[str] = field(factory=lambda: deque[str](maxlen=_LOG_LINES))
    held: Counter[str] = field(factory=Counter[str])
    killed: bool = False

    @property
    def pid(self) -> int:
        return self.process.pid

    def kill(self) -> None:
        self.killed = True
        self.process.kill()

    def holds_more(self, connections: int) -> str:
        """What it holds beyond that; so many more sockets are its clients'."""
        more = kinds_of_files(open_files(self.pid))
        more.subtract(self.held)
        more["socket"] -= connections
        return ", ".join(f"{count} {kind}" for kind, count in sorted(more.items()) if count > 0)

    async def end(self) -> str | None:
        """In order, unless it was killed; what was wrong with that."""
        if not self.killed:
            with suppress(ProcessLookupError):
                self.process.send_signal(signal.SIGTERM)
        with trio.move_on_after(_ENDS_WITHIN) as scope:
            await self.process.wait()
        if scope.cancelled_caught:
            self.process.kill()
            await self.process.wait()
            return f"the service did not end within {_ENDS_WITHIN:g} s of SIGTERM"
        if self.killed or self.process.returncode == 0:
            return None
        return f"the service ended with {self.process.returncode}: {self.last_words()}"

    def last_words(self) -> str:
        return " / ".join(tuple(self.log)[-3:])


@asynccontextmanager
async def open_process(
    home: Home, leave: Leave, ended_badly: list[str]
) -> AsyncGenerator[tuple[ServedProcess, Live]]:
    """From when it listens; `leave` is what it does with its jobs at SIGTERM. Raises `NoService` with its last words when it does not."""
    command = [sys.executable, "-m", "opencode_actors.stress.served", leave.value, str(home.provider)]
    process = await trio.lowlevel.open_process(
        command, env=home.environment(), cwd=home.base, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    served, listening = ServedProcess(process), trio.Event()
    wrong: str | None = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_read_log, served, listening)
        try:
            with trio.move_on_after(_READY_WITHIN):
                await listening.wait()
            if process.poll() is not None or not listening.is_set():
                raise NoService(f"the service does not begin: {served.last_words()}")
            served.held = kinds_of_files(open_files(served.pid))
            async with open_face(partial(open_client, home.settings.sessions_dir)) as live:
                yield served, live
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + 2 * _ENDS_WITHIN):
                wrong = await served.end()
            if wrong is not None:
                ended_badly.append(wrong)
            nursery.cancel_scope.cancel()


async def _read_log(served: ServedProcess, listening: trio.Event) -> None:
    stream, rest = served.process.stderr, b""
    if stream is None:
        raise TypeError("its log is not a pipe")
    async with stream:
        async for piece in stream:
            *lines, rest = (rest + piece).split(b"\n")
            for line in lines:
                served.log.append(line.decode(errors="replace"))
                if b"listening on" in line:
                    listening.set()
    listening.set()  # or it has ended: whoever waits looks which
