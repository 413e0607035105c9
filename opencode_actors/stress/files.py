"""What is known of each job, from whoever wanted it and from what was told of it."""

from __future__ import annotations

from attrs import define, field

from opencode_actors.machines.notices import InputEnd
from opencode_actors.machines.vocabulary import JobId, JobSnapshot, Rung
from opencode_actors.stress.plan import PlannedJob


@define(eq=False)
class JobFile:
    """All that is known of one job. `planned` is None until its start has returned; `sign_at` is when it last
    gave a sign of life. What is so `since` a moment came to pass then at the earliest, and was heard later. `answers` are those of each request that were taken, `unsure` those of which nobody knows."""

    id: JobId
    session: str
    planned: PlannedJob | None = None
    asked_at: float | None = None
    accepted_at: float | None = None
    queued_at: float | None = None
    started_at: float | None = None
    started_since: float = 0.0
    heard_at: float | None = None
    sign_at: float | None = None
    cancelling_at: float | None = None
    cancel_asked_at: float | None = None
    ended_at: float | None = None
    ended_since: float = 0.0
    end: JobSnapshot | None = None
    numbered: bool = False  # so its end is recorded
    waits_at: float = 0.0  # when the service was asked, and said so
    recalled: bool = False  # the end was asked for, and may still be told
    retries: int = 0  # that OpenCode announced: it asks the model again by itself
    was_doubtful: bool = False  # it ended while the disk was full, and the service after it
    interrupted: bool = False  # it was gone on with after a crash
    full: bool = False  # its output is, so that the rest of it is not kept
    early: set[str] = field(factory=set[str])  # requests whose end had no number yet
    text: list[str] = field(factory=list[str])
    size: int = 0
    starts: int = 0  # so often it was told to have started
    tools: int = 0  # so many it was told to have used
    unannounced: str = ""  # why its end was announced to nobody, as it was told
    rungs: list[Rung] = field(factory=list[Rung])
    climbed: list[tuple[Rung, float]] = field(
        factory=list[tuple[Rung, float]]
    )  # all of them, with when they were told
    rung_since: float = 0.0  # when the last of them was tried
    wanted: dict[str, bool] = field(factory=dict[str, bool])  # whether it has ended
    wanted_at: dict[str, float] = field(factory=dict[str, float])
    request_ends: dict[str, tuple[InputEnd, float]] = field(factory=dict[str, tuple[InputEnd, float]])
    answers: dict[str, str] = field(factory=dict[str, str])
    unsure: set[str] = field(factory=set[str])

    @property
    def number(self) -> int | None:
        return None if self.planned is None else self.planned.number

    @property
    def decided_at(self) -> float:
        """When it was clear how it would end: before whatever had to be stopped for that."""
        if self.end is None or self.ended_at is None:
            return 0.0
        return self.ended_at - (
            0.0 if self.end.climb is None else sum(spent for _, spent in self.end.climb.seconds)
        )

    @property
    def decided_since(self) -> float:
        """The same, of what may have ended while nobody heard it."""
        return min(self.ended_since, self.decided_at)
