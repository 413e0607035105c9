"""A mailbox: who waits for a place, who never waits, and what becomes of all of them when it closes."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from opencode_actors import Busy
from opencode_actors.kernel.mailbox import PLACES, Letter, Mailbox, Ticket

from .schedules import schedules


async def test_letters_are_read_in_the_order_that_they_were_put_in() -> None:
    mailbox = Mailbox[str]("the actor")
    ticket = Ticket("work", 1)
    mailbox.put("one")
    await mailbox.send("two")
    mailbox.put("three", ticket, last=True)
    assert [await mailbox.receive() for _ in range(3)] == [
        Letter("one"),
        Letter("two", takes_place=True),
        Letter("three", ticket, last=True),
    ]


@schedules(5)
async def test_an_outsider_waits_for_a_place_and_gets_the_one_that_becomes_free(
    autojump_clock: trio.testing.MockClock,
) -> None:
    mailbox = Mailbox[int]("the actor")
    sent: list[int] = []

    async def send(number: int) -> None:
        await mailbox.send(number)
        sent.append(number)

    async with trio.open_nursery() as nursery:
        for number in range(PLACES + 3):
            nursery.start_soon(send, number)
        await trio.testing.wait_all_tasks_blocked()
        assert len(sent) == PLACES
        assert mailbox.statistics().outsiders_waiting == 3
        for expected in (PLACES + 1, PLACES + 2, PLACES + 3):
            await mailbox.receive()
            await trio.testing.wait_all_tasks_blocked()
            assert len(sent) == expected


async def test_who_would_rather_not_wait_is_told_that_it_is_full() -> None:
    mailbox = Mailbox[int]("session demo")
    for number in range(PLACES):
        mailbox.send_nowait(number)
    with pytest.raises(Busy, match="session demo has 64 requests waiting"):
        mailbox.send_nowait(PLACES)
    await mailbox.receive()
    mailbox.send_nowait(PLACES)


def test_own_work_and_peers_never_wait_however_full_it_is() -> None:
    mailbox = Mailbox[int]("the actor")
    for number in range(PLACES):
        mailbox.send_nowait(number)
    for number in range(PLACES):
        mailbox.put(number)
    assert mailbox.statistics().waiting == 2 * PLACES


async def test_an_outsider_that_gives_up_takes_no_place(autojump_clock: trio.testing.MockClock) -> None:
    mailbox = Mailbox[int]("the actor")
    for number in range(PLACES):
        mailbox.send_nowait(number)
    with trio.move_on_after(1) as scope:
        await mailbox.send(PLACES)
    assert scope.cancelled_caught
    await mailbox.receive()
    mailbox.send_nowait(PLACES)
    assert mailbox.statistics().waiting == PLACES


@schedules(5)
async def test_a_stream_waits_until_there_is_less_than_a_full_mailbox_to_read() -> None:
    mailbox = Mailbox[int]("the actor")
    for number in range(PLACES + 1):
        mailbox.put(number)
    waited = trio.Event()

    async def stream() -> None:
        await mailbox.wait_room()
        waited.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(stream)
        for _ in range(2):
            await trio.testing.wait_all_tasks_blocked()
            assert not waited.is_set()
            await mailbox.receive()
        await waited.wait()


@schedules(5)
async def test_closing_lets_everybody_go_and_drops_what_is_in_it() -> None:
    mailbox = Mailbox[int]("the actor")
    for number in range(PLACES):
        mailbox.send_nowait(number)
    async with trio.open_nursery() as nursery:
        for number in range(10):
            nursery.start_soon(mailbox.send, number)
        nursery.start_soon(mailbox.wait_room)
        await trio.testing.wait_all_tasks_blocked()
        mailbox.close()
    # and whoever comes later is not held either
    for number in range(2 * PLACES):
        await mailbox.send(number)
        mailbox.send_nowait(number)
        mailbox.put(number)
    await mailbox.wait_room()
    assert mailbox.statistics().waiting == 0
    assert repr(mailbox) == "<Mailbox of the actor, closed>"
