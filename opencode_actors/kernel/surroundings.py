"""What all actors of a system live in, and how the rest of it reaches a job."""

from __future__ import annotations

import random
from collections.abc import Callable

import trio
from attrs import define, field, frozen

from opencode_actors.kernel.hub import Hub
from opencode_actors.kernel.mailbox import Mailbox
from opencode_actors.kernel.servers import Servers
from opencode_actors.kernel.supervisor import Supervisor
from opencode_actors.machines.job_messages import JobMessage
from opencode_actors.machines.vocabulary import JobId, Moment, SessionKey
from opencode_actors.ports import Engine
from opencode_actors.settings import Settings
from opencode_actors.store.port import Store


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
    hub: Hub = field(factory=Hub, init=False)
    supervisor: Supervisor = field(factory=Supervisor, init=False)
    addresses: dict[JobId, JobAddress] = field(factory=dict[JobId, JobAddress], init=False)

    def moment(self) -> Moment:
        """The only place where a decision's clock and die are read."""
        return Moment(now=trio.current_time(), wall=self.wall(), roll=self.rng.random())

    def job_mailbox(self, job: JobId) -> Mailbox[JobMessage] | None:
        address = self.addresses.get(job)
        return address.mailbox if address is not None else None
