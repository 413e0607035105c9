"""What a person sees: notices in, actions out, without a terminal or a job."""

from __future__ import annotations

import json
from pathlib import Path

import attrs
import pytest

from opencode_actors.cli.explain import explain, of_job
from opencode_actors.cli.render import (
    Action,
    Answer,
    Busy,
    Line,
    Tone,
    View,
    document,
    duration,
    show,
    summary,
)
from opencode_actors.cli.screen import SilentAnswer, harmless
from opencode_actors.cli.status import Status
from opencode_actors.machines.notices import (
    InputAnswered,
    InputEnd,
    InputWanted,
    JobCancelling,
    JobEnded,
    JobQueued,
    JobStarted,
    Notice,
    OutputAdded,
    OutputKind,
    ProviderRetrying,
    SessionChanged,
    TodosChanged,
    ToolStarted,
)
from opencode_actors.machines.server_events import ConversationId, Todo, Tokens
from opencode_actors.machines.vocabulary import (
    ActivityState,
    Cause,
    Climb,
    Failure,
    JobId,
    JobSnapshot,
    JobStatus,
    OnUnanswered,
    RequestKind,
    Rung,
    SessionKey,
    SessionStatus,
)
from opencode_actors.settings import Settings

JOB, SESSION = JobId("job-1"), SessionKey("demo")
WORKSPACE = Path("/home/me/spaces/demo")
SETTINGS = Settings()


def output(kind: OutputKind, text: str) -> OutputAdded:
    return OutputAdded(job=JOB, session=SESSION, kind=kind, offset=0, text=text)


def performed(*notices: Notice) -> list[Action]:
    view, actions = View(), list[Action]()
    for notice in notices:
        view, more = show(view, notice)
        actions.extend(more)
    return actions


def snapshot(**changes: object) -> JobSnapshot:
    base = JobSnapshot(
        id=JOB,
        session=SESSION,
        prompt="hello",
        status=JobStatus.COMPLETED,
        activity=ActivityState.IDLE,
        elapsed_seconds=12.34,
        cost_usd=0.0123,
        tokens=Tokens(input=1200, output=56, cache_read=34),
        model="acme/large",
    )
    return attrs.evolve(base, **changes)  # type: ignore[arg-type]


def test_the_answer_is_what_the_model_said_and_nothing_else() -> None:
    actions = performed(
        SessionChanged(session=SESSION, status=SessionStatus.CREATING),
        JobStarted(job=JOB, session=SESSION),
        output(OutputKind.TEXT, "I will "),
        output(OutputKind.TEXT, "look."),
        output(OutputKind.TOOL, "\n[bash] ls (exit 0, 0.1 s)\n"),
        output(OutputKind.TEXT, "Done.\n"),
        output(OutputKind.REMARK, "[output ends here]\n"),
        JobEnded(job=JOB, session=SESSION, snapshot=snapshot()),
    )
    answer = "".join(action.text for action in actions if isinstance(action, Answer))
    assert answer == "I will look.\nDone.\n"
    assert Line("[bash] ls (exit 0, 0.1 s)", Tone.FAINT) in actions
    assert Line("[output ends here]", Tone.WARNING) in actions


def test_the_last_line_of_an_answer_is_ended() -> None:
    actions = performed(output(OutputKind.TEXT, "x"), JobEnded(job=JOB, session=SESSION, snapshot=snapshot()))
    assert actions[-1] == Answer("\n")


