"""The front door as a stress run's clients use it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import cast

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from opencode_actors.door.client import Client
from opencode_actors.errors import NoService
from opencode_actors.stress.door_face import DoorFace, open_face


@asynccontextmanager
async def _nobody_listens() -> AsyncGenerator[Client]:
    await trio.Event().wait()
    yield cast(Client, None)


async def test_a_call_that_waits_for_a_line_when_the_service_ends_finds_no_service(
    autojump_clock: MockClock,
) -> None:
    assert autojump_clock.autojump_threshold == 0
    first, said = trio.CancelScope(), list[str]()

    async def call(face: DoorFace, scope: trio.CancelScope) -> None:
        with scope:
            try:
                await face.sessions()
            except NoService as error:
                said.append(error.message)

    async with trio.open_nursery() as nursery:
        async with open_face(_nobody_listens) as live:
            face = cast(DoorFace, live.face)
            nursery.start_soon(call, face, first)
            await wait_all_tasks_blocked()
            nursery.start_soon(call, face, trio.CancelScope())
            await wait_all_tasks_blocked()
        first.cancel()
    assert said == ["the service has ended"]
