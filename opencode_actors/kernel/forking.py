"""A session that goes on from where another one is: its conversation branched, its files copied."""

from __future__ import annotations

import trio
from attrs import frozen

from opencode_actors.directory_copy import Copied
from opencode_actors.errors import StoreError, UsageError
from opencode_actors.kernel.jobs import Jobs
from opencode_actors.kernel.sessions import Sessions
from opencode_actors.kernel.surroundings import Surroundings
from opencode_actors.machines.job_state import JobState
from opencode_actors.machines.names import LONGEST_KEY
from opencode_actors.machines.notices import SessionChanged, SessionForked, SessionRecorded
from opencode_actors.machines.server_events import ConversationId, MessageId
from opencode_actors.machines.vocabulary import JobId, SessionKey, SessionStatus

_SUFFIX = "-fork"
_ROOM_FOR_A_NUMBER = 6
# A session at work may take turn after turn while its data is copied.
_TRIES = 5
_UNDO_WITHIN = 5.0


@frozen(kw_only=True)
class Forked:
    """`files` of `size` bytes were copied, with their git repository or as a plain directory. `left_out` is the
    job at work in the source, of which the branch has only the files: its conversation ends before it. Both are None
    where it was forked before, under the same key."""

    session: SessionKey
    source: SessionKey
    copied: Copied | None = None
    left_out: JobId | None = None


@frozen(eq=False, kw_only=True)
class Forking:
    surroundings: Surroundings
    sessions: Sessions
    jobs: Jobs

    async def fork(self, source: SessionKey, name: SessionKey | None) -> Forked:
        """Raises `UsageError` for a name that is taken and where there is nothing to branch, and `StoreError`."""
        if (elsewhere := self.sessions.attachments.get(source)) is not None:
            raise UsageError(
                f"session {source} cannot be branched: its files are on {elsewhere.url}",
                hint="attach another session to that server, or branch one that runs in a container",
            )
        target = name if name is not None else await self._new_key(source)
        async with self.sessions.branching(source, target):
            return await self._branch(source, target)

    async def _branch(self, source: SessionKey, target: SessionKey) -> Forked:
        store, directories = self.surroundings.store, self.sessions.directories
        conversation = (await store.recall(source)).conversation
        if conversation is None or not await self.sessions.keeps_conversation(source):
            raise UsageError(
                f"session {source} has no conversation that could be branched",
                hint="start a session of its own instead",
            )
        await directories.check_room()
        # From here on its name is given, and a clean-up finds what may be there of it.
        await store.append((SessionRecorded(session=target, conversation=None),), at=self.surroundings.wall())
        here, there = self.sessions.place_of(source), self.sessions.place_of(target)
        owner = self.surroundings.engine.directory_owner()
        made = False
        try:
            copied = await directories.copy_workspace(here, there, owner)
            made = True
            before, left_out = await self._copy_conversation(source, target)
            await self._record(source, target, conversation, before, copied)
            made = False
        finally:
            if made:
                with trio.CancelScope(shield=True, deadline=trio.current_time() + _UNDO_WITHIN):
                    for folder in (there.data.parent, there.workspace):
                        await directories.set_aside(folder)
        return Forked(session=target, source=source, copied=copied, left_out=left_out)

    async def _new_key(self, source: SessionKey) -> SessionKey:
        wanted = f"{source[: LONGEST_KEY - len(_SUFFIX) - _ROOM_FOR_A_NUMBER]}{_SUFFIX}"
        return SessionKey(await self.jobs.names.free(wanted))

    async def _copy_conversation(
        self, source: SessionKey, target: SessionKey
    ) -> tuple[MessageId | None, JobId | None]:
        """What is at work meanwhile is left out of the branch, from its prompt on."""
        here, there = self.sessions.place_of(source), self.sessions.place_of(target)
        owner = self.surroundings.engine.directory_owner()
        for _ in range(_TRIES):
            turns, at_work = self.sessions.turns(source), self._at_work(source)
            await self.sessions.directories.copy_conversation(here, there, owner)
            at_work = at_work or self._at_work(source)
            if at_work is not None:
                return at_work.prompt.message_id, at_work.id
            if self.sessions.turns(source) == turns:
                return None, None
            # A turn has come and gone: half of it may be in the copy.
            await self.sessions.directories.set_aside(there.data.parent)
        raise StoreError(
            f"session {source} takes one turn after the other, so that no copy of it is whole",
            hint="fork it when it has less to do",
        )

    def _at_work(self, source: SessionKey) -> JobState | None:
        states = self.jobs.entries.unsettled_in(source)
        return next((state for state in states if state.has_begun and state.prompt.message_id), None)

    async def _record(
        self,
        source: SessionKey,
        target: SessionKey,
        conversation: ConversationId,
        before: MessageId | None,
        copied: Copied,
    ) -> None:
        known = await self.surroundings.store.recall(source)
        forked = SessionForked(
            session=target,
            source=source,
            conversation=conversation,
            before=before if before is not None else known.before,
            image=self.sessions.image_of(source) or known.image or None,
        )
        what = "git repository" if copied.repository else "directory"
        said = SessionChanged(
            session=target,
            status=SessionStatus.ABSENT,
            detail=f"forked from session {source}, with a copy of its {what}",
        )
        await self.surroundings.store.append((forked,), (said,), at=self.surroundings.wall())