@pytest.mark.parametrize(
    ("notice", "action"),
    [
        (SessionChanged(session=SESSION, status=SessionStatus.CREATING), Busy("creating the container")),
        (
            SessionChanged(session=SESSION, status=SessionStatus.BACKING_OFF, detail="exit code 1"),
            Line("the container failed and is started again: exit code 1", Tone.WARNING),
        ),
        (JobQueued(job=JOB, session=SESSION, ahead=2), Busy("waiting for 2 jobs of this session to end")),
        (
            ToolStarted(job=JOB, session=SESSION, tool="bash", title="make\ntest"),
            Busy("bash: make test", passing=True),
        ),
        (
            TodosChanged(
                job=JOB,
                session=SESSION,
                todos=(
                    Todo(content="a", status="completed"),
                    Todo(content="b", status="in_progress"),
                ),
            ),
            Busy("1 of 2 done, now: b"),
        ),
        (
            TodosChanged(job=JOB, session=SESSION, todos=(Todo(content="a", status="completed"),)),
            Busy("1 of 1 done"),
        ),
        (
            InputAnswered(job=JOB, session=SESSION, request="q", end=InputEnd.UNANSWERED),
            Line("nobody answered, and the agent was told so", Tone.FAINT),
        ),
        (
            ProviderRetrying(job=JOB, session=SESSION, attempt=2, reason="Rate limit", seconds=4),
            Line("the model provider failed (attempt 2, next try in 4 s): Rate limit", Tone.WARNING),
        ),
        (
            JobCancelling(job=JOB, session=SESSION, rung=Rung.STOP),
            Line("cancelling: stopping the container", Tone.WARNING),
        ),
    ],
)
def test_each_notice_has_its_words(notice: Notice, action: Action) -> None:
    assert performed(notice) == [action]


ASKED = InputWanted(
    job=JOB,
    session=SESSION,
    request="q",
    kind=RequestKind.QUESTION,
    text="Which one?",
    options=("Red", "Blue"),
    conversation=ConversationId("ses_1"),
    timeout=300.0,
)


@pytest.mark.parametrize(
    ("notice", "lines"),
    [
        (
            ASKED,
            ["the agent asks: Which one? (Red | Blue)", "in 5 min 00 s the agent goes on without an answer"],
        ),
        (
            attrs.evolve(
                ASKED, kind=RequestKind.PERMISSION, sub_agent=True, text="bash: rm -r build", options=()
            ),
            ["a sub-agent wants permission: bash: rm -r build", "goes on"],
        ),
        (
            attrs.evolve(ASKED, on_unanswered=OnUnanswered.FAIL),
            ["the agent asks", "in 5 min 00 s the job fails"],
        ),
        (attrs.evolve(ASKED, timeout=0.0), ["the agent asks", "it waits for ever"]),
    ],
)
def test_p2_what_the_agent_asks_is_shown_with_what_becomes_of_it(
    notice: InputWanted, lines: list[str]
) -> None:
    shown = performed(notice)
    assert len(shown) == len(lines)
    for action, words in zip(shown, lines, strict=True):
        assert isinstance(action, Line)
        assert words in action.text


@pytest.mark.parametrize("status", list(SessionStatus))
def test_every_session_status_can_be_shown(status: SessionStatus) -> None:
    performed(SessionChanged(session=SESSION, status=status, detail="d"))


def test_a_readiness_or_an_absence_is_not_worth_a_line() -> None:
    for status in (SessionStatus.READY, SessionStatus.ABSENT):
        assert performed(SessionChanged(session=SESSION, status=status)) == []


def test_nothing_beside_the_answer_reaches_the_terminal_as_a_code() -> None:
    for line in performed(attrs.evolve(ASKED, text="\x1b]0;title\x07\r\nx", options=("\x9b1m",))):
        assert isinstance(line, Line)
        assert line.text.isprintable()


def test_codes_in_an_answer_are_shown_and_not_obeyed() -> None:
    assert harmless("\x1b[2Jé\tok\n\x9b1m\r") == "\\x1b[2Jé\tok\n\\x9b1m\\x0d"
    assert harmless("plain") == "plain"


# ---- the end


def test_completed() -> None:
    (line,) = summary(snapshot(), SETTINGS, workspace=WORKSPACE)
    assert line.text == (
        "completed in 12.3 s · acme/large · 1,234 tokens in, 56 out · $0.0123 · session demo · "
        "workspace /home/me/spaces/demo"
    )
    assert line.tone is Tone.GOOD


def test_a_free_answer_says_so() -> None:
    (line,) = summary(snapshot(cost_usd=0.0, tokens=Tokens(), model=""), SETTINGS, workspace=WORKSPACE)
    assert line.text == "completed in 12.3 s · no cost · session demo · workspace /home/me/spaces/demo"


