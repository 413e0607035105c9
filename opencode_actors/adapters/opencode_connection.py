"""How a server is spoken to: what each request carries, TLS, and one GET on a connection of its own.

For what a pool cannot give: a health probe must not be sent on a connection that an earlier, starting
server once accepted, and a batch of the event stream is what one read of the socket brought, where a
client library hands out the hundreds of HTTP chunks in it one by one, the GET is our own.
"""

from __future__ import annotations

import ssl
from base64 import b64encode
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import cache
from urllib.parse import quote, urlsplit

import h11
import trio
from attrs import define

from opencode_actors.errors import ServerUnintelligible, ServerUnreachable
from opencode_actors.ports import Endpoint

_READ = 64 << 10

Stream = trio.SocketStream | trio.SSLStream[trio.SocketStream]


def instance(endpoint: Endpoint) -> dict[str, str]:
    """The header that chooses among a server's instances."""
    return {"x-opencode-directory": quote(endpoint.directory)} if endpoint.directory else {}


@cache
def tls() -> ssl.SSLContext:
    """Trusts what this host trusts, and what SSL_CERT_FILE names; it verifies always. One for all servers: each client
    that made its own read all authorities again, and kept 750 KB of them."""
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context


@define
class Response:
    status: int
    content_type: str
    _http: h11.Connection
    _stream: Stream
    _url: str
    _ended: bool = False

    async def receive(self) -> bytes | None:
        """What one read of the socket brought of the body, possibly nothing; None at its end."""
        if body := self._buffered():
            await trio.lowlevel.checkpoint()
        elif not self._ended:
            await _read_into(self._http, self._stream, self._url)
            body = self._buffered()
        return None if self._ended and not body else body

    def _buffered(self) -> bytes:
        pieces: list[bytes] = []
        while not self._ended and (event := _next_event(self._http, self._url)) is not h11.NEED_DATA:
            if isinstance(event, h11.Data):
                pieces.append(bytes(event.data))
            else:
                self._ended = True
        return b"".join(pieces)


@asynccontextmanager
async def get(endpoint: Endpoint, path: str) -> AsyncGenerator[Response, None]:
    """Entering returns with the response's head. No deadline of its own: the caller has one."""
    url = urlsplit(endpoint.url)
    if url.scheme not in ("http", "https") or url.hostname is None:
        raise ServerUnreachable(f"{endpoint.url} is no http:// or https:// address")
    secure = url.scheme == "https"
    try:
        plain = await trio.open_tcp_stream(url.hostname, url.port or (443 if secure else 80))
    except OSError as refused:
        raise unreachable(endpoint.url, str(refused)) from refused
    stream: Stream = plain
    if secure:
        # Servers end a connection without TLS's own farewell.
        stream = trio.SSLStream(plain, tls(), server_hostname=url.hostname, https_compatible=True)
    async with stream:
        http = h11.Connection(h11.CLIENT)
        credentials = b64encode(f"{endpoint.user}:{endpoint.password}".encode()).decode()
        headers = [
            ("host", url.netloc),
            ("authorization", f"Basic {credentials}"),
            ("accept", "*/*"),
            ("connection", "close"),
            *instance(endpoint).items(),
        ]
        request = h11.Request(method="GET", target=url.path.rstrip("/") + path, headers=headers)
        asked = (http.send(request) or b"") + (http.send(h11.EndOfMessage()) or b"")
        try:
            await stream.send_all(asked)
        except trio.BrokenResourceError as broken:
            raise unreachable(endpoint.url, _why_broken(broken)) from broken
        head = await _head(http, stream, endpoint.url)
        kind = next(
            (value.decode("ascii", "replace") for name, value in head.headers if name == b"content-type"), ""
        )
        yield Response(head.status_code, kind, http, stream, endpoint.url)


async def _head(http: h11.Connection, stream: Stream, url: str) -> h11.Response:
    while True:
        event = _next_event(http, url)
        if isinstance(event, h11.Response):
            return event
        if event is not h11.NEED_DATA:
            raise unreachable(url, "the connection ended before an answer")
        await _read_into(http, stream, url)


async def _read_into(http: h11.Connection, stream: Stream, url: str) -> None:
    try:
        received = await stream.receive_some(_READ)
    except trio.BrokenResourceError as broken:
        raise unreachable(url, _why_broken(broken)) from broken
    try:
        http.receive_data(bytes(received))
    except h11.RemoteProtocolError as wrong:
        raise _unintelligible(url, wrong) from wrong


def _next_event(http: h11.Connection, url: str) -> object:
    try:
        return http.next_event()
    except h11.RemoteProtocolError as wrong:
        # h11 has the same error for nonsense and for an end in the middle of an answer.
        if http.trailing_data[1]:
            raise unreachable(url, "the connection ended in the middle of an answer") from wrong
        raise _unintelligible(url, wrong) from wrong


def _why_broken(broken: trio.BrokenResourceError) -> str:
    """A certificate that nobody here trusts is found out by the first words."""
    cause = broken.__cause__
    return f"TLS failed: {cause}" if isinstance(cause, ssl.SSLError) else "the connection broke"


def unreachable(url: str, why: str) -> ServerUnreachable:
    return ServerUnreachable(
        f"OpenCode's server at {url} cannot be reached: {why}",
        hint="Its container has ended, or is about to listen; the session's status says which.",
    )


def _unintelligible(url: str, wrong: Exception) -> ServerUnintelligible:
    return ServerUnintelligible(f"what answers at {url} does not speak HTTP: {wrong}")
