"""What an earlier process of the same state directory left behind."""

from __future__ import annotations

import logging

import trio
from attrs import evolve

from opencode_actors.containers import OWNER_LABEL
from opencode_actors.errors import EngineRefused
from opencode_actors.kernel.jobs import LOST
from opencode_actors.machines.notices import JobEnded, JobRecorded
from opencode_actors.machines.vocabulary import JobStatus
from opencode_actors.ports import Engine, ListedContainer
from opencode_actors.store.port import Remembered, Store

_log = logging.getLogger("opencode_actors")


async def recover(engine: Engine, store: Store, remembered: Remembered, *, at: float) -> None:
    """Its containers are removed, then its open jobs failed as lost: nothing works on them any more.

    Raises `EngineUnavailable` and `StoreError`.
    """
    for stray in await engine.list({OWNER_LABEL: remembered.owner}):
        await _remove(engine, stray)
    records: list[JobRecorded] = []
    notices: list[JobEnded] = []
    for job in remembered.unsettled:
        known = await store.job(job)
        if known is not None:
            lost = evolve(known.snapshot, status=JobStatus.FAILED, failure=LOST)
            records.append(JobRecorded(snapshot=lost))
            notices.append(JobEnded(job=job, session=lost.session, snapshot=lost))
    if records:
        await store.append(tuple(records), tuple(notices), at=at)
    await trio.lowlevel.checkpoint()


async def _remove(engine: Engine, stray: ListedContainer) -> None:
    """One that the engine does not let go of is no reason not to start: its session will say so."""
    try:
        await engine.remove(stray.id)
    except EngineRefused as error:
        _log.warning("container %s of an earlier run could not be removed: %s", stray.name, error)
