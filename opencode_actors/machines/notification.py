"""What is said of a job to the agent that asked for it, and how OpenClaw's webhooks take it.

It is the same each time, word for word: OpenClaw knows a repetition by its key and its text.
"""

from __future__ import annotations

from collections.abc import Mapping

from opencode_actors.machines import spending
from opencode_actors.machines.chat_words import duration, last, progress, quoted, room_for, shortened, word
from opencode_actors.machines.vocabulary import (
    Cause,
    JobSnapshot,
    JobStatus,
    OnUnanswered,
    PendingRequest,
    RequestKind,
)
from opencode_actors.ports import HookRequest

NAME = "OpenCode"
# Characters of the answer's end.
TAIL = 1500
_CHOICES = 20


def in_words(job: JobSnapshot, said: str) -> str:
    """The final report. `said` is its last answer, from its end as much as is wanted, or the end of its output when
    a tool was the last of it."""
    lines = [_what_happened(job), f"The task was: {shortened(job.prompt)}", *progress(job.todos)]
    room = room_for(job.origin.channel if job.origin is not None else "")
    quoted = _quoted(said, room)
    if quoted:
        part = "The end of its last answer" if len(said.strip()) > room else "Its last answer"
        lines.append(f"{part}, in OpenCode's own words:")
        lines.extend(quoted)
        lines.append(f"All of its output ({job.output_bytes} bytes): opencode_output with job_id {job.id}.")
    else:
        lines.append("It has no output.")
    if job.interrupted_by is None:
        lines.append(_what_next(job))
        lines.append("Tell whoever asked for it what came of it.")
    else:
        lines.append("Nothing has to be done: the agent has all of this before it as it goes on.")
    return "\n".join(lines)


def _what_next(job: JobSnapshot) -> str:
    go_on = f"opencode_respond with job_id {job.id} (in a chat: /opencode respond {word(job)} MESSAGE)"
    left = sum(todo.status not in ("completed", "cancelled") for todo in job.todos)
    if job.status is JobStatus.COMPLETED:
        undone = f"{left} of its todos {'is' if left == 1 else 'are'} not done. " if left else ""
        return f"{undone}To go on with the same files and conversation: {go_on}."
    if job.failure is None:
        return f"What it did is kept. To go on from there: {go_on}."
    match job.failure.cause:
        case Cause.BUDGET:
            return f"What it did is kept. With more budget (max_cost_usd) it goes on from there: {go_on}."
        case Cause.JOB_TIMEOUT:
            return f"What it did is kept. With more time (timeout) it goes on from there: {go_on}."
        case Cause.UNANSWERED:
            return f"It asked something, and nobody answered. To tell it the answer: {go_on}."
        case _:
            return f"opencode_status with job_id {job.id} has the cause and a hint. To go on from there: {go_on}."


def asked_in_words(
    job: JobSnapshot, request: PendingRequest, *, timeout: float, on_unanswered: OnUnanswered
) -> str:
    """What a job asks is the job's own word, and so are the choices that it gives."""
    is_question = request.kind is RequestKind.QUESTION
    who = "a sub-agent of it " if request.sub_agent else ""
    wants = "asks, and waits for an answer" if is_question else "wants a permission, and waits for it"
    lines = [f"{_subject(job)}: {who}{wants}." if who else f"{_subject(job)} {wants}."]
    lines.append(f"The task was: {shortened(job.prompt)}")
    lines.append("It says, in OpenCode's own words:")
    cut = "…" if len(request.text) > TAIL else ""
    lines.extend(_quoted(request.text[: TAIL - 1] + cut))
    if is_question and request.options:
        lines.append("Its choices:")
        lines.extend(f"> {shortened(option)}" for option in request.options[:_CHOICES])
    how = "answers" if is_question else "reply (once, always or reject)"
    if is_question and request.questions > 1:
        how = f"{request.questions} answers"
    lines.append(f"Give {how} with opencode_answer: job_id {job.id}, request_id {shortened(request.id)}.")
    if timeout:
        then = "it fails" if on_unanswered is OnUnanswered.FAIL else "it goes on without one"
        lines.append(f"Without an answer within {duration(timeout)} of its asking, {then}.")
    lines.append("Ask the person first when it is not yours to decide.")
    return "\n".join(lines)


