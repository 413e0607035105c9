"""The connections that pass on what chats have to be told."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager

import trio
from attrs import define, field, frozen

from opencode_actors.door import notices
from opencode_actors.door.connection import Guest
from opencode_actors.door.faults import CloseCode
from opencode_actors.door.results import Document
from opencode_actors.errors import StoreError, UsageError
from opencode_actors.kernel.outbox import Attendance
from opencode_actors.kernel.system import System


@frozen(eq=False)
class _Attendant:
    guest: Guest
    scope: trio.CancelScope = field(factory=trio.CancelScope, init=False)


@define(eq=False)
class Attendants:
    """One for each name: a gateway that comes back is not kept out by what it was before."""

    system: System
    nursery: trio.Nursery
    _by_name: dict[str, _Attendant] = field(factory=dict[str, _Attendant], init=False)

    async def attend(self, name: str, guest: Guest) -> Document:
        entered = self.system.attend()
        older = self._by_name.get(name)
        if older is not None:
            older.scope.cancel()
            if older.guest is not guest:
                older.guest.close(CloseCode.REPLACED, f"another connection attends as {name}")
        attendant = self._by_name[name] = _Attendant(guest)
        self.nursery.start_soon(self._deliver, attendant, entered)
        await trio.lowlevel.checkpoint()
        return {"attending": name}

    async def acknowledge(self, id_: str, guest: Guest) -> Document:
        if not any(attendant.guest is guest for attendant in self._by_name.values()):
            raise UsageError("this connection does not attend", hint="call attend first")
        await self.system.acknowledge(id_)
        return {}

    def gone(self, guest: Guest) -> None:
        for name, attendant in tuple(self._by_name.items()):
            if attendant.guest is guest:
                attendant.scope.cancel()
                del self._by_name[name]

    async def _deliver(self, attendant: _Attendant, entered: AbstractAsyncContextManager[Attendance]) -> None:
        with attendant.scope:
            try:
                async with entered as attendance:
                    async for announced in attendance:
                        attendant.guest.say("deliver", notices.delivery(announced))
            except StoreError as error:
                attendant.guest.close(CloseCode.GOING_AWAY, error.message)
