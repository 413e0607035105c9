"""One stress run: a plan, a world, a verdict."""

from __future__ import annotations

import logging
import random
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from functools import partial

import trio
from attrs import define, evolve, field

from opencode_actors.errors import OpencodeActorsError, StoreError, UnknownSession
from opencode_actors.kernel.system import System
from opencode_actors.machines.vocabulary import SessionStatus
from opencode_actors.settings import Settings
from opencode_actors.store.port import OutputSlice
from opencode_actors.stress.clients import Clients
from opencode_actors.stress.climbs import not_done
from opencode_actors.stress.embedded import EmbeddedWorld, LeftOver
from opencode_actors.stress.files import JobFile
from opencode_actors.stress.findings import Findings
from opencode_actors.stress.heap import kept
from opencode_actors.stress.innards import holds, holds_more
from opencode_actors.stress.judge import Judge
from opencode_actors.stress.memory import Memory
from opencode_actors.stress.plan import Plan, PlannedFault, PlannedJob, make_plan
from opencode_actors.stress.report import Progress, Report, make_report
from opencode_actors.stress.scenario import FaultKind, Scenario
from opencode_actors.stress.service import ANSWERED_WITHIN, NoAnswer, Service
from opencode_actors.stress.weather import Weather
from opencode_actors.stress.worlds import AIMED, BY_CLIENTS, Face, SystemFactory, World

# Of a page of output, in bytes: from one, which is less than a character, to 64 KiB.
_PAGE_BITS = 17
# How long a service is away, as a share of the scenario's time.
_DOWN, _LONGEST_DOWN = 1 / 5, 3.0
_LOOKS = 50
# The share of a run after which its service is warm: code is loaded, and the first jobs have run.
_WARM_AFTER = 0.25
_LOOK_EVERY = 1.0
# What a system that has just begun takes to have all that it needs without any job.
_SETTLES = 0.5
_GONE_ON_WITH = 30.0
# What a session may leave in the system's memory: six things were measured; of eight jobs one may leave one.
_KEPT_OF_EACH, _JOBS_OF_EACH = 7, 8
_RELENTS_WITHIN = 30.0
# How long a fault waits for something to hit, as a share of the scenario's time, and what it takes at least until a
# service that has just begun has jobs at work again.
_PATIENCE, _LEAST_PATIENCE = 0.1, 5.0
# All that is asked when all is over, however many jobs there were.
_LOOKED_AT_WITHIN = 2 * ANSWERED_WITHIN


async def run_stress(
    scenario: Scenario,
    factory: SystemFactory,
    *,
    settings: Settings,
    seed: int = 0,
    weather: Weather | None = None,
    left_over: LeftOver | None = None,
) -> Report:
    """Drives a caller's own system, whose `settings` these are and whose model is the scripted one. What only a
    world could break is left out, and the report says what.

    `weather` is given where its `script` is the model's: then what the model is asked is held to the rules, and the
    provider can fail. `left_over` names, when all is over, what is still there of containers and the like.
    """
    world = EmbeddedWorld(settings=settings, factory=factory, weather=weather, look_left_over=left_over)
    return await run_plan(world, make_plan(scenario, seed))


def _nothing(progress: Progress) -> None:
    """Nobody watches."""


async def run_plan(world: World, plan: Plan, *, watch: Callable[[Progress], None] = _nothing) -> Report:
    """`watch` is called every second of the run's own time."""
    findings = Findings()
    run = _Run(world, plan, Judge(world.settings, findings, world.late, world.ledger), watch)
    with _hear_bugs(findings):
        await run.whole()
    return make_report(
        plan,
        world.name,
        run.judge,
        refused=run.refused,
        missed=run.missed,
        cannot=run.cannot,
        unchecked=world.unchecked,
        memory=run.memory,
        began=run.began,
        took=run.took,
    )


