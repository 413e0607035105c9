"""What a run is to go through, as data: how many sessions and jobs, what the model does in them, what breaks.

name = "a busy hour"
sessions = 4
jobs = 60
duration = 3600            # seconds in which the jobs come
arrival = "random"         # steady, random or bursts
cancelled = 0.1            # the share of jobs that are cancelled

[prompts]                  # weights
short = 4
stream = 2

[settings]                 # any setting
idleTimeout = 60

[[faults]]
kind = "container_crash"
times = 3
"""

from __future__ import annotations

import random
import tomllib
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast

import cattrs
from attrs import Attribute, evolve, field, frozen, validators

from opencode_actors.errors import SettingsError, UsageError
from opencode_actors.settings import Settings
from opencode_actors.settings_sources import load_settings

Value = str | int | float | bool
NumberT = TypeVar("NumberT", int, float)

_LONGEST = 30 * 86_400.0
_LONGEST_NAME = 100
_LARGEST_WEIGHT = 1_000_000
_OF_THE_RUN = frozenset(
    {"sessionsDir", "workspacesDir", "model", "opencodeAuth", "passEnvironment", "doorHost", "doorPort",
     "doorTlsCertificate", "doorTlsKey", "notifyWebhookUrl", "hooksToken"}
)  # fmt: skip


# The command that a prompt runs by permission alone, and the rule that has it asked for.
ASKED_FOR = "echo yes"
ASKS = f"bash:{ASKED_FOR}=ask"


class Arrival(Enum):
    """When jobs come: at an even pace, at random, or many at the same moment."""

    STEADY = "steady"
    RANDOM = "random"
    BURSTS = "bursts"


class Talk(Enum):
    """What the model does with a prompt."""

    SHORT = "short"
    STREAM = "stream"
    BURST = "burst"
    TOOL = "tool"
    CHILD = "child"
    QUESTION = "question"
    PERMISSION = "permission"
    HANG = "hang"


class FaultKind(Enum):
    """What can go wrong. `vanishing_followers` leave in the middle and come back; a `receiver` is who is told
    that a job has settled."""

    CONTAINER_CRASH = "container_crash"
    CONTAINER_OOM = "container_oom"
    CONTAINER_REMOVED = "container_removed"
    CRASH_LOOP = "crash_loop"
    SERVER_FROZEN = "server_frozen"
    SERVER_SLOW = "server_slow"
    ANSWERS_LOST = "answers_lost"
    STREAM_DROPPED = "stream_dropped"
    STREAM_TRUNCATED = "stream_truncated"
    EVENTS_DUPLICATED = "events_duplicated"
    EVENTS_REORDERED = "events_reordered"
    PROVIDER_401 = "provider_401"
    PROVIDER_429 = "provider_429"
    PROVIDER_500 = "provider_500"
    PROVIDER_SILENT = "provider_silent"
    PROVIDER_SLOW = "provider_slow"
    ENGINE_AWAY = "engine_away"
    ENGINE_LIES = "engine_lies"
    ENGINE_REFUSES = "engine_refuses"
    ENGINE_SLOW = "engine_slow"
    IGNORES_SIGTERM = "ignores_sigterm"
    DISK_FULL = "disk_full"
    JOURNAL_SLOW = "journal_slow"
    CLOCK_STEP = "clock_step"
    SERVICE_KILLED = "service_killed"
    SERVICE_ENDED = "service_ended"
    CANCEL_STORM = "cancel_storm"
    CLEANUP_STORM = "cleanup_storm"
    CLOSE_STORM = "close_storm"
    VANISHING_FOLLOWERS = "vanishing_followers"
    RECEIVER_REFUSES = "receiver_refuses"
    RECEIVER_HANGS = "receiver_hangs"
    RECEIVER_AWAY = "receiver_away"
    RECEIVER_SLOW = "receiver_slow"


def _between(least: NumberT, most: NumberT) -> Callable[[object, Attribute[NumberT], NumberT], None]:
    def check(_: object, attribute: Attribute[NumberT], value: NumberT) -> None:
        if not least <= value <= most:
            raise ValueError(f"{attribute.name} must be between {least} and {most}, and is {value}")

    return check


def _moments(_: object, attribute: Attribute[tuple[float, ...]], value: tuple[float, ...]) -> None:
    for one in value:
        if not 0.0 <= one <= _LONGEST:
            raise ValueError(f"{attribute.name} must be between 0 and {_LONGEST:g} seconds, and has {one}")


def _one_line(_: object, attribute: Attribute[str], value: str) -> None:
    if not value.isprintable() or len(value) > _LONGEST_NAME:
        raise ValueError(f"{attribute.name} must be one line of {_LONGEST_NAME} printable characters at most")


@frozen(kw_only=True)
class FaultPlan:
    """So many `times` at random moments, once if nothing is said, or `at` these seconds; each for as long as it
    `lasts`, where it has a length."""

    kind: FaultKind
    times: int | None = field(default=None, validator=validators.optional(_between(0, 10_000)))
    lasts: float = field(default=20.0, validator=_between(0.0, 86_400.0))
    at: tuple[float, ...] = field(default=(), validator=_moments)

    def __attrs_post_init__(self) -> None:
        if self.at and self.times is not None:
            raise ValueError("a fault has times or at, and not both")

    def moments(self, duration: float, rng: random.Random) -> Sequence[float]:
        """When it happens in a run of this length."""
        return self.at or [rng.uniform(0.0, duration) for _ in range(1 if self.times is None else self.times)]


