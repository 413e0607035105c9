"""Where an engine answers, and a Podman service of our own where none does.

Podman has no daemon. When no socket answers, `podman system service` is started under a private
runtime folder, in its own process session. It belongs to everybody of this user who uses the folder:

* two processes that start at once start one service (an exclusive lock while looking and starting);
* whoever uses it holds a shared lock, and the last one to close ends it (SIGTERM, 16 ms when idle);
* a process that was killed frees its lock by dying, and the service ends by itself `IDLE_SECONDS`
  after the last connection (measured: an open event stream keeps it alive, an idle kept connection
  does not, so it may end under us: the next call starts it again).

The service may die at any time: its containers live on, and the next call starts it again.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import trio
from attrs import define, field, frozen

from opencode_actors.adapters.engine_dialect import kind_of
from opencode_actors.adapters.engine_sockets import (
    INSTALL_PODMAN,
    PODMAN_BY_HAND,
    START_DOCKER,
    Answer,
    docker_hint,
    docker_sockets,
    first_answer,
    listener,
    make_private,
    podman_sockets,
    runtime_folder,
    unix_socket,
)
from opencode_actors.errors import EngineUnavailable
from opencode_actors.ports import EngineKind

IDLE_SECONDS = 60
# 74-104 ms measured; a rootless first start also sets up its user namespace and storage.
START_WITHIN = 20.0
STOP_WITHIN = 3.0

# What would turn `podman system service` into a client of another one, or make it take our supervisor's sockets and
# readiness for its own. And whoever starts it may have a temporary folder that ends with him, while others use the
# service: without that folder it creates no container.
_NOT_FOR_THE_SERVICE = (
    *("CONTAINER_HOST", "CONTAINER_CONNECTION", "LISTEN_FDS", "LISTEN_PID", "NOTIFY_SOCKET"),
    "TMPDIR",
)
# What sets up a container's network lies here, and is not in everybody's PATH; others use the service, too.
_PROGRAMS_OF_ROOT = ("/usr/local/sbin", "/usr/sbin", "/sbin")


# ---- a service of our own


@define
class PodmanService:
    """`podman system service` in `folder`; `ensure` finds or starts it, `release` ends it with the last user."""

    folder: Path
    idle_seconds: int = IDLE_SECONDS
    starts: int = field(default=0, init=False)
    _spawned: int | None = field(default=None, init=False)
    _in_use: int | None = field(default=None, init=False, repr=False)
    _one_at_a_time: trio.Lock = field(factory=trio.Lock, init=False, repr=False)

    @property
    def socket(self) -> Path:
        return self.folder / "podman.sock"

    @property
    def log(self) -> Path:
        return self.folder / "podman.log"

    async def ensure(self) -> Answer:
        """Returns when the service answers. Raises `EngineUnavailable` with what to do."""
        async with self._one_at_a_time:
            make_private(self.folder, uid=os.geteuid())
            async with self._nobody_else_starts():
                in_use = self._in_use
                if in_use is None:
                    in_use = await self._lock("users.lock", fcntl.LOCK_SH)
                try:
                    answer, _ = await first_answer((self.socket,))
                    if answer is None:
                        answer = await self._start()
                    self._in_use = in_use
                finally:
                    if self._in_use is None:
                        os.close(in_use)
                return answer

    async def release(self) -> None:
        """The last user ends the service; everybody else leaves it to them."""
        async with self._one_at_a_time:
            if self._in_use is None:
                return
            async with self._nobody_else_starts():
                os.close(self._in_use)
                self._in_use = None
                if self._is_unused():
                    await self._stop()

    async def _start(self) -> Answer:
        program = shutil.which("podman")
        if program is None:
            raise EngineUnavailable(
                "Podman is not installed: there is no `podman` on PATH", hint=INSTALL_PODMAN
            )
        self._reap()
        self.socket.unlink(missing_ok=True)  # a dead service's; binding to it would fail
        self._spawned = await trio.to_thread.run_sync(self._spawn, program)
        self.starts += 1
        with trio.move_on_after(START_WITHIN):
            return await self._until_it_answers()
        raise EngineUnavailable(
            f"Podman's service did not answer within {START_WITHIN:g} s of its start{self._last_words()}",
            hint=PODMAN_BY_HAND,
        )

    def _spawn(self, program: str) -> int:
        """The shell is there to change directory: conmon leaves its `oom` marker in the service's."""
        environment = {k: v for k, v in os.environ.items() if k not in _NOT_FOR_THE_SERVICE}
        environment["PATH"] = os.pathsep.join((os.environ.get("PATH", os.defpath), *_PROGRAMS_OF_ROOT))
        script = 'cd "$1" && exec "$2" --log-level=error system service --time="$3" "unix://$4"'
        arguments = [
            "sh",
            "-c",
            script,
            "sh",
            str(self.folder),
            program,
            str(self.idle_seconds),
            str(self.socket),
        ]
        write = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND
        return os.posix_spawn(
            "/bin/sh",
            arguments,
            environment,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, str(self.log), write, 0o600),
                (os.POSIX_SPAWN_DUP2, 1, 2),
            ],
            setsid=True,  # Ctrl-C at our terminal is not for the engine
        )

    async def _until_it_answers(self) -> Answer:
        pause = 0.01
        while True:
            answer, _ = await first_answer((self.socket,))
            if answer is not None:
                return answer
            if self._reap():
                raise EngineUnavailable(
                    f"Podman's service ended as soon as it was started{self._last_words()}",
                    hint=PODMAN_BY_HAND,
                )
            await trio.sleep(pause)  # nothing tells that a socket has begun to listen
            pause = min(pause * 1.5, 0.2)

    def _last_words(self) -> str:
        with suppress(OSError):
            lines = self.log.read_text(errors="replace").strip().splitlines()[-3:]
            if lines:
                return ": " + " / ".join(lines)
        return ""

    def _reap(self) -> bool:
        """True when the process that was spawned here has ended (and is no zombie any more)."""
        if self._spawned is None:
            return False
        with suppress(ChildProcessError):
            if os.waitpid(self._spawned, os.WNOHANG)[0] == 0:
                return False
        self._spawned = None
        return True

    async def _stop(self) -> None:
        """By SIGTERM to whoever listens on the socket (the kernel says who), SIGKILL after `STOP_WITHIN`."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            process = listener(self.socket) or self._spawned  # one that was not up yet listens to nothing
            if process is None:
                break
            with suppress(ProcessLookupError):
                pidfd = os.pidfd_open(process)
                try:
                    signal.pidfd_send_signal(pidfd, number)
                    with trio.move_on_after(STOP_WITHIN):
                        await trio.lowlevel.wait_readable(pidfd)
                finally:
                    os.close(pidfd)
        await self._reap_soon()
        for leftover in ("podman.sock", "podman.log", "oom"):
            (self.folder / leftover).unlink(missing_ok=True)

    async def _reap_soon(self) -> None:
        """A rootless service is its starter's child, which ends a moment after it."""
        if self._reap() or self._spawned is None:
            return
        pidfd = os.pidfd_open(self._spawned)
        try:
            with trio.move_on_after(STOP_WITHIN):
                await trio.lowlevel.wait_readable(pidfd)
        finally:
            os.close(pidfd)
        self._reap()

    # locks: flock, so that a killed process holds none

    @asynccontextmanager
    async def _nobody_else_starts(self) -> AsyncGenerator[None]:
        descriptor = await self._lock("starting.lock", fcntl.LOCK_EX)
        try:
            yield
        finally:
            os.close(descriptor)

    async def _lock(self, name: str, how: int) -> int:
        descriptor = self._open_lock(name)
        locked = False
        try:
            with trio.fail_after(START_WITHIN + STOP_WITHIN):
                while not _try_lock(descriptor, how):  # noqa: ASYNC110 - a lock of other processes
                    await trio.sleep(0.02)
                await (
                    trio.lowlevel.checkpoint()
                )  # a lock that was free at once is no reason not to be cancelled
            locked = True
        except trio.TooSlowError as error:
            raise EngineUnavailable(
                f"another process holds {self.folder / name} and does not finish starting Podman's service",
                hint=f"`fuser {self.folder / name}` names it.",
            ) from error
        finally:
            if not locked:
                os.close(descriptor)
        return descriptor

    def _is_unused(self) -> bool:
        descriptor = self._open_lock("users.lock")
        try:
            return _try_lock(descriptor, fcntl.LOCK_EX)
        finally:
            os.close(descriptor)

    def _open_lock(self, name: str) -> int:
        return os.open(self.folder / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def _try_lock(descriptor: int, how: int) -> bool:
    try:
        fcntl.flock(descriptor, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


# ---- finding


@frozen(kw_only=True)
class Found:
    """An engine that answers; `service` is there when it is one of our own."""

    answer: Answer
    service: PodmanService | None = None


async def find_podman(socket: str, environment: Mapping[str, str], *, uid: int) -> Found:
    if socket:
        answer = await _the_one(unix_socket(socket, "engineSocket"), PODMAN_BY_HAND)
        if kind_of(answer.headers) is not EngineKind.PODMAN:
            raise EngineUnavailable(
                f"Docker answers on {socket}, and runtime is podman",
                hint='Set runtime to "docker", or engineSocket to Podman\'s socket.',
            )
        return Found(answer=answer)
    candidate, _ = await first_answer(podman_sockets(environment, uid=uid))
    if candidate is not None:
        return Found(answer=candidate)
    service = PodmanService(runtime_folder(environment, uid=uid))
    return Found(answer=await service.ensure(), service=service)


async def find_docker(socket: str, environment: Mapping[str, str]) -> Found:
    """What answers may be Podman, whose package podman-docker puts it behind Docker's socket."""
    if socket:
        return Found(answer=await _the_one(unix_socket(socket, "engineSocket"), START_DOCKER))
    answer, reasons = await first_answer(docker_sockets(environment))
    if answer is None:
        raise EngineUnavailable(f"no Docker Engine answers ({'; '.join(reasons)})", hint=docker_hint(reasons))
    return Found(answer=answer)


async def _the_one(socket: Path, hint: str) -> Answer:
    answer, reasons = await first_answer((socket,))
    if answer is None:
        raise EngineUnavailable(
            f"no engine answers where engineSocket says ({'; '.join(reasons)})",
            hint=docker_hint(reasons) if hint is START_DOCKER else hint,
        )
    return answer
