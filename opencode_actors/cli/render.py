"""What a person sees of a job: a pure function from notices to what is written where.

The model's words go to the output and nothing else does; everything that is said about them goes beside
it. So `opencode-actors run … > answer.txt` keeps the answer alone, whatever happens meanwhile.
"""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import assert_never

from attrs import evolve, frozen

from opencode_actors.cli.explain import explain
from opencode_actors.machines import notices as told
from opencode_actors.machines import spending
from opencode_actors.machines.vocabulary import (
    JobSnapshot,
    JobStatus,
    OnUnanswered,
    RequestKind,
    Rung,
    SessionStatus,
)
from opencode_actors.settings import Settings


class Tone(Enum):
    PLAIN = "plain"
    FAINT = "faint"
    GOOD = "good"
    WARNING = "warning"
    BAD = "bad"


@frozen
class Answer:
    """The model's own words, exactly as they came."""

    text: str


@frozen
class Line:
    """One line beside the answer."""

    text: str
    tone: Tone = Tone.PLAIN


@frozen
class Busy:
    """What is being waited for; shown until the next action. What is `passing` is not worth a line in a log."""

    text: str
    passing: bool = False


Action = Answer | Line | Busy


@frozen(kw_only=True)
class View:
    """How far the answer itself has been written, wherever it goes."""

    at_line_start: bool = True


Shown = tuple[View, tuple[Action, ...]]

# The built-in demo model has prices, so that a cost shows; nobody is charged.
DEMO_PROVIDER = "scripted/"

_SESSION_WORDS = {
    SessionStatus.CREATING: "creating the container",
    SessionStatus.STARTING: "waiting for OpenCode to be ready in it",
    SessionStatus.STOPPING: "stopping the container",
}

_SESSION_TROUBLE = {
    SessionStatus.UNREADY: "OpenCode does not answer",
    SessionStatus.BACKING_OFF: "the container failed and is started again",
    SessionStatus.GIVEN_UP: "the container failed too often and is given up",
    SessionStatus.QUARANTINED: "the container cannot be removed and is left to you",
}

_RUNG_WORDS = {
    Rung.ABORT: "asking OpenCode to abort",
    Rung.STOP: "stopping the container",
    Rung.KILL: "killing the container",
    Rung.REMOVE: "removing the container by force",
    Rung.QUARANTINE: "the engine cannot remove the container",
}


_INPUT_WORDS = {
    told.InputEnd.ANSWERED: "answered",
    told.InputEnd.REJECTED: "rejected",
    told.InputEnd.UNANSWERED: "nobody answered, and the agent was told so",
    told.InputEnd.GONE: "the agent does not wait for that answer any more",
}


def show(view: View, notice: told.Notice) -> Shown:
    match notice:
        case told.SessionChanged():
            return view, _session(notice)
        case told.JobQueued():
            return view, _queued(notice.ahead)
        case told.JobStarted():
            return view, (Busy("waiting for the model"),)
        case told.OutputAdded():
            return _output(view, notice)
        case told.ToolStarted():
            return view, (
                Busy(
                    one_line(f"{notice.tool}: {notice.title}" if notice.title else notice.tool), passing=True
                ),
            )
        case told.TodosChanged():
            return view, _todos(notice)
        case told.InputWanted():
            return view, _asked(notice)
        case told.InputAnswered():
            return view, (Line(_INPUT_WORDS[notice.end], Tone.FAINT),)
        case told.ProviderRetrying():
            wait = f", next try in {notice.seconds:.0f} s" if notice.seconds > 0 else ""
            text = f"the model provider failed (attempt {notice.attempt}{wait}): {one_line(notice.reason)}"
            return view, (Line(text, Tone.WARNING),)
        case told.JobLasted():
            return view, (Line(f"still running after {duration(notice.seconds)}", Tone.FAINT),)
        case told.JobReported():
            return view, ()  # whoever sees all of it needs no report
        case told.OutputFilled():
            return view, (Line("its output is full (maxOutputSize); the job goes on", Tone.WARNING),)
        case told.JobCancelling():
            why = f" ({one_line(notice.why)})" if notice.why else ""
            return view, (Line(f"cancelling: {_RUNG_WORDS[notice.rung]}{why}", Tone.WARNING),)
        case told.JobEnded():
            return _end_line(view)
        case told.NotificationFailed():
            return view, (Line(f"OpenClaw was not told: {one_line(notice.reason)}", Tone.WARNING),)
        case _:
            assert_never(notice)


