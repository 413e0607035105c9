"""What all actors of a system live in, and how the rest of it reaches a job."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from contextlib import suppress

import trio
from attrs import define, field, frozen

from opencode_actors.errors import StoreError
from opencode_actors.kernel.hub import Hub
from opencode_actors.kernel.mailbox import Mailbox
from opencode_actors.kernel.servers import Servers
from opencode_actors.kernel.supervisor import Supervisor
from opencode_actors.machines.job_messages import JobMessage
from opencode_actors.machines.matters import Matrix
from opencode_actors.machines.notices import Notice, Record
from opencode_actors.machines.vocabulary import JobId, Moment, SessionKey
from opencode_actors.ports import Engine
from opencode_actors.routes import Route
from opencode_actors.settings import Settings
from opencode_actors.store.port import Store

_log = logging.getLogger("opencode_actors")

RECORD_AGAIN = 5.0


@frozen
class JobAddress:
    session: SessionKey
    mailbox: Mailbox[JobMessage]


@define(eq=False, repr=False, kw_only=True)
class Surroundings:
    """`nursery` is where actors run; it outlives a cancellation by the time that shutting down takes."""

    settings: Settings
    engine: Engine
    store: Store
    servers: Servers
    nursery: trio.Nursery
    rng: random.Random
    wall: Callable[[], float]
    notify: bool = False  # whether the end of a job is announced
    matrix: Matrix = field(factory=Matrix)
    routes: tuple[Route, ...] = ()
    hub: Hub = field(factory=Hub, init=False)
    supervisor: Supervisor = field(factory=Supervisor, init=False)
    addresses: dict[JobId, JobAddress] = field(factory=dict[JobId, JobAddress], init=False)

    def moment(self) -> Moment:
        """The only place where a decision's clock and die are read."""
        return Moment(now=trio.current_time(), wall=self.wall(), roll=self.rng.random())

    async def announce(self, *notices: Notice, records: tuple[Record, ...] = ()) -> None:
        """For an actor that is not there any more. What cannot be recorded is told all the same, and recorded
        as soon as it can be: the next process would take a job for open, and go on with it; and who was away
        would never hear of its end, nor OpenClaw."""
        try:
            await self.store.append(records, notices, at=self.wall())
        except StoreError as error:
            names = ", ".join(type(notice).__name__ for notice in notices)
            _log.error("%s could not be recorded: %s", names, error)
            for notice in notices:
                self.hub.publish(notice)
            if records:
                self.nursery.start_soon(self._record_later, records, notices)

    async def _record_later(self, records: tuple[Record, ...], notices: tuple[Notice, ...]) -> None:
        """For as long as the system is open, and that bounds it: a disk may be full for days, and a record that was
        given up would be a job that the next process goes on with. There is one of these for each actor that ended
        meanwhile, and a full disk lets no new one begin."""
        recorded = False
        while not recorded:
            await trio.sleep(RECORD_AGAIN)
            with suppress(StoreError):
                await self.store.append(records, notices, at=self.wall())
                recorded = True

    def job_mailbox(self, job: JobId) -> Mailbox[JobMessage] | None:
        address = self.addresses.get(job)
        return address.mailbox if address is not None else None
