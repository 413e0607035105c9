"""Which chats are told what of their jobs: by session, by channel, by the settings, and else by what is sensible.

What somebody waits for is told, and what would flood a channel is not: each word of an answer, each tool.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import Enum

from attrs import evolve, frozen

from opencode_actors.errors import UsageError
from opencode_actors.machines.vocabulary import Cause, JobSnapshot, JobStatus


class Matter(Enum):
    """What a chat can be told of a job. One of the first four of these comes once, at its end: a `limit` ended it
    when it was its budget or its time; while it runs, that is when its output is full."""

    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    LIMIT = "limit"
    WAITING = "waiting"
    ANSWERED = "answered"
    RUNNING = "running"
    REPORT = "report"
    STARTED = "started"
    TEXT = "text"
    TOOL = "tool"


SENSIBLE: Mapping[Matter, bool] = {
    matter: matter not in (Matter.ANSWERED, Matter.STARTED, Matter.TEXT, Matter.TOOL) for matter in Matter
}


class Party(Enum):
    """Who hears and speaks in a chat: the agent, which is woken by a word, or the person, who reads it as it is."""

    AGENT = "agent"
    PERSON = "person"


# Told to a person's chat as it is. The rest wakes the agent that asked for
# the job: it may have to do something.
FOR_PEOPLE = frozenset({Matter.ANSWERED, Matter.REPORT, Matter.STARTED, Matter.TEXT, Matter.TOOL})

_LIMITS = frozenset({Cause.BUDGET, Cause.JOB_TIMEOUT})
_ENDS = {
    JobStatus.COMPLETED: Matter.COMPLETED,
    JobStatus.FAILED: Matter.FAILED,
    JobStatus.CANCELLED: Matter.CANCELLED,
}


class Scope(Enum):
    """What a choice is for. That of a session wins over that of its chat's channel."""

    SESSION = "session"
    CHANNEL = "channel"


class Source(Enum):
    """Why a matter is told or not."""

    SESSION = "session"
    CHANNEL = "channel"
    SETTINGS = "settings"
    DEFAULT = "default"


@frozen(kw_only=True)
class Choice:
    """A person's: `on` is None when it is taken back."""

    scope: Scope
    name: str
    matter: Matter
    on: bool | None


@frozen(kw_only=True)
class Matrix:
    """`settings` are by channel, "" being all of them."""

    settings: Mapping[tuple[str, Matter], bool] = {}
    choices: Mapping[tuple[Scope, str, Matter], bool] = {}

    def chosen(self, choices: Iterable[Choice]) -> Matrix:
        after = dict(self.choices)
        for choice in choices:
            key = (choice.scope, choice.name, choice.matter)
            after.pop(key, None)
            if choice.on is not None:
                after[key] = choice.on
        return evolve(self, choices=after)

    def without(self, session: str) -> Matrix:
        """When there is no such session any more: the next one of its name begins with nobody's choice."""
        kept = {key: on for key, on in self.choices.items() if key[:2] != (Scope.SESSION, session)}
        return evolve(self, choices=kept)

    def tells(self, matter: Matter, *, session: str, channel: str) -> bool:
        return self.why(matter, session=session, channel=channel)[0]

    def why(self, matter: Matter, *, session: str, channel: str) -> tuple[bool, Source]:
        """Whether it is told, and who says so. Of nobody in particular, with "" for both."""
        for source, on in (
            (Source.SESSION, self.choices.get((Scope.SESSION, session, matter))),
            (Source.CHANNEL, self.choices.get((Scope.CHANNEL, channel, matter))),
            (Source.SETTINGS, self.settings.get((channel, matter))),
            (Source.SETTINGS, self.settings.get(("", matter))),
        ):
            if on is not None:
                return on, source
        return SENSIBLE[matter], Source.DEFAULT


def matter_of_end(job: JobSnapshot) -> Matter:
    if job.failure is not None and job.failure.cause in _LIMITS:
        return Matter.LIMIT
    return _ENDS[job.status]


def matters_named(words: Iterable[str]) -> tuple[Matter, ...]:
    """`all` is each of them. Raises `UsageError`."""
    found: list[Matter] = []
    for word in words:
        if word == "all":
            found.extend(Matter)
            continue
        try:
            found.append(Matter(word))
        except ValueError:
            raise UsageError(
                f"nothing that is told of a job is called {word!r}",
                hint=f"there are {', '.join(matter.value for matter in Matter)}, and all",
            ) from None
    return tuple(found)


def settings_of(entries: Iterable[str]) -> Mapping[tuple[str, Matter], bool]:
    """Of `notifyKinds`: `tool`, `-running`, `telegram:text`, `telegram:-report`. Raises `UsageError`."""
    found: dict[tuple[str, Matter], bool] = {}
    for entry in entries:
        channel, _, word = entry.rpartition(":")
        for matter in matters_named((word.removeprefix("-"),)):
            found[channel, matter] = not word.startswith("-")
    return found
