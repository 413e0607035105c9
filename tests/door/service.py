"""The whole service but for its process: a door with a system of fakes behind it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import trio
from attrs import evolve, frozen

from opencode_actors.door.limits import Limits
from opencode_actors.door.methods import SystemDesk
from opencode_actors.door.results import About
from opencode_actors.door.serving import Address, Door, open_door
from opencode_actors.kernel.system import System
from opencode_actors.machines.vocabulary import Failure
from opencode_actors.settings import Settings
from tests.door.room import PLENTY, TOKEN
from tests.kernel.world import SETTINGS, World, open_world

NO_WEBHOOK = evolve(SETTINGS, notify_webhook_url="")


@frozen
class Service:
    world: World
    system: System
    door: Door


@asynccontextmanager
async def a_service(settings: Settings = NO_WEBHOOK) -> AsyncGenerator[Service]:
    with trio.fail_after(PLENTY):
        async with (
            open_world() as world,
            world.system(settings, notify=True) as system,
            trio.open_nursery() as nursery,
        ):
            about = About(version="0.1.0", pid=1, started_at=1.5, engine=await system.engine.info())
            desk = SystemDesk(system, about, Limits(), explained, nursery)
            address = Address(host="127.0.0.1", port=0)
            async with open_door(address, desk, token=TOKEN, report=lambda _: None) as door:
                yield Service(world, system, door)
            nursery.cancel_scope.cancel()


def explained(failure: Failure) -> tuple[str, str]:
    return failure.message, "look at the log"
