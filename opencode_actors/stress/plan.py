"""A scenario and a seed into what happens when. A plan can be cut down, and then shows the same with less."""

from __future__ import annotations

import random

from attrs import evolve, field, frozen

from opencode_actors.stress.scenario import Arrival, FaultKind, Scenario, Talk
from opencode_actors.stress.talk import write_prompt

_BURST = 8  # jobs that come at one moment


@frozen(kw_only=True)
class PlannedJob:
    """`cancel_after` counts from its acceptance. `roll` decides whatever else a client does with it."""

    number: int
    at: float
    session: str
    talk: Talk
    prompt: str = field(repr=False)
    cancel_after: float | None
    roll: float


@frozen(kw_only=True)
class PlannedFault:
    """`session` is whose container it hits, where it is a container's."""

    number: int
    at: float
    kind: FaultKind
    lasts: float
    session: str
    roll: float


@frozen(kw_only=True)
class Plan:
    """`seed` is for all other chance in the run."""

    scenario: Scenario
    seed: int
    jobs: tuple[PlannedJob, ...]
    faults: tuple[PlannedFault, ...]

    @property
    def over_at(self) -> float:
        """When the last job has come and the last fault gone."""
        jobs = (job.at + (job.cancel_after or 0.0) for job in self.jobs)
        faults = (fault.at + fault.lasts for fault in self.faults)
        return max((*jobs, *faults), default=0.0)

    def only(self, jobs: frozenset[int], faults: frozenset[int]) -> Plan:
        """The same with these jobs and faults alone."""
        return evolve(
            self,
            jobs=tuple(job for job in self.jobs if job.number in jobs),
            faults=tuple(fault for fault in self.faults if fault.number in faults),
        )


def make_plan(scenario: Scenario, seed: int) -> Plan:
    rng = random.Random(seed)  # noqa: S311 - it has to be had again
    talks, weights = tuple(scenario.prompts), tuple(scenario.prompts.values())
    jobs: list[PlannedJob] = []
    for number, at in enumerate(_arrivals(scenario, rng)):
        talk = rng.choices(talks, weights)[0]
        jobs.append(
            PlannedJob(
                number=number,
                at=at,
                session=f"s{rng.randrange(scenario.sessions)}",
                talk=talk,
                prompt=write_prompt(talk, number, rng, pace=scenario.pace),
                cancel_after=rng.expovariate(1 / 10) * scenario.pace
                if rng.random() < scenario.cancelled
                else None,
                roll=rng.random(),
            )
        )
    moments = [(at, planned) for planned in scenario.faults for at in planned.moments(scenario.duration, rng)]
    faults = [
        PlannedFault(
            number=number,
            at=at,
            kind=planned.kind,
            lasts=planned.lasts,
            session=f"s{rng.randrange(scenario.sessions)}",
            roll=rng.random(),
        )
        for number, (at, planned) in enumerate(moments)
    ]
    return Plan(scenario=scenario, seed=seed, jobs=tuple(jobs), faults=tuple(faults))


def _arrivals(scenario: Scenario, rng: random.Random) -> list[float]:
    count, whole = scenario.jobs, scenario.duration
    match scenario.arrival:
        case Arrival.STEADY:
            return [whole * index / count for index in range(count)]
        case Arrival.RANDOM:
            return sorted(rng.uniform(0.0, whole) for _ in range(count))
        case Arrival.BURSTS:
            starts = [rng.uniform(0.0, whole) for _ in range(-(-count // _BURST))]
            return sorted(starts[index // _BURST] for index in range(count))
