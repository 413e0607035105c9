"""The records and notices of one `append`, in the form that they are written in."""

from __future__ import annotations

import trio
from attrs import define, field

from opencode_actors.errors import StoreError
from opencode_actors.machines.notices import (
    ChoiceRecorded,
    ContainerForgotten,
    ContainerRecorded,
    DirectoriesForgotten,
    JobForgotten,
    JobRecorded,
    Notice,
    NotificationRecorded,
    OutputAdded,
    OutputRecorded,
    Record,
    SessionForgotten,
)
from opencode_actors.machines.vocabulary import Cause, JobId
from opencode_actors.store import (
    database,
    directory_rows,
    notice_rows,
    old_rows,
    open_rows,
    outbox_rows,
    total_rows,
)
from opencode_actors.store.database import Row
from opencode_actors.store.notice_rows import NoticeRow


@define(eq=False)
class Batch:
    """What is `only_output` need not wait for the disk. `done` is set when it is written, or `error` says why it
    is not."""

    rows: list[Row] = field(factory=list[Row])
    spans: list[Row] = field(factory=list[Row])
    texts: list[tuple[JobId, bytes]] = field(factory=list[tuple[JobId, bytes]])
    settled: list[JobId] = field(factory=list[JobId])
    forgotten: list[JobId] = field(factory=list[JobId])
    notices: list[NoticeRow] = field(factory=list[NoticeRow])
    only_output: bool = True
    done: trio.Event = field(factory=trio.Event)
    error: StoreError | None = None

    @classmethod
    def of(cls, records: tuple[Record, ...], notices: tuple[Notice, ...], at: float) -> Batch:
        batch = cls()
        for record in records:
            batch._add(record, at)
        batch.notices = [notice_rows.notice_row(notice, at) for notice in notices]
        batch.only_output = not batch.rows and all(isinstance(notice, OutputAdded) for notice in notices)
        return batch

    def end(self, error: StoreError | None) -> None:
        if not self.done.is_set():
            self.error = error
            self.done.set()

    def _add(self, record: Record, at: float) -> None:
        match record:
            case OutputRecorded():
                text = record.text.encode(errors="replace")
                self.texts.append((record.job, text))
                self.spans.extend(open_rows.span_rows(record, len(text)))
            case JobRecorded():
                self._add_job(record, at)
            case ContainerRecorded() | ContainerForgotten():
                self.rows.append(open_rows.container_row(record))
            case DirectoriesForgotten():
                self.rows.append(directory_rows.row_of(record))
            case JobForgotten():
                self.rows.append(old_rows.job_row(record))
                self.forgotten.append(record.job)
            case SessionForgotten():
                self.rows.extend(old_rows.session_rows(record))
            case NotificationRecorded():
                self.rows.append(outbox_rows.row_of(record))
            case ChoiceRecorded():
                self.rows.append(database.choice_row(record.choice))
            case _:
                self.rows.append(database.row_of(record))

    def _add_job(self, record: JobRecorded, at: float) -> None:
        job, accepted = record.snapshot, record.accepted
        if job.settled:
            # The sums tell a new end from one that is recorded again, so they come before the job's row.
            self.rows.extend(total_rows.rows_of(job, at))
        self.rows.append(database.row_of(record))
        if accepted is not None and accepted.image:
            self.rows.append(database.image_row(job.session, accepted.image))
        if accepted is not None and accepted.habits:
            self.rows.append(database.habits_row(job.session, accepted.habits))
        if job.settled:
            if job.failure is not None and job.failure.cause is Cause.REJECTED:
                self.rows.append(database.right_names_row(job.session))
            self.settled.append(job.id)
            if job.notify:
                self.rows.append(outbox_rows.new_row(job, at))
