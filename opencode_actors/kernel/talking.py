"""What is said to sessions: a first prompt, a further message, another try, a branch."""

from __future__ import annotations

from typing import Unpack

from attrs import evolve, frozen

from opencode_actors.errors import StoreError, UsageError
from opencode_actors.kernel.catalogs import Catalogs
from opencode_actors.kernel.forking import Forked, Forking
from opencode_actors.kernel.jobs import Jobs, stood_for
from opencode_actors.kernel.resuming import GO_ON
from opencode_actors.kernel.sessions import Sessions
from opencode_actors.kernel.surroundings import Surroundings
from opencode_actors.kernel.wishes import Asked, Wish, wish_of
from opencode_actors.machines.names import session_key
from opencode_actors.machines.notices import Habits
from opencode_actors.machines.permissions import narrows
from opencode_actors.machines.vocabulary import JobId, SessionKey
from opencode_actors.settings import Settings
from opencode_actors.store.port import Keyed

Accepted = tuple[JobId, SessionKey]


@frozen(eq=False, kw_only=True)
class Talking:
    """Each method is that of `System` of the same name."""

    surroundings: Surroundings
    sessions: Sessions
    jobs: Jobs
    catalogs: Catalogs

    async def start(self, prompt: str, *, session: str | None, **asked: Unpack[Asked]) -> Accepted:
        where = None if session is None else session_key(session)
        habits = Habits() if where is None else await self._habits(where)
        settings = self._settings_for(where)
        wish = wish_of(settings, prompt, before=habits, session=session, **asked)
        return await self._accept(where, wish)

    async def respond(
        self, session: SessionKey, message: str, *, interrupt: bool, **asked: Unpack[Asked]
    ) -> Accepted:
        habits, settings = await self._habits(session), self._settings_for(session)
        wish = wish_of(settings, message, before=habits, session=session, first=interrupt, **asked)
        return await self._accept(session, wish)

    async def resume(self, session: SessionKey, message: str | None, **asked: Unpack[Asked]) -> Accepted:
        habits, settings = await self._habits(session), self._settings_for(session)
        wish = wish_of(settings, message or GO_ON, before=habits, session=session, resumes=True, **asked)
        return await self._accept(session, wish)

    async def fork(
        self, source: SessionKey, message: str | None, *, session: str | None, **asked: Unpack[Asked]
    ) -> tuple[Forked, Accepted | None]:
        forking = Forking(surroundings=self.surroundings, sessions=self.sessions, jobs=self.jobs)
        target = None if session is None else session_key(session)
        if message is None:
            return await forking.fork(source, target), None
        # What cannot be is said before the copying.
        wish = wish_of(
            self._settings_for(source), message, before=await self._habits(source), session=session, **asked
        )
        if wish.key is None:
            return await self._fork_and_start(forking, source, message, target, **asked)
        # No client's key has a line break. The start behind it has its turn under the key itself.
        async with self.jobs.one_at_a_time(f"fork\n{wish.key}"):
            known = await self.jobs.keyed(wish.key)
            if known is None:
                return await self._fork_and_start(forking, source, message, target, **asked)
            return await self._forked_before(known, source, message, target, **asked)

    async def _fork_and_start(
        self,
        forking: Forking,
        source: SessionKey,
        message: str,
        target: SessionKey | None,
        **asked: Unpack[Asked],
    ) -> tuple[Forked, Accepted]:
        forked = await forking.fork(source, target)
        try:
            return forked, await self.start(message, session=forked.session, **asked)
        except (UsageError, StoreError) as error:
            raise type(error)(
                f"session {source} was forked into {forked.session}, and no job was started there: {error.message}",
                hint=f"the fork is there: respond to {forked.session}"
                + (f"; {error.hint}" if error.hint else ""),
            ) from None

    async def _forked_before(
        self,
        known: Keyed,
        source: SessionKey,
        message: str,
        target: SessionKey | None,
        **asked: Unpack[Asked],
    ) -> tuple[Forked, Accepted]:
        """What the key stands for already: nothing is copied again."""
        habits, settings = await self._habits(known.session), self._settings_for(known.session)
        wish = wish_of(settings, message, before=habits, session=target or known.session, **asked)
        job = stood_for(known, wish)
        if (await self.surroundings.store.session(known.session)).source != source:
            raise UsageError(
                f"the key {wish.key!r} stands for job {known.job}, in a session that was not forked off {source}",
                hint="give each new prompt a key of its own",
            )
        return Forked(session=known.session, source=source), job

    async def _accept(self, session: SessionKey | None, wish: Wish) -> Accepted:
        attachment = None if session is None else self.sessions.attachments.get(session)
        wanted = wish.prompt.permissions
        if attachment is not None and wanted is not None and not narrows(wanted):
            raise UsageError(
                f"what an agent may do at {attachment.url} is for whoever runs that server to say: it can be narrowed "
                "from here (by plan, and rules that deny), and not widened; ask would make a question of what is "
                "denied there",
                hint="give default: what was put on its conversation stays, a new conversation has none of it",
            )
        if session is not None:
            await self.catalogs.check(session, model=wish.prompt.model, agent=wish.prompt.agent)
        return await self.jobs.start(session, wish)

    async def _habits(self, session: SessionKey) -> Habits:
        return (await self.surroundings.store.recall(session)).habits

    def _settings_for(self, session: SessionKey | None) -> Settings:
        """A model or an agent of ours is no default for a server that somebody else set up."""
        if session not in self.sessions.attachments:
            return self.surroundings.settings
        return evolve(self.surroundings.settings, model="", agent="")
