"""A system from outside, through its front door: real websockets, and what comes over them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import trio
from attrs import define, field, frozen

from opencode_actors.door.client import Client, Document
from opencode_actors.door.faults import Code
from opencode_actors.door.reading import notice_of, session_of, snapshot_of
from opencode_actors.errors import (
    Busy,
    CallRefused,
    EngineError,
    NoService,
    OpencodeActorsError,
    RequestGone,
    StoreError,
    UnknownJob,
    UnknownSession,
    UsageError,
)
from opencode_actors.kernel.hub import NoticesMissed
from opencode_actors.kernel.system import System
from opencode_actors.machines.notices import Notice
from opencode_actors.machines.vocabulary import JobId, JobSnapshot, SessionSnapshot
from opencode_actors.store.port import OutputSlice
from opencode_actors.stress.worlds import Live, Told

# The door takes 64 at once of one client: who has more to ask comes as several.
_CALLS_EACH = 32

_ERRORS: dict[int, type[OpencodeActorsError]] = {
    Code.BUSY: Busy,
    Code.SHUTTING_DOWN: Busy,
    Code.STORE: StoreError,
    Code.REQUEST_GONE: RequestGone,
    Code.UNKNOWN_JOB: UnknownJob,
    Code.UNKNOWN_SESSION: UnknownSession,
    Code.USAGE: UsageError,
    Code.ENGINE_UNAVAILABLE: EngineError,
}

Connecting = Callable[[], AbstractAsyncContextManager[Client]]


@frozen(eq=False)
class _Followed:
    client: Client

    def __aiter__(self) -> _Followed:
        return self

    async def __anext__(self) -> Notice | NoticesMissed:
        while True:
            told = await self.client.told()
            if told["method"] != "notice":
                raise StopAsyncIteration
            notice = _read(told["params"])
            if notice is not None:
                return notice


@frozen
class Started:
    id: JobId


@define(eq=False)
class _Line:
    client: Client
    calls: int = 0


@define(eq=False)
class DoorFace:
    """`connect` makes a connection of its own each time."""

    connect: Connecting
    _nursery: trio.Nursery
    _lines: list[_Line] = field(factory=list[_Line], init=False)
    connections: int = field(default=0, init=False)
    over: bool = field(default=False, init=False)  # a call may still wait for a line then
    _opening: trio.Lock = field(factory=trio.Lock, init=False)

    async def start(self, prompt: str, *, session: str, key: str) -> Started:
        answer = await self._call("start", prompt=prompt, session_id=session, key=key)
        return Started(JobId(answer["jobId"]))

    async def status(self, job: JobId) -> JobSnapshot:
        return snapshot_of(await self._call("status", job_id=job))

    async def cancel(self, job: JobId) -> JobSnapshot:
        return snapshot_of(await self._call("cancel", job_id=job))

    async def answer(
        self,
        job: JobId,
        request: str,
        *,
        answers: str | None = None,
        reply: str | None = None,
        message: str = "",
    ) -> None:
        said = {"answers": answers, "reply": reply, "message": message}
        given = {name: value for name, value in said.items() if value}
        await self._call("answer", job_id=job, request_id=request, **given)

    async def output(self, job: JobId, *, offset: int, limit: int) -> OutputSlice:
        piece = await self._call("output", job_id=job, offset=offset, limit=limit)
        return OutputSlice(text=piece["text"], next_offset=piece["nextOffset"], more=piece["hasMore"])

    async def sessions(self) -> Sequence[SessionSnapshot]:
        return tuple(session_of(told) for told in (await self._call("sessions"))["sessions"])

    async def cleanup(self) -> object:
        return await self._call("cleanup")

    async def close_session(self, session: str) -> object:
        return await self._call("close", session_id=session)

    async def reset_session(self, session: str) -> object:
        return await self._call("reset", session_id=session)

    @asynccontextmanager
    async def follow(self, since: int, job: JobId | None = None) -> AsyncGenerator[Told]:
        """Over a connection of its own, which is broken off without a word at the end."""
        async with self._connected() as client:
            await client.call("follow", since=since, **({} if job is None else {"job_id": job}))
            yield _Followed(client)

    @asynccontextmanager
    async def _connected(self) -> AsyncGenerator[Client]:
        async with self.connect() as client:
            self.connections += 1
            try:
                yield client
            finally:
                self.connections -= 1

    async def _call(self, method: str, **params: object) -> Document:
        line = await self._free_line()
        line.calls += 1
        try:
            return await line.client.call(method, **params)
        except CallRefused as refusal:
            raise _ERRORS.get(refusal.code, OpencodeActorsError)(refusal.message, hint=refusal.hint) from None
        finally:
            line.calls -= 1

    async def _free_line(self) -> _Line:
        async with self._opening:
            line = min(self._lines, key=lambda line: line.calls, default=None)
            if line is None or line.calls >= _CALLS_EACH:
                line = await self._open_line()
            return line

    async def _open_line(self) -> _Line:
        opened: list[_Line] = []
        failed: list[OpencodeActorsError] = []
        there = trio.Event()

        async def keep() -> None:
            try:
                async with self._connected() as client:
                    opened.append(_Line(client))
                    there.set()
                    await trio.sleep_forever()
            except OpencodeActorsError as error:
                failed.append(error)
                there.set()

        if self.over:
            raise NoService("the service has ended")
        self._nursery.start_soon(keep)
        await there.wait()
        for error in failed:
            raise error
        self._lines.append(opened[0])
        return opened[0]


def _read(told: Document) -> Notice | NoticesMissed | None:
    return NoticesMissed(count=told["count"]) if told["kind"] == "missed" else notice_of(told)


@asynccontextmanager
async def open_face(connect: Connecting, *, inside: System | None = None) -> AsyncGenerator[Live]:
    async with trio.open_nursery() as nursery:
        face = DoorFace(connect, nursery)
        try:
            yield Live(face, face.follow, inside, lambda: face.connections)
        finally:
            face.over = True
        nursery.cancel_scope.cancel()
