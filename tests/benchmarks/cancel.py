"""How long a cancel takes by each rung of its ladder, beside the call by hand that does the work of that rung.

    python -m tests.benchmarks.cancel [ROUNDS]

Abort: an answer that streams. By hand: OpenCode's abort call, until its event stream says that the conversation is
idle. Stop: a command left a daemon, which no abort ends, so `abortGrace` (3 s here) passes and the container is
stopped. By hand: the engine's stop of a container in the same state. Kill: the same in a container that ignores
SIGTERM, so `stopGrace` (1 s) passes, too. By hand: the engine's kill. Remove: the same with an engine that does nothing
when it is asked to kill, so `killGrace` (1 s) passes, too. By hand: the engine's forced removal. The graces are settings,
and waited for on purpose; what is ours is the rest. By hand the clock stops when the kernel says that the container's
first process has ended, as ours does; the call itself answers later, when Podman has cleaned up, and that stands beside
it. Both sides take turns.
"""

from __future__ import annotations

import os
import sqlite3
import statistics
import sys
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager, closing
from pathlib import Path
from time import perf_counter

import httpx
import trio
from attrs import define, evolve, field

from opencode_actors import Job, Rung, Settings, System
from opencode_actors.adapters.engine import DockerApiEngine, open_engine
from opencode_actors.adapters.engine_http import engine_http_client
from opencode_actors.machines.notices import OutputAdded
from opencode_actors.ports import ContainerId
from tests.e2e.gentle import GentleEngine
from tests.e2e.rig import Rig, container_of, eventually, living, open_rig, until

_ABORT_GRACE, _STOP_GRACE, _KILL_GRACE = 3.0, 1.0, 1.0
_WITHIN = 60
_GONE = 404
_STREAMS = "::words 100000 rate=20"
_GRACES = {
    Rung.ABORT: 0.0,
    Rung.STOP: _ABORT_GRACE,
    Rung.KILL: _ABORT_GRACE + _STOP_GRACE,
    Rung.REMOVE: _ABORT_GRACE + _STOP_GRACE + _KILL_GRACE,
}


class PowerlessEngine(GentleEngine):
    """It ends nothing but by removing it."""

    async def kill(self, container: ContainerId, *, signal: str = "SIGKILL") -> None:
        if signal != "SIGKILL":
            await DockerApiEngine.kill(self, container, signal=signal)


@define
class Times:
    by_hand: list[float] = field(factory=list[float])
    answered: list[float] = field(factory=list[float])
    ours: list[float] = field(factory=list[float])


# ---- abort


async def abort_by_us(system: System, times: Times) -> None:
    job = await system.start(_STREAMS, session="abort")
    await until(system.follow(job.id), OutputAdded)
    await _cancelled(job, Rung.ABORT, times)


async def abort_by_hand(rig: Rig, times: Times) -> None:
    with closing(sqlite3.connect(rig.settings.sessions_dir / "journal.sqlite")) as database:
        query = "SELECT url, password FROM sessions WHERE key = 'abort'"
        url, password = database.execute(query).fetchone()
    async with (
        httpx.AsyncClient(
            base_url=url, auth=("opencode", password), timeout=_WITHIN, trust_env=False
        ) as server,
        server.stream("GET", "/global/event") as events,
    ):
        lines = events.aiter_lines()
        session = (await server.post("/session", json={"title": "by hand"})).json()["id"]
        body = {"parts": [{"type": "text", "text": _STREAMS}]}
        (await server.post(f"/session/{session}/prompt_async", json=body)).raise_for_status()
        async for line in lines:
            if "message.part.delta" in line and session in line:
                break
        began = perf_counter()
        (await server.post(f"/session/{session}/abort")).raise_for_status()
        async for line in lines:
            if "session.idle" in line and session in line:
                break
        times.by_hand.append(perf_counter() - began)
        times.answered.append(times.by_hand[-1])


# ---- stop, kill and remove


async def ended_by_us(system: System, rung: Rung, times: Times, label: str) -> None:
    job = await _with_a_daemon(system, f"{label}-ours")
    await _cancelled(job, rung, times)
    await system.close_session(f"{label}-ours")


