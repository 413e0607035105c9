"""One open session, as its system sees it: how it begins, and how what failed is ended."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable
from functools import partial

import trio
from attrs import define, evolve, field

from opencode_actors.adapters.passwords import endpoint_of
from opencode_actors.containers import ModelAccess, SessionPlace, container_spec
from opencode_actors.errors import ContainerMissing, EngineError, UsageError
from opencode_actors.kernel.actor import Actor
from opencode_actors.kernel.elsewhere import RemoteOperations
from opencode_actors.kernel.policies import session_policy
from opencode_actors.kernel.session_operations import SessionOperations
from opencode_actors.kernel.shells import SessionShell
from opencode_actors.kernel.surroundings import Surroundings
from opencode_actors.machines import session as session_machine
from opencode_actors.machines.job_messages import SessionFailed
from opencode_actors.machines.notices import Attachment, SessionChanged
from opencode_actors.machines.session import ASK_AGAIN_AFTER, ENGINE_BACK_WITHIN
from opencode_actors.machines.session_messages import SessionEffect, SessionMessage
from opencode_actors.machines.session_state import Absent, Creating, GivenUp, Serving, SessionState, Starting
from opencode_actors.machines.vocabulary import Failure, JobId, Leave, SessionStatus
from opencode_actors.ports import ContainerId, ContainerSpec, Permissions
from opencode_actors.store.port import Recalled
from opencode_actors.workdirs import Directories

_log = logging.getLogger("opencode_actors")

SessionActor = Actor[SessionState, SessionMessage, SessionEffect]


@define(eq=False, repr=False)
class SessionEntry:
    """`image` is what its next container is made from, unless it is attached to somebody else's server; `taken` are the
    jobs that an earlier process began, and `found` those of a service among them. `asking` counts the starts that are on their way to it; `done` is set when nothing of it is left,
    and `failure` when it did not end by itself."""

    actor: SessionActor
    operations: SessionOperations | RemoteOperations
    place: SessionPlace
    image: str
    is_open: Callable[[JobId], bool]
    attachment: Attachment | None = None
    taken: frozenset[JobId] = frozenset()
    found: frozenset[JobId] = frozenset()
    asking: int = field(default=0, init=False)
    failure: Failure | None = field(default=None, init=False)
    done: trio.Event = field(factory=trio.Event, init=False)

    @property
    def idle(self) -> bool:
        """Without jobs, so that ending it takes nothing away from anybody."""
        return not self.asking and not self.work

    @property
    def work(self) -> frozenset[JobId]:
        """Its jobs that have not ended, also those that its actor has yet to be told of: a service that ended in the
        moment after its start took sessions with a mailbox full of work for idle ones."""
        state = self.actor.state
        known = state.queue if state.current is None else (state.current, *state.queue)
        return frozenset((*known, *filter(self.is_open, self.taken)))

    def left(self, leave: Leave) -> frozenset[JobId]:
        """Those that go on when the system is left."""
        match leave:
            case Leave.NOTHING:
                return frozenset()
            case Leave.FOUND:
                return self.work & self.found
            case Leave.ALL:
                return self.work

    def use(self, image: str) -> None:
        """Raises `UsageError` where a container of another image runs, or jobs wait for one."""
        if self.attachment is not None:
            raise UsageError(
                f"session {self.actor.state.key} is attached to {self.attachment.url}, and has no container",
                hint="an image is for sessions with a container: leave it out, or use another session",
            )
        if image == self.image:
            return
        if not self.idle or isinstance(self.actor.state.phase, Creating | Starting | Serving):
            raise UsageError(
                f"session {self.actor.state.key} runs with the image {self.image}, not with {image}",
                hint="use another session, or clean up first: an idle session ends, and its conversation stays",
            )
        self.image = image

    @property
    def idle_longest(self) -> tuple[bool, float]:
        """What sorts those first that are missed least: one without a container, then the longest idle."""
        return not isinstance(self.actor.state.phase, Absent | GivenUp), self.actor.state.used_at


def new_entry(
    here: Surroundings,
    access: ModelAccess,
    directories: Directories,
    place: SessionPlace,
    recalled: Recalled,
    attachment: Attachment | None,
) -> SessionEntry:
    """One whose actor does not run yet."""
    elsewhere = attachment.url if attachment is not None else ""

    async def prepare(password: str, permissions: Permissions | None) -> ContainerSpec:
        agents = await directories.make(place, here.engine.directory_owner())
        spec = container_spec(
            here.settings, access, place, password=password, permissions=permissions, agents=agents
        )
        return evolve(spec, image=entry.image)

    async def tidy() -> int:
        return await directories.tidy(place)

    operations: SessionOperations | RemoteOperations
    if attachment is None:
        operations = SessionOperations(here.engine, here.servers, prepare, tidy, _new_password)
    else:
        operations = RemoteOperations(
            elsewhere, here.servers, partial(endpoint_of, attachment, here.settings)
        )
    shell = SessionShell(operations, here.store, here.job_mailbox)
    state = SessionState(
        key=place.key,
        container_name=place.container_name,
        title=f"opencode-actors {place.key}",
        policy=session_policy(here.settings, elsewhere=elsewhere),
        conversation=recalled.conversation,
        before=recalled.before,
        used_at=here.moment().now,
    )
    actor = Actor(f"session {place.key}", state, session_machine.handle, shell, here.moment)
    entry = SessionEntry(
        actor, operations, place, recalled.image, here.addresses.__contains__, attachment=attachment
    )
    return entry


async def end_for_good(here: Surroundings, entry: SessionEntry, failure: Failure) -> None:
    """After a bug, or a state directory that takes nothing any more: what it had must not go on."""
    key = entry.place.key
    for job in tuple(here.addresses.values()):
        if job.session == key:
            job.mailbox.put(SessionFailed(failure=failure))
    if entry.attachment is None:
        await _remove(here, entry.place.container_name)
    await here.announce(SessionChanged(session=key, status=SessionStatus.ABSENT, detail=failure.message))


async def _remove(here: Surroundings, name: str) -> None:
    """Nobody comes back to this container later, so an engine that is away, refuses, or says that it did it and did
    not, is asked again."""
    told = False
    until = trio.current_time() + ENGINE_BACK_WITHIN
    while trio.current_time() < until:
        try:
            with trio.fail_after(here.settings.remove_grace):
                await here.engine.remove(ContainerId(name))
                await here.engine.inspect(ContainerId(name))  # believed only when it is really gone
            why = "it is still there"
        except ContainerMissing:
            return
        except EngineError as error:
            why = error.message
        except trio.TooSlowError:
            _log.error("container %s was not removed within %g s", name, here.settings.remove_grace)
            return
        if not told:
            _log.error("container %s could not be removed: %s", name, why)
        told = True
        await trio.sleep(ASK_AGAIN_AFTER)


def _new_password() -> str:
    return secrets.token_urlsafe(24)
