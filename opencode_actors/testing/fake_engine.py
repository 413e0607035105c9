"""A container engine in memory: the `Engine` port without containers, sockets or threads.

    engine = FakeEngine(on_start=serve, on_exit=hang_up)    # what "runs" in a started container
    engine.refuse("start", EngineRefused("no space left", status=500), times=2)
    engine.crash("oa-demo", exit_code=139)

It takes time only where it is told to, and then trio's (`MockClock` included). Where the real engines
differ it does what is hardest on its caller: a call that is cancelled, or whose engine goes away before it
answers, has had its effect, a port changes with every start, no event tells of memory, a container that is removed leaves no exit code.
"""

from __future__ import annotations

import math
import os
from collections import Counter, deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from hashlib import sha256
from typing import Literal

import trio
from attrs import define, evolve, field

from opencode_actors.errors import (
    ContainerMissing,
    EngineError,
    EngineRefused,
    EngineUnavailable,
    ImageMissing,
)
from opencode_actors.ports import (
    Container,
    ContainerId,
    ContainerPhase,
    ContainerSpec,
    Death,
    EngineEvent,
    EngineEventKind,
    EngineInfo,
    ImageInfo,
    ListedContainer,
    Process,
    Usage,
)
from opencode_actors.testing.fake_container import (
    FAKE_INFO,
    Deed,
    EngineTrouble,
    FakeContainer,
    FakeEngineStatistics,
    FakeEventStream,
    FakeRun,
)

Verb = Literal[
    "info", "image", "create", "start", "stop", "kill", "pause", "unpause",
    "remove", "inspect", "list", "events", "usage", "processes", "log", "wait_exit",
]  # fmt: skip
_ENDS: tuple[Verb, ...] = ("stop", "kill", "remove")

# As long as the real adapter waits for an engine that is away before it reports a death without a cause.
ENGINE_BACK_WITHIN = 5.0
# A subscriber that lets this many events lie is cut off, as a real engine's socket would do to it.
EVENTS_HELD = 1024


def _nothing(container: FakeContainer) -> None:
    """A world in which started containers just sit there."""


def _nothing_more(container: FakeContainer, death: Death) -> None:
    """A world that takes no notice of deaths."""


