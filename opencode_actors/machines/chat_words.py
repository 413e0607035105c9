"""What a person reads of a job in a chat: short, plain, and with the command to go on with.

What a job wrote is marked in each line, so that none of it can pass for a word of ours.
"""

from __future__ import annotations

from collections.abc import Iterable

from opencode_actors.machines import spending
from opencode_actors.machines.matters import Party
from opencode_actors.machines.notices import Notice, OutputAdded, OutputKind, ToolStarted
from opencode_actors.machines.server_events import Todo
from opencode_actors.machines.vocabulary import JobSnapshot, PendingRequest, RequestKind

# Characters that a message may have, where less than this default is taken.
SIZES = {"discord": 2_000, "irc": 400, "sms": 600, "line": 2_000}
SIZE = 3_500
# What stands around the job's own words.
_FRAME = 700
_LONGEST_TODO = 100
# Of its last words, in a report that comes again and again.
REPORTED = 600
_OPTIONS = 20


def room_for(channel: str) -> int:
    """Characters of a job's own words in one message of this channel."""
    return max(200, min(SIZES.get(channel, SIZE), SIZE) - min(_FRAME, SIZES.get(channel, SIZE) // 2))


def started(job: JobSnapshot) -> str:
    model = f" with {job.model}" if job.model else ""
    return f"{called(job)} has started{model}, in session {job.session}: {shortened(job.prompt)}"


def asks(job: JobSnapshot, request: PendingRequest, *, woken: int) -> str:
    """For when the agent was woken too often to answer: `woken` times, without a word of a person."""
    is_question = request.kind is RequestKind.QUESTION
    lines = [f"{called(job)} {'asks' if is_question else 'wants a permission'}, and waits for you:"]
    lines.extend(quoted(request.text[:SIZE]))
    lines.extend(f"- {shortened(option)}" for option in request.options[:_OPTIONS] if is_question)
    answer = "ANSWER" if is_question else "once|always|reject"
    lines.append(f"/opencode answer {word(job)} {answer}")
    if request.questions > 1:
        lines.append(f"({request.questions} questions: one line of the answer for each.)")
    if woken:
        lines.append(
            f"(The agent was asked {woken} times in a row, and is not asked again until you say something.)"
        )
    return "\n".join(lines)


def answered(job: JobSnapshot, *, by: Party | None, question: str, said: str) -> str:
    who = {Party.AGENT: " by the agent", Party.PERSON: " by a person", None: ""}[by]
    lines = [f"{called(job)} was answered{who}, and goes on."]
    if question:
        lines.extend(quoted(shortened(question)))
    if said:
        lines.append(f"The answer: {shortened(said)}")
    return "\n".join(lines)


def report(job: JobSnapshot, said: str, *, room: int) -> str:
    """How far it is: by its list of todos, and by what it said last."""
    lines = [f"{called(job)}: {figures(job)}"]
    lines.extend(progress(job.todos))
    if job.pending:
        lines.append(f"It waits for an answer: /opencode status {word(job)}")
    lines.extend(quoted(last(said, room)))
    return "\n".join(lines)


def streamed(job: JobSnapshot, notices: Iterable[Notice], *, text: bool, tools: bool, room: int) -> str:
    """What it said, joined, and a line for each tool; empty when there is nothing of it. The end of what is too
    long."""
    lines = ""
    for notice in notices:
        if isinstance(notice, OutputAdded) and notice.kind is OutputKind.TEXT and text:
            lines += notice.text
        elif isinstance(notice, ToolStarted) and tools:
            line = f"[{notice.tool}] {shortened(notice.title)}".rstrip()
            lines += f"{line}\n" if not lines or lines.endswith("\n") else f"\n{line}\n"
    if not lines.strip():
        return ""
    return "\n".join([f"{called(job)}:", *quoted(last(lines, room))])


def progress(todos: tuple[Todo, ...]) -> list[str]:
    """`3 of 7 todos are done, 3 to go; now: write the tests`"""
    if not todos:
        return []
    left = [todo for todo in todos if todo.status not in ("completed", "cancelled")]
    now = [todo for todo in left if todo.status == "in_progress"]
    done = sum(todo.status == "completed" for todo in todos)
    counts = f"{done} of {len(todos)} todos {'is' if done == 1 else 'are'} done"
    waiting = len(left) - len(now)
    if waiting:
        counts += f", {waiting} to go"
    return [
        f"{counts}{'; now: ' if now else ''}{', '.join(shortened(todo.content, _LONGEST_TODO) for todo in now)}"
    ]


def figures(job: JobSnapshot) -> str:
    cost = spending.in_words(job.cost_usd, known=job.cost_known) if job.cost_usd or not job.cost_known else ""
    return ", ".join(part for part in (duration(job.elapsed_seconds), cost) if part)


def called(job: JobSnapshot) -> str:
    return f"{job.name} ({job.id})" if job.name else job.id


def word(job: JobSnapshot) -> str:
    """What a person types for it."""
    if not job.name:
        return job.id
    return f'"{job.name}"' if " " in job.name else job.name


def quoted(text: str) -> list[str]:
    return [f"> {line}" for line in text.strip().splitlines()]


def last(text: str, room: int) -> str:
    end = text.strip()
    return end if len(end) <= room else f"… {end[-room:]}"


def shortened(text: str, longest: int = 200) -> str:
    words = " ".join(text[: 4 * longest].split())
    return words if len(words) <= longest else words[: longest - 1] + "…"


def duration(seconds: float) -> str:
    whole = round(seconds)
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