def test_cancelled_says_what_ended_it() -> None:
    climb = Climb(ended_by=Rung.STOP, seconds=((Rung.ABORT, 10.0), (Rung.STOP, 0.2)))
    line = summary(snapshot(status=JobStatus.CANCELLED, climb=climb), SETTINGS, workspace=WORKSPACE)[0]
    assert line.text.startswith("cancelled after 12.3 s, ended by stop (abort 10.0 s, stop 0.2 s) · ")
    because = attrs.evolve(climb, why="sleep (pid 7) outlived the abort")
    line = summary(snapshot(status=JobStatus.CANCELLED, climb=because), SETTINGS, workspace=WORKSPACE)[0]
    assert "stop 0.2 s) because sleep (pid 7) outlived the abort · " in line.text


@pytest.mark.parametrize("cause", list(Cause))
def test_every_cause_has_its_own_message_and_next_step(cause: Cause) -> None:
    failure = Failure(cause=cause, message="detail", exit_code=137)
    headline, error, hint = summary(
        snapshot(status=JobStatus.FAILED, failure=failure), SETTINGS, workspace=WORKSPACE
    )
    assert headline.text.startswith(f"failed ({cause.value}) after 12.3 s")
    assert error.text.startswith("error: ")
    assert "detail" in error.text
    assert len(hint.text) > len("hint: ")


def test_no_two_causes_are_explained_alike() -> None:
    explanations = [explain(Failure(cause=cause, message=""), SETTINGS) for cause in Cause]
    assert len({explanation.what for explanation in explanations}) == len(explanations)


def test_cut_output_is_said() -> None:
    lines = summary(snapshot(output_truncated=True), SETTINGS, workspace=WORKSPACE)
    assert any("maxOutputSize" in line.text for line in lines)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (59.94, "59.9 s"), (60, "1 min 00 s"), (3599.6, "1 h 00 min"), (7260, "2 h 01 min")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({}, Status.OK),
        ({"status": JobStatus.CANCELLED}, Status.CANCELLED),
        ({"status": JobStatus.FAILED, "failure": Failure(cause=Cause.OOM, message="")}, Status.FAILED),
        (
            {"status": JobStatus.FAILED, "failure": Failure(cause=Cause.IMAGE_MISSING, message="")},
            Status.ENVIRONMENT,
        ),
    ],
)
def test_exit_statuses(changes: dict[str, object], status: Status) -> None:
    assert of_job(snapshot(**changes)) is status


def test_the_json_document_has_its_shape() -> None:
    failure = Failure(cause=Cause.CRASH, message="the container ended: exit code 1", exit_code=1)
    climb = Climb(ended_by=Rung.ABORT, seconds=((Rung.ABORT, 0.0301),))
    made = document(
        snapshot(status=JobStatus.FAILED, failure=failure, climb=climb),
        SETTINGS,
        workspace=WORKSPACE,
        output="so far",
        notices_missed=2,
    )
    assert json.loads(json.dumps(made)) == {
        "jobId": "job-1",
        "sessionKey": "demo",
        "status": "failed",
        "output": "so far",
        "outputTruncated": False,
        "noticesMissed": 2,
        "error": {
            "cause": "crash",
            "message": "the container ended: exit code 1",
            "hint": explain(failure, SETTINGS).hint,
            "exitCode": 1,
        },
        "elapsedSeconds": 12.34,
        "model": "acme/large",
        "costUsd": 0.0123,
        "tokens": {"input": 1200, "output": 56, "reasoning": 0, "cacheRead": 34, "cacheWrite": 0},
        "cancel": {"endedBy": "abort", "seconds": {"abort": 0.03}, "why": None},
        "workspace": "/home/me/spaces/demo",
    }


def test_a_document_keeps_the_answer_and_shows_the_rest() -> None:
    shown: list[Action] = []

    class Beside:
        def perform(self, actions: object) -> None:
            assert isinstance(actions, tuple)
            shown.extend(actions)  # pyright: ignore[reportUnknownArgumentType]

        def close(self) -> None:
            pass

    screen = SilentAnswer(beside=Beside())
    screen.perform((Busy("b"), Answer("one "), Line("l"), Answer("two")))
    assert screen.answer == "one two"
    assert shown == [Busy("b"), Line("l")]
