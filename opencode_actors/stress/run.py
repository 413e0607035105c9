"""One stress run: a plan, a world, a verdict."""

from __future__ import annotations

import logging
import random
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress

import trio
from attrs import define, evolve, field

from opencode_actors.errors import StoreError
from opencode_actors.machines.vocabulary import SessionStatus
from opencode_actors.settings import Settings
from opencode_actors.stress.clients import Clients
from opencode_actors.stress.conclusion import Conclusion, reset_stuck
from opencode_actors.stress.embedded import EmbeddedWorld, LeftOver
from opencode_actors.stress.findings import Findings
from opencode_actors.stress.heap import kept
from opencode_actors.stress.innards import holds
from opencode_actors.stress.judge import Judge
from opencode_actors.stress.memory import Memory
from opencode_actors.stress.plan import Plan, PlannedFault, PlannedJob, make_plan
from opencode_actors.stress.report import Progress, Report, make_report
from opencode_actors.stress.scenario import FaultKind, Scenario
from opencode_actors.stress.service import NoAnswer, Service
from opencode_actors.stress.weather import Weather
from opencode_actors.stress.worlds import AIMED, BY_CLIENTS, SystemFactory, World

# How long a service is away, as a share of the scenario's time.
_DOWN, _LONGEST_DOWN = 1 / 5, 3.0
_LOOKS = 50
# The share of a run after which its service is warm: code is loaded, and the first jobs have run.
_WARM_AFTER = 0.25
_LOOK_EVERY = 1.0
# What a system that has just begun takes to have all that it needs without any job.
_SETTLES = 0.5
_RELENTS_WITHIN = 30.0
# How long a fault waits for something to hit, as a share of the scenario's time, and what it takes at least until a
# service that has just begun has jobs at work again.
_PATIENCE, _LEAST_PATIENCE = 0.1, 5.0


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
    refused: dict[str, int] = field(factory=dict[str, int])
    took: float = 0.0
    began: float = 0.0
    _asking: set[int] = field(factory=set[int])  # jobs that are neither accepted nor refused

    def __attrs_post_init__(self) -> None:
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
            self.plan,
            look_every=max(self.plan.scenario.duration / _LOOKS, 0.1),
            refused=self.refused,
        )
        service.wanted, service.ended = clients.wanted, clients.ended
        service.begin(nursery)
        nursery.start_soon(self._report_progress, service)
        first = await service.wait_begun()
        held_before, kept_before = Counter[str](), 0
        if first is not None and first.inside is not None:
            await trio.sleep(_SETTLES)
            held_before, kept_before = holds(first.inside), kept(first.inside)
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
        await Conclusion(
            world=self.world,
            plan=self.plan,
            judge=self.judge,
            service=service,
            clients=clients,
            held_before=held_before,
            kept_before=kept_before,
        ).reach()

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
        if felt:
            self.judge.over(hit, trio.current_time())
        else:
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

    async def _see_to_the_cause(self, service: Service) -> None:
        """With the next service, if this one ends meanwhile."""
        while await service.wait_begun() is not None:
            with suppress(NoAnswer):
                await reset_stuck(service, SessionStatus.QUARANTINED)
                return

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
