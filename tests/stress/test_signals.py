"""A run that is told to end leaves nothing: no process, no container, no folder."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

import pytest
import trio

from opencode_actors.adapters.engine import open_engine
from opencode_actors.containers import OWNER_LABEL
from opencode_actors.stress.processes import living
from opencode_actors.stress.real import _owner

T = TypeVar("T")

_WITHIN = 120.0
_LOOK_EVERY = 0.1
# As from a shell that runs it in the background of a script: SIGINT is ignored from the start.
_IN_THE_BACKGROUND = """
import runpy, signal
signal.signal(signal.SIGINT, signal.SIG_IGN)
runpy.run_module("opencode_actors.cli", run_name="__main__")
"""


@asynccontextmanager
async def a_run(folder: Path, *words: str) -> AsyncGenerator[trio.Process]:
    """In a home of its own, so that what it leaves is seen."""
    environment = {**os.environ, "TMPDIR": str(folder)}
    process = await trio.lowlevel.open_process(
        [sys.executable, "-c", _IN_THE_BACKGROUND, "stress", *words],
        env=environment,
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            with trio.CancelScope(shield=True, deadline=trio.current_time() + 10):
                await process.wait()


async def the_first(process: trio.Process, look: Callable[[], Sequence[T]]) -> T:
    """Of what is seen of a run, as soon as it is there."""
    while not (found := look()):
        assert process.poll() is None
        await trio.sleep(_LOOK_EVERY)
    return found[0]


def services_below(pid: int) -> list[tuple[int, Path]]:
    """That this process has begun, and the run's folder, in which each has its provider's socket."""
    found: list[tuple[int, Path]] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            words = Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")
            if b"opencode_actors.stress.served" in words:
                found.append((int(child), Path(os.fsdecode(words[-2])).parents[1]))
    return found


async def words_of(process: trio.Process) -> str:
    assert process.stderr is not None
    said = b""
    async for piece in process.stderr:
        said += piece
    await process.wait()
    return said.decode()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
async def test_a_local_run_that_is_told_to_end_leaves_no_folder(
    tmp_path: Path, number: signal.Signals
) -> None:
    with trio.fail_after(_WITHIN):
        async with a_run(tmp_path, "--world", "local", "--seed", "1") as process:
            await the_first(process, lambda: list(tmp_path.glob("oa-stress-*/s/journal.sqlite")))
            process.send_signal(number)
            assert await words_of(process) == "cancelled\n"
            assert process.returncode == 130
    assert list(await trio.Path(tmp_path).iterdir()) == []


@pytest.mark.podman
@pytest.mark.image
@pytest.mark.parametrize("down", [False, True])
async def test_a_real_run_that_is_told_to_end_leaves_no_service_and_no_container(
    tmp_path: Path, *, down: bool
) -> None:
    """Also when its service is down at that moment, which has left its containers as they were."""
    with trio.fail_after(2 * _WITHIN):
        async with (
            open_engine(runtime="podman") as engine,
            a_run(tmp_path, "--world", "real", "--seed", "1") as process,
        ):
            service, base = await the_first(process, lambda: services_below(process.pid))
            await the_first(process, lambda: list((base / "sessions").glob("door.json")))
            owner = _owner(base / "sessions")
            await the_first(process, lambda: living(f"opencode-actors-{owner}"))
            if down:
                os.kill(service, signal.SIGKILL)
            process.send_signal(signal.SIGTERM)
            assert "cancelled" in await words_of(process)
            assert process.returncode == 130
            assert not base.exists()
            assert living(str(base)) == ()
            assert await engine.list({OWNER_LABEL: owner}) == ()
