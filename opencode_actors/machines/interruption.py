"""A job that an earlier process began, and what is said to the model and to whoever follows when it goes on."""

from __future__ import annotations

from attrs import Factory, evolve, frozen

from opencode_actors.machines.cancellation import Ladder
from opencode_actors.machines.job_state import Interrupted, JobState
from opencode_actors.machines.notices import Begun
from opencode_actors.machines.output import going_on
from opencode_actors.machines.server_events import Todo
from opencode_actors.machines.spending import Recorded
from opencode_actors.machines.told import taken_up
from opencode_actors.machines.transcript import Piece
from opencode_actors.machines.vocabulary import Failure, Moment, PendingRequest, Rung
from opencode_actors.machines.work import Request


def go_on(why: Failure) -> str:
    """To the model."""
    return (
        f"You were interrupted before you had finished, because the environment that you work in ended "
        f"({why.message}). It is running again, with all files as they were. A step of yours may be half "
        "done: look first at how things are, then finish what you were asked to do."
    )


def remark(why: Failure) -> str:
    """In the output."""
    return f"[interrupted: {why.message}; the agent was asked to go on from here]"


@frozen(kw_only=True)
class Left:
    """How an earlier process left a job whose prompt it had sent."""

    begun: Begun
    why: Failure
    alive: bool
    stopping: bool
    verdict: Failure | None
    told: tuple[Piece, ...]
    told_bytes: int
    wanted: tuple[PendingRequest, ...]
    todos: tuple[Todo, ...]
    spent: Recorded = Factory(Recorded)


def taken_over(state: JobState, left: Left, moment: Moment) -> JobState:
    """It goes on behind what was told, once its session has a turn for it."""
    begun = left.begun
    prompt = evolve(state.prompt, message_id=begun.message, part_id=begun.part)
    known = Interrupted(
        transcript=taken_up(begun.conversation, begun.message, left.told),
        why=left.why,
        since=moment.now - max(0.0, moment.wall - begun.at),
        alive=left.alive,
        stopping=Ladder(rung=Rung.ABORT, since=moment.now) if left.stopping else None,
        verdict=left.verdict,
        todos=left.todos,
        spent_before=left.spent,
        requests={about.id: Request(about=about, at=moment.now) for about in left.wanted},
    )
    return evolve(
        state,
        started_at=begun.at,
        prompt=state.prompt if begun.continues else prompt,
        continuation=evolve(prompt, text=go_on(left.why)) if begun.continues else None,
        meter=going_on(state.policy.max_output_size, left.told_bytes, left.told),
        phase=known,
    )