def _asked(notice: told.InputWanted) -> tuple[Action, ...]:
    who = "a sub-agent" if notice.sub_agent else "the agent"
    wants = "asks" if notice.kind is RequestKind.QUESTION else "wants permission"
    options = f" ({' | '.join(one_line(option) for option in notice.options)})" if notice.options else ""
    asked = Line(f"{who} {wants}: {one_line(notice.text)}{options}", Tone.WARNING)
    if not notice.timeout:
        return (asked, Line("nobody can answer here, and questionTimeout is 0: it waits for ever", Tone.BAD))
    then = (
        "the job fails"
        if notice.on_unanswered is OnUnanswered.FAIL
        else "the agent goes on without an answer"
    )
    return (asked, Line(f"nobody can answer here: in {duration(notice.timeout)} {then}", Tone.WARNING))


def _session(notice: told.SessionChanged) -> tuple[Action, ...]:
    detail = one_line(notice.detail)
    if trouble := _SESSION_TROUBLE.get(notice.status):
        return (Line(f"{trouble}: {detail}" if detail else trouble, Tone.WARNING),)
    if words := _SESSION_WORDS.get(notice.status):
        return (Busy(words),)
    return ()


def _queued(ahead: int) -> tuple[Action, ...]:
    if not ahead:
        return ()
    jobs = "one job" if ahead == 1 else f"{ahead} jobs"
    return (Busy(f"waiting for {jobs} of this session to end"),)


def _output(view: View, notice: told.OutputAdded) -> Shown:
    if notice.kind is told.OutputKind.TEXT:
        if not notice.text:
            return view, ()
        return evolve(view, at_line_start=notice.text.endswith("\n")), (Answer(notice.text),)
    tone = Tone.FAINT if notice.kind is told.OutputKind.TOOL else Tone.WARNING
    view, ending = _end_line(view)
    return view, (*ending, Line(one_line(notice.text), tone))


def _todos(notice: told.TodosChanged) -> tuple[Action, ...]:
    done = sum(1 for todo in notice.todos if todo.status == "completed")
    current = next((todo.content for todo in notice.todos if todo.status == "in_progress"), "")
    if not notice.todos or not (current or done):
        return ()
    now = f", now: {one_line(current)}" if current else ""
    return (Busy(f"{done} of {len(notice.todos)} done{now}"),)


def _end_line(view: View) -> Shown:
    """Between two pieces of the answer stood a line of another kind: they must not run into each other."""
    return View(at_line_start=True), () if view.at_line_start else (Answer("\n"),)


def one_line(text: str) -> str:
    """No line breaks, and nothing that a terminal would obey."""
    return "".join(character if character.isprintable() else " " for character in text.strip())


# ---- the end


def summary(snapshot: JobSnapshot, settings: Settings, *, workspace: Path) -> tuple[Line, ...]:
    figures = " · ".join(
        (
            *_figures(snapshot),
            f"session {snapshot.session}",
            f"workspace {workspace}",
        )
    )
    lines: list[Line] = []
    if snapshot.status is JobStatus.COMPLETED:
        lines.append(Line(f"completed in {duration(snapshot.elapsed_seconds)} · {figures}", Tone.GOOD))
    elif snapshot.status is JobStatus.CANCELLED:
        lines.append(
            Line(
                f"{'interrupted' if snapshot.interrupted_by else 'cancelled'} after {duration(snapshot.elapsed_seconds)}{_climb(snapshot)} · {figures}",
                Tone.WARNING,
            )
        )
    else:
        cause = f" ({snapshot.failure.cause.value})" if snapshot.failure else ""
        lines.append(Line(f"failed{cause} after {duration(snapshot.elapsed_seconds)} · {figures}", Tone.BAD))
    if snapshot.failure is not None:
        explanation = explain(snapshot.failure, settings)
        lines.append(Line(f"error: {one_line(explanation.what)}", Tone.BAD))
        lines.append(Line(f"hint: {explanation.hint}"))
    if snapshot.output_truncated:
        lines.append(
            Line("the output was cut at maxOutputSize; --set maxOutputSize=0 keeps all of it", Tone.WARNING)
        )
    return tuple(lines)


