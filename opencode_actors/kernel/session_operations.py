"""What a session has done for it, through the engine and its server. Failures come back as facts."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import assert_never

import trio
from attrs import define, evolve, field

from opencode_actors.errors import (
    ContainerMissing,
    EngineError,
    EngineRefused,
    EngineUnavailable,
    ImageMissing,
    StoreError,
)
from opencode_actors.kernel import server_operations
from opencode_actors.kernel.actor import Post
from opencode_actors.kernel.make_whole import make_whole
from opencode_actors.kernel.servers import Servers
from opencode_actors.machines import session_messages as m
from opencode_actors.machines.failures import of_death
from opencode_actors.machines.session_messages import SessionMessage, SessionOperation
from opencode_actors.machines.vocabulary import Cause, Failure, Rung
from opencode_actors.ports import (
    Container,
    ContainerId,
    ContainerPhase,
    ContainerSpec,
    Death,
    Endpoint,
    Engine,
    Permissions,
)

_log = logging.getLogger("opencode_actors")

# The engine's word for a name that is taken when a container is created, and a port when it is started.
_TAKEN = 409
# How long a launch that is not wanted any more may take to come to a point from which it can be undone,
# and how long the undoing may take. Together less than the last rung's grace, which waits for both.
_UNDO_WITHIN = 4.0
_ENGINE_AGAIN = 1.0
# Of what a container wrote before its end: enough for a sentence in a failure's text.
_LAST_LINES = 3
_LAST_WORDS = 300
# The engine is asked why a container ended, and may take as long as it does for each call.
_CAUSE_WITHIN = 5.0
_CHECK_IMAGE = "is its image one that `opencode-actors image build` made?"


class _EndedAtOnce(EngineError):
    """A container that ended before anybody could talk to it, or that nobody can talk to."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


