"""The end of a job reaches a webhook once: real sockets, the real journal, whatever the receiver does (P16, P17).

Engine and servers are fakes; the clock is the real one, and the first delay is a short one.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from attrs import evolve

from opencode_actors import JobId, NotificationFailed, Origin, Settings, System, open_system
from opencode_actors.machines import outbox
from opencode_actors.testing.fake_engine import FakeEngine
from opencode_actors.testing.fake_opencode import FakeServers, open_fake_servers
from opencode_actors.testing.fake_server import FakeBehaviour
from opencode_actors.testing.provider_demo import demo_script
from tests.receiver import (
    Behaviour,
    Receiver,
    answering,
    dripping,
    open_receiver,
    repeating,
    saying,
    silent,
)

TAKEN = answering(200, b'{"ok": true}')
CHAT = Origin(session_key="agent:main:lab")


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "FIRST_DELAY", 0.01)


@pytest.fixture
async def servers() -> AsyncGenerator[FakeServers]:
    async with open_fake_servers(FakeBehaviour(script=demo_script)) as opened:
        yield opened


@asynccontextmanager
async def service(
    folder: Path, servers: FakeServers, url: str, *, within: float = 60.0
) -> AsyncGenerator[System]:
    settings = Settings(
        model="scripted/demo",
        sessions_dir=folder / "sessions",
        workspaces_dir=folder / "workspaces",
        notify_webhook_url=url,
        hooks_token="t-1",
        notify_timeout=within,
    )
    engine = FakeEngine(on_start=servers.on_start, on_exit=servers.on_exit)
    with trio.fail_after(120):
        async with open_system(settings, engine=engine, connect=servers.connect, notify=True) as system:
            yield system


async def finished(system: System, origin: Origin | None = None) -> JobId:
    job = await system.start("::say hello", origin=origin)
    await job.wait()
    return job.id


async def _nothing_more(receiver: Receiver, folder: Path, servers: FakeServers) -> None:
    """Another process finds nothing left to tell."""
    before = len(receiver.received)
    async with service(folder, servers, f"{receiver.url}/agent"):
        pass
    assert len(receiver.received) == before


@pytest.mark.parametrize(
    ("behaviour", "within"),
    [
        pytest.param(answering(500), 60.0, id="an error"),
        pytest.param(answering(503), 60.0, id="not now"),
        pytest.param(answering(429, headers="retry-after: 0\r\n"), 60.0, id="too many"),
        pytest.param(
            answering(
                429, headers=f"retry-after: {time.strftime('%a, %d %b %Y %H:%M:%S GMT', time.gmtime())}\r\n"
            ),
            60.0,
            id="too many until a date",
        ),
        pytest.param(saying(b""), 60.0, id="closed without a word"),
        pytest.param(saying(b"HTTP/1.1 200 OK\r\nx-half"), 60.0, id="closed half-way"),
        pytest.param(saying(b"\x00\xffnonsense\r\n\r\n"), 60.0, id="garbage"),
        pytest.param(silent, 0.3, id="silence"),
        pytest.param(dripping(b"HTTP/1.1 200 OK\r\n", b"x: y\r\n"), 0.3, id="drip-fed headers"),
        pytest.param(repeating(b"HTTP/1.1 500 X\r\n\r\n", b"y" * 65536), 60.0, id="a body without end"),
    ],
)
async def test_P16_whatever_a_receiver_does_first_it_is_told_once_it_listens(
    behaviour: Behaviour, within: float, tmp_path: Path, servers: FakeServers
) -> None:
    async with open_receiver(behaviour, TAKEN) as receiver:
        async with service(tmp_path, servers, f"{receiver.url}/agent", within=within) as system:
            job = await finished(system)
            first, second = await receiver.wait(2)
            assert first == second
            assert second.headers["idempotency-key"] == job
        await _nothing_more(receiver, tmp_path, servers)


@pytest.mark.parametrize("status", [301, 400, 401, 404])
async def test_P16_a_refusal_for_good_is_told_and_not_tried_again(
    status: int, tmp_path: Path, servers: FakeServers
) -> None:
    async with open_receiver(answering(status), TAKEN) as receiver:
        async with service(tmp_path, servers, f"{receiver.url}/agent") as system:
            everything = system.follow()
            refused = await finished(system)
            with trio.fail_after(60):
                async for notice in everything:
                    if isinstance(notice, NotificationFailed):
                        break
                else:
                    raise AssertionError("nobody was told")
            assert notice.about == refused
            assert notice.reason.startswith(f"HTTP {status}")
            taken = await finished(system)
            await receiver.wait(2)
        await _nothing_more(receiver, tmp_path, servers)
        assert [one.headers["idempotency-key"] for one in receiver.received] == [refused, taken]


async def test_P16_the_chat_that_asked_is_woken(tmp_path: Path, servers: FakeServers) -> None:
    not_allowed = answering(400, b'{"ok": false, "error": "sessionKey is not allowed"}')
    async with open_receiver(TAKEN, not_allowed, TAKEN) as receiver:
        async with service(tmp_path, servers, f"{receiver.url}/agent") as system:
            await finished(system, CHAT)
            await receiver.wait(1)
            await finished(system, CHAT)
            woken, tried, run = await receiver.wait(3)
        assert (woken.path, woken.body["sessionKey"]) == ("/hooks/wake", "agent:main:lab")
        assert woken.headers["authorization"] == "Bearer t-1"
        assert (tried.path, run.path) == ("/hooks/wake", "/hooks/agent")
        assert "sessionKey" not in run.body


async def test_P17_jobs_that_end_together_before_a_restart_are_told_once_after_it(
    tmp_path: Path, servers: FakeServers
) -> None:
    async with open_receiver(TAKEN) as receiver:
        nobody = "http://127.0.0.1:1/hooks/agent"
        async with service(tmp_path, servers, nobody) as system:
            jobs = [await system.start("::say hello") for _ in range(2)]
            for job in jobs:
                await job.wait()
        async with service(tmp_path, servers, f"{receiver.url}/agent"):
            await receiver.wait(2)
        await _nothing_more(receiver, tmp_path, servers)
        keys = [one.headers["idempotency-key"] for one in receiver.received]
        assert sorted(keys) == sorted(job.id for job in jobs)


async def test_one_of_both_ways_and_never_both(tmp_path: Path, servers: FakeServers) -> None:
    async with open_receiver(TAKEN) as receiver:
        async with service(tmp_path, servers, f"{receiver.url}/wake") as system:
            async with system.attend() as attendance:
                taken = await finished(system, CHAT)
                assert (await anext(attendance)).job.id == taken
                await system.acknowledge(taken)
                left = await finished(system, CHAT)
                assert (await anext(attendance)).job.id == left
            await receiver.wait(1)
        await _nothing_more(receiver, tmp_path, servers)
        assert [one.body["jobId"] for one in receiver.received] == [left]


async def test_without_a_token_nothing_is_sent_and_that_is_said_once(
    tmp_path: Path, servers: FakeServers, caplog: pytest.LogCaptureFixture
) -> None:
    settings = Settings(
        model="scripted/demo", sessions_dir=tmp_path / "sessions", workspaces_dir=tmp_path / "workspaces"
    )
    engine = FakeEngine(on_start=servers.on_start, on_exit=servers.on_exit)
    for url in (settings.notify_webhook_url, ""):
        chosen = evolve(settings, notify_webhook_url=url)
        async with open_system(chosen, engine=engine, connect=servers.connect, notify=True) as system:
            await finished(system)
            await finished(system)
    said = [record.getMessage() for record in caplog.records if "hooks token" in record.getMessage()]
    assert len(said) == 1
