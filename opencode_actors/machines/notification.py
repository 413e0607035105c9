"""What is said of a job to the agent that asked for it, and how OpenClaw's webhooks take it.

It is the same each time, word for word: OpenClaw knows a repetition by its key and its text.
"""

from __future__ import annotations

from collections.abc import Mapping

from opencode_actors.machines import spending
from opencode_actors.machines.vocabulary import (
    JobSnapshot,
    JobStatus,
    OnUnanswered,
    PendingRequest,
    RequestKind,
)
from opencode_actors.ports import HookRequest

NAME = "OpenCode"
# Characters of the answer's end, and of the task's beginning.
TAIL = 1500
_TASK = 200
_CHOICES = 20


def in_words(job: JobSnapshot, tail: str) -> str:
    """`tail` is the end of the job's output, possibly more of it than is said."""
    lines = [_what_happened(job), f"The task was: {_shortened(job.prompt)}"]
    quoted = _quoted(tail)
    if quoted:
        lines.append("Its output ends, in OpenCode's own words:")
        lines.extend(quoted)
        lines.append(f"All of it ({job.output_bytes} bytes): opencode_output with job_id {job.id}.")
    else:
        lines.append("It has no output.")
    if job.interrupted_by is None:
        lines.append("Tell whoever asked for it what came of it.")
    else:
        lines.append("Nothing has to be done: the agent has all of this before it as it goes on.")
    return "\n".join(lines)


def asked_in_words(
    job: JobSnapshot, request: PendingRequest, *, timeout: float, on_unanswered: OnUnanswered
) -> str:
    """What a job asks is the job's own word, and so are the choices that it gives."""
    is_question = request.kind is RequestKind.QUESTION
    who = "a sub-agent of it " if request.sub_agent else ""
    wants = "asks, and waits for an answer" if is_question else "wants a permission, and waits for it"
    lines = [f"{_subject(job)}: {who}{wants}." if who else f"{_subject(job)} {wants}."]
    lines.append(f"The task was: {_shortened(job.prompt)}")
    lines.append("It says, in OpenCode's own words:")
    cut = "…" if len(request.text) > TAIL else ""
    lines.extend(_quoted(request.text[: TAIL - 1] + cut))
    if is_question and request.options:
        lines.append("Its choices:")
        lines.extend(f"> {_shortened(option)}" for option in request.options[:_CHOICES])
    how = "answers" if is_question else "reply (once, always or reject)"
    if is_question and request.questions > 1:
        how = f"{request.questions} answers"
    lines.append(f"Give {how} with opencode_answer: job_id {job.id}, request_id {_shortened(request.id)}.")
    if timeout:
        then = "it fails" if on_unanswered is OnUnanswered.FAIL else "it goes on without one"
        lines.append(f"Without an answer within {_duration(timeout)} of its asking, {then}.")
    lines.append("Ask the person first when it is not yours to decide.")
    return "\n".join(lines)


def lasting_in_words(job: JobSnapshot, tail: str) -> str:
    lines = [f"{_subject(job)} is still running, {_figures(job)}.", f"The task was: {_shortened(job.prompt)}"]
    if job.pending:
        lines.append(f"It waits for an answer: opencode_status with job_id {job.id} shows what it asks.")
    if job.todos:
        done = sum(todo.status == "completed" for todo in job.todos)
        lines.append(f"{done} of its {len(job.todos)} todos are done.")
    quoted = _quoted(tail)
    if quoted:
        lines.append("Its output so far ends, in OpenCode's own words:")
        lines.extend(quoted)
    lines.append(f"Nothing has to be done. opencode_cancel with job_id {job.id} ends it.")
    return "\n".join(lines)


def _subject(job: JobSnapshot) -> str:
    called = f" ({job.name})" if job.name else ""
    return f"OpenCode job {job.id}{called} in session {job.session}"


def _figures(job: JobSnapshot) -> str:
    figures = f"after {_duration(job.elapsed_seconds)}"
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


def _quoted(tail: str) -> list[str]:
    end = tail[-TAIL:].strip()
    if not end:
        return []
    if len(tail) > TAIL:
        end = f"… {end}"
    # Each line is marked: what an agent wrote must not look like a word of ours.
    return [f"> {line}" for line in end.splitlines()]


def _shortened(prompt: str) -> str:
    words = " ".join(prompt[: 4 * _TASK].split())
    return words if len(words) <= _TASK else words[: _TASK - 1] + "…"


def _duration(seconds: float) -> str:
    whole = round(seconds)
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


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
