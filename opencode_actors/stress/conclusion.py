"""The end of a run: what is kept, what was told and what is left, when all jobs have ended."""

from __future__ import annotations

import random
from collections import Counter
from contextlib import suppress
from functools import partial

import trio
from attrs import define, field

from opencode_actors.errors import OpencodeActorsError, UnknownSession
from opencode_actors.kernel.system import System
from opencode_actors.machines.vocabulary import SessionStatus
from opencode_actors.store.port import OutputSlice
from opencode_actors.stress.clients import Clients
from opencode_actors.stress.climbs import not_done, too_steep, torn
from opencode_actors.stress.files import JobFile
from opencode_actors.stress.heap import beyond_bounds, kept
from opencode_actors.stress.innards import holds_more
from opencode_actors.stress.judge import Judge
from opencode_actors.stress.plan import Plan
from opencode_actors.stress.service import ANSWERED_WITHIN, NoAnswer, Service
from opencode_actors.stress.worlds import Face, World

# All that is asked when all is over, however many jobs there were.
_LOOKED_AT_WITHIN = 2 * ANSWERED_WITHIN
# Of a page of output, in bytes: from one, which is less than a character, to 64 KiB.
_PAGE_BITS = 17
_GONE_ON_WITH = 30.0
# What may stay in the system's memory of all its sessions and jobs: nothing was measured.
_KEPT = 2


