"""How a container's death is known at once, and with its true cause.

A pidfd on the container's first process becomes readable 1 ms after its end (an event takes 34-163 ms).
The exit code follows from the engine 12-101 ms later; for a call or two it may still say "running".
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable

import trio

from opencode_actors.adapters.cgroup import Cgroups
from opencode_actors.adapters.engine_dialect import Inspected
from opencode_actors.adapters.oom_watch import OomWatch, open_oom_watch
from opencode_actors.errors import ContainerMissing, EngineRefused, EngineUnavailable
from opencode_actors.ports import Container, ContainerId, ContainerPhase, Death

# Podman's clean-up takes 0.1-0.4 s, and 20 s where its run root's path is too long.
EXIT_CODE_WITHIN = 30.0
# A daemon that is restarted answers again within seconds.
ENGINE_BACK_WITHIN = 5.0
# How often the engine is asked where the kernel cannot tell: some 5 ms of work each.
ASK_AGAIN = 1.0

Inspect = Callable[[ContainerId], Awaitable[Inspected]]


async def wait_exit(container: Container, *, inspect: Inspect, cgroups: Cgroups) -> Death:
    """Returns when the run that `container` describes has ended. May be cancelled at any time."""
    oom: bool | None = None
    try:
        process = _open_process(container.pid)
    except OSError:  # no descriptor is left, or it is forbidden here
        await _until_engine_says(container, inspect)
        process = None
    if process is not None:
        try:
            # The pid may have been given to another process before the pidfd was opened.
            if await _is_ours(container, inspect, cgroups):
                oom = await _until_dead(process, container, cgroups)
        finally:
            os.close(process)
    return await _cause(container, inspect, oom=oom)


def _open_process(pid: int) -> int | None:
    """None when it has ended; `OSError` when the kernel gives no pidfd on it."""
    if pid <= 0:
        return None
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        return None


async def _is_this_run(container: Container, inspect: Inspect) -> bool:
    try:
        now = (await inspect(container.id)).container
    except ContainerMissing:
        return False
    return now.pid == container.pid


async def _is_ours(container: Container, inspect: Inspect, cgroups: Cgroups) -> bool:
    """Where no engine answers, the kernel's word does: the cgroup of a container has its id in its name."""
    try:
        return await _is_this_run(container, inspect)
    except EngineUnavailable:
        try:
            ours = cgroups.own_folder(container.pid, container.id, "memory") is not None
        except OSError:
            ours = False
        if not ours:
            raise
        return True


async def _until_engine_says(container: Container, inspect: Inspect) -> None:
    while await _is_this_run(container, inspect):  # noqa: ASYNC110 - nothing tells us
        await trio.sleep(ASK_AGAIN)


async def _until_dead(process: int, container: Container, cgroups: Cgroups) -> bool | None:
    watch = open_oom_watch(cgroups, container.pid, container.id)
    if watch is None:
        await trio.lowlevel.wait_readable(process)
        return None
    try:
        return await _watched_until_dead(process, watch)
    finally:
        watch.close()


async def _watched_until_dead(process: int, watch: OomWatch) -> bool | None:
    verdict: bool | None = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch.follow)
        await trio.lowlevel.wait_readable(process)
        verdict = watch.verdict()
        nursery.cancel_scope.cancel()
    return verdict


async def _cause(container: Container, inspect: Inspect, *, oom: bool | None) -> Death:
    """The exit code from the engine, which needs a moment to know it."""
    begun = trio.current_time()
    pause = 0.01
    while trio.current_time() < begun + EXIT_CODE_WITHIN:
        try:
            death = await _ask(container, inspect, oom=oom)
        except EngineUnavailable:
            if container.pid == 0:
                raise
            # That it died is certain, whatever becomes of the engine.
            if trio.current_time() > begun + ENGINE_BACK_WITHIN:
                return Death(exit_code=None, oom_killed=bool(oom))
        else:
            if death is not None:
                return death
        await trio.sleep(pause)
        pause = min(pause * 2, 0.5)
    raise EngineRefused(
        f"the engine still calls container {container.name} running {EXIT_CODE_WITHIN:g} s after its process"
        f" {container.pid} ended",
        status=500,
        hint="Either the engine runs on another machine, or its clean-up fails: see its log.",
    )


async def _ask(container: Container, inspect: Inspect, *, oom: bool | None) -> Death | None:
    """None while the engine has not taken note of the end."""
    try:
        answer = await inspect(container.id)
    except ContainerMissing:
        return Death(exit_code=None, oom_killed=bool(oom), removed=True)
    now = answer.container
    if now.phase is ContainerPhase.CREATED:
        raise EngineRefused(f"container {container.name} was never started", status=409)
    if now.phase is ContainerPhase.EXITED:
        return Death(exit_code=now.exit_code, oom_killed=answer.oom_flag if oom is None else oom)
    if now.pid != container.pid:  # somebody started it again meanwhile
        return Death(exit_code=container.exit_code, oom_killed=bool(oom))
    return None
