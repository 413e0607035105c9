"""Sessions whose server somebody else runs: attached, detached, and asked what conversations it has."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from attrs import define, evolve, frozen

from opencode_actors.adapters.passwords import endpoint_of
from opencode_actors.errors import Busy, OpenCodeError, ServerRefused, UsageError
from opencode_actors.kernel.sessions import Sessions
from opencode_actors.kernel.surroundings import Surroundings
from opencode_actors.machines.addresses import (
    password_path,
    server_address,
    travels_openly,
    user_name,
    variable_name,
)
from opencode_actors.machines.notices import Attachment, SessionAttached, SessionChanged
from opencode_actors.machines.server_events import ConversationId
from opencode_actors.machines.vocabulary import SessionKey, SessionStatus
from opencode_actors.ports import Conversation, ConversationState

MOST = 100  # attached sessions; each is an actor, and a stream while it has work
_ANSWERS_WITHIN = 10.0
_UNAUTHORIZED = 401
_CONVERSATION = re.compile(r"ses_[A-Za-z0-9]{1,120}")


@frozen(kw_only=True)
class Attached:
    """`conversation` is None until the first job begins one. `notes` are for the person who asked."""

    session: SessionKey
    attachment: Attachment
    version: str
    conversation: ConversationId | None = None
    notes: tuple[str, ...] = ()


@frozen(kw_only=True)
class KnownConversation:
    """One of a server's. `ours` when the session that was asked is in it."""

    about: Conversation
    state: ConversationState
    ours: bool


@define(eq=False, kw_only=True)
class Attachments:
    surroundings: Surroundings
    sessions: Sessions

    async def attach(
        self,
        key: SessionKey,
        *,
        url: str,
        user: str,
        password_file: str,
        password_env: str,
        directory: str,
        conversation: str | None,
    ) -> Attached:
        wanted = _attachment(url, user, password_file, password_env, directory)
        if conversation is not None and not _CONVERSATION.fullmatch(conversation):
            raise UsageError("that is no conversation's id", hint="`conversations` lists them: ses_…")
        joined = None if conversation is None else ConversationId(conversation)
        known = self.sessions.attachments.get(key)
        version, wanted = await self._look(wanted, joined)
        if known is not None:
            return await self._again(key, known, wanted, joined, version)
        await self._check_free(key)
        recorded = SessionAttached(session=key, attachment=wanted, conversation=joined)
        detail = f"attached to {wanted.url}"
        changed = SessionChanged(session=key, status=SessionStatus.ABSENT, detail=detail)

        async def record() -> Attachment:
            here = self.surroundings
            await here.store.append((recorded,), (changed,), at=here.wall())
            return wanted

        await self.sessions.attach(key, record)
        return Attached(
            session=key, attachment=wanted, version=version, conversation=joined, notes=_notes(wanted)
        )

    async def detach(self, key: SessionKey) -> Attachment:
        """Forgets it, and touches nothing there."""
        attachment = self.sessions.attachments.get(key)

        async def record() -> None:
            here = self.surroundings
            gone = SessionAttached(session=key, attachment=None)
            changed = SessionChanged(session=key, status=SessionStatus.ABSENT, detail="detached")
            await here.store.append((gone,), (changed,), at=here.wall())

        await self.sessions.detach(key, record)
        return attachment or Attachment(url="")

    async def conversations(self, key: SessionKey) -> tuple[KnownConversation, ...]:
        """Of the session's server, the newest first."""
        endpoint = await self.sessions.endpoint(key)
        own = (await self.surroundings.store.recall(key)).conversation
        async with self.surroundings.servers.client(endpoint) as server:
            found = await server.conversations()
            states = dict(await server.status())
            for directory in {one.directory for one in found} - {endpoint.directory}:
                elsewhere = evolve(endpoint, directory=directory)
                async with self.surroundings.servers.client(elsewhere) as instance:
                    states |= await instance.status()
        return tuple(
            KnownConversation(about=one, state=states.get(one.id, ConversationState.IDLE), ours=one.id == own)
            for one in found
        )

    # ---- helpers

    async def _look(self, wanted: Attachment, joined: ConversationId | None) -> tuple[str, Attachment]:
        """Whether it answers, and takes the password; a conversation runs in its own directory."""
        async with self.surroundings.servers.client(
            await endpoint_of(wanted, self.surroundings.settings)
        ) as server:
            try:
                version = (await server.health(within=_ANSWERS_WITHIN)).version
                found = None if joined is None else await server.conversation(joined)
                is_there = joined is not None or not wanted.directory or await server.has_directory()
            except ServerRefused as error:
                if error.status != _UNAUTHORIZED:
                    raise
                raise UsageError(
                    f"OpenCode's server at {wanted.url} does not take this password",
                    hint="give the one it was started with (OPENCODE_SERVER_PASSWORD), by password_file or "
                    "password_env, and the user if it has one of its own (OPENCODE_SERVER_USERNAME)",
                ) from None
            except OpenCodeError as error:
                raise type(error)(
                    error.message, hint="is it running, and reachable from the machine of the service?"
                ) from None
        if not is_there:
            raise UsageError(
                f"OpenCode's server at {wanted.url} cannot look into {wanted.directory}",
                hint="give a directory that is there on that machine, or none for the server's own",
            )
        if joined is None:
            return version, wanted
        if found is None:
            raise UsageError(
                f"OpenCode's server at {wanted.url} has no conversation {joined}",
                hint="attach without one, then `conversations` lists them",
            )
        if wanted.directory not in ("", found.directory):
            raise UsageError(
                f"conversation {joined} is in {found.directory}, not in {wanted.directory}",
                hint="leave the directory out: a conversation always runs in its own",
            )
        return version, evolve(wanted, directory=found.directory)

    async def _again(
        self,
        key: SessionKey,
        known: Attachment,
        wanted: Attachment,
        joined: ConversationId | None,
        version: str,
    ) -> Attached:
        own = (await self.surroundings.store.recall(key)).conversation
        if known != wanted or joined not in (None, own):
            raise UsageError(
                f"session {key} is attached to {known.url} already",
                hint="detach it first, or choose another name",
            )
        return Attached(session=key, attachment=known, version=version, conversation=own, notes=_notes(known))

    async def _check_free(self, key: SessionKey) -> None:
        if len(self.sessions.attachments) >= MOST:
            raise Busy(f"{MOST} sessions are attached already", hint="detach one that is not needed")
        # One that was attached before has jobs, and no conversation of its own any more.
        if key in self.sessions or (await self.surroundings.store.recall(key)).conversation is not None:
            raise UsageError(
                f"there is a session {key} already, with a container", hint="choose another name"
            )


def _attachment(url: str, user: str, password_file: str, password_env: str, directory: str) -> Attachment:
    if password_file and password_env:
        raise UsageError("the password is in a file or in a variable, not in both", hint="give one of them")
    if password_env:
        variable_name(password_env)
    if password_file:
        password_path(password_file)
    if directory and not (PurePosixPath(directory).is_absolute() and directory.isprintable()):
        raise UsageError(
            "directory is not an absolute path", hint="begin it with /: it is one on that machine"
        )
    return Attachment(
        url=server_address(url),
        user=user_name(user) if user else "",
        directory=directory,
        password_file=password_file,
        password_env=password_env,
    )


def _notes(attachment: Attachment) -> tuple[str, ...]:
    notes: list[str] = []
    if travels_openly(attachment.url):
        notes.append(
            "http:// to another host: the password and all words can be read on the way; use https://"
        )
    if not (attachment.password_file or attachment.password_env):
        notes.append("no password is given: whoever reaches that server can do the same")
    return tuple(notes)
