"""What is asked for when a job is started: checked before anything is done for it."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Sequence
from typing import TypedDict

from attrs import frozen

from opencode_actors.errors import UsageError
from opencode_actors.machines.names import job_name
from opencode_actors.machines.notices import Habits
from opencode_actors.machines.permissions import permissions_of
from opencode_actors.machines.vocabulary import Origin
from opencode_actors.ports import Prompt
from opencode_actors.settings import Settings

LONGEST_PROMPT = 4 << 20  # bytes; the models of today take less
LONGEST_KEY = 200
DEFAULT = "default"  # as model, agent, system or mode: what the settings say, whatever was used last
_MODEL = re.compile(r"[^\s/]+/\S+")
_IMAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@-]{0,254}")


class Asked(TypedDict, total=False):
    """What can be asked for with a message; the same as for `System.start`."""

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
    name: str | None = None,
    image: str | None = None,
    model: str | None = None,
    agent: str | None = None,
    system: str | None = None,
    job_timeout: float | None = None,
    max_cost_usd: float | None = None,
    report_every: float | None = None,
    key: str | None = None,
    origin: Origin | None = None,
    permission_mode: str | None = None,
    permission_rules: Sequence[str] | None = None,
) -> Wish:
    """Raises `UsageError` for what cannot be. What is not asked for is as it was `before`, or else as the settings
    say; the word `default` means the settings."""
    _check_prompt(prompt)
    _check_wish(model=model, agent=agent, system=system, job_timeout=job_timeout, max_cost_usd=max_cost_usd)
    if report_every is not None and not (math.isfinite(report_every) and report_every >= 0):
        raise UsageError(
            f"{report_every} seconds cannot lie between two reports", hint="give more than 0, or 0 for none"
        )
    _check_key(key)
    _check_image(image)
    habits = Habits(
        model=_kept(model, before.model),
        agent=_kept(agent, before.agent),
        system=_kept(system, before.system),
        permissions=permissions_of(
            None if permission_mode == DEFAULT else permission_mode,
            permission_rules,
            before=None if permission_mode == DEFAULT else before.permissions,
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
        origin=origin,
        request=_digest(
            *(prompt, session, name, image, model, agent, system, job_timeout, max_cost_usd),
            *(first,) * first,
            *(() if report_every is None else (report_every,)),
            *_if_any(permission_mode, permission_rules),
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
