"""The wire to a container engine: HTTP over a unix socket, with errors in the user's words.

One answer to "the engine went away": a call that could not be sent, or that may be sent twice, is
repeated once after `revive` (which starts the engine again where that is ours to do); then
`EngineUnavailable`. A call whose effect may not be doubled is never repeated once it was sent.
"""

from __future__ import annotations

import errno
from collections.abc import Awaitable, Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import trio
from attrs import define, field, frozen

from opencode_actors.adapters.engine_dialect import error_text
from opencode_actors.errors import EngineRefused, EngineUnavailable

# A socket on this machine connects at once or not at all; two seconds is for a machine that swaps.
CONNECT_WITHIN = 2.0
# Inspect, list and kill take 1-350 ms; only a hung engine needs longer than this.
ANSWER_WITHIN = 30.0


def engine_http_client(
    socket: str | Path, *, answer_within: float | None = ANSWER_WITHIN
) -> httpx.AsyncClient:
    """A plain client on an engine's unix socket, for what the `Engine` port does not cover (builds).

    Paths without a version prefix (`/build`, `/images/load`) work on Podman and Docker alike.
    `answer_within=None` waits for ever between two chunks of an answer, as a long build needs.
    The caller closes it.
    """
    return httpx.AsyncClient(
        transport=httpx.AsyncHTTPTransport(
            uds=str(socket),
            verify=False,
            limits=httpx.Limits(max_connections=64, max_keepalive_connections=8),
        ),
        base_url="http://engine",
        timeout=httpx.Timeout(answer_within, connect=CONNECT_WITHIN),
        trust_env=False,
    )


@frozen(kw_only=True)
class EngineStatistics:
    """`held` counts open event streams; `revivals` how often the engine had to be looked for again."""

    requests: int
    errors: int
    in_flight: int
    held: int
    revivals: int
    last_error: str


async def _cannot_be_revived() -> None:
    """For an engine that somebody else runs: all there is to do is to try the socket once more."""
    await trio.lowlevel.checkpoint()


@define
class EngineWire:
    """One engine's socket. `name` is how the user knows the engine ("Podman", "Docker")."""

    socket: Path
    name: str = "the container engine"
    prefix: str = ""
    headers: Mapping[str, str] = field(factory=dict[str, str], repr=False)  # of its first answer
    revive: Callable[[], Awaitable[object]] = field(default=_cannot_be_revived, repr=False)
    _client: httpx.AsyncClient = field(init=False, repr=False)
    _requests: int = field(default=0, init=False)
    _errors: int = field(default=0, init=False)
    _in_flight: int = field(default=0, init=False)
    _held: int = field(default=0, init=False)
    _revivals: int = field(default=0, init=False, repr=False)
    _last_error: str = field(default="", init=False)

    def __attrs_post_init__(self) -> None:
        self._client = engine_http_client(self.socket)

    def statistics(self) -> EngineStatistics:
        return EngineStatistics(
            requests=self._requests,
            errors=self._errors,
            in_flight=self._in_flight,
            held=self._held,
            revivals=self._revivals,
            last_error=self._last_error,
        )

    async def call(
        self,
        method: str,
        path: str,
        *,
        doing: str,
        params: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        answer_within: float = ANSWER_WITHIN,
        repeatable: bool = True,
    ) -> httpx.Response:
        """Any answer below 400; `EngineRefused` otherwise. `doing` completes "could not …"."""
        timeout = httpx.Timeout(answer_within, connect=CONNECT_WITHIN)
        request = self._client.build_request(
            method, self.prefix + path, params=params, json=body, timeout=timeout
        )
        try:
            response = await self._send_with_second_chance(request, repeatable=repeatable)
        except httpx.TransportError as error:
            raise self._unavailable(error, doing) from error
        if response.status_code >= 400:
            raise self.refused(response.status_code, response.content, doing)
        return response

    async def _send_with_second_chance(self, request: httpx.Request, *, repeatable: bool) -> httpx.Response:
        try:
            return await self._send(request)
        except httpx.ConnectError:
            pass  # nothing was sent
        except (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError):
            if not repeatable:
                raise
        await self.look_again()
        return await self._send(request)

    async def _send(self, request: httpx.Request) -> httpx.Response:
        self._requests += 1
        self._in_flight += 1
        try:
            return await self._client.send(request)
        finally:
            self._in_flight -= 1

    def refused(self, status: int, content: bytes, doing: str) -> EngineRefused:
        self._errors += 1
        self._last_error = error_text(content)
        return EngineRefused(f"{self.name} could not {doing}: {self._last_error}", status=status)

    @contextmanager
    def holding(self) -> Generator[None]:
        """For a stream on a connection of its own (`engine_events`), which is counted here."""
        self._requests += 1
        self._held += 1
        try:
            yield
        finally:
            self._held -= 1

    async def look_again(self) -> None:
        """After a connection that could not be made: start the engine where that is ours to do."""
        self._revivals += 1
        await self.revive()

    def lost(self, why: str, doing: str) -> EngineUnavailable:
        self._errors += 1
        self._last_error = why
        return EngineUnavailable(
            f"{self.name} could not {doing}: {why} (socket {self.socket})",
            hint="`opencode-actors doctor` says whether the engine answers and what to do if not.",
        )

    def _unavailable(self, error: httpx.TransportError, doing: str) -> EngineUnavailable:
        if isinstance(error, httpx.TimeoutException):
            return self.lost("it took the request and did not answer in time", doing)
        if isinstance(error, httpx.ConnectError):
            return self.lost(why_unreachable(error), doing)
        return self.lost("it closed the connection before it had answered", doing)

    async def aclose(self) -> None:
        await self._client.aclose()


def os_error_of(error: BaseException) -> OSError | None:
    """The system's own error under httpx's, which tells a missing socket from a forbidden one."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno is not None:
            return seen
        seen = seen.__cause__ or seen.__context__
    return None


def why_unreachable(error: BaseException) -> str:
    system = os_error_of(error)
    reasons = {
        errno.ENOENT: "there is no such socket",
        errno.ECONNREFUSED: "nothing listens on the socket",
        errno.EACCES: "permission denied on the socket",
        errno.EPERM: "permission denied on the socket",
    }
    if system is None or system.errno is None:
        return str(error) or type(error).__name__
    return reasons.get(system.errno, system.strerror or str(system))