async def ended_by_hand(system: System, rung: Rung, times: Times, label: str) -> None:
    assert isinstance(system.engine, DockerApiEngine)
    job = await _with_a_daemon(system, f"{label}-hand")
    container = await container_of(system, f"{label}-hand")
    path = f"/v1.41/containers/{container.id}"
    first = os.pidfd_open(container.pid)
    try:
        async with (
            engine_http_client(system.engine.socket, answer_within=_WITHIN) as client,
            trio.open_nursery() as nursery,
        ):
            began = perf_counter()

            async def died() -> None:
                await trio.lowlevel.wait_readable(first)
                times.by_hand.append(perf_counter() - began)

            nursery.start_soon(died)
            if rung is Rung.STOP:
                answer = await client.post(f"{path}/stop", params={"t": 10})
            elif rung is Rung.KILL:
                (await client.post(f"{path}/kill", params={"signal": "SIGKILL"})).raise_for_status()
                answer = await client.post(f"{path}/wait")
            else:
                answer = await client.delete(path, params={"force": "true"})
            times.answered.append(perf_counter() - began)
            if answer.status_code != _GONE:  # the system that found it dead has removed it
                answer.raise_for_status()
    finally:
        os.close(first)
    await job.wait()
    await system.close_session(f"{label}-hand")


async def _with_a_daemon(system: System, session: str) -> Job:
    # A number that no other command line of this machine has.
    daemon = f"{abs(hash(session)) % 10**8:08}471"
    job = await system.start(
        f"::bash (setsid sleep {daemon} >/dev/null 2>&1 &); sleep {daemon}1", session=session
    )
    with trio.fail_after(_WITHIN):
        await eventually(lambda: len(living(f"sleep {daemon}")) > 1)
        await eventually(lambda: bool(living(f"sleep {daemon}1")))
    return job


async def _cancelled(job: Job, rung: Rung, times: Times) -> None:
    began = perf_counter()
    ended = await job.cancel()
    times.ours.append(perf_counter() - began)
    assert ended.climb is not None
    assert ended.climb.ended_by is rung, ended.climb


@asynccontextmanager
async def open_systems() -> AsyncGenerator[tuple[Rig, System, dict[Rung, System]]]:
    """One that is patient with an abort; and for each rung behind it one that gets there, because it is not, because
    its containers hear nothing but SIGKILL, and because its engine cannot kill."""
    async with AsyncExitStack() as stack:
        rig = await stack.enter_async_context(open_rig("podman"))
        settings = evolve(
            rig.settings,
            abort_grace=_ABORT_GRACE,
            stop_grace=_STOP_GRACE,
            kill_grace=_KILL_GRACE,
            max_sessions=4,
        )
        patient = await stack.enter_async_context(rig.system(evolve(rig.settings, abort_grace=_WITHIN)))
        others: dict[Rung, System] = {}
        kinds = {Rung.STOP: None, Rung.KILL: GentleEngine, Rung.REMOVE: PowerlessEngine}
        for rung, kind in kinds.items():
            engine = kind and kind.of(await stack.enter_async_context(open_engine(runtime="podman")))
            its = _elsewhere(settings, rig.base / rung.name.lower())
            others[rung] = await stack.enter_async_context(rig.system(its, engine=engine))
        yield rig, patient, others


def _elsewhere(settings: Settings, base: Path) -> Settings:
    return evolve(settings, sessions_dir=base / "sessions", workspaces_dir=base / "workspaces")


async def main(rounds: int) -> None:
    found = {rung: Times() for rung in _GRACES}
    async with open_systems() as (rig, patient, others):
        await (await patient.start("::say hello", session="abort")).wait()
        for number in range(rounds):
            await abort_by_hand(rig, found[Rung.ABORT])
            await abort_by_us(patient, found[Rung.ABORT])
            for rung, system in others.items():
                label = f"{rung.name.lower()}-{number}"
                await ended_by_hand(system, rung, found[rung], label)
                await ended_by_us(system, rung, found[rung], label)
            print(f"round {number + 1} of {rounds}", file=sys.stderr)  # noqa: T201
    columns = f"{'':8}{'by hand':>11}{'answered':>11}{'cancel':>11}{'graces':>11}{'the rest':>11}{'ratio':>8}"
    print(f"{columns}   medians of {rounds}")  # noqa: T201
    for rung, times in found.items():
        there, here = statistics.median(times.by_hand), statistics.median(times.ours)
        answered, rest = statistics.median(times.answered), here - _GRACES[rung]
        print(  # noqa: T201
            f"{rung.name.lower():8}{there:9.3f} s{answered:9.3f} s{here:9.3f} s{_GRACES[rung]:9.1f} s{rest:9.3f} s"
            f"{rest / there:8.2f}"
        )


if __name__ == "__main__":
    trio.run(main, int(sys.argv[1]) if len(sys.argv) > 1 else 5)
