"""`serve` with an engine that goes away while it begins."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from attrs import evolve

from opencode_actors.cli import serve
from opencode_actors.cli.status import Status
from opencode_actors.containers import ModelAccess
from opencode_actors.door.serving import Address
from opencode_actors.machines.vocabulary import Leave
from opencode_actors.model_access import ChosenModel
from opencode_actors.ports import ListedContainer
from opencode_actors.settings import Settings
from opencode_actors.settings_sources import load_settings
from opencode_actors.testing.fake_engine import FakeEngine


@asynccontextmanager
async def _model(settings: Settings) -> AsyncGenerator[ChosenModel]:
    await trio.lowlevel.checkpoint()
    yield ChosenModel(settings=settings, access=ModelAccess())


class _GoesAway(FakeEngine):
    """As soon as it has said which containers there are."""

    async def list(self, labels: Mapping[str, str]) -> tuple[ListedContainer, ...]:
        found = await FakeEngine.list(self, labels)
        self.go_away()
        return found


async def test_an_engine_that_goes_away_when_the_jobs_are_taken_over_does_not_end_the_service(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has jobs at work by then, and waits for the engine as it does at any other time."""
    engine = _GoesAway()

    @asynccontextmanager
    async def opened(*, runtime: str, socket: str) -> AsyncGenerator[FakeEngine]:
        assert (runtime, socket) == ("podman", "")
        await trio.lowlevel.checkpoint()
        yield engine

    monkeypatch.setattr(serve, "open_engine", opened)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
        told.settimeout(30.0)
        told.bind(str(tmp_path / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        settings = Settings(
            model="scripted/demo", sessions_dir=tmp_path / "s", workspaces_dir=tmp_path / "w", door_port=0
        )
        statuses: list[Status] = []

        async def run() -> None:
            loaded = evolve(load_settings(environment={}), settings=settings)
            address = Address(host="127.0.0.1", port=0)
            statuses.append(await serve.serve_until_told(loaded, address, _model(settings), Leave.NOTHING))

        async with trio.open_nursery() as nursery:
            nursery.cancel_scope.deadline = trio.current_time() + 30.0
            nursery.start_soon(run)
            said = ""
            while "READY=1" not in said:
                said = (await trio.to_thread.run_sync(told.recv, 4096)).decode()
            os.kill(os.getpid(), signal.SIGTERM)
    assert statuses == [Status.OK]
