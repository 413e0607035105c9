"""The engine's own word on which containers live: the backstop behind the watch on each one's process.

A container's end is known from its process within milliseconds. Should that ever fail, the engine's event
stream tells of it, and a list of what there is, taken after each connection and every `LIST_EVERY` seconds,
tells what the stream did not: a missed end costs seconds, and never correctness.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

import trio
from attrs import define, field

from opencode_actors.containers import OWNER_LABEL
from opencode_actors.errors import ContainerMissing, EngineError
from opencode_actors.kernel.mailbox import Mailbox
from opencode_actors.machines.session_messages import ContainerFoundDead, SessionMessage
from opencode_actors.ports import ContainerId, ContainerPhase, Death, Engine, EngineEventKind

_log = logging.getLogger("opencode_actors")

LIST_EVERY = 30.0
# The watch on the process knows more (memory, the exit code) and is nearly always first: 12-100 ms.
PATIENCE = 2.0
RECONNECT_AFTER = 1.0

Running = Callable[[], Mapping[ContainerId, Mailbox[SessionMessage]]]


async def watch_engine(engine: Engine, *, owner: str, running: Running) -> None:
    """Runs until it is cancelled. `running` says which containers are believed to run, and whom to tell."""
    watch = _Watch(engine, {OWNER_LABEL: owner}, running)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch.list_regularly)
        await watch.listen(nursery)


@define(eq=False)
class _Watch:
    engine: Engine
    labels: Mapping[str, str]
    running: Running
    connected: trio.Event = field(factory=trio.Event, init=False)

    async def listen(self, nursery: trio.Nursery) -> None:
        away = False
        while True:
            try:
                async with self.engine.events(self.labels) as events:
                    away = False
                    self.connected.set()  # what happened before was not heard
                    async for event in events:
                        if event.kind in (EngineEventKind.DIED, EngineEventKind.REMOVED):
                            removed = event.kind is EngineEventKind.REMOVED
                            death = Death(exit_code=event.exit_code, oom_killed=False, removed=removed)
                            if event.container in self.running():
                                nursery.start_soon(self._tell_late, event.container, death)
            except EngineError as error:
                if not away:
                    _log.warning("the engine's events cannot be followed: %s", error.message)
                away = True
            await trio.sleep(RECONNECT_AFTER)

    async def list_regularly(self) -> None:
        while True:
            with trio.move_on_after(LIST_EVERY):
                await self.connected.wait()
            self.connected = trio.Event()
            believed = tuple(self.running())
            if not believed:
                continue
            try:
                listed = {found.id: found.phase for found in await self.engine.list(self.labels)}
                for container in believed:
                    if listed.get(container) in (ContainerPhase.RUNNING, ContainerPhase.PAUSED):
                        continue
                    await self._tell_late(container, await self._death(container))
            except EngineError:
                continue  # it is asked again, and listening tells that it is away

    async def _death(self, container: ContainerId) -> Death:
        try:
            found = await self.engine.inspect(container)
        except ContainerMissing:
            return Death(exit_code=None, oom_killed=False, removed=True)
        return Death(exit_code=found.exit_code, oom_killed=False)

    async def _tell_late(self, container: ContainerId, death: Death) -> None:
        await trio.sleep(PATIENCE)
        mailbox = self.running().get(container)
        if mailbox is not None:
            _log.warning("container %s has ended, and only the engine said so", container)
            mailbox.put(ContainerFoundDead(container=container, death=death))
