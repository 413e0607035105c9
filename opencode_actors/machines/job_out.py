"""What one batch of a job's events gives to its output file and to whoever follows it."""

from __future__ import annotations

from attrs import evolve

from opencode_actors.machines import notices as n
from opencode_actors.machines import requests
from opencode_actors.machines.job_messages import JobEffect
from opencode_actors.machines.job_state import JobState, Running, snapshot
from opencode_actors.machines.output import admit, merged
from opencode_actors.machines.work import Heard


def given_out(state: JobState, heard: Heard, now: float) -> tuple[JobState, list[JobEffect], list[n.Record]]:
    """What a batch gives to the output file and to whoever follows."""
    job, session = state.id, state.session
    effects: list[JobEffect] = []
    meter, placed = admit(state.meter, merged(heard.pieces))
    records: list[n.Record] = [
        n.OutputRecorded(
            job=job,
            offset=p.offset,
            text=p.piece.text,
            kind=p.piece.kind,
            span=p.span,
            part=p.piece.part,
            at=p.piece.at,
        )
        for p in placed
    ]
    is_full = meter.truncated and not state.meter.truncated
    if heard.pieces:
        state = evolve(state, meter=meter, last_output_at=now)
    effects.extend(
        n.Publish(
            notice=n.OutputAdded(
                job=job, session=session, kind=p.piece.kind, offset=p.offset, text=p.piece.text
            )
        )
        for p in placed
    )
    if is_full:
        effects.append(n.Publish(notice=n.OutputFilled(job=job, session=session, size=meter.size)))
    effects.extend(
        n.Publish(notice=n.ToolStarted(job=job, session=session, tool=tool.tool, title=tool.title))
        for tool in heard.tools
    )
    if isinstance(state.phase, Running):
        effects.extend(requests.announced(state, heard.wanted, heard.ended, now))
    if heard.todos_changed:
        changed = n.TodosChanged(job=job, session=session, todos=heard.work.todos)
        effects.append(n.Publish(notice=changed))
        records.append(n.JobRecorded(snapshot=snapshot(state, now)))  # for a process that goes on with it
    return state, effects, records
