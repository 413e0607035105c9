"""How a container's death is known at once, and with its true cause.

A pidfd on the container's first process becomes readable 1 ms after its end (an event takes 34-163 ms).
The exit code follows from the engine 12-101 ms later; for a call or two it may still say "running".
One that was killed by a signal may be about to be removed, which takes Podman 0.2-0.4 s to say.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable

import trio
from attrs import define, frozen

from opencode_actors.adapters.cgroup import Cgroups
from opencode_actors.adapters.engine_dialect import Inspected, Passing
from opencode_actors.adapters.oom_watch import OomWatch, open_oom_watch
from opencode_actors.errors import ContainerMissing, EngineRefused, EngineUnavailable
from opencode_actors.ports import Container, ContainerId, ContainerPhase, Death

# Podman's clean-up takes 0.1-0.4 s, and 20 s where its run root's path is too long.
EXIT_CODE_WITHIN = 30.0
# A daemon that is restarted answers again within seconds.
ENGINE_BACK_WITHIN = 5.0
# `podman rm --force` kills at once, and the container is gone 0.22-0.4 s later. Until then it looks like one
# that was killed and nothing more: neither states nor events tell the two apart (12 of each watched).
REMOVED_WITHIN = 1.0
# SIGKILL and SIGTERM, as exit codes.
_SIGNALLED = (137, 143)
_SERVER_ERROR = 500
# Podman's own clean-up and the removal wait for the same lock; whichever comes first.
_AFTER_CLEAN_UP = 0.1
# How often the engine is asked where the kernel cannot tell: some 5 ms of work each.
ASK_AGAIN = 1.0

Inspect = Callable[[ContainerId], Awaitable[Inspected]]


@frozen
class _Answer:
    """`death` is None while the engine has not taken note of it; `certain` is whether nothing else than this
    can have happened."""

    death: Death | None
    passing: Passing | None
    certain: bool = False


@define
class _Doubt:
    """Whether a container that was ended by a signal is one that somebody removes."""

    by_us: Callable[[], bool]
    says_stopping: bool
    death: Death | None = None
    _nobody: bool = False
    _somebody: bool = False
    _cleaned_up_at: float | None = None

    def settled_by(self, answer: _Answer, now: float) -> Death | None:
        """The death, when nothing more can come."""
        self._somebody = self._somebody or answer.passing is Passing.STOPPING
        if answer.death is None:
            # When nobody was stopping it after it had died, nobody did.
            self._nobody = self._nobody or (self.says_stopping and answer.passing is None)
            return None
        self.death = answer.death
        if answer.certain or self._nobody or self.by_us():
            return self.death
        if answer.passing is not None or self._somebody:
            return None
        if self._cleaned_up_at is None:
            self._cleaned_up_at = now
        return self.death if now >= self._cleaned_up_at + _AFTER_CLEAN_UP else None


async def wait_exit(
    container: Container,
    *,
    inspect: Inspect,
    cgroups: Cgroups,
    by_us: Callable[[], bool],
    says_stopping: bool,
) -> Death:
    """Returns when the run that `container` describes has ended. May be cancelled at any time.

    `by_us` is whether we have asked for its end ourselves: nobody else needs to be looked for then.
    `says_stopping` is whether the engine has a state of its own for what is being stopped, as Podman has.
    """
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
    return await _cause(container, inspect, oom=oom, doubt=_Doubt(by_us, says_stopping))


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


async def _cause(container: Container, inspect: Inspect, *, oom: bool | None, doubt: _Doubt) -> Death:
    """The exit code from the engine, which needs a moment to know it, and whether somebody removes it."""
    begun = trio.current_time()
    pause = 0.01
    while (now := trio.current_time()) < begun + EXIT_CODE_WITHIN:
        try:
            found = await _ask(container, inspect, oom=oom)
        except EngineUnavailable:
            if container.pid == 0:
                raise
            # That it died is certain, whatever becomes of the engine.
            if now > begun + ENGINE_BACK_WITHIN:
                return doubt.death or Death(exit_code=None, oom_killed=bool(oom))
        except EngineRefused as refusal:
            # Podman's answer about one that it is just removing.
            if doubt.death is None or refusal.status < _SERVER_ERROR:
                raise
        else:
            death = doubt.settled_by(found, trio.current_time())
            if death is not None:
                return death
        if doubt.death is not None and now > begun + REMOVED_WITHIN:
            return doubt.death
        await trio.sleep(pause)
        pause = min(pause * 2, 0.5 if doubt.death is None else 0.05)
    raise EngineRefused(
        f"the engine still calls container {container.name} running {EXIT_CODE_WITHIN:g} s after its process"
        f" {container.pid} ended",
        status=500,
        hint="Either the engine runs on another machine, or its clean-up fails: see its log.",
    )


async def _ask(container: Container, inspect: Inspect, *, oom: bool | None) -> _Answer:
    try:
        answer = await inspect(container.id)
    except ContainerMissing:
        return _Answer(Death(exit_code=None, oom_killed=bool(oom), removed=True), None, certain=True)
    now = answer.container
    if now.phase is ContainerPhase.CREATED:
        raise EngineRefused(f"container {container.name} was never started", status=409)
    if now.phase is ContainerPhase.EXITED:
        death = Death(exit_code=now.exit_code, oom_killed=answer.oom_flag if oom is None else oom)
        # Who removes a container stops it or kills it first.
        signalled = now.exit_code in _SIGNALLED and not death.oom_killed
        return _Answer(death, answer.passing, certain=not signalled)
    if now.pid != container.pid:  # somebody started it again meanwhile
        return _Answer(Death(exit_code=container.exit_code, oom_killed=bool(oom)), None, certain=True)
    return _Answer(None, answer.passing)