@define(eq=False, repr=False)
class FakeEngine:
    """`on_start` is called when a container runs (it may end it at once with `end`), `on_exit` when it
    has ended, both before the call that caused it returns."""

    on_start: Callable[[FakeContainer], None] = field(default=_nothing)
    on_exit: Callable[[FakeContainer, Death], None] = field(default=_nothing_more)
    start_delay: float = field(default=0.0, kw_only=True)
    reports: EngineInfo = field(default=FAKE_INFO, kw_only=True)
    oom_events: bool = field(default=False, kw_only=True)  # Docker sends them, Podman on cgroup v1 does not
    images: set[str] = field(factory=lambda: {"localhost/opencode-actors:latest"}, kw_only=True)
    containers: dict[ContainerId, FakeContainer] = field(
        factory=dict[ContainerId, FakeContainer], init=False, repr=False
    )
    calls: deque[tuple[Verb, str]] = field(factory=lambda: deque(maxlen=10_000), init=False)
    asked: list[Deed] = field(factory=list[Deed], init=False)  # whole: it is looked at when all is over
    _counts: Counter[str] = field(factory=Counter[str], init=False)
    _refusals: dict[Verb, EngineTrouble] = field(factory=dict[Verb, EngineTrouble], init=False)
    _delays: dict[Verb, EngineTrouble] = field(factory=dict[Verb, EngineTrouble], init=False)
    _lies: dict[Verb, list[EngineTrouble]] = field(factory=dict[Verb, list[EngineTrouble]], init=False)
    _departures: int = field(default=0, init=False)
    _named: dict[str, ContainerId] = field(factory=dict[str, ContainerId], init=False)
    _back: trio.Event | None = field(default=None, init=False)
    _mute: bool = field(default=False, init=False)
    _streams: dict[trio.MemorySendChannel[EngineEvent], Mapping[str, str]] = field(
        factory=dict[trio.MemorySendChannel[EngineEvent], Mapping[str, str]], init=False
    )
    _serial: int = field(default=0, init=False)

    def __repr__(self) -> str:
        states = ", ".join(f"{found.name} {found.phase.value}" for found in self.containers.values())
        return f"<FakeEngine{' (away)' if self._back else ''}: {states or 'no containers'}>"

    # ---- what a test does to it

    def refuse(self, verb: Verb, error: EngineError, *, times: int = 1) -> EngineTrouble:
        """The next `times` calls of `verb` raise `error` and have no effect."""
        trouble = self._refusals[verb] = EngineTrouble(error=error, times=times)
        return trouble

    def delay(self, verb: Verb, seconds: float) -> EngineTrouble:
        """Each call of `verb` has its effect at once and returns `seconds` later; `math.inf` never."""
        trouble = self._delays[verb] = EngineTrouble(seconds=seconds)
        return trouble

    def lie(self, verb: Literal["stop", "kill", "pause", "unpause", "remove"]) -> EngineTrouble:
        """`verb` answers that it is done, and does nothing."""
        trouble = EngineTrouble(lies=True)
        self._lies.setdefault(verb, []).append(trouble)
        return trouble

    def be_honest(self) -> None:
        """Ends all refusals, delays and lies."""
        self._refusals.clear()
        self._delays.clear()
        self._lies.clear()

    def go_away(self) -> None:
        """Every call raises `EngineUnavailable` and every event stream ends; the containers live on."""
        if self._back is None:
            self._back = trio.Event()
            self._departures += 1
        self.break_streams()

    def come_back(self) -> None:
        if self._back is not None:
            self._back.set()
            self._back = None

    def break_streams(self) -> None:
        """Every event stream ends with `EngineUnavailable`; the engine itself goes on."""
        for stream in tuple(self._streams):
            stream.close()
        self._streams.clear()

    def swallow_events(self, *, swallow: bool = True) -> None:
        """What happens is told to nobody, as when an engine loses an event."""
        self._mute = swallow

    def crash(self, container: ContainerId | str, *, exit_code: int = 1, oom: bool = False) -> None:
        """It ends by itself: `exit_code` 128 + n for a signal; `oom` for want of memory (then 137)."""
        found = self.find(container)
        if oom:
            found.oom_kills += 1
            if self.oom_events:
                self._tell(EngineEventKind.OOM, found)
        self.end(found, Death(exit_code=137 if oom else exit_code, oom_killed=oom))

    def take_away(self, container: ContainerId | str) -> None:
        """Somebody removes it by force."""
        found = self.find(container)
        del self.containers[found.id], self._named[found.name]
        self.end(found, Death(exit_code=None, oom_killed=False, removed=True))
        self._tell(EngineEventKind.REMOVED, found)

    def freeze(self, container: ContainerId | str) -> None:
        """It runs on and answers nothing, neither its clients nor SIGTERM; only SIGKILL ends it."""
        self.find(container).settle_cpu()
        self.find(container).frozen = True

    def thaw(self, container: ContainerId | str) -> None:
        self.find(container).settle_cpu()
        self.find(container).frozen = False

    def end(self, container: FakeContainer, death: Death) -> None:
        """The end of the current run; nothing when there is none."""
        run = container.run
        if run is None or not container.is_alive:
            return
        container.settle_cpu()
        container.phase = ContainerPhase.EXITED
        container.frozen = False
        run.death = death
        run.ended.set()
        self._tell(EngineEventKind.DIED, container, exit_code=death.exit_code)
        self.on_exit(container, death)

    def find(self, container: ContainerId | str) -> FakeContainer:
        """By id or name. Raises `ContainerMissing`."""
        found = self.containers.get(self._named.get(container, ContainerId(container)))
        if found is None:
            raise ContainerMissing(f"The fake engine knows no container {container}")
        return found

    def statistics(self) -> FakeEngineStatistics:
        return FakeEngineStatistics(
            containers=len(self.containers),
            running=sum(found.is_alive for found in self.containers.values()),
            streams=len(self._streams),
            calls=dict(self._counts),
        )

    # ---- the port

    async def info(self) -> EngineInfo:
        await self._called("info")
        return self.reports

    def directory_owner(self) -> tuple[int, int]:
        """Nothing here writes into a mounted directory, so it stays whose it is."""
        return os.geteuid(), os.getegid()

    async def image(self, reference: str) -> ImageInfo:
        await self._called("image", reference)
        self._need_image(reference)
        return ImageInfo(
            id=sha256(reference.encode()).hexdigest(),
            reference=reference,
            size_bytes=1 << 20,
            labels={},
            architecture="amd64",
        )

    async def create(self, spec: ContainerSpec) -> ContainerId:
        self._call("create", spec.name)
        self._need_image(spec.image)
        if spec.name in self._named:
            raise EngineRefused(f"a container named {spec.name} exists already", status=409)
        for mount in spec.mounts:
            if not mount.source.exists():
                raise EngineRefused(f"cannot mount {mount.source}: it does not exist", status=400)
        self._serial += 1
        container = FakeContainer(ContainerId(f"{self._serial:064x}"), spec)
        self.containers[container.id] = container
        self._named[container.name] = container.id
        await self._answer("create")
        return container.id

    async def start(self, container: ContainerId) -> Container:
        self._call("start", container)
        found = self.find(container)
        if not found.is_alive:
            self._run(found)
        await self._answer("start", self.start_delay)
        return self.find(container).snapshot()

    def _run(self, container: FakeContainer) -> None:
        self._serial += 1
        port = None if container.spec.port is None else 40_000 + self._serial % 20_000
        container.run = FakeRun(pid=100_000 + self._serial, port=port)
        container.phase = ContainerPhase.RUNNING
        container.oom_kills = 0
        container.daemons.clear()
        container.set_cpu_load(0.0)
        self._tell(EngineEventKind.STARTED, container)
        self.on_start(container)

    async def stop(self, container: ContainerId, *, grace: float) -> None:
        self._call("stop", container)
        found = self.find(container)
        run = found.run
        if run is not None and found.is_alive and not self._lies_about("stop"):
            if found.phase is ContainerPhase.PAUSED:
                self._resume(found)
            found.ignored += found.ignores_sigterm
            takes = math.inf if found.ignores_sigterm or found.frozen else found.sigterm_takes
            with trio.move_on_after(min(grace, takes)):
                await run.ended.wait()
            if found.run is run:  # and not a later one
                code = found.sigterm_exit_code if takes <= grace else 137
                self.end(found, Death(exit_code=code, oom_killed=False))
        await self._answer("stop")

    async def kill(self, container: ContainerId, *, signal: str = "SIGKILL") -> None:
        self._call("kill", container)
        found = self.find(container)
        if not self._lies_about("kill"):
            if signal == "SIGKILL":
                self.end(found, Death(exit_code=137, oom_killed=False))
            elif signal == "SIGTERM" and not (found.ignores_sigterm or found.frozen):
                self.end(found, Death(exit_code=found.sigterm_exit_code, oom_killed=False))
        await self._answer("kill")

    async def pause(self, container: ContainerId) -> None:
        self._call("pause", container)
        found = self.find(container)
        self._need(found, ContainerPhase.RUNNING, "pause")
        if not self._lies_about("pause"):
            found.settle_cpu()
            found.phase = ContainerPhase.PAUSED
        await self._answer("pause")

    async def unpause(self, container: ContainerId) -> None:
        self._call("unpause", container)
        found = self.find(container)
        self._need(found, ContainerPhase.PAUSED, "unpause")
        if not self._lies_about("unpause"):
            self._resume(found)
        await self._answer("unpause")

    async def remove(self, container: ContainerId | str) -> None:
        self._call("remove", container)
        if not self._lies_about("remove"):
            try:
                found = self.find(container)
            except ContainerMissing:
                pass
            else:
                self.take_away(found.id)
        await self._answer("remove")

    async def inspect(self, container: ContainerId | str) -> Container:
        await self._called("inspect", container)
        return self.find(container).snapshot()

    async def list(self, labels: Mapping[str, str]) -> tuple[ListedContainer, ...]:
        await self._called("list")
        return tuple(
            ListedContainer(id=found.id, name=found.name, labels=dict(found.spec.labels), phase=found.phase)
            for found in self.containers.values()
            if found.carries(labels)
        )

    @asynccontextmanager
    async def events(self, labels: Mapping[str, str]) -> AsyncGenerator[AsyncIterator[EngineEvent]]:
        await self._called("events")
        send, receive = trio.open_memory_channel[EngineEvent](EVENTS_HELD)
        self._streams[send] = dict(labels)
        try:
            yield FakeEventStream(receive)
        finally:
            self._streams.pop(send, None)
            send.close()
            receive.close()

    async def usage(self, container: Container) -> Usage:
        await self._called("usage", container.name)
        found = self._running(container)
        return Usage(
            cpu_seconds=found.cpu_seconds(),
            memory_bytes=found.memory_bytes,
            pids=found.pids,
            oom_kills=found.oom_kills,
        )

    async def processes(self, container: Container) -> tuple[Process, ...]:
        """The kernel tells it, not the engine: also while the engine is away."""
        self._note("processes", container.name)
        found = self._running(container).processes()
        await self._take_time("processes")
        return found

    def _running(self, container: Container) -> FakeContainer:
        found = self.find(container.id)
        if not found.is_alive or found.run is None or found.run.pid != container.pid:
            raise ContainerMissing(f"container {container.name} does not run")
        return found

    async def log(self, container: ContainerId | str, *, lines: int = 20) -> str:
        await self._called("log", container)
        return "".join(self.find(container).log.splitlines(keepends=True)[-lines:])

    async def wait_exit(self, container: Container) -> Death:
        self._call("wait_exit", container.name)
        try:
            found = self.find(container.id)
        except ContainerMissing:
            await trio.lowlevel.checkpoint()
            return Death(exit_code=None, oom_killed=False, removed=True)
        run = found.run
        if run is None:
            raise EngineRefused(f"container {container.name} was never started", status=409)
        if container.pid not in (0, run.pid):  # an earlier run, long over
            await trio.lowlevel.checkpoint()
            return Death(exit_code=None, oom_killed=False)
        await run.ended.wait()
        await self._take_time("wait_exit")
        return await self._cause(run)

    async def _cause(self, run: FakeRun) -> Death:
        """An engine that is away can be asked for no cause, although the death is known."""
        death = run.death or Death(exit_code=None, oom_killed=False)
        if self._back is not None:
            with trio.move_on_after(ENGINE_BACK_WITHIN):
                await self._back.wait()
        return death if self._back is None else evolve(death, exit_code=None)

    async def aclose(self) -> None:
        self.break_streams()
        await trio.lowlevel.checkpoint()

    # ---- inside

    async def _called(self, verb: Verb, what: str = "") -> None:
        self._call(verb, what)
        await self._answer(verb)

    def _note(self, verb: Verb, what: str) -> None:
        self.calls.append((verb, what))
        self._counts[verb] += 1
        if verb in _ENDS:
            self.asked.append(self._deed(verb, what))

    def _deed(self, verb: Verb, what: str) -> Deed:
        now, found = trio.current_time(), self.containers.get(self._named.get(what, ContainerId(what)))
        run = None if found is None or not found.is_alive else found.run
        whom, ran = what if found is None else found.name, None if run is None else now - run.since
        return Deed(at=now, verb=verb, whom=whom, ran=ran)

    def _call(self, verb: Verb, what: str = "") -> None:
        self._note(verb, what)
        if self._back is not None:
            raise EngineUnavailable("The fake engine is away")
        refusal = self._refusals.get(verb)
        if refusal is not None and refusal.error is not None and refusal.times > 0 and not refusal.over:
            refusal.times -= 1
            refusal.met += 1
            raise _anew(refusal.error)

    def _lies_about(self, verb: Verb) -> bool:
        lies = [trouble for trouble in self._lies.get(verb, ()) if not trouble.over]
        for trouble in lies:
            trouble.met += 1
        return bool(lies)

    async def _answer(self, verb: Verb, at_least: float = 0.0) -> None:
        """What the call was for has happened; an engine that goes away before it has said so never says it."""
        departures = self._departures
        await self._take_time(verb, at_least)
        if self._departures != departures:
            raise EngineUnavailable("The fake engine went away before it answered")

    async def _take_time(self, verb: Verb, at_least: float = 0.0) -> None:
        delay = self._delays.get(verb)
        if delay is None or delay.over:
            await trio.sleep(at_least)
            return
        delay.met += 1
        await trio.sleep(max(at_least, delay.seconds))

    def _need_image(self, reference: str) -> None:
        if reference not in self.images:
            raise ImageMissing(
                f"The fake engine has no image {reference}", hint="Add it to the engine's `images`."
            )

    def _need(self, container: FakeContainer, phase: ContainerPhase, verb: Verb) -> None:
        if container.phase is not phase:
            raise EngineRefused(
                f"could not {verb} container {container.name}: it is {container.phase.value}", status=409
            )

    def _resume(self, container: FakeContainer) -> None:
        container.settle_cpu()
        container.phase = ContainerPhase.RUNNING

    def _tell(self, kind: EngineEventKind, container: FakeContainer, *, exit_code: int | None = None) -> None:
        if self._mute:
            return
        event = EngineEvent(
            kind=kind, container=container.id, labels=dict(container.spec.labels), exit_code=exit_code
        )
        for stream, labels in tuple(self._streams.items()):
            if not container.carries(labels):
                continue
            try:
                stream.send_nowait(event)
            except trio.WouldBlock:
                stream.close()
                del self._streams[stream]


def _anew(error: EngineError) -> EngineError:
    """An error keeps the frames of whoever it was raised to, and all that stands in them, for as long as it lives
    itself: here, longer than the system that it was told to."""
    fresh = type(error).__new__(type(error), *error.args)
    vars(fresh).update(vars(error))
    return fresh
