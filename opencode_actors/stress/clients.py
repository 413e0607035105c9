"""Everybody who uses the system in a stress run: those who want jobs done, and those who do no good."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

import trio
from attrs import define, field

from opencode_actors.errors import OpencodeActorsError, RequestGone, UnknownSession
from opencode_actors.kernel.system import SystemStatistics
from opencode_actors.machines.notices import InputWanted, JobEnded
from opencode_actors.machines.vocabulary import JobId, JobSnapshot, RequestKind
from opencode_actors.stress import looks
from opencode_actors.stress.files import JobFile
from opencode_actors.stress.judge import Judge
from opencode_actors.stress.plan import Plan, PlannedFault, PlannedJob
from opencode_actors.stress.refusals import unfounded
from opencode_actors.stress.scenario import FaultKind
from opencode_actors.stress.service import NoAnswer, Service
from opencode_actors.stress.wanderers import Wanderer
from opencode_actors.stress.watchers import Watcher
from opencode_actors.stress.windows import Excuse, Hit, excused
from opencode_actors.stress.worlds import Face

# A mailbox has 64 places for outsiders; what an actor started itself comes beside them.
MOST_WAITING = 64 + 192
# More than that ask at one moment, after so many looks.
_CROWD, _CROWD_LOOKS, _CROWDS_AT = 2 * MOST_WAITING, 5, 10
_WANDERERS = 3
# What was forgotten ends as soon as it has cleaned up behind itself.
_LETS_GO_WITHIN = 20.0
_LOOKS_BACK = 0.3  # the share of looks at what may be over
# The shares of those who think that they had no answer: at once, and long after that.
_ASKED_TWICE, _ASKED_LATE = 0.2, 0.4
# Of all jobs, by their rolls: followed from the beginning, from what was told last, and when it is over.
_FROM_THE_BEGINNING, _FROM_NOW, _WHEN_OVER = 0.6, 0.75, 0.9


@define(eq=False)
class Clients:
    service: Service
    judge: Judge
    rng: random.Random
    nursery: trio.Nursery
    plan: Plan
    look_every: float
    starting: Counter[str] = field(factory=Counter[str])
    refused: dict[str, int] = field(factory=dict[str, int])
    most_waiting: int = 0
    wanderers: list[Wanderer] = field(factory=list[Wanderer])
    _crowded: bool = False
    _lingers: dict[str, float] = field(factory=dict[str, float])  # since when something forgotten does

    # ---- who wants something done

    async def want(self, planned: PlannedJob) -> None:
        """One job, from the moment when somebody wants it. Asked again when the service is gone meanwhile."""
        since, key = trio.current_time(), f"stress-{self.plan.seed}-{planned.number}"
        self.starting[planned.session] += 1
        try:
            job = await self._start(planned, key)
        finally:
            self.starting[planned.session] -= 1
        if job is None:
            return
        file = self.judge.accepted(job, planned, trio.current_time(), since)
        if _FROM_THE_BEGINNING <= planned.roll < _WHEN_OVER:
            reached = 0 if planned.roll < _FROM_NOW else self.service.reached
            self.service.watch(Watcher(job, planned.number, reached))
        if planned.roll < _ASKED_TWICE:
            await self._start_again(job, planned, key)
        if planned.cancel_after is not None:
            await trio.sleep(planned.cancel_after)
            await self._cancel(file)
        if _ASKED_TWICE <= planned.roll < _ASKED_LATE:
            scenario = self.plan.scenario
            await trio.sleep(min(planned.roll * scenario.duration, scenario.settle_within / 2))
            await self._start_again(job, planned, key)

    async def _start_again(self, job: JobId, planned: PlannedJob, key: str) -> None:
        again = await self._start(planned, key)
        if again not in (job, None):
            text = f"{job} and {again} are one prompt, asked for twice under one key"
            self.judge.findings.broke("one job for each prompt", trio.current_time(), text)

    async def _start(self, planned: PlannedJob, key: str) -> JobId | None:
        while True:
            await trio.lowlevel.checkpoint()
            generation = self.service.generation
            try:
                job = await self.service.call(
                    "start",
                    lambda face: face.start(planned.prompt, session=planned.session, key=key),
                )
            except NoAnswer:
                if self.service.generation == generation and self.service.live is not None:
                    return None
                continue
            except OpencodeActorsError as error:
                self._refused(planned, error)
                return None
            return job.id

    def _refused(self, planned: PlannedJob, error: OpencodeActorsError) -> None:
        now, name = trio.current_time(), type(error).__name__
        self.refused[name] = self.refused.get(name, 0) + 1
        self.judge.findings.saw(now, f"refused: {error.message}", session=planned.session, job=planned.number)
        others = self.starting - Counter({planned.session: 1})
        wrong = unfounded(self.judge, planned.session, error, now, others)
        if wrong is not None:
            self.judge.findings.broke(
                "refused for a reason", now, wrong, session=planned.session, job=planned.number
            )

    async def _cancel(self, file: JobFile) -> None:
        since = trio.current_time()
        self.judge.cancel_asked(file.id, since)
        try:
            end = await self.service.call("cancel", lambda face: face.cancel(file.id))
        except NoAnswer:
            return
        except OpencodeActorsError as error:
            self._unexpected("cancel", error)
            return
        self.judge.cancelled(file.id, end, trio.current_time(), since)

    def wanted(self, notice: InputWanted) -> None:
        self.nursery.start_soon(self._answer, notice, self.rng.random(), self.rng.uniform(0.0, 20.0))

    async def _answer(self, notice: InputWanted, roll: float, after: float) -> None:
        """Two people answer at once, or nobody does."""
        if roll < 0.3:
            return
        await trio.sleep(after)
        file = self.judge.files[notice.job]
        async with trio.open_nursery() as nursery:
            for word in ("yes", "no"):
                nursery.start_soon(self._say, notice, word, file)
        heard, _ = self.judge.told.get(notice.session, (0, 0.0))
        await trio.sleep(self.judge.tolerance.settles)
        now = trio.current_time()
        waits = file.wanted.get(notice.request) is False and file.cancel_asked_at is None
        if (
            waits
            and notice.request not in file.answers
            and not file.unsure
            and looks.is_quiet(self.judge, notice.session, now, heard)
        ):
            self._broke_answer(notice, f"{notice.request} waits, and took none of two answers")

    async def _say(self, notice: InputWanted, word: str, file: JobFile) -> None:
        try:
            await self.service.call("answer", partial(_answer, notice=notice, word=word))
        except NoAnswer:
            file.unsure.add(word)
            return
        except RequestGone:
            return
        except OpencodeActorsError as error:
            file.unsure.add(word)
            since = trio.current_time() - self.judge.tolerance.slack
            await trio.sleep(self.judge.tolerance.settles)
            ends = file.cancelling_at is not None or file.end is not None
            now, hits = trio.current_time(), self.judge.hits
            if not ends and not excused(Excuse.UNSURE, hits, since, now, session=notice.session):
                self._broke_answer(notice, f"{notice.request} took no answer: {error.message}")
            return
        if notice.request in file.answers:
            self._broke_answer(notice, f"{notice.request} took two answers")
        file.answers[notice.request] = word

    def _broke_answer(self, notice: InputWanted, text: str) -> None:
        file, now = self.judge.files[notice.job], trio.current_time()
        self.judge.findings.broke(
            "a request takes one answer", now, text, session=notice.session, job=file.number
        )

    # ---- who looks

    def ended(self, notice: JobEnded) -> None:
        file = self.judge.files[notice.job]
        self.nursery.start_soon(self._look_after, notice.session, file)
        if file.planned is not None and file.planned.roll >= _WHEN_OVER:
            self.service.watch(Watcher(file.id, file.planned.number, 0))

    async def _look_after(self, session: str, file: JobFile) -> None:
        """What was ended works no more."""
        if file.end is None or not looks.was_forced(file.end):
            return
        await trio.sleep(self.judge.tolerance.settles)
        heard, _ = self.judge.told.get(session, (0, 0.0))
        alone = self.judge.running.get(session) is None
        works = self.service.world.working(session)
        await trio.sleep(self.judge.tolerance.settles)
        now = trio.current_time()
        if self.service.live is None or not looks.is_quiet(self.judge, session, now, heard):
            return
        for what, number in works.items():
            if number == file.number or (number is None and alone):
                text = f"{what} works in its container, though it was ended"
                self.judge.findings.broke("an end ends the work", now, text, session=session, job=file.number)

    async def look(self) -> None:
        """For ever: what is said of a job, and how much waits in the system; once everybody asks at one moment."""
        for looks_before in itertools.count():
            await trio.sleep(self.look_every)
            if looks_before >= _CROWDS_AT and not self._crowded:
                await self._crowd()
            files = self.judge.unsettled
            if self.rng.random() < _LOOKS_BACK:
                files = tuple(file for file in self.judge.files.values() if file.planned is not None)
            if files:
                await self._look(files[self.rng.randrange(len(files))])

    async def _look(self, file: JobFile) -> None:
        judge, since, session = self.judge, trio.current_time(), file.session
        quiet, generation = looks.is_quiet(judge, session, since), self.service.generation
        heard, _ = judge.told.get(session, (0, 0.0))
        try:
            status = await self.service.call("status", partial(_status, job=file.id))
            answered = trio.current_time()
            sessions = await self.service.call("sessions", lambda face: face.sessions())
        except NoAnswer:
            return
        except OpencodeActorsError as error:
            self._unexpected("status", error)
            return
        judge.latencies["status"].append(answered - since)
        judge.latencies["sessions"].append(trio.current_time() - answered)
        if self.service.live is not None and self.service.live.inside is not None:
            self._bounded(self.service.live.inside.statistics())
        await trio.sleep(judge.tolerance.settles)
        now = trio.current_time()
        if not quiet or not looks.is_quiet(judge, session, now, heard) or file.id in judge.doubtful:
            return
        if self.service.generation != generation:
            return
        wrong = looks.wrong_status(file, status)
        if wrong is not None:
            judge.findings.broke("what is told is so", now, wrong, session=session, job=file.number)
        for wrong in looks.wrong_sessions(judge, session, sessions):
            judge.findings.broke("what is told is so", now, wrong, session=session)

    async def _crowd(self) -> None:
        """Around one job, where what waits can be looked at meanwhile."""
        live, files = self.service.live, self.judge.unsettled
        inside = live.inside if live is not None and live.face is live.inside else None
        if inside is None or not files:
            return
        self._crowded = True
        async with trio.open_nursery() as nursery:
            for _ in range(_CROWD):
                nursery.start_soon(self._call, "status", partial(_status, job=files[0].id))
            for _ in range(_CROWD_LOOKS):
                await trio.lowlevel.checkpoint()
                self._bounded(inside.statistics())

    def _bounded(self, statistics: SystemStatistics) -> None:
        now = trio.current_time()
        for name, actor in statistics.actors.items():
            self.most_waiting = max(self.most_waiting, actor.mailbox.waiting)
            if actor.mailbox.waiting > MOST_WAITING:
                text = f"{actor.mailbox.waiting} messages wait for {name}"
                self.judge.findings.broke("bounded", now, text)
            if actor.tasks <= len(actor.running):
                self._lingers.pop(name, None)
            elif now - self._lingers.setdefault(name, now) > _LETS_GO_WITHIN:
                text = f"{actor.tasks} operations and timers of {name} go on, and it knows of {len(actor.running)}"
                self.judge.findings.broke("bounded", now, text)
        # An end is told a moment before the job is forgotten.
        ending = sum(
            file.ended_at is not None and now - file.ended_at < 1.0 for file in self.judge.files.values()
        )
        known = len(self.judge.unsettled) + self.starting.total() + ending
        if statistics.jobs > known:
            text = f"{statistics.jobs} jobs are in memory, and {known} are not settled"
            self.judge.findings.broke("bounded", now, text)

    # ---- who does no good

    async def misbehave(self, fault: PlannedFault) -> bool:
        """What clients can do to a system. For as long as the fault lasts; whether there was anything to be done."""
        now = trio.current_time()
        session = None if fault.kind in _EVERYBODY else fault.session
        hit = Hit(kind=fault.kind, at=now, until=now + fault.lasts, session=session)
        self.judge.hit(hit, now)
        did = False
        mine: list[Wanderer] = []
        if fault.kind is FaultKind.VANISHING_FOLLOWERS:
            mine = [Wanderer(self.service.reached, self.rng) for _ in range(_WANDERERS)]
            self.wanderers += mine
        with trio.move_on_after(fault.lasts):
            while True:
                did = self._has_a_victim(fault) or did
                await self._once(fault, mine)
                await trio.sleep(0.5 + fault.roll)
        if did:
            self.judge.over(hit, trio.current_time())
        else:
            self.judge.hits.remove(hit)
        return did

    def _has_a_victim(self, fault: PlannedFault) -> bool:
        match fault.kind:
            case FaultKind.CANCEL_STORM:
                return any(file.session == fault.session for file in self.judge.unsettled)
            case FaultKind.CLOSE_STORM:
                # It is there before it is told of: on a slow disk whoever starts something still waits to hear so.
                return self.judge.is_open(fault.session) or self.starting[fault.session] > 0
            case FaultKind.CLEANUP_STORM:
                return any(self.judge.is_open(session) for session in self.judge.told)
            case _:
                return self.service.live is not None

    async def _once(self, fault: PlannedFault, wanderers: Sequence[Wanderer]) -> None:
        async with trio.open_nursery() as nursery:
            match fault.kind:
                case FaultKind.CANCEL_STORM:
                    for file in self.judge.unsettled:
                        if file.session == fault.session:
                            for _ in range(3):
                                nursery.start_soon(self._cancel, file)
                case FaultKind.CLEANUP_STORM:
                    for _ in range(3):
                        nursery.start_soon(self._call, "cleanup", _cleanup)
                case FaultKind.CLOSE_STORM:
                    nursery.start_soon(self._call, "close", partial(_close, session=fault.session))
                case _:
                    for wanderer in wanderers:
                        nursery.start_soon(wanderer.visit, self.service.live)

    async def _call(self, name: str, make: Callable[[Face], Awaitable[object]]) -> None:
        try:
            await self.service.call(name, make)
        except (NoAnswer, UnknownSession):
            return  # nobody says that there is anything to be ended
        except OpencodeActorsError as error:
            self._unexpected(name, error)

    def _unexpected(self, name: str, error: OpencodeActorsError) -> None:
        self.judge.findings.broke("every ask is answered", trio.current_time(), f"{name}: {error.message}")


async def _status(face: Face, *, job: JobId) -> JobSnapshot:
    return await face.status(job)


async def _answer(face: Face, *, notice: InputWanted, word: str) -> None:
    if notice.kind is RequestKind.QUESTION:
        await face.answer(notice.job, notice.request, answers=word)
    elif word == "yes":
        await face.answer(notice.job, notice.request, reply="once")
    else:
        await face.answer(notice.job, notice.request, reply="reject", message=word)


async def _close(face: Face, *, session: str) -> object:
    return await face.close_session(session)


async def _cleanup(face: Face) -> object:
    return await face.cleanup()


_EVERYBODY = frozenset({FaultKind.CLEANUP_STORM, FaultKind.VANISHING_FOLLOWERS})
