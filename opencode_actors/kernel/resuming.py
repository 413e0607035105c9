"""Whether a session can be gone on with."""

from __future__ import annotations

from collections.abc import Sequence

from opencode_actors.errors import UsageError
from opencode_actors.kernel.sessions import Sessions
from opencode_actors.machines.job_state import JobState
from opencode_actors.machines.vocabulary import SessionKey
from opencode_actors.store.port import Store

# What the agent is told when nobody says more.
GO_ON = "Go on where you left off: look at how things are, then finish what you were last asked to do."


def check_is_at_rest(session: SessionKey, jobs: Sequence[JobState]) -> None:
    """Raises `UsageError` where it has `jobs`."""
    if jobs:
        called = f" ({jobs[0].name})" if jobs[0].name else ""
        raise UsageError(
            f"session {session} has not ended: job {jobs[0].id}{called} is under way in it",
            hint="respond to it instead: that is queued behind the job, or interrupts it",
        )


async def check_can_resume(session: SessionKey, sessions: Sessions, store: Store) -> None:
    """Raises `UsageError`. A conversation that is lost is not begun anew without a word."""
    if (await store.recall(session)).conversation is None:
        raise UsageError(
            f"session {session} never came to a conversation, so there is nothing to go on with",
            hint="respond to it instead: that begins one",
        )
    if not await sessions.keeps_conversation(session):
        raise UsageError(
            f"the conversation of session {session} is not kept any more: its data was removed",
            hint="respond to it instead: that begins a new conversation with the files that are left",
        )
