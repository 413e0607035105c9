"""What a run has shown: a value that is the same for the same seed, and its document."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from attrs import evolve, field, frozen

from opencode_actors.stress.findings import Violation
from opencode_actors.stress.judge import Judge
from opencode_actors.stress.memory import Memory
from opencode_actors.stress.plan import Plan
from opencode_actors.stress.scenario import FaultKind
from opencode_actors.stress.timeline import Span, spans_of


@frozen(kw_only=True)
class Progress:
    at: float
    whole: float
    jobs: int
    accepted: int
    ended: int
    faults: int
    violations: int


@frozen(kw_only=True)
class Latency:
    """Seconds. `values` are in order of size."""

    name: str
    values: tuple[float, ...]

    def share(self, share: float) -> float:
        """The value that this share of all does not exceed."""
        return self.values[max(0, math.ceil(share * len(self.values)) - 1)]


@frozen(kw_only=True)
class Report:
    """`took` is in seconds of the run's own clock; `missed` are faults that found nothing to hit, and
    `cannot` the kinds that this world cannot make; `unchecked` are rules of which it could not see whether they hold.
    `memory` is in bytes, where the system's process has some that can be told from its world's."""

    plan: Plan
    world: str
    took: float
    accepted: int
    ends: Mapping[str, int]
    refused: Mapping[str, int]
    hits: Mapping[str, int]
    missed: Mapping[str, int]
    cannot: tuple[str, ...]
    unchecked: tuple[str, ...]
    latencies: tuple[Latency, ...]
    violations: tuple[Violation, ...]
    memory: Mapping[str, int] = field(factory=dict[str, int])
    spans: tuple[Span, ...] = field(default=(), repr=False)

    @property
    def passed(self) -> bool:
        return not self.violations

    def leaving(self, what: str) -> Report:
        """The same, with something that was left when all was over."""
        left = Violation(rule="nothing is left", at=self.took, session=None, job=None, text=what)
        return evolve(self, violations=(*self.violations, left))

    def document(self) -> dict[str, object]:
        """For JSON; the same bit for bit when the seed is the same and the world is virtual."""
        return {
            "passed": self.passed,
            "scenario": self.plan.scenario.name,
            "world": self.world,
            "seed": self.plan.seed,
            "seconds": round(self.took, 6),
            "jobs": {
                "planned": len(self.plan.jobs),
                "accepted": self.accepted,
                "ends": dict(self.ends),
                "refused": dict(sorted(self.refused.items())),
            },
            "faults": {
                "hit": dict(self.hits),
                "missed": dict(sorted(self.missed.items())),
                "not in this world": list(self.cannot),
            },
            "unchecked": list(self.unchecked),
            **({"memoryBytes": dict(self.memory)} if self.memory else {}),
            "latencies": {latency.name: _figures(latency) for latency in self.latencies},
            "violations": [_violation(violation) for violation in self.violations],
        }


def make_report(
    plan: Plan,
    world: str,
    judge: Judge,
    *,
    refused: Mapping[str, int],
    missed: Mapping[str, int],
    cannot: Iterable[FaultKind],
    unchecked: tuple[str, ...],
    memory: Memory,
    began: float,
    took: float,
) -> Report:
    return Report(
        plan=plan,
        world=world,
        took=took,
        accepted=sum(file.planned is not None for file in judge.files.values()),
        ends=judge.ends(),
        refused=refused,
        hits=dict(sorted(Counter(hit.kind.value for hit in judge.hits).items())),
        missed=missed,
        cannot=tuple(sorted(kind.value for kind in cannot)),
        unchecked=unchecked,
        memory=memory.figures(),
        latencies=tuple(
            Latency(name=name, values=tuple(sorted(values)))
            for name, values in sorted(judge.latencies.items())
            if values
        ),
        violations=tuple(judge.findings.violations),
        spans=tuple(spans_of(judge.files.values(), judge.hits, began=began)),
    )


SHARES: Sequence[tuple[str, float]] = (("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("max", 1.0))


def _figures(latency: Latency) -> dict[str, float]:
    return {"count": len(latency.values)} | {name: round(latency.share(share), 6) for name, share in SHARES}


def _violation(violation: Violation) -> dict[str, object]:
    return {
        "rule": violation.rule,
        "at": round(violation.at, 6),
        "session": violation.session,
        "job": violation.job,
        "text": violation.text,
        "trace": list(violation.trace),
    }
