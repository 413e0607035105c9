"""What stands in for the model, in a process of its own, so that no reader shares a processor's time with it.

    python -m tests.benchmarks.model SOCKET

It has a line to say when it listens, and ends with its input.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import trio

from opencode_actors import ModelAccess
from opencode_actors.containers import PROVIDER_URL_INSIDE
from opencode_actors.testing.provider import open_provider, provider_config

_ENDS_WITHIN = 10


@contextmanager
def open_model(base: Path) -> Generator[ModelAccess]:
    socket = base / "provider" / "provider.sock"
    socket.parent.mkdir(mode=0o755)
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.benchmarks.model", str(socket)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        if not process.stdout.readline():
            raise RuntimeError("the stand-in for the model ended before it listened")
        yield ModelAccess(provider_socket=socket, config={"provider": provider_config(PROVIDER_URL_INSIDE)})
    finally:
        process.stdin.close()
        process.wait(_ENDS_WITHIN)
        process.stdout.close()


async def main(socket: Path) -> None:
    async with open_provider(unix_socket=socket):
        print("it listens", flush=True)  # noqa: T201
        async for _ in trio.lowlevel.FdStream(0):
            pass


if __name__ == "__main__":
    trio.run(main, Path(sys.argv[1]))