@define(eq=False)
class SessionOperations:
    """`prepare` makes the session's directories and says what the next container is made of; `tidy` says how
    much its data takes, and raises `StoreError`, as `prepare` does."""

    engine: Engine
    servers: Servers
    prepare: Callable[[str, Permissions | None], Awaitable[ContainerSpec]]
    tidy: Callable[[], Awaitable[int]]
    new_password: Callable[[], str]
    _endpoint: Endpoint | None = field(default=None, init=False)
    # Removing a container that the engine is still making leaves Podman with one that it can neither
    # list nor make again, so the two wait for each other.
    _making: trio.Lock = field(factory=trio.Lock, init=False, repr=False)

    async def perform(self, operation: SessionOperation, post: Post[SessionMessage]) -> SessionMessage | None:
        match operation:
            case m.LaunchContainer():
                return await self._launch(operation)
            case m.WatchExit():
                return m.ContainerExited(death=await self._exit(operation))
            case m.ProbeServer():
                return await server_operations.probe(self.servers, operation)
            case m.OpenConversation():
                return await server_operations.open_conversation(self.servers, operation)
            case m.CatchUp():
                return await server_operations.catch_up(self.servers, operation)
            case m.FollowServer():
                return await server_operations.follow(self.servers, operation, post)
            case m.SampleUsage():
                return await self._sample(operation)
            case m.TidyUp():
                return await self._tidy_up()
            case m.EndContainer():
                return await self._end(operation)
            case _:
                assert_never(operation)

    # ---- the engine

    async def _launch(self, operation: m.LaunchContainer) -> SessionMessage:
        password = self.new_password()
        await self.disconnect()
        try:
            spec = evolve(await self.prepare(password, operation.permissions), name=operation.name)
            async with self._making:
                container = await self._make(spec)
        except ImageMissing as error:
            failure = Failure(cause=Cause.IMAGE_MISSING, message=error.message)
            return m.LaunchFailed(failure=failure, retryable=False)
        except _EndedAtOnce as error:
            # The same image and command would end the same way.
            return m.LaunchFailed(failure=error.failure, retryable=False)
        except ContainerMissing:
            failure = Failure(
                cause=Cause.REMOVED, message="somebody removed the container while it was started"
            )
            return m.LaunchFailed(failure=failure, retryable=True)
        except EngineUnavailable as error:
            failure = Failure(cause=Cause.ENGINE_UNAVAILABLE, message=error.message)
            return m.LaunchFailed(failure=failure, retryable=True)
        except EngineError as error:
            failure = Failure(cause=Cause.ENGINE_REFUSED, message=error.message)
            return m.LaunchFailed(failure=failure, retryable=False)
        except StoreError as error:
            failure = Failure(cause=Cause.STORE, message=error.message)
            return m.LaunchFailed(failure=failure, retryable=False)
        # No waiting from here on: a container that runs and that nobody is told of would be left behind.
        endpoint = Endpoint(url=f"http://127.0.0.1:{container.port}", password=password)
        self.connect(endpoint)
        return m.ContainerLaunched(container=container, endpoint=endpoint)

    async def _make(self, spec: ContainerSpec) -> Container:
        try:
            return await self._start(await self._create(spec))
        except EngineRefused as refused:
            if refused.status != _TAKEN:
                raise
        # Podman's port is chosen when it is created: somebody else may have it when it starts.
        return await self._start(await self._create(spec))

    async def _create(self, spec: ContainerSpec) -> ContainerId:
        try:
            return await self._create_whole(spec)
        except EngineRefused as refused:
            if refused.status != _TAKEN:
                raise
        # Left over from a life of this session that ended without a clean-up.
        await self.engine.remove(spec.name)
        return await self._create_whole(spec)

    async def _create_whole(self, spec: ContainerSpec) -> ContainerId:
        """A create that is broken off half-way leaves a container that nobody knows of."""
        return await make_whole(lambda: self.engine.create(spec), undo=self._undo, within=_UNDO_WITHIN)

    async def _start(self, created: ContainerId) -> Container:
        running = False
        try:
            container = await self.engine.start(created)
            if container.phase is ContainerPhase.EXITED or container.port is None:
                raise _EndedAtOnce(await self._why_at_once(container))
            running = True
        finally:
            if not running:
                with trio.CancelScope(shield=True, deadline=trio.current_time() + _UNDO_WITHIN):
                    await self._undo(created)
        return container

    async def _why_at_once(self, container: Container) -> Failure:
        """An engine that takes its time answers the start when memory has ended it: that is not its image's doing."""
        if container.phase is ContainerPhase.EXITED:
            with suppress(EngineError, trio.TooSlowError), trio.fail_after(_CAUSE_WITHIN):
                death = await self.engine.wait_exit(container)
                if death.oom_killed:
                    return of_death(death)
        words = await self._last_words(container)
        return Failure(cause=Cause.CRASH, message=words, exit_code=container.exit_code)

    async def _last_words(self, container: Container) -> str:
        if container.phase is not ContainerPhase.EXITED:
            return f"the container publishes no port: {_CHECK_IMAGE}"
        try:
            log = await self.engine.log(container.id, lines=_LAST_LINES)
        except EngineError:
            log = ""
        said = " ".join(log.split())[-_LAST_WORDS:] or "it wrote nothing"
        return f"the container ended at once with exit code {container.exit_code}: {said} ({_CHECK_IMAGE})"

    async def _undo(self, created: ContainerId) -> None:
        try:
            await self.engine.remove(created)
        except EngineError as error:
            # It is found by its labels when the next system opens.
            _log.warning(
                "container %s, which is not wanted any more, could not be removed: %s", created, error
            )

    async def _exit(self, operation: m.WatchExit) -> Death:
        while True:
            try:
                return await self.engine.wait_exit(operation.container)
            except ContainerMissing:
                return Death(exit_code=None, oom_killed=False, removed=True)
            except EngineError:
                pass  # The engine is away; the container need not be.
            await trio.sleep(_ENGINE_AGAIN)

    async def _sample(self, operation: m.SampleUsage) -> SessionMessage | None:
        try:
            return m.UsageSampled(usage=await self.engine.usage(operation.container))
        except EngineError:
            return None  # no figures: activity is judged by the server's words alone

    async def _tidy_up(self) -> SessionMessage | None:
        try:
            return m.TidiedUp(disk_bytes=await self.tidy())
        except StoreError as error:
            _log.warning("%s", error.message)
            return None

    async def _end(self, operation: m.EndContainer) -> SessionMessage:
        name = ContainerId(operation.name)
        try:
            match operation.rung:
                case Rung.STOP:
                    await self.engine.stop(name, grace=operation.grace)
                case Rung.KILL:
                    await self.engine.kill(name)
                case Rung.REMOVE:
                    async with self._making:
                        await self.engine.remove(name)
                        await self.engine.inspect(name)  # believed only when it is really gone
                    return m.StopRefused(rung=operation.rung, reason="it is still there")
                case Rung.ABORT | Rung.QUARANTINE:
                    raise AssertionError(operation.rung)
        except ContainerMissing:
            return m.ContainerRemoved()
        except EngineError as error:
            away = isinstance(error, EngineUnavailable)
            return m.StopRefused(rung=operation.rung, reason=error.message, away=away)
        return m.StopAnswered(rung=operation.rung)

    # ---- the server

    def connect(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self.servers.add(endpoint)

    async def disconnect(self) -> None:
        if self._endpoint is not None:
            endpoint, self._endpoint = self._endpoint, None
            await self.servers.forget(endpoint)