@frozen(kw_only=True)
class Scenario:
    """`least_accepted` is the share of jobs that may not be refused. `pace` is what the model's pauses are multiplied with; `settle_within` is how long after the last job and the last fault everything must be over."""

    name: str = field(default="unnamed", validator=_one_line)
    sessions: int = field(default=4, validator=_between(1, 10_000))
    jobs: int = field(default=40, validator=_between(1, 100_000))
    duration: float = field(default=1800.0, validator=_between(0.0, _LONGEST))
    arrival: Arrival = Arrival.RANDOM
    cancelled: float = field(default=0.1, validator=_between(0.0, 1.0))
    least_accepted: float = field(default=0.2, validator=_between(0.0, 1.0))
    prompts: Mapping[Talk, int] = field(factory=lambda: {Talk.SHORT: 1}, validator=validators.min_len(1))
    faults: tuple[FaultPlan, ...] = ()
    settings: Mapping[str, Value] = field(factory=dict[str, Value])
    pace: float = field(default=1.0, validator=_between(0.001, 1000.0))
    settle_within: float = field(default=3600.0, validator=_between(1.0, 86_400.0))

    def __attrs_post_init__(self) -> None:
        weights = self.prompts.values()
        if min(weights) < 0 or max(weights) > _LARGEST_WEIGHT or not any(weights):
            raise ValueError(f"prompts must have weights from 0 to {_LARGEST_WEIGHT}, and one above 0")
        if own := sorted(_OF_THE_RUN & self.settings.keys()):
            raise ValueError(
                f"settings cannot have {', '.join(own)}: a run's folders, model, door and receiver are its own"
            )

    def settings_over(self, base: Settings) -> Settings:
        """`base` with what the scenario sets, and with the rule `ASKS`. Raises `SettingsError`."""
        given = {
            key: str(value).lower() if isinstance(value, bool) else str(value)
            for key, value in self.settings.items()
        }
        loaded = load_settings(environment=_NO_FILES, flags=given)
        changed = {
            name: getattr(loaded.settings, name)
            for name, source in loaded.sources.items()
            if source.place == "command line"
        }
        settings = evolve(base, **changed)
        return evolve(settings, permission_rules=(*settings.permission_rules, ASKS))


# A scenario is the same on every host: nobody's openclaw.json has a say in it.
_NO_FILES: Mapping[str, str] = {"OPENCLAW_STATE_DIR": "/nonexistent"}


def load_scenario(path: Path) -> Scenario:
    """Raises `UsageError`, which names the file and the place in it."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"the scenario {path} cannot be read: {error}") from None
    try:
        return read_scenario(text)
    except UsageError as error:
        raise UsageError(f"{path}: {error.message}", hint=error.hint) from None


def read_scenario(text: str) -> Scenario:
    """Raises `UsageError`."""
    try:
        document = tomllib.loads(text)
    except RecursionError:
        raise UsageError("it is nested too deep") from None
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"it is not TOML: {error}") from None
    except ValueError:  # Python's own limit
        raise UsageError("a number in it has too many digits") from None
    try:
        scenario = _converter().structure(document, Scenario)
    except cattrs.BaseValidationError as error:
        first, *rest = cattrs.transform_error(error, format_exception=_in_words)
        more = f" (and {len(rest)} more)" if rest else ""
        raise UsageError(f"{first}{more}", hint="docs/stress.md describes scenarios") from None
    try:
        scenario.settings_over(Settings())
    except SettingsError as error:
        words = error.message.removesuffix(" (command line)")  # where they are given as if by it
        raise UsageError(f"in [settings]: {words}", hint=error.hint) from None
    return scenario


def _converter() -> cattrs.Converter:
    converter = cattrs.Converter(forbid_extra_keys=True)
    converter.register_structure_hook(int, _whole)
    converter.register_structure_hook(float, _number)
    converter.register_structure_hook(str, _text)
    converter.register_structure_hook(Value, _scalar)
    converter.register_structure_hook_func(lambda kind: kind == tuple[float, ...], _numbers)
    converter.register_structure_hook_func(
        lambda kind: kind == tuple[FaultPlan, ...], partial(_faults, converter)
    )
    for enum in (Arrival, Talk, FaultKind):
        converter.register_structure_hook(enum, _word)
    return converter


def _whole(value: object, _: object) -> int:
    if type(value) is not int:
        raise ValueError(f"must be a whole number, not {value!r}")
    return value


def _number(value: object, _: object) -> float:
    if type(value) is int or type(value) is float:
        return float(value)
    raise ValueError(f"must be a number, not {value!r}")


def _numbers(value: object, _: object) -> tuple[float, ...]:
    if not isinstance(value, list):
        raise ValueError(f"must be a list of numbers, such as [10, 20.5], not {value!r}")  # noqa: TRY004 - as below
    return tuple(_number(one, float) for one in cast("list[object]", value))


def _faults(converter: cattrs.Converter, value: object, _: object) -> tuple[FaultPlan, ...]:
    if not isinstance(value, list):
        raise ValueError("each is a table of its own, under [[faults]]")  # noqa: TRY004 - as below
    return tuple(converter.structure(value, list[FaultPlan]))


def _text(value: object, _: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"must be a text, not {value!r}")  # noqa: TRY004 - one kind of error for bad input
    return value


def _scalar(value: object, _: object) -> Value:
    if isinstance(value, str | int | float):
        return value
    raise ValueError(f"must be a text, a number, true or false, not {value!r}")


def _word(value: object, enum: Any) -> Enum:
    try:
        member: Enum = enum(value)
    except ValueError:
        known = ", ".join(str(one.value) for one in enum)
        raise ValueError(f"must be one of {known}, not {value!r}") from None
    return member


def _in_words(error: BaseException, _: type | None) -> str:
    if isinstance(error, cattrs.ForbiddenExtraKeysError):
        return f"there is no {', '.join(sorted(error.extra_fields))}"
    if isinstance(error, KeyError):
        return f"{error.args[0]} is missing"
    return str(error)
