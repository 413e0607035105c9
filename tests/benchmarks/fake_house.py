"""The other side of the scale benchmark: many fake servers with real sockets, in a process of their own, so that
their memory and their work are not taken for ours.

    python -m tests.benchmarks.fake_house SERVERS

Says in one line of JSON which ports it has. Each line that it is told is of JSON too: with a password a server begins
at that port, without one it dies. It ends with its input.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager

import trio
from attrs import define, field

from opencode_actors.testing.fake_container import FakeContainer
from opencode_actors.testing.fake_opencode import open_fake_servers
from opencode_actors.testing.fake_server import FakeBehaviour
from opencode_actors.testing.http_front import HttpFront

_ENDS_WITHIN = 10


@define(eq=False)
class House:
    """As the world of a fake engine: the server of a container that starts is over there."""

    _process: subprocess.Popen[str]
    _ports: list[int]
    _in_use: dict[str, int] = field(factory=dict[str, int])

    def on_start(self, container: FakeContainer) -> None:
        if container.run is not None:
            port = container.run.port = self._in_use[container.id] = self._ports.pop()
            self._tell(port, container.spec.environment["OPENCODE_SERVER_PASSWORD"])

    def on_exit(self, container: FakeContainer, death: object) -> None:
        del death
        self._tell(self._in_use.pop(container.id), None)

    def _tell(self, port: int, password: str | None) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([port, password]) + "\n")  # a pipe holds a thousand of them
        self._process.stdin.flush()


@contextmanager
def open_house(servers: int) -> Generator[House]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.benchmarks.fake_house", str(4 * servers)],  # some may start again
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        yield House(process, json.loads(process.stdout.readline()))
    finally:
        assert process.stdin is not None
        process.stdin.close()
        process.wait(_ENDS_WITHIN)


async def main(many: int) -> None:
    async with open_fake_servers(FakeBehaviour(start_up=0.1)) as servers, trio.open_nursery() as nursery:
        fronts = {(front := HttpFront(servers)).port: front for _ in range(many)}
        print(json.dumps(list(fronts)), flush=True)  # noqa: T201
        buffer = b""
        async for chunk in trio.lowlevel.FdStream(0):
            *lines, buffer = (buffer + chunk).split(b"\n")
            for port, password in map(json.loads, lines):
                front = fronts[port]
                if password is None:
                    if (server := servers.server(front.url)) is not None:
                        server.crash()
                    continue
                servers.start(front.url, password=password)
                nursery.start_soon(front.serve)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main, int(sys.argv[1]))
