"""What can be asked for, one class for each method; the names of its fields are those of the params."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args

from attrs import field, frozen

from opencode_actors.kernel.system import LONGEST_LOOK_BACK
from opencode_actors.kernel.wishes import DEFAULT
from opencode_actors.machines.permissions import MODES

LONGEST_WORD = 256  # characters of an id, a key, a name
_LONGEST_ADDRESS = 4096
_LONGEST_DURATION = 366 * 86_400.0


class Wrong(ValueError):
    """A param does not fit; its text is the end of a sentence about it."""

    def __init__(self, field: str, what: str) -> None:
        super().__init__(what)
        self.field = field


Validator = Callable[[object, Any, Any], None]


def _checked(fits: Callable[[Any], bool], what: str) -> Validator:
    """None always fits: it is what a param is that was not given."""

    def check(_: object, attribute: Any, value: object) -> None:
        if value is not None and not fits(value):
            raise Wrong(attribute.name, what)

    return check


_word = _checked(
    lambda text: 0 < len(text) <= LONGEST_WORD and text.isprintable(),
    f"must be one line of 1 to {LONGEST_WORD} characters",
)
_address = _checked(
    lambda text: 0 < len(text) <= _LONGEST_ADDRESS and text.isprintable(),
    f"must be one line of 1 to {_LONGEST_ADDRESS} characters",
)
_not_negative = _checked(lambda number: 0 <= number < 1 << 53, "must be from 0 to 2^53")
_positive = _checked(lambda number: 0 < number < 1 << 53, "must be above 0, and at most 2^53")
_seconds = _checked(
    lambda seconds: 0 <= seconds <= _LONGEST_DURATION, "must be a number of seconds, at most a year"
)
_mode = _checked(lambda word: word in (*MODES, DEFAULT), f"must be {', '.join(MODES)} or {DEFAULT}")
_reply = _checked(lambda word: word in ("once", "always", "reject"), "must be once, always or reject")


_days = _checked(lambda number: 1 <= number <= LONGEST_LOOK_BACK, f"must be from 1 to {LONGEST_LOOK_BACK}")
_by = _checked(lambda word: word in ("agent", "person"), "must be agent or person")


@frozen(kw_only=True)
class Asker:
    """The chat that a job was started from."""

    session_key: str = field(default="")
    agent_id: str = field(default="")
    channel: str = field(default="")


@frozen(kw_only=True)
class Info:
    pass


@frozen(kw_only=True)
class Ping:
    pass


Words = tuple[str, ...]


@frozen(kw_only=True)
class Wishes:
    """What `start` and `respond` have in common."""

    name: str | None = field(default=None, validator=_word)
    model: str | None = field(default=None, validator=_word)
    agent: str | None = field(default=None, validator=_word)
    system: str | None = None
    max_cost_usd: float | None = field(default=None, validator=_positive)
    timeout: float | None = field(default=None, validator=_seconds)
    image: str | None = field(default=None, validator=_word)
    key: str | None = field(default=None, validator=_word)
    permission_mode: str | None = field(default=None, validator=_mode)
    permission_rules: Words | None = None
    origin: Asker | None = None
    by: str = field(default="person", validator=_by)
    report_every: float | None = field(default=None, validator=_seconds)


@frozen(kw_only=True)
class Start(Wishes):
    prompt: str
    session_id: str | None = field(default=None, validator=_word)


@frozen(kw_only=True)
class Respond(Wishes):
    message: str
    session_id: str | None = field(default=None, validator=_word)
    job_id: str | None = field(default=None, validator=_word)

    interrupt: bool = False


@frozen(kw_only=True)
class Resume(Wishes):
    """Without a message the agent is asked to finish what it was at."""

    message: str | None = None
    session_id: str | None = field(default=None, validator=_word)
    job_id: str | None = field(default=None, validator=_word)


@frozen(kw_only=True)
class Fork(Wishes):
    """`name` is the new session's. With a message a job begins there at once."""

    message: str | None = None
    session_id: str | None = field(default=None, validator=_word)
    job_id: str | None = field(default=None, validator=_word)


