"""Who is told that jobs have settled: it takes that, or is in no mood to."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from enum import Enum

import h11
import trio
from attrs import define, field, frozen

from opencode_actors.ports import HookAnswer, HookRequest, Webhook
from opencode_actors.stress.scenario import FaultKind
from opencode_actors.testing.provider_http import HttpConnection, HungUp

_TAKEN, _UNKNOWN, _REFUSED = 200, 401, 503


class Mood(Enum):
    REFUSES = "refuses"
    HANGS = "hangs"
    AWAY = "away"
    SLOW = "slow"


MOODS: Mapping[FaultKind, Mood] = {
    FaultKind.RECEIVER_REFUSES: Mood.REFUSES,
    FaultKind.RECEIVER_HANGS: Mood.HANGS,
    FaultKind.RECEIVER_AWAY: Mood.AWAY,
    FaultKind.RECEIVER_SLOW: Mood.SLOW,
}


@frozen
class Taken:
    """One announcement that was answered with 200; `text` is what it says. It `came` before that, when the receiver
    was slow."""

    job: str
    at: float
    text: str = field(default="", repr=False)
    came: float = 0.0


@frozen
class Unheard:
    """An attempt whose answer, if there was one, nobody heard: it was `broken_off`, or its time was over."""

    job: str
    since: float
    until: float
    broken_off: bool


@define(eq=False)
class Receiver:
    """The last of its `moods` holds, and without one it takes everything. Over a socket it wants to see the `token`;
    `strange` is what came that nobody would send, and `unheard` what whoever asked it did not hear the end of. When it is
    slow it takes so many seconds for each."""

    token: str = ""
    slow: float = 1.0
    moods: list[Mood] = field(factory=list[Mood])
    taken: list[Taken] = field(factory=list[Taken])
    strange: list[str] = field(factory=list[str])
    unheard: list[Unheard] = field(factory=list[Unheard])
    troubled: int = 0  # so many announcements met a mood
    _changed: trio.Event = field(factory=trio.Event)

    async def hear(self, job: str, text: str) -> int | None:
        """The status that it answers with; None when it breaks off. It may never return."""
        mood, came = self.moods[-1] if self.moods else None, trio.current_time()
        await trio.lowlevel.checkpoint()
        if mood is Mood.SLOW:
            self.troubled += 1
            await trio.sleep(self.slow)
            mood = None
        if mood is None:
            self.taken.append(Taken(job, trio.current_time(), text, came))
            self._changed.set()
            self._changed = trio.Event()
            return _TAKEN
        self.troubled += 1
        if mood is Mood.HANGS:
            await trio.sleep_forever()
        return _REFUSED if mood is Mood.REFUSES else None

    async def wait_taken(self, jobs: frozenset[str]) -> None:
        """Until it was told of all of them."""
        while not jobs <= {taken.job for taken in self.taken}:
            await self._changed.wait()


@define(eq=False)
class ReceiverPort:
    """As a `Webhook`, without a socket; one attempt takes `within` seconds at most."""

    receiver: Receiver
    within: float

    async def post(self, request: HookRequest) -> HookAnswer:
        with trio.move_on_after(self.within):
            status = await self.receiver.hear(request.key, _text_of(request.body))
            return HookAnswer(status=status, said="it broke off" if status is None else f"HTTP {status}")
        return HookAnswer(status=None, said=f"no answer within {self.within:g} s")


@define(eq=False)
class Overheard:
    """The `webhook` of a service whose attempts take `within` seconds at most. What it heard is known here: on a busy
    host a receiver has taken what whoever asked has just given up."""

    webhook: Webhook
    receiver: Receiver
    within: float

    async def post(self, request: HookRequest) -> HookAnswer:
        since, answer = trio.current_time(), None
        try:
            answer = await self.webhook.post(request)
            return answer
        finally:
            now = trio.current_time()
            if answer is None or (answer.status is None and now - since >= self.within):
                missed = Unheard(request.key, since, now, broken_off=answer is None)
                self.receiver.unheard.append(missed)


async def serve_receiver(receiver: Receiver, listener: trio.SocketListener) -> None:
    """The same on a real socket, until it is cancelled."""

    async def connected(stream: trio.SocketStream) -> None:
        connection = HttpConnection(stream)
        async with stream:
            try:
                asked = await connection.next_request()
                if asked is None:
                    return
                body = json.loads(asked[1])
                if wrong := _not_as_agreed(receiver, asked[0], body):
                    receiver.strange.append(wrong)
                    await connection.send_json(_UNKNOWN, {})
                    return
                status = await _heard(receiver, connection, body["jobId"], _text_of(body))
                if status is not None:
                    await connection.send_json(status, {})
            except (HungUp, h11.ProtocolError):
                return  # whoever asked has gone

    await trio.serve_listeners(connected, [listener])


def _not_as_agreed(receiver: Receiver, head: h11.Request, body: Mapping[str, object]) -> str | None:
    """What is wrong with how it was asked: whoever shows another token is nobody, and a key tells repetitions."""
    headers = {name.decode().lower(): value.decode() for name, value in head.headers}
    if headers.get("authorization") != f"Bearer {receiver.token}":
        return "an announcement came with another token than the receiver's"
    if headers.get("idempotency-key") != body.get("jobId"):
        return f"an announcement of {body.get('jobId')} came with the key {headers.get('idempotency-key')!r}"
    return None


def _text_of(body: Mapping[str, object]) -> str:
    return str(body.get("message") or body.get("text") or "")


async def _heard(receiver: Receiver, connection: HttpConnection, job: str, text: str) -> int | None:
    """Nobody waits for what a hanging one would say once whoever asked has gone."""
    said: list[int | None] = [None]
    async with trio.open_nursery() as nursery:

        async def until_gone() -> None:
            with suppress(HungUp):
                await connection.wait_hang_up()
            nursery.cancel_scope.cancel()

        nursery.start_soon(until_gone)
        said.append(await receiver.hear(job, text))
        nursery.cancel_scope.cancel()
    return said[-1]