def lasting_in_words(job: JobSnapshot, tail: str) -> str:
    lines = [f"{_subject(job)} is still running, {_figures(job)}.", f"The task was: {shortened(job.prompt)}"]
    if job.pending:
        lines.append(f"It waits for an answer: opencode_status with job_id {job.id} shows what it asks.")
    lines.extend(progress(job.todos))
    quoted = _quoted(tail)
    if quoted:
        lines.append("Its output so far ends, in OpenCode's own words:")
        lines.extend(quoted)
    lines.append(f"Nothing has to be done. opencode_cancel with job_id {job.id} ends it.")
    return "\n".join(lines)


def full_in_words(job: JobSnapshot) -> str:
    return (
        f"{_subject(job)} has written all the output that is kept of a job ({job.output_bytes} bytes, maxOutputSize), "
        f"{_figures(job)}. It goes on; what it says from here on is lost.\n"
        f"opencode_status with job_id {job.id} tells how it is; opencode_cancel ends it."
    )


def _subject(job: JobSnapshot) -> str:
    called = f" ({job.name})" if job.name else ""
    return f"OpenCode job {job.id}{called} in session {job.session}"


def _figures(job: JobSnapshot) -> str:
    figures = f"after {duration(job.elapsed_seconds)}"
    if job.cost_usd or (job.max_cost_usd and not job.cost_known):
        cost = spending.in_words(job.cost_usd, known=job.cost_known, most=job.max_cost_usd)
        figures += f", for {cost}" if job.cost_known else f", {cost}"
    return figures


def _what_happened(job: JobSnapshot) -> str:
    figures, subject = _figures(job), _subject(job)
    if job.status is JobStatus.COMPLETED:
        return f"{subject} is completed, {figures}."
    if job.interrupted_by is not None:
        return f"{subject} was interrupted for another message, {figures}: job {job.interrupted_by} goes on."
    if job.status is JobStatus.CANCELLED:
        return f"{subject} was cancelled, {figures}."
    if job.failure is None:
        return f"{subject} has failed, {figures}."
    code = "" if job.failure.exit_code is None else f", exit code {job.failure.exit_code}"
    reason = " ".join(job.failure.message.split())
    return f"{subject} has failed, {figures} ({job.failure.cause.value}{code}): {reason}"


def _quoted(tail: str, room: int = TAIL) -> list[str]:
    """Each line is marked: what an agent wrote must not look like a word of ours."""
    return quoted(last(tail, room))


def requests_for(job: JobSnapshot, text: str, url: str) -> tuple[HookRequest, ...]:
    """The best first; the next one is for when it is answered 400.

    OpenClaw takes a session's key only where its config allows it (`hooks.allowRequestSessionKey` and its
    prefixes), and says 400 otherwise. That may change while both run, so it is tried. An address that ends
    neither in /agent nor in /wake is somebody's own, and gets what either would.
    """
    base, _, last = url.rstrip("/").rpartition("/")
    agent: dict[str, object] = {"message": text, "name": NAME, "wakeMode": "now"}
    wake: dict[str, object] = {"text": text, "mode": "now"}
    if last not in ("agent", "wake"):
        facts = {"sessionKey": job.session, "status": job.status.value}
        return (_request(job, url, {**agent, **wake, **facts}),)
    plain = _request(job, url, wake if last == "wake" else agent)
    origin = job.origin
    if origin is None or not job.aimed:
        return (plain,)
    aim = {"sessionKey": origin.session_key}
    if origin.agent_id:
        aim["agentId"] = origin.agent_id
    return (_request(job, f"{base}/wake", {**wake, **aim}), plain)


def _request(job: JobSnapshot, url: str, body: Mapping[str, object]) -> HookRequest:
    """Keys that OpenClaw does not know do it no harm (tried with 2026.9.6)."""
    return HookRequest(url=url, key=job.id, body={**body, "idempotencyKey": job.id, "jobId": job.id})
