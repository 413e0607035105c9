"""What jobs came to, by day, by outcome and by model: sums of what is written down when a job settles."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from attrs import frozen

from opencode_actors.machines.vocabulary import JobId, JobSnapshot, SessionKey

# So many of the most expensive jobs are kept of each day.
DEAREST_KEPT = 5


@frozen(kw_only=True)
class Tally:
    """Of `jobs`; `ran` had their turn, and took `seconds` together. `cost` is too low by those that are `unpriced`:
    their model has no price that OpenCode knows."""

    jobs: int = 0
    ran: int = 0
    seconds: float = 0.0
    cost: float = 0.0
    unpriced: int = 0
    tokens_in: int = 0
    tokens_out: int = 0

    @property
    def mean_seconds(self) -> float | None:
        """How long one took; None when none ran."""
        return self.seconds / self.ran if self.ran else None

    @property
    def cost_usd(self) -> float | None:
        """None when nothing is known of it; at least this when some are `unpriced`."""
        return None if self.unpriced and not self.cost else self.cost

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            jobs=self.jobs + other.jobs,
            ran=self.ran + other.ran,
            seconds=self.seconds + other.seconds,
            cost=self.cost + other.cost,
            unpriced=self.unpriced + other.unpriced,
            tokens_in=self.tokens_in + other.tokens_in,
            tokens_out=self.tokens_out + other.tokens_out,
        )


@frozen(kw_only=True)
class DayTotal:
    """All jobs of one day, in local time, with this model and this end; `cause` is what they failed of."""

    day: str
    model: str
    outcome: str
    cause: str
    tally: Tally


@frozen(kw_only=True)
class DearJob:
    """One of the most expensive of its day."""

    day: str
    job: JobId
    name: str
    session: SessionKey
    model: str
    outcome: str
    cost: float


@frozen(kw_only=True)
class Totals:
    """Since the beginning of the day `since`. What is sorted by a name has it first; days are in their order, the
    rest is by how much there is of it. A day without jobs is not among them."""

    since: str
    whole: Tally
    days: tuple[tuple[str, Tally], ...]
    outcomes: tuple[tuple[str, Tally], ...]
    causes: tuple[tuple[str, Tally], ...]
    models: tuple[tuple[str, Tally], ...]
    dearest: tuple[DearJob, ...]


def settled_total(job: JobSnapshot, *, day: str, at: float) -> DayTotal:
    """What one job that has settled at that time of day adds."""
    tokens = job.tokens
    tally = Tally(
        jobs=1,
        ran=int(job.started_at is not None),
        seconds=max(0.0, at - job.started_at) if job.started_at is not None else 0.0,
        cost=job.cost_usd,
        unpriced=int(not job.cost_known),
        tokens_in=tokens.input + tokens.cache_read + tokens.cache_write,
        tokens_out=tokens.output + tokens.reasoning,
    )
    cause = job.failure.cause.value if job.failure is not None else ""
    return DayTotal(day=day, model=job.model, outcome=job.status.value, cause=cause, tally=tally)


def summed(since: str, rows: Iterable[DayTotal], dear: Iterable[DearJob]) -> Totals:
    rows = tuple(rows)
    dearest = sorted(dear, key=lambda one: (-one.cost, one.job))
    return Totals(
        since=since,
        whole=sum((row.tally for row in rows), Tally()),
        days=tuple(sorted(_by(rows, lambda row: row.day).items())),
        outcomes=_most_first(_by(rows, lambda row: row.outcome)),
        causes=_most_first(_by((row for row in rows if row.cause), lambda row: row.cause)),
        models=_most_first(_by(rows, lambda row: row.model)),
        dearest=tuple(dearest[:DEAREST_KEPT]),
    )


def _by(rows: Iterable[DayTotal], name: Callable[[DayTotal], str]) -> dict[str, Tally]:
    found: dict[str, Tally] = {}
    for row in rows:
        found[name(row)] = found.get(name(row), Tally()) + row.tally
    return found


def _most_first(tallies: dict[str, Tally]) -> tuple[tuple[str, Tally], ...]:
    return tuple(sorted(tallies.items(), key=lambda one: (-one[1].cost, -one[1].jobs, one[0])))