@frozen(kw_only=True)
class Status:
    job_id: str = field(validator=_word)
    session_id: str | None = field(default=None, validator=_word)


@frozen(kw_only=True)
class Output:
    job_id: str = field(validator=_word)
    session_id: str | None = field(default=None, validator=_word)
    offset: int = field(default=0, validator=_not_negative)
    limit: int = field(default=64 << 10, validator=_positive)


@frozen(kw_only=True)
class Cancel:
    job_id: str = field(validator=_word)
    session_id: str | None = field(default=None, validator=_word)


@frozen(kw_only=True)
class Cleanup:
    delete_workspaces: bool = False
    delete_data: bool = False
    older_than: float = field(default=0.0, validator=_seconds)


@frozen(kw_only=True)
class Close:
    """Ends a session's container, and fails its jobs."""

    session_id: str = field(validator=_word)


@frozen(kw_only=True)
class Reset:
    """Makes one that was given up, or is quarantined, usable again."""

    session_id: str = field(validator=_word)


@frozen(kw_only=True)
class Sessions:
    """`all` with those that have ended."""

    all: bool = False


@frozen(kw_only=True)
class Attach:
    """`password_file` and `password_env` say where the password is; it is in no message."""

    name: str = field(validator=_word)
    url: str = field(validator=_address)
    user: str | None = field(default=None, validator=_word)
    password_file: str | None = field(default=None, validator=_address)
    password_env: str | None = field(default=None, validator=_word)
    directory: str | None = field(default=None, validator=_address)
    conversation: str | None = field(default=None, validator=_word)


@frozen(kw_only=True)
class Detach:
    session_id: str = field(validator=_word)


@frozen(kw_only=True)
class Conversations:
    session_id: str = field(validator=_word)


@frozen(kw_only=True)
class Agents:
    session_id: str | None = field(default=None, validator=_word)


@frozen(kw_only=True)
class Models:
    session_id: str | None = field(default=None, validator=_word)
    match: str | None = field(default=None, validator=_word)


@frozen(kw_only=True)
class Follow:
    job_id: str | None = field(default=None, validator=_word)
    session_id: str | None = field(default=None, validator=_word)
    since: int | None = field(default=None, validator=_not_negative)


@frozen(kw_only=True)
class Unfollow:
    subscription: str = field(validator=_word)


Answers = tuple[tuple[str, ...], ...]


@frozen(kw_only=True)
class Answer:
    """To a question by `answers`, one list for each part of it; to a permission by `reply`."""

    job_id: str = field(validator=_word)
    request_id: str = field(validator=_word)
    answers: Answers | None = None
    reply: str | None = field(default=None, validator=_reply)
    message: str | None = None
    reject: bool = False
    by: str = field(default="person", validator=_by)


@frozen(kw_only=True)
class Requests:
    pass


@frozen(kw_only=True)
class Statistics:
    days: int = field(default=7, validator=_days)


@frozen(kw_only=True)
class Notify:
    """What chats are told: of the jobs of a session, or all of a channel."""

    session_id: str | None = field(default=None, validator=_word)
    job_id: str | None = field(default=None, validator=_word)
    channel: str | None = field(default=None, validator=_word)
    on: Words = ()
    off: Words = ()
    reset: Words = ()


@frozen(kw_only=True)
class Present:
    """A person has said something in this chat."""

    origin: Asker


@frozen(kw_only=True)
class Attend:
    name: str = field(validator=_word)


@frozen(kw_only=True)
class Ack:
    id: str = field(validator=_word)


Command = (
    Info
    | Ping
    | Start
    | Respond
    | Resume
    | Fork
    | Status
    | Output
    | Cancel
    | Cleanup
    | Close
    | Reset
    | Sessions
    | Attach
    | Detach
    | Conversations
    | Agents
    | Models
    | Follow
    | Unfollow
    | Answer
    | Requests
    | Statistics
    | Notify
    | Present
    | Attend
    | Ack
)

METHODS: dict[str, type[Command]] = {kind.__name__.lower(): kind for kind in get_args(Command)}
