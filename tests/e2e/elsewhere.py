"""An OpenCode server that somebody else runs: a process of its own on loopback, whose model is scripted."""

from __future__ import annotations

import os
import shutil
import ssl
import subprocess
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import trio
from attrs import frozen

from opencode_actors.adapters.opencode import HttpOpenCode
from opencode_actors.errors import OpenCodeError
from opencode_actors.ports import DEFAULT_USER, Endpoint
from opencode_actors.testing.provider import ScriptedProvider, open_provider
from tests.contract.engines import missing
from tests.contract.servers import BINARY, PASSWORD, RealProcess, _free_ports

_STARTS_WITHIN = 60.0


@frozen
class Remote:
    process: RealProcess
    provider: ScriptedProvider

    @property
    def url(self) -> str:
        return self.process.endpoint.url

    @property
    def workspace(self) -> Path:
        return self.process.home / "workspace"

    async def wait_ready(self) -> None:
        opencode = HttpOpenCode(self.process.endpoint)
        with trio.fail_after(_STARTS_WITHIN):
            while True:
                try:
                    await opencode.health(within=0.2)
                except OpenCodeError:
                    await trio.sleep(0.05)  # a process that starts tells nobody when it listens
                else:
                    break
        await opencode.aclose()


def _binary() -> str:
    found = os.environ.get(BINARY) or shutil.which("opencode")
    if found is None or not Path(found).is_file():
        missing(f"set {BINARY} to an opencode binary, or put one on PATH: npm install -g opencode-ai")
    return str(found)


@asynccontextmanager
async def a_remote(base: Path, *, user: str = DEFAULT_USER) -> AsyncGenerator[Remote]:
    binary = _binary()
    port, provider_port = _free_ports(2)
    home = base / "theirs"
    home.mkdir()
    endpoint = Endpoint(url=f"http://127.0.0.1:{port}", user=user, password=PASSWORD)
    process = RealProcess(binary, home, endpoint, provider_port)
    process.prepare()
    async with open_provider(port=provider_port) as provider:
        process.start()
        try:
            remote = Remote(process, provider)
            await remote.wait_ready()
            yield remote
        finally:
            process.kill()


@asynccontextmanager
async def with_tls(remote: Remote, base: Path) -> AsyncGenerator[tuple[str, Path]]:
    """The same server behind TLS, and the certificate that makes it trusted."""
    key, certificate = base / "key.pem", base / "certificate.pem"
    request = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost "
        "-addext subjectAltName=DNS:localhost"
    )
    await trio.to_thread.run_sync(
        partial(
            subprocess.run,
            [*request.split(), "-keyout", str(key), "-out", str(certificate)],
            check=True,
            capture_output=True,
        )
    )
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    port = int(remote.url.rpartition(":")[2])
    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(
            partial(trio.serve_ssl_over_tcp, partial(_relay, port), 0, context, host="127.0.0.1")
        )
        yield f"https://localhost:{listener.transport_listener.socket.getsockname()[1]}", certificate
        nursery.cancel_scope.cancel()


async def _relay(port: int, stream: trio.SSLStream[trio.SocketStream]) -> None:
    try:
        async with await trio.open_tcp_stream("127.0.0.1", port) as behind, trio.open_nursery() as nursery:
            nursery.start_soon(_pump, stream, behind, nursery.cancel_scope)
            nursery.start_soon(_pump, behind, stream, nursery.cancel_scope)
    except* (trio.BrokenResourceError, trio.ClosedResourceError, OSError):
        pass  # one of the two has gone, and so does the other


async def _pump(source: trio.abc.ReceiveStream, sink: trio.abc.SendStream, both: trio.CancelScope) -> None:
    async for data in source:
        await sink.send_all(data)
    both.cancel()