def missed(count: int, snapshot: JobSnapshot, settings: Settings) -> Line:
    """Of notices that came while nobody read what was written here."""
    notices = "1 notice was" if count == 1 else f"{count} notices were"
    path = settings.sessions_dir.expanduser() / "outputs" / f"{snapshot.id}.txt"
    text = f"{notices} missed, so the answer may have gaps; all of it, with the tools' lines, is in {path}"
    return Line(text, Tone.WARNING)


def _figures(snapshot: JobSnapshot) -> tuple[str, ...]:
    tokens = snapshot.tokens
    figures: list[str] = []
    if snapshot.model:
        figures.append(snapshot.model)
    taken = tokens.input + tokens.cache_read + tokens.cache_write
    if taken or tokens.output or tokens.reasoning:
        figures.append(f"{taken:,} tokens in, {tokens.output + tokens.reasoning:,} out")
    cost = spending.in_words(snapshot.cost_usd, known=snapshot.cost_known, most=snapshot.max_cost_usd)
    made_up = " (made-up prices)" if snapshot.model.startswith(DEMO_PROVIDER) else ""
    figures.append(cost + (made_up if snapshot.cost_usd else ""))
    return tuple(figures)


def _climb(snapshot: JobSnapshot) -> str:
    climb = snapshot.climb
    if climb is None or climb.ended_by is None:
        return ""
    times = ", ".join(f"{rung.name.lower()} {seconds:.1f} s" for rung, seconds in climb.seconds)
    why = f" because {one_line(climb.why)}" if climb.why else ""
    return f", ended by {climb.ended_by.name.lower()}" + (f" ({times})" if times else "") + why


def duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"


def document(
    snapshot: JobSnapshot, settings: Settings, *, workspace: Path, output: str, notices_missed: int
) -> dict[str, object]:
    """What `--json` prints: one object, whose names do not change. `output` has no gaps when none was missed."""
    tokens, climb, failure = snapshot.tokens, snapshot.climb, snapshot.failure
    error: dict[str, object] | None = None
    if failure is not None:
        explanation = explain(failure, settings)
        error = {
            "cause": failure.cause.value,
            "message": explanation.what,
            "hint": explanation.hint,
            "exitCode": failure.exit_code,
        }
    return {
        "jobId": snapshot.id,
        "sessionKey": snapshot.session,
        "status": snapshot.status.value,
        "output": output,
        "outputTruncated": snapshot.output_truncated,
        "noticesMissed": notices_missed,
        "error": error,
        "elapsedSeconds": round(snapshot.elapsed_seconds, 3),
        "model": snapshot.model,
        "costUsd": snapshot.cost_usd if snapshot.cost_usd or snapshot.cost_known else None,
        "tokens": {
            "input": tokens.input,
            "output": tokens.output,
            "reasoning": tokens.reasoning,
            "cacheRead": tokens.cache_read,
            "cacheWrite": tokens.cache_write,
        },
        "cancel": None
        if climb is None
        else {
            "endedBy": climb.ended_by.name.lower() if climb.ended_by is not None else None,
            "seconds": {rung.name.lower(): round(seconds, 3) for rung, seconds in climb.seconds},
            "why": climb.why or None,
        },
        "workspace": str(workspace),
    }