@define(eq=False, kw_only=True)
class Conclusion:
    """`held_before` and `kept_before` are what the first system had before its first job."""

    world: World
    plan: Plan
    judge: Judge
    service: Service
    clients: Clients
    held_before: Counter[str]
    kept_before: int
    _pages: random.Random = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._pages = random.Random(self.plan.seed)  # noqa: S311 - it has to be had again

    async def reach(self) -> None:
        """Until the last system is closed. An announcement may be waited for as long as for a job's end."""
        within = self.plan.scenario.settle_within + _LOOKED_AT_WITHIN
        with trio.move_on_after(within) as scope:
            if await self.service.wait_begun() is not None:
                await self._at_rest()
                await self._all_told()
        if scope.cancelled_caught:
            self._broke("every ask is answered", f"what is asked when all is over took {within:g} s")
        await self._closed()
        self.judge.check_taken(self.world.receiver, trio.current_time())
        self._check_reached()
        self._check_climbs()
        self.judge.check_frozen(trio.current_time())

    async def _at_rest(self) -> None:
        """All has settled: what is kept of it, and that nothing else goes on."""
        try:
            # A session that was given up may have left something to an engine that was away: no clean-up ends it.
            await reset_stuck(self.service, SessionStatus.QUARANTINED, SessionStatus.GIVEN_UP)
            for file in tuple(self.judge.files.values()):
                await self._check(file)
        except NoAnswer:
            return
        except OpencodeActorsError as error:
            self._broke("every ask is answered", error.message)
            return
        self.judge.check_unknown(trio.current_time())
        live = self.service.live
        if live is None or live.inside is None or self.judge.unsettled:
            return
        statistics = live.inside.statistics()
        if statistics.jobs:
            self._broke("nothing is left", f"{statistics.jobs} jobs are in memory")
        for name, actor in statistics.actors.items():
            if actor.asks:
                self._broke("every ask is answered", f"{actor.asks} wait for {name}")

    async def _all_told(self) -> None:
        """Whoever came back has all of it, and whoever is told of ends was told of all."""
        live, upto = self.service.live, self.service.reached
        for watcher in self.service.watchers.values():
            for wrong in await watcher.finish(self.service.record):
                self._broke("every notice is told", f"who follows job {watcher.number} alone: {wrong}")
        for number, wanderer in enumerate(self.clients.wanderers):
            if live is None:
                return
            for wrong in await wanderer.finish(live, self.service.record, upto):
                self._broke("every notice is told", f"follower {number}, who came back: {wrong}")
        receiver = self.world.receiver
        if receiver is not None and not self.judge.unsettled:
            ended = frozenset(file.id for file in self.judge.files.values())
            with trio.move_on_after(self.plan.scenario.settle_within):
                await receiver.wait_taken(ended)
        # Not before: until then the outbox waits for its next try.
        await self._let_go()

    async def _let_go(self) -> None:
        """In half of all runs: in the others the system is closed with all that its sessions have."""
        live = self.service.live
        if live is None or self.judge.unsettled or self.plan.seed % 2:
            return
        try:
            await self.service.call("cleanup", lambda face: face.cleanup())
            if live.inside is not None and live.inside.statistics().sessions:
                # What a full disk kept from being recorded may just have been gone on with.
                await trio.sleep(_GONE_ON_WITH)
                await self.service.call("cleanup", lambda face: face.cleanup())
        except (NoAnswer, OpencodeActorsError):
            return
        for text in await self.world.at_rest(live):
            self._broke("nothing is left", text)
        if live.inside is not None and (more := await holds_more(live.inside, self.held_before)):
            self._broke("nothing is left", f"with all its sessions ended the system still holds {more}")
        self._check_kept(live.inside)

    def _check_kept(self, system: System | None) -> None:
        if system is None:
            return
        for wrong in beyond_bounds(system):
            self._broke("bounded", wrong)
        more, jobs = kept(system) - self.kept_before, len(self.judge.files)
        if more > _KEPT:
            self._broke("bounded", f"after {jobs} jobs the system keeps {more} things more than before them")

    async def _check(self, file: JobFile) -> None:
        status = await self.service.call("status", lambda face: face.status(file.id))
        text, offset, more = "", 0, True
        while more:
            limit = self._pages.randint(1, 1 << self._pages.randrange(_PAGE_BITS))
            read = partial(_read, file=file, offset=offset, limit=limit)
            piece = await self.service.call("output", read)
            text, offset, more = text + piece.text, piece.next_offset, piece.more
        self.judge.check_end(file, status, text, trio.current_time())

    async def _closed(self) -> None:
        settings = self.world.settings
        graces = settings.stop_grace + settings.kill_grace + settings.remove_grace
        with trio.move_on_after(graces + 60.0) as scope:
            await self.service.close()
        if scope.cancelled_caught:
            self._broke("the system closes", f"it did not within {graces + 60.0:g} s")

    def _check_reached(self) -> None:
        reached, settings = self.world.reached, self.world.settings
        patience = min(settings.header_timeout, settings.chunk_timeout)
        files = self.judge.files.values()
        misled = {file.session for file in files if self.judge.endings.was_misled(file)}
        for file, wrong in () if reached is None else reached.wrong(files, patience):
            if file.session not in misled:
                self._broke_of("each prompt reaches the model once", wrong, file)

    def _check_climbs(self) -> None:
        asked, judge = self.world.asked, self.judge
        files, words = judge.files.values(), judge.evidence.words
        for file in files:
            for wrong in too_steep(file, judge.settings, judge.tolerance, judge.hits):
                self._broke_of("the ladder is bounded", wrong, file)
        if asked is None:
            return
        for file, wrong in not_done(files, asked, words, judge.tolerance, judge.hits):
            self._broke_of("the ladder only climbs", wrong, file)
        for session, deed in torn(asked, words, judge.settings, judge.tolerance, judge.hits):
            text = f"container {deed.whom} was removed while it ran, and nobody had tried to kill it"
            judge.findings.broke("the ladder only climbs", deed.at, text, session=session)

    def _broke_of(self, rule: str, text: str, file: JobFile) -> None:
        self.judge.findings.broke(rule, trio.current_time(), text, session=file.session, job=file.number)

    def _broke(self, rule: str, text: str) -> None:
        self.judge.findings.broke(rule, trio.current_time(), text)


async def reset_stuck(service: Service, *stuck: SessionStatus) -> None:
    """As somebody does who has seen to the cause."""
    for session in await service.call("sessions", lambda face: face.sessions()):
        if session.status in stuck:
            with suppress(UnknownSession):
                await service.call("reset", partial(_reset, session=session.key))


async def _reset(face: Face, *, session: str) -> object:
    return await face.reset_session(session)


async def _read(face: Face, *, file: JobFile, offset: int, limit: int) -> OutputSlice:
    return await face.output(file.id, offset=offset, limit=limit)
