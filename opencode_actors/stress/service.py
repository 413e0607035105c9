"""The system under test as its clients see it: there, gone, or there again; followed all the time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import trio
from attrs import define, field

from opencode_actors.errors import NoService, OpencodeActorsError
from opencode_actors.kernel.hub import NoticesMissed
from opencode_actors.kernel.supervisor import Supervisor
from opencode_actors.machines.notices import InputWanted, JobEnded, Notice
from opencode_actors.machines.vocabulary import JobId
from opencode_actors.stress.judge import Judge
from opencode_actors.stress.leaving import Ends
from opencode_actors.stress.wanderers import Record
from opencode_actors.stress.watchers import Watcher
from opencode_actors.stress.worlds import Face, Live, World

T = TypeVar("T")

# Any call has its answer within this, however the world is.
ANSWERED_WITHIN = 900.0
_UP_AGAIN_AFTER = 5.0
_KNOWN_WITHIN = 0.5


class NoAnswer(Exception):
    """The service was killed meanwhile, or a rule is broken already."""


def _nobody_answers(notice: InputWanted) -> None:
    """Until somebody does."""


def _nobody_looks(notice: JobEnded) -> None:
    """Until somebody does."""


@define(eq=False)
class Service:
    """`begin` keeps a system there until `close`; it may be without one for `begins_within` seconds. `wanted` is
    called for each question of an agent, and `ended` for each end. What the system raises that is none of its own errors is a bug, which
    the supervisor logs and the run hears."""

    world: World
    judge: Judge
    begins_within: float
    wanted: Callable[[InputWanted], None] = field(default=_nobody_answers)
    ended: Callable[[JobEnded], None] = field(default=_nobody_looks)
    generation: int = 0
    live: Live | None = None
    reached: int = 0
    record: Record = field(factory=Record)
    watchers: dict[JobId, Watcher] = field(factory=dict[JobId, Watcher])
    _nursery: trio.Nursery | None = None
    _life: trio.Nursery | None = None
    _scope: trio.CancelScope = field(factory=trio.CancelScope)
    _why_not: str = "it was not begun"
    _closing: trio.Event = field(factory=trio.Event)
    _closed: trio.Event = field(factory=trio.Event)
    _changed: trio.Event = field(factory=trio.Event)
    _over: trio.Event = field(factory=trio.Event)  # that this life is
    _down: float = 0.0
    _ends: Ends = field(factory=Ends)
    _calls: dict[trio.CancelScope, str] = field(factory=dict[trio.CancelScope, str])
    _supervisor: Supervisor = field(factory=Supervisor)

    def begin(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        nursery.start_soon(self._live, 0.0)

    async def close(self) -> None:
        """Returns when the system has ended, or is not tried to be begun any more."""
        self._closing.set()
        self._over.set()
        await self._closed.wait()

    def end(self, *, down: float) -> None:
        """In order, with whatever is at work; the next one begins so many seconds after it has ended."""
        if self.live is None:
            return
        if self.live.face is not self.live.inside:
            self.judge.earshot.lost(trio.current_time())  # its door is closed first
        self.live, self._down = None, down
        now, jobs = trio.current_time(), frozenset(file.id for file in self.judge.unsettled)
        self._ends.ended(now, self.world.leave, jobs)
        self.judge.findings.saw(now, "the service is told to end")
        self._over.set()

    def kill(self, *, down: float) -> None:
        """As by `kill -9`; the next one begins after so many seconds."""
        if self.live is None or self._nursery is None:
            return
        self.live = None
        self.judge.earshot.lost(trio.current_time())
        self.world.kill()
        self._scope.cancel()
        for call in self._calls:
            call.cancel()
        self.judge.service_ended(trio.current_time())
        self._nursery.start_soon(self._live, down)

    async def call(self, name: str, make: Callable[[Face], Awaitable[T]]) -> T:
        """Asks the system as soon as there is one. Raises `NoAnswer`, and what the system raises."""
        live = await self.wait_begun()
        if live is None:
            raise NoAnswer
        face, generation = live.face, self.generation
        answers: list[T] = []
        refusals: list[OpencodeActorsError] = []
        gone: list[NoService] = []

        async def ask() -> None:
            try:
                answers.append(await make(face))
            except NoService as lost:
                gone.append(lost)
            except OpencodeActorsError as error:
                refusals.append(error)

        with trio.move_on_after(ANSWERED_WITHIN) as scope:
            self._calls[scope] = name
            try:
                await self._supervisor.watch(name, ask)
            finally:
                del self._calls[scope]
        if answers:
            return answers[0]
        for refusal in refusals:
            if not self._is_alive(generation):
                raise NoAnswer  # it is ending, and whoever wants it asks the next one
            raise refusal
        for lost in gone:
            await self._lost(name, lost.message, generation)
        if scope.cancelled_caught and self._is_alive(generation):
            self._broke("every ask is answered", f"{name} had no answer in {ANSWERED_WITHIN:g} s")
        raise NoAnswer

    def watch(self, watcher: Watcher) -> None:
        """From now on, in this life and in all others until it is over; one for each job."""
        if watcher.job not in self.watchers:
            self.watchers[watcher.job] = watcher
            self._watch_on(watcher)

    async def wait_settled(self) -> None:
        """Until every job that was accepted has ended."""
        while self.judge.unsettled:
            await self._changed.wait()

    async def wait_for(self, what: Callable[[], T | None]) -> T:
        """Until it is there; looked at whenever something was told."""
        while (found := what()) is None:
            await self._changed.wait()
        return found

    async def wait_up(self) -> Live:
        while self.live is None:
            await self._changed.wait()
        return self.live

    async def wait_begun(self) -> Live | None:
        """The one that runs, or begins soon enough; that there is none is a broken rule."""
        with trio.move_on_after(self.begins_within):
            return await self.wait_up()
        self._broke("the service begins", f"there was none for {self.begins_within:g} s: {self._why_not}")
        return None

    async def _lost(self, name: str, why: str, generation: int) -> None:
        """A connection may break with its service, which is known to be killed within this time."""
        await trio.sleep(_KNOWN_WITHIN)
        if self._is_alive(generation):
            self._broke("every ask is answered", f"{name} had no answer: {why}")

    # ---- one life

    async def _live(self, down: float) -> None:
        again: float | None = down
        while again is not None:
            with trio.move_on_after(again):
                await self._closing.wait()
            if self._closing.is_set():
                self._closed.set()
                return
            again = await self._lived()

    async def _lived(self) -> float | None:
        """After how many seconds there has to be another one; None when it was killed, or is the last one."""
        began: list[Live] = []

        async def live() -> None:
            # The followers outlive it: they are told of the ends that it makes.
            async with trio.open_nursery() as nursery:
                try:
                    async with self.world.system() as live:
                        began.append(live)
                        self.generation += 1
                        self.live, self._over = live, trio.Event()
                        nursery.start_soon(self._follow, began[-1], self.generation)
                        nursery.start_soon(self._recall, began[-1].face)
                        self._life = nursery
                        for watcher in self.watchers.values():
                            self._watch_on(watcher)
                        self._tell()
                        if not self._closing.is_set():
                            await self._over.wait()
                        self.live = None
                except OpencodeActorsError as error:
                    self._why_not = error.message
                    self.judge.findings.saw(trio.current_time(), f"no service: {error.message}")
                await self._has_ended(embedded=bool(began) and began[-1].face is began[-1].inside)
                nursery.cancel_scope.cancel()

        with trio.CancelScope() as self._scope:
            await self._supervisor.watch("the system", live)
            if not began:
                return _UP_AGAIN_AFTER
            if self._closing.is_set():
                self._closed.set()
                return None
            self.judge.service_ended(trio.current_time())
            return self._down
        return None

    async def _has_ended(self, *, embedded: bool) -> None:
        """Who asked it something before has an answer by now, or sees that there will be none. A client outside may
        have asked when nobody listened any more."""
        await trio.sleep(_KNOWN_WITHIN)
        for scope, name in tuple(self._calls.items()):
            if embedded:
                self._broke("every ask is answered", f"{name} had no answer when the service had ended")
            scope.cancel()

    async def _follow(self, live: Live, generation: int) -> None:
        try:
            async with live.follow(self.reached) as told:
                self.judge.earshot.back(trio.current_time())
                async for notice in told:
                    self._noticed(notice)
        except NoService as lost:
            await self._lost("follow", lost.message, generation)

    def _watch_on(self, watcher: Watcher) -> None:
        if self._life is not None and self.live is not None and not watcher.over:
            self._life.start_soon(self._watch, watcher, self.live, self.generation)

    async def _watch(self, watcher: Watcher, live: Live, generation: int) -> None:
        why = "nothing more comes, and the job has not ended"
        try:
            await watcher.follow(live)
        except OpencodeActorsError as error:
            why = error.message
        if not watcher.over:
            await self._lost(f"the follower of job {watcher.number}", why, generation)

    async def _recall(self, face: Face) -> None:
        for job in sorted(self.judge.doubtful):
            try:
                self.judge.recalled(job, await face.status(job), trio.current_time())
            except OpencodeActorsError:
                return  # it was killed again
        left = self._ends.take()
        for job in sorted(left.jobs):
            try:
                wrong = left.wrong(await face.status(job), self.judge.hits)
            except OpencodeActorsError:
                return
            if wrong:
                file = self.judge.files[job]
                self.judge.findings.broke(
                    "an end leaves what it should",
                    trio.current_time(),
                    wrong,
                    session=file.session,
                    job=file.number,
                )
        self._tell()

    def _noticed(self, notice: Notice | NoticesMissed) -> None:
        now = trio.current_time()
        if isinstance(notice, NoticesMissed):
            self._broke("every notice is told", f"{notice.count} were missed")
            return
        self.reached = max(self.reached, notice.seq)
        self.record.add(notice)
        self.judge.noticed(notice, now)
        if isinstance(notice, InputWanted):
            self.wanted(notice)
        if isinstance(notice, JobEnded):
            self.ended(notice)
        self._tell()

    def _is_alive(self, generation: int) -> bool:
        return generation == self.generation and self.live is not None

    def _tell(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    def _broke(self, rule: str, text: str) -> None:
        self.judge.findings.broke(rule, trio.current_time(), text)
