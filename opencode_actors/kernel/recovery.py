"""What an earlier process of the same state directory left behind, and who goes on with it.

Each open job is followed on where its container still works, started where it had not begun, looked up in its
conversation where its server has ended meanwhile, or failed as lost. No container stays without a session.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

import trio
from attrs import evolve, frozen

from opencode_actors.containers import OWNER_LABEL
from opencode_actors.errors import ContainerMissing, EngineRefused, EngineUnavailable, UsageError
from opencode_actors.kernel.elsewhere import NO_CONTAINER
from opencode_actors.kernel.jobs import LOST, Jobs
from opencode_actors.kernel.sessions import Sessions
from opencode_actors.kernel.surroundings import Surroundings
from opencode_actors.machines.failures import of_death
from opencode_actors.machines.interruption import Left
from opencode_actors.machines.notices import InputAnswered, InputEnd, JobEnded, JobRecorded, JobStarted
from opencode_actors.machines.session_messages import TakeOver
from opencode_actors.machines.spending import Recorded, Spending
from opencode_actors.machines.vocabulary import Climb, Failure, JobSnapshot, JobStatus, SessionKey
from opencode_actors.ports import Container, ContainerPhase, Death, Endpoint, Engine, ListedContainer
from opencode_actors.store.port import Housed, OpenJob, Remembered

_log = logging.getLogger("opencode_actors")

# How often, and how far apart, an engine is asked that refuses to answer.
_QUESTIONS = 5
_ASK_AGAIN_AFTER = 0.5
_LIVING = (ContainerPhase.RUNNING, ContainerPhase.PAUSED)
# The engine knows it already, or is just about to.
_CAUSE_WITHIN = 5.0


@frozen(kw_only=True)
class _Found:
    """A session's container: it runs and answers there, or it has ended of `why`. What stands for one where
    somebody else runs the server may be at work in any case."""

    container: Container | None = None
    endpoint: Endpoint | None = None
    why: Failure = LOST


async def recover(here: Surroundings, sessions: Sessions, jobs: Jobs, remembered: Remembered) -> None:
    """Raises `EngineUnavailable` and `StoreError`, and has touched no job then."""
    found = dict(await _look(here.engine, remembered))
    for attached in remembered.attached:
        found[attached.session] = await _elsewhere(sessions, attached.session)
    waiting: dict[SessionKey, list[OpenJob]] = {}
    for job in remembered.unsettled:
        where = found.get(job.snapshot.session, _Found())
        if job.accepted is None or (_is_stopping(job) and where.container is None):
            await _settle(here, job)
        else:
            waiting.setdefault(job.snapshot.session, []).append(job)
    if waiting:
        _log.info("going on with what an earlier run began: %s", _in_words(waiting, found))
    going_on = {key: await _with_one_sent(here, left) for key, left in waiting.items()}
    # All that is read is read before the first of them begins: a hundred that ask their servers for everything held
    # the reading up, and the system opened after 1.6 s instead of 0.1 s.
    recalled = {key: await sessions.recall(key) for key in going_on}
    for key, work in going_on.items():
        where = found.get(key, _Found())
        for job in work:
            jobs.take_over(job, _left(job, where))
        left = TakeOver(
            jobs=tuple(job.snapshot.id for job in _in_order(work)),
            begun=next((job.snapshot.id for job in work if job.begun is not None), None),
            container=where.container,
            endpoint=where.endpoint,
            permissions={job.snapshot.id: job.accepted.prompt.permissions for job in work if job.accepted},
        )
        announced = frozenset(job.snapshot.id for job in work if job.snapshot.notify)
        sessions.take_over(key, recalled[key], left, announced=announced)


async def _elsewhere(sessions: Sessions, key: SessionKey) -> _Found:
    try:
        return _Found(container=NO_CONTAINER, endpoint=await sessions.endpoint(key))
    except UsageError as error:
        _log.warning("session %s: %s", key, error.message)
        return _Found()  # its jobs are told the same when they try


async def _with_one_sent(here: Surroundings, open_jobs: list[OpenJob]) -> list[OpenJob]:
    """A session has one prompt at work. Of several that were sent, the earlier ones have ended, and there was no
    room on the disk to say so: whoever went on with them would take the later answers for theirs."""
    sent = [job for job in open_jobs if job.begun is not None]  # in the order in which they came
    over = sent if sent and await _another_began(here, sent[-1]) else sent[:-1]
    for job in over:
        await _settle(here, job)
    return [job for job in open_jobs if job not in over]


async def _another_began(here: Surroundings, job: OpenJob) -> bool:
    """Whether another job of its session had its turn after it: then this one has ended as well, also when that
    other one has ended since, and is not open any more."""
    began = job.snapshot.id
    at, upto = 0 if job.accepted is None else job.accepted.since, here.hub.position
    while at < upto:
        page = await here.store.notices(None, job.snapshot.session, after=at, upto=upto)
        at = page.reached
        for notice in page.notices:
            if isinstance(notice, JobStarted):
                began = notice.job
    return began != job.snapshot.id


def _in_order(open_jobs: list[OpenJob]) -> list[OpenJob]:
    """The one that was sent goes first: the server may be at work on it. Then those that go before others, the
    newest first, as they went when they came."""

    def goes_first(job: OpenJob) -> bool:
        return job.begun is None and job.accepted is not None and job.accepted.first

    sent = [job for job in open_jobs if job.begun is not None]
    first = [job for job in reversed(open_jobs) if goes_first(job)]
    return [*sent, *first, *(job for job in open_jobs if job not in sent and job not in first)]


def _in_words(waiting: Mapping[SessionKey, list[OpenJob]], found: Mapping[SessionKey, _Found]) -> str:
    def of_one(key: SessionKey, jobs: list[OpenJob]) -> str:
        runs = found.get(key, _Found()).container is not None
        return (
            f"{key} ({len(jobs)} job{'s' if len(jobs) > 1 else ''}, {'at work' if runs else 'no container'})"
        )

    return ", ".join(of_one(key, jobs) for key, jobs in waiting.items())


def _is_stopping(job: OpenJob) -> bool:
    return job.snapshot.status is JobStatus.CANCELLING


def _left(job: OpenJob, where: _Found) -> Left | None:
    if job.begun is None:
        return None
    return Left(
        begun=job.begun,
        why=where.why,
        alive=where.container is not None,
        stopping=_is_stopping(job),
        verdict=job.verdict,
        told=job.told,
        told_bytes=job.told_bytes,
        wanted=job.wanted,
        todos=job.snapshot.todos,
        spent=_spent(job.snapshot),
    )


def _spent(last: JobSnapshot) -> Recorded:
    total = Spending(cost=last.cost_usd, tokens=last.tokens, known=last.cost_known)
    return Recorded(total=total, aside=last.spent_aside)


async def _settle(here: Surroundings, job: OpenJob) -> None:
    """Nothing works on it any more, and nobody wants it to."""
    last = job.snapshot
    failure = job.verdict if _is_stopping(job) else LOST
    final = evolve(
        last,
        status=JobStatus.CANCELLED if failure is None else JobStatus.FAILED,
        failure=failure,
        climb=Climb(ended_by=None) if _is_stopping(job) else None,
        pending=(),
        output_bytes=job.told_bytes,
    )
    gone = tuple(
        InputAnswered(job=last.id, session=last.session, request=about.id, end=InputEnd.GONE)
        for about in job.wanted
    )
    ended = JobEnded(job=last.id, session=last.session, snapshot=final)
    await here.store.append((JobRecorded(snapshot=final),), (*gone, ended), at=here.wall())


# ---- the containers


async def _look(engine: Engine, remembered: Remembered) -> Mapping[SessionKey, _Found]:
    """Only where a job is known to be at work a container is kept: in any other there may be anything, such as
    a prompt that nobody could end."""
    at_work = {job.begun.container for job in remembered.unsettled if job.begun is not None}
    housed = {one.container: one for one in remembered.housed if one.container in at_work}
    found: dict[SessionKey, _Found] = {}
    for listed in await engine.list({OWNER_LABEL: remembered.owner}):
        one = housed.get(listed.id)
        if one is not None:
            found[one.session] = await _inspect(engine, one)
        if one is None or found[one.session].container is None:
            await _remove(engine, listed)
    return found


async def _inspect(engine: Engine, housed: Housed) -> _Found:
    try:
        container = await _patiently(engine, housed)
    except ContainerMissing:
        return _Found()
    if container.phase in _LIVING and container.pid:
        return _Found(container=container, endpoint=housed.endpoint)
    return _Found(why=of_death(await _death(engine, container)))


async def _patiently(engine: Engine, housed: Housed) -> Container:
    """An engine that has only started itself may refuse a question; a job may be at work in there."""
    why = ""
    for _ in range(_QUESTIONS):
        try:
            return await engine.inspect(housed.container)
        except EngineRefused as error:
            why = error.message
        await trio.sleep(_ASK_AGAIN_AFTER)
    raise EngineUnavailable(
        f"the container engine does not say how the container of session {housed.session} is: {why}",
        hint="a job may be at work in it, so nothing was touched: look at the engine, then start again",
    )


async def _death(engine: Engine, container: Container) -> Death:
    """With what the engine itself keeps of its cause: nobody was there to see it."""
    try:
        with trio.fail_after(_CAUSE_WITHIN):
            return await engine.wait_exit(container)
    except (ContainerMissing, EngineRefused, trio.TooSlowError):
        return Death(exit_code=container.exit_code, oom_killed=False)


async def _remove(engine: Engine, stray: ListedContainer) -> None:
    """One that the engine does not let go of is no reason not to start: its session will say so."""
    try:
        await engine.remove(stray.id)
    except EngineRefused as error:
        _log.warning("container %s of an earlier run could not be removed: %s", stray.name, error)