@define(eq=False)
class _Run:
    world: World
    plan: Plan
    judge: Judge
    watch: Callable[[Progress], None]
    missed: dict[str, int] = field(factory=dict[str, int])
    cannot: set[FaultKind] = field(factory=set[FaultKind])
    memory: Memory = field(init=False)
    _pages: random.Random = field(init=False)
    refused: dict[str, int] = field(factory=dict[str, int])
    took: float = 0.0
    began: float = 0.0
    _held_before: Counter[str] = field(factory=Counter[str])
    _kept_before: int = 0
    _asking: set[int] = field(factory=set[int])  # jobs that are neither accepted nor refused

    def __attrs_post_init__(self) -> None:
        self._pages = random.Random(self.plan.seed)  # noqa: S311 - it has to be had again
        self.memory = Memory(_WARM_AFTER * self.plan.scenario.duration)

    async def whole(self) -> None:
        self.began = trio.current_time()
        async with trio.open_nursery() as nursery:
            await self._live(nursery)
            nursery.cancel_scope.cancel()
        self.took = trio.current_time() - self.began
        for text in await self.world.left_over():
            self._broke("nothing is left", text)

    async def _live(self, nursery: trio.Nursery) -> None:
        rng = random.Random(self.plan.seed)  # noqa: S311 - it has to be had again
        settle_within = self.plan.scenario.settle_within
        # A full disk or an absent engine keeps it from beginning for as long as that lasts.
        longest = max((fault.lasts for fault in self.plan.faults), default=0.0)
        service = Service(self.world, self.judge, begins_within=settle_within + longest)
        clients = Clients(
            service,
            self.judge,
            rng,
            nursery,
            self.plan.seed,
            look_every=max(self.plan.scenario.duration / _LOOKS, 0.1),
            refused=self.refused,
        )
        service.wanted, service.ended = clients.wanted, clients.ended
        service.begin(nursery)
        nursery.start_soon(self._report_progress, service)
        first = await service.wait_begun()
        if first is not None and first.inside is not None:
            await trio.sleep(_SETTLES)
            self._held_before, self._kept_before = holds(first.inside), kept(first.inside)
            self.began = trio.current_time()
        async with trio.open_nursery() as looking:
            # Until all has settled: what a look asks then would be taken for an ask that nobody answered.
            looking.start_soon(clients.look)
            with trio.move_on_after(self.plan.over_at + settle_within) as scope:
                async with trio.open_nursery() as work:
                    for job in self.plan.jobs:
                        work.start_soon(self._job, clients, job)
                    for fault in self.plan.faults:
                        work.start_soon(self._fault, service, clients, fault)
                await service.wait_settled()
                self.memory.look(self.world.memory(), service.generation, trio.current_time())
            looking.cancel_scope.cancel()
        if scope.cancelled_caught:
            self._starved()
        self._check_memory()
        self._check_accepted()
        # An announcement that was put off before the clock was set back may wait for an hour: nothing tells that from
        # what a receiver asked for.
        looked_at_within = self.plan.scenario.settle_within + _LOOKED_AT_WITHIN
        with trio.move_on_after(looked_at_within) as scope:
            if await service.wait_begun() is not None:
                await self._at_rest(service)
                await self._all_told(service, clients)
        if scope.cancelled_caught:
            text = f"what is asked when all is over took {looked_at_within:g} s"
            self._broke("every ask is answered", text)
        await self._closed(service)
        self.judge.check_taken(self.world.receiver, trio.current_time())
        self._check_reached()
        self._check_climbs()

    async def _job(self, clients: Clients, job: PlannedJob) -> None:
        await trio.sleep_until(self.began + job.at)
        self._asking.add(job.number)
        await clients.want(job)
        self._asking.discard(job.number)

    async def _fault(self, service: Service, clients: Clients, fault: PlannedFault) -> None:
        await trio.sleep_until(self.began + fault.at)
        down = min(_LONGEST_DOWN, _DOWN * self.plan.scenario.duration)
        while service.live is None:
            await service.wait_up()
            # Else all that gathered meanwhile came in one moment, and the first of them left nothing to the others.
            await trio.sleep(fault.roll * down)
        if not self.world.can(fault.kind):
            self.cannot.add(fault.kind)
            return
        fault = await self._aimed(service, fault)
        if fault.kind in BY_CLIENTS:
            if not await clients.misbehave(fault):
                self._missed(fault)
            return
        hit = await self.world.inflict(fault)
        if hit is None:
            self._missed(fault)
            return
        self.judge.hit(hit, trio.current_time())
        if fault.kind is FaultKind.SERVICE_KILLED:
            service.kill(down=down)
        elif fault.kind is FaultKind.SERVICE_ENDED:
            service.end(down=down)
        felt = True
        try:
            await trio.sleep(fault.lasts)
        finally:
            # Also when time is up: what is looked at then is not under the fault any more.
            with trio.CancelScope(shield=True, deadline=trio.current_time() + _RELENTS_WITHIN):
                felt = await self.world.relent(fault)
        if not felt:
            self.judge.hits.remove(hit)
            self._missed(fault)
        if fault.kind is FaultKind.ENGINE_LIES:
            await self._see_to_the_cause(service)

    async def _aimed(self, service: Service, fault: PlannedFault) -> PlannedFault:
        """At the session that has most to do, as soon as one has anything to do: a container that nobody works in
        may break as it likes."""
        if fault.kind not in AIMED:
            return fault
        with trio.move_on_after(max(_PATIENCE * self.plan.scenario.duration, _LEAST_PATIENCE)):
            return evolve(fault, session=await service.wait_for(self._busiest))
        return fault

    def _busiest(self) -> str | None:
        unsettled = Counter(file.session for file in self.judge.unsettled)
        running = {file.session for file in self.judge.unsettled if file.started_at is not None}
        return max(sorted(running), key=unsettled.__getitem__, default=None)

    def _missed(self, fault: PlannedFault) -> None:
        self.missed[fault.kind.value] = self.missed.get(fault.kind.value, 0) + 1

    # ---- the end

    def _check_memory(self) -> None:
        files = self.judge.files.values()
        wrong = self.memory.grown_too_far(jobs=len(files), output=sum(file.size for file in files))
        if wrong is not None:
            self._broke("bounded", wrong)

    def _check_accepted(self) -> None:
        """A reason may be found for each refusal, and yet nobody is served. A full disk is one for all of them."""
        planned = len(self.plan.jobs) - self.refused.get(StoreError.__name__, 0)
        taken = sum(file.planned is not None for file in self.judge.files.values())
        if taken < self.plan.scenario.least_accepted * planned:
            self._broke("refused for a reason", f"of {planned} jobs {taken} were accepted")

    def _starved(self) -> None:
        now = trio.current_time()
        for file in self.judge.unsettled:
            self.judge.findings.broke(
                "every job settles", now, "it never did", session=file.session, job=file.number
            )
        accepted = {file.number for file in self.judge.files.values()}
        for job in self.plan.jobs:
            if job.number in self._asking - accepted:
                self.judge.findings.broke(
                    "every planned job is accepted or refused",
                    now,
                    "nobody answered whoever wanted it",
                    session=job.session,
                    job=job.number,
                )

    def _check_reached(self) -> None:
        reached, settings = self.world.reached, self.world.settings
        patience = min(settings.header_timeout, settings.chunk_timeout)
        for file, wrong in () if reached is None else reached.wrong(self.judge.files.values(), patience):
            self.judge.findings.broke(
                "each prompt reaches the model once",
                trio.current_time(),
                wrong,
                session=file.session,
                job=file.number,
            )

    def _check_climbs(self) -> None:
        asked, judge = self.world.asked, self.judge
        if asked is None:
            return
        words = judge.evidence.words
        for file, wrong in not_done(judge.files.values(), asked, words, judge.tolerance, judge.hits):
            judge.findings.broke(
                "the ladder only climbs",
                trio.current_time(),
                wrong,
                session=file.session,
                job=file.number,
            )

    async def _at_rest(self, service: Service) -> None:
        """All has settled: what is kept of it, and that nothing else goes on."""
        try:
            # A session that was given up may have left something to an engine that was away: no clean-up ends it.
            await self._reset(service, SessionStatus.QUARANTINED, SessionStatus.GIVEN_UP)
            for file in tuple(self.judge.files.values()):
                await self._check(service, file)
        except NoAnswer:
            return
        except OpencodeActorsError as error:
            self._broke("every ask is answered", error.message)
            return
        self.judge.check_unknown(trio.current_time())
        live = service.live
        if live is None or live.inside is None or self.judge.unsettled:
            return
        statistics = live.inside.statistics()
        if statistics.jobs:
            self._broke("nothing is left", f"{statistics.jobs} jobs are in memory")
        for name, actor in statistics.actors.items():
            if actor.asks:
                self._broke("every ask is answered", f"{actor.asks} wait for {name}")

    async def _see_to_the_cause(self, service: Service) -> None:
        """With the next service, if this one ends meanwhile."""
        while await service.wait_begun() is not None:
            with suppress(NoAnswer):
                await self._reset(service, SessionStatus.QUARANTINED)
                return

    async def _reset(self, service: Service, *stuck: SessionStatus) -> None:
        """As somebody does who has seen to the cause."""
        for session in await service.call("sessions", lambda face: face.sessions()):
            if session.status in stuck:
                with suppress(UnknownSession):
                    await service.call("reset", partial(_reset, session=session.key))

    async def _all_told(self, service: Service, clients: Clients) -> None:
        """Whoever came back has all of it, and whoever is told of ends was told of all."""
        live, upto = service.live, service.reached
        for number, wanderer in enumerate(clients.wanderers):
            if live is None:
                return
            for wrong in await wanderer.finish(live, service.record, upto):
                self._broke("every notice is told", f"follower {number}, who came back: {wrong}")
        receiver = self.world.receiver
        if receiver is not None and not self.judge.unsettled:
            ended = frozenset(file.id for file in self.judge.files.values())
            with trio.move_on_after(self.plan.scenario.settle_within):
                await receiver.wait_taken(ended)
        # Not before: until then the outbox waits for its next try.
        await self._let_go(service)

    async def _let_go(self, service: Service) -> None:
        """In half of all runs: in the others the system is closed with all that its sessions have."""
        live = service.live
        if live is None or self.judge.unsettled or self.plan.seed % 2:
            return
        try:
            await service.call("cleanup", lambda face: face.cleanup())
            if live.inside is not None and live.inside.statistics().sessions:
                # What a full disk kept from being recorded may just have been gone on with.
                await trio.sleep(_GONE_ON_WITH)
                await service.call("cleanup", lambda face: face.cleanup())
        except (NoAnswer, OpencodeActorsError):
            return
        for text in await self.world.at_rest(live):
            self._broke("nothing is left", text)
        if live.inside is not None and (more := await holds_more(live.inside, self._held_before)):
            self._broke("nothing is left", f"with all its sessions ended the system still holds {more}")
        self._check_kept(live.inside)

    def _check_kept(self, system: System | None) -> None:
        """What a session leaves is a constant, and so is what a system makes when it is first used."""
        if system is None:
            return
        more, jobs = kept(system) - self._kept_before, len(self.judge.files)
        if more > _KEPT_OF_EACH * self.plan.scenario.sessions + jobs // _JOBS_OF_EACH:
            self._broke("bounded", f"after {jobs} jobs the system keeps {more} things more than before them")

    async def _check(self, service: Service, file: JobFile) -> None:
        status = await service.call("status", lambda face: face.status(file.id))
        text, offset, more = "", 0, True
        while more:
            limit = self._pages.randint(1, 1 << self._pages.randrange(_PAGE_BITS))
            read = partial(_read, file=file, offset=offset, limit=limit)
            piece = await service.call("output", read)
            text, offset, more = text + piece.text, piece.next_offset, piece.more
        self.judge.check_end(file, status, text, trio.current_time())

    async def _closed(self, service: Service) -> None:
        settings = self.world.settings
        graces = settings.stop_grace + settings.kill_grace + settings.remove_grace
        with trio.move_on_after(graces + 60.0) as scope:
            await service.close()
        if scope.cancelled_caught:
            self._broke("the system closes", f"it did not within {graces + 60.0:g} s")

    async def _report_progress(self, service: Service) -> None:
        whole = self.plan.over_at
        while True:
            now = trio.current_time() - self.began
            ended = sum(file.end is not None for file in self.judge.files.values())
            self.memory.look(self.world.memory(), service.generation, trio.current_time())
            self.watch(
                Progress(
                    at=now,
                    whole=whole,
                    jobs=len(self.plan.jobs),
                    accepted=len(self.judge.files),
                    ended=ended,
                    faults=len(self.judge.hits),
                    violations=len(self.judge.findings.violations),
                )
            )
            await trio.sleep(_LOOK_EVERY)

    def _broke(self, rule: str, text: str) -> None:
        self.judge.findings.broke(rule, trio.current_time(), text)


async def _reset(face: Face, *, session: str) -> object:
    return await face.reset_session(session)


async def _read(face: Face, *, file: JobFile, offset: int, limit: int) -> OutputSlice:
    return await face.output(file.id, offset=offset, limit=limit)


class _Bugs(logging.Handler):
    """The supervisor catches every bug, and says so here alone."""

    def __init__(self, findings: Findings) -> None:
        super().__init__(logging.ERROR)
        self._findings = findings

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info is not None:
            text = f"{record.getMessage()}: {record.exc_info[1]!r}"
            self._findings.broke("no bug", trio.current_time(), text)


@contextmanager
def _hear_bugs(findings: Findings) -> Generator[None]:
    """The run's own log is the trace: what the system says goes nowhere else."""
    log, bugs = logging.getLogger("opencode_actors"), _Bugs(findings)
    before = log.propagate, log.handlers
    log.propagate, log.handlers = False, [bugs]
    try:
        yield
    finally:
        log.propagate, log.handlers = before
