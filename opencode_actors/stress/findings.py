"""What was seen, when, and of whom; and what of it may not be."""

from __future__ import annotations

from collections import deque

from attrs import define, field, frozen

_KEPT = 200_000
SHOWN = 40


@frozen(kw_only=True)
class Seen:
    """One line of the trace. Without a `session` it concerns everybody."""

    at: float
    session: str | None
    job: int | None
    what: str

    def __str__(self) -> str:
        of = " ".join(
            word for word in (self.session or "", "" if self.job is None else f"job {self.job}") if word
        )
        return f"{self.at:10.3f}  {of:<12} {self.what}"


@frozen(kw_only=True)
class Violation:
    """`rule` is which one was broken; `trace` is the end of what concerns it, oldest first."""

    rule: str
    at: float
    session: str | None
    job: int | None
    text: str
    trace: tuple[str, ...] = field(default=(), repr=False)


@define(eq=False)
class Findings:
    """Of one run. Of each rule and job the first violation is kept: the others follow from it. Of what concerns
    nobody in particular each is."""

    violations: list[Violation] = field(factory=list[Violation])
    _seen: deque[Seen] = field(factory=lambda: deque[Seen](maxlen=_KEPT))
    _known: set[tuple[str, str | None, int | str | None]] = field(
        factory=set[tuple[str, str | None, int | str | None]]
    )

    def saw(self, at: float, what: str, *, session: str | None = None, job: int | None = None) -> None:
        self._seen.append(Seen(at=at, session=session, job=job, what=what))

    def broke(
        self, rule: str, at: float, text: str, *, session: str | None = None, job: int | None = None
    ) -> None:
        key = (rule, session, text if session is None and job is None else job)
        if key in self._known:
            return
        self._known.add(key)
        self.saw(at, f"BROKEN {rule}: {text}", session=session, job=job)
        self.violations.append(
            Violation(rule=rule, at=at, session=session, job=job, text=text, trace=self._trace(session, job))
        )

    def _trace(self, session: str | None, job: int | None) -> tuple[str, ...]:
        """All that concerns everybody or this session, but of other jobs only the beginning and the end. What
        concerns nobody in particular may come from anywhere."""
        mine = [
            seen
            for seen in self._seen
            if (session is None or seen.session in (None, session))
            and (job is None or seen.job in (None, job) or seen.what.startswith(("started", "ended")))
        ]
        if job is not None:  # what came after it, until somebody looked, has nothing to do with it
            own = [at for at, seen in enumerate(mine[:-1]) if seen.job == job]
            mine = [*mine[: own[-1] + 1], mine[-1]] if own else mine
        return tuple(str(seen) for seen in mine[-SHOWN:])
