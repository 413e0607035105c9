"""What is asked for when a job is started: checked before anything is done for it."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Sequence
from typing import TypedDict, Unpack

from attrs import frozen

from opencode_actors.errors import UsageError
from opencode_actors.machines.names import job_name
from opencode_actors.machines.notices import Habits
from opencode_actors.machines.permissions import permissions_of
from opencode_actors.machines.vocabulary import Origin
from opencode_actors.ports import Prompt
from opencode_actors.settings import SHORTEST_GAP, Settings

LONGEST_PROMPT = 4 << 20  # bytes; the models of today take less
LONGEST_KEY = 200
DEFAULT = "default"  # as model, agent, system or mode: what the settings say, whatever was used last
_MODEL = re.compile(r"[^\s/]+/\S+")
_IMAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@-]{0,254}")


class Asked(TypedDict, total=False):
    """What can be asked for with a message. What is not given, or None, is as the settings say; but for these three,
    and the permissions, as the session used them last.

    `model`, `agent`, `system`: of this job and those that follow in its session. The word `default` is what the
        settings say, whatever was used last.
    `permission_mode` is allow, ask or plan (reading only), and `permission_rules` go before it, each as
        `TOOL:PATTERN=ACTION`. Where they are others than before, the session gets a new container between two jobs.
    `name` is what people call the job, and its own until it has settled. Without a name it is called by the
        prompt's key words.
    `image`: the session's containers are made from it, from now on.
    `job_timeout` is in seconds, 0 for none.
    `max_cost_usd`: a job that has cost more is ended, as far as OpenCode knows the model's price
        (`JobSnapshot.cost_known`).
    `report_every`: every so many seconds, at least 10, its chat is told how far it is; 0 for never.
    `key`: the same key within a day is the same job, also after a restart, so that asking again is safe for whoever
        does not know whether the first time succeeded; `UsageError` when something else is asked for under it.
    `origin` is kept with the job: who asked for it, and who is to be told of it.
    """

    name: str | None
    image: str | None
    model: str | None
    agent: str | None
    system: str | None
    job_timeout: float | None
    max_cost_usd: float | None
    report_every: float | None
    key: str | None
    origin: Origin | None
    permission_mode: str | None
    permission_rules: Sequence[str] | None


@frozen(kw_only=True)
class Wish:
    """All that is asked for. `request` is the same for the same, and another for anything else."""

    prompt: Prompt
    habits: Habits
    name: str = ""
    image: str | None = None
    timeout: float | None = None
    max_cost_usd: float = 0.0
    report_every: float | None = None
    key: str | None = None
    origin: Origin | None = None
    request: str = ""
    first: bool = False
    resumes: bool = False  # only where nothing is under way, and there is something to go on with


def wish_of(
    settings: Settings,
    prompt: str,
    *,
    session: str | None,
    before: Habits,
    first: bool = False,
    resumes: bool = False,
    **asked: Unpack[Asked],
) -> Wish:
    """Raises `UsageError` for what cannot be. What is not asked for is as it was `before`, or else as the settings
    say; the word `default` means the settings."""
    name, image, key = asked.get("name"), asked.get("image"), asked.get("key")
    model, agent, system = asked.get("model"), asked.get("agent"), asked.get("system")
    mode, rules = asked.get("permission_mode"), asked.get("permission_rules")
    job_timeout, max_cost_usd = asked.get("job_timeout"), asked.get("max_cost_usd")
    report_every = asked.get("report_every")
    _check_prompt(prompt)
    _check_wish(model=model, agent=agent, system=system, job_timeout=job_timeout, max_cost_usd=max_cost_usd)
    if report_every and not (math.isfinite(report_every) and report_every >= SHORTEST_GAP):
        raise UsageError(
            f"{report_every:g} seconds cannot lie between two reports",
            hint=f"give at least {SHORTEST_GAP:g}, or 0 for none",
        )
    _check_key(key)
    _check_image(image)
    habits = Habits(
        model=_kept(model, before.model),
        agent=_kept(agent, before.agent),
        system=_kept(system, before.system),
        permissions=permissions_of(
            None if mode == DEFAULT else mode,
            rules,
            before=None if mode == DEFAULT else before.permissions,
        ),
    )
    wanted = Prompt(
        text=prompt,
        model=habits.model or settings.model or None,
        agent=habits.agent or settings.agent or None,
        system=habits.system,
        permissions=habits.permissions,
    )
    return Wish(
        prompt=wanted,
        name="" if name is None else job_name(name),
        image=image,
        timeout=job_timeout,
        max_cost_usd=max_cost_usd or 0.0,
        report_every=report_every,
        key=key,
        origin=asked.get("origin"),
        request=_digest(
            *(prompt, session, name, image, model, agent, system, job_timeout, max_cost_usd),
            *(first,) * first,
            *(() if report_every is None else (report_every,)),
            *_if_any(mode, rules),
        ),
        habits=habits,
        first=first,
        resumes=resumes,
    )


def _kept(asked: str | None, before: str | None) -> str | None:
    if asked == DEFAULT:
        return None
    return asked or before


def _if_any(mode: str | None, rules: Sequence[str] | None) -> tuple[str, ...]:
    """A key that was given before there were permissions still stands for the same."""
    return () if mode is None and rules is None else (f"permissions {mode} {list(rules or ())}",)


def _check_prompt(prompt: str) -> None:
    if not prompt.strip():
        raise UsageError("the prompt is empty", hint="say what is to be done")
    size = len(_encoded("prompt", prompt))
    if size > LONGEST_PROMPT:
        raise UsageError(
            f"the prompt has {size} bytes, and at most {LONGEST_PROMPT} are taken",
            hint="put long material into a file of the workspace and name it in the prompt",
        )


def _check_wish(
    *,
    model: str | None,
    agent: str | None,
    system: str | None,
    job_timeout: float | None,
    max_cost_usd: float | None,
) -> None:
    if model and model != DEFAULT and not _MODEL.fullmatch(model):
        raise UsageError(f"{model!r} cannot be a model", hint="name it as provider/model")
    for name, text in (("model", model), ("agent", agent), ("system prompt", system)):
        if len(_encoded(name, text or "")) > LONGEST_PROMPT:
            raise UsageError(f"the {name} has more than {LONGEST_PROMPT} bytes")
    if job_timeout is not None and not (math.isfinite(job_timeout) and job_timeout >= 0):
        raise UsageError(
            f"a job cannot have {job_timeout} seconds", hint="give a number of seconds, or 0 for no bound"
        )
    if max_cost_usd is not None and not (math.isfinite(max_cost_usd) and max_cost_usd > 0):
        raise UsageError(f"{max_cost_usd} dollars cannot be a bound", hint="give more than 0, or nothing")


def _check_key(key: str | None) -> None:
    if key is not None and not (0 < len(key) <= LONGEST_KEY and key.isprintable()):
        raise UsageError(
            f"{key[:LONGEST_KEY]!r} cannot be a key",
            hint=f"use 1 to {LONGEST_KEY} printable characters, for example a UUID",
        )


def _check_image(image: str | None) -> None:
    if image is not None and not _IMAGE.fullmatch(image):
        raise UsageError(
            f"{image[:LONGEST_KEY]!r} cannot be an image",
            hint="name one of the engine's store, for example localhost/opencode-actors:latest",
        )


def _digest(*wish: str | float | None) -> str:
    """As asked, not as understood: other settings after a restart do not make it another wish."""
    return hashlib.sha256(json.dumps(wish).encode()).hexdigest()


def _encoded(name: str, text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise UsageError(f"the {name} is not valid text: {error.reason}") from None
