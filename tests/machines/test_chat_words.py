"""What a person reads of a job in a chat."""

from __future__ import annotations

from attrs import evolve

from opencode_actors.machines import chat_words
from opencode_actors.machines.matters import Party
from opencode_actors.machines.notices import Notice, OutputAdded, OutputKind, ToolStarted
from opencode_actors.machines.server_events import Todo
from opencode_actors.machines.vocabulary import JobStatus, RequestKind
from tests.machines.test_notification import ASKED, JOB

RUNNING = evolve(JOB, status=JobStatus.RUNNING, name="fix login")


def todo(content: str, status: str) -> Todo:
    return Todo(content=content, status=status)


def test_a_report_counts_the_todos_and_names_the_one_at_work_D3() -> None:
    todos = (
        todo("read the code", "completed"),
        todo("mend it", "in_progress"),
        todo("write tests", "pending"),
        todo("ask somebody", "cancelled"),
    )
    assert chat_words.report(
        evolve(RUNNING, todos=todos), "I read it.\nNow I mend it.", room=600
    ).splitlines() == [
        "fix login (job_1): 3 min 7 s, $0.0123",
        "1 of 4 todos is done, 1 to go; now: mend it",
        "> I read it.",
        "> Now I mend it.",
    ]


def test_a_report_without_todos_or_words_says_how_long_it_runs() -> None:
    assert chat_words.report(evolve(JOB, cost_usd=0.0), "", room=600) == "job_1: 3 min 7 s"
    unpriced = evolve(JOB, cost_usd=0.0, cost_known=False)
    assert "cost unknown" in chat_words.report(unpriced, "", room=600)


def test_a_report_says_that_the_job_waits() -> None:
    waiting = evolve(RUNNING, pending=(ASKED,))
    assert 'It waits for an answer: /opencode status "fix login"' in chat_words.report(waiting, "", room=9)


def test_a_person_is_asked_with_the_command_that_answers_C13() -> None:
    lines = chat_words.asks(RUNNING, ASKED, woken=10).splitlines()
    assert lines[:4] == [
        "fix login (job_1) asks, and waits for you:",
        "> Which",
        "> colour?",
        "- Red",
    ]
    assert '/opencode answer "fix login" ANSWER' in lines
    assert "10 times in a row" in lines[-1]
    assert "questions" not in "\n".join(lines)
    two = evolve(ASKED, questions=2)
    assert chat_words.asks(JOB, two, woken=0).endswith("(2 questions: one line of the answer for each.)")
    permission = evolve(ASKED, kind=RequestKind.PERMISSION, text="bash: rm -r build")
    assert "/opencode answer job_1 once|always|reject" in chat_words.asks(JOB, permission, woken=0)


def test_an_answer_is_told_with_who_gave_it() -> None:
    told = chat_words.answered(JOB, by=Party.AGENT, question="Which\ncolour?", said="Blue")
    assert told.splitlines() == [
        "job_1 was answered by the agent, and goes on.",
        "> Which colour?",
        "The answer: Blue",
    ]
    assert chat_words.answered(JOB, by=None, question="", said="") == "job_1 was answered, and goes on."


def _said(text: str, kind: OutputKind = OutputKind.TEXT) -> OutputAdded:
    return OutputAdded(job=JOB.id, session=JOB.session, kind=kind, offset=0, text=text)


def test_what_is_streamed_is_joined_with_a_line_for_each_tool() -> None:
    tool = ToolStarted(job=JOB.id, session=JOB.session, tool="bash", title="make\ntest")
    notices: list[Notice] = [
        _said("I "),
        _said("look"),
        tool,
        _said("[bash] make test\n", OutputKind.TOOL),
        _said("Done."),
    ]

    def streamed(*, text: bool = True, tools: bool = True, room: int = 900) -> list[str]:
        return chat_words.streamed(JOB, notices, text=text, tools=tools, room=room).splitlines()

    assert streamed() == ["job_1:", "> I look", "> [bash] make test", "> Done."]
    assert streamed(tools=False) == ["job_1:", "> I lookDone."]
    assert streamed(text=False) == ["job_1:", "> [bash] make test"]
    assert streamed(text=False, tools=False) == []
    assert streamed(room=5) == ["job_1:", "> … Done."]
