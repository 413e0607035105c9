"""The three ports to the outside world, and the values that cross them.

`Engine` is a container engine (Podman, Docker, a fake); `OpenCodeServer` is one running server; `Webhook`
is where the end of a job is announced. Each is held to its contract by the same tests on the fake and on
the real thing. Every method may raise the errors that `opencode_actors.errors` lists for its side, and
nothing else.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from enum import Enum
from pathlib import Path
from typing import NewType, Protocol

from attrs import field, frozen

from opencode_actors.machines.server_events import (
    ConversationId,
    Message,
    MessageId,
    PartId,
    ServerEvent,
    Todo,
)

ContainerId = NewType("ContainerId", str)


# ---- the engine


class EngineKind(Enum):
    PODMAN = "podman"
    DOCKER = "docker"
    FAKE = "fake"


@frozen(kw_only=True)
class EngineInfo:
    """`*_enforced` is what this host can really hold a container to, not what the API accepts."""

    kind: EngineKind
    version: str
    api_version: str
    rootless: bool
    cgroup_version: int
    runtime: str
    storage_driver: str
    selinux: bool
    apparmor: bool
    memory_enforced: bool
    cpu_enforced: bool
    pids_enforced: bool


@frozen(kw_only=True)
class Mount:
    source: Path
    target: str
    read_only: bool = False


@frozen(kw_only=True)
class ContainerSpec:
    """One container as this project runs it; the engine adapter turns it into an API body.

    What is the same for every container is not a field: all capabilities dropped, no-new-privileges,
    read-only root, an init as PID 1, ports published on 127.0.0.1 only, swap off.
    """

    name: str
    image: str
    labels: Mapping[str, str]
    environment: Mapping[str, str] = field(repr=False)  # carries the server's password
    mounts: tuple[Mount, ...] = ()
    port: int | None = 4096  # the port inside to publish on a free one of 127.0.0.1
    command: tuple[str, ...] | None = None  # None: the image's own
    memory_bytes: int = 1 << 30
    cpus: float = 1.0
    pids: int = 512
    tmpfs_bytes: int = 512 << 20  # /tmp, nosuid, exec
    network: str = "bridge"
    apparmor_profile: str = ""


class ContainerPhase(Enum):
    CREATED = "created"
    RUNNING = "running"
    PAUSED = "paused"
    EXITED = "exited"


@frozen(kw_only=True)
class Container:
    """What inspect says. `pid` is on the host, 0 when not running; `port` is on 127.0.0.1."""

    id: ContainerId
    name: str
    image: str
    labels: Mapping[str, str]
    phase: ContainerPhase
    pid: int = 0
    port: int | None = None
    exit_code: int | None = None


@frozen(kw_only=True)
class ListedContainer:
    id: ContainerId
    name: str
    labels: Mapping[str, str]
    phase: ContainerPhase


@frozen(kw_only=True)
class Death:
    """How a container ended. `exit_code` is None when it was removed before anybody could ask."""

    exit_code: int | None
    oom_killed: bool
    removed: bool = False


class EngineEventKind(Enum):
    STARTED = "started"
    DIED = "died"
    OOM = "oom"
    REMOVED = "removed"


@frozen(kw_only=True)
class EngineEvent:
    kind: EngineEventKind
    container: ContainerId
    labels: Mapping[str, str]
    exit_code: int | None = None


@frozen(kw_only=True)
class Usage:
    """One reading; CPU is a running total, so a load is the difference of two readings."""

    cpu_seconds: float
    memory_bytes: int
    pids: int
    oom_kills: int


@frozen(kw_only=True)
class Process:
    """One process in a container, as this host sees it.

    It is the same one as long as its pid and `started` are (clock ticks since the host's boot). `session` is the process session that it was born in. It may leave that for a new one of its own
    (`setsid`), but never enter one that is there already.
    """

    pid: int
    started: int
    session: int = field(eq=False)
    name: str = field(eq=False)  # another one after each exec


@frozen(kw_only=True)
class ImageInfo:
    id: str
    reference: str
    size_bytes: int
    labels: Mapping[str, str]
    architecture: str


class Engine(Protocol):
    async def info(self) -> EngineInfo: ...

    def directory_owner(self) -> tuple[int, int]:
        """The uid and gid on this host that a container's processes write mounted directories as."""
        ...

    async def image(self, reference: str) -> ImageInfo:
        """Raises `ImageMissing`."""
        ...

    async def create(self, spec: ContainerSpec) -> ContainerId:
        """Raises `ImageMissing`, and `EngineRefused` with status 409 when the name is taken."""
        ...

    async def start(self, container: ContainerId) -> Container:
        """Returns when it runs, with its pid and published port. Starting a running one is no error."""
        ...

    async def stop(self, container: ContainerId, *, grace: float) -> None:
        """SIGTERM, and SIGKILL after `grace` seconds. Stopping a stopped one is no error."""
        ...

    async def kill(self, container: ContainerId, *, signal: str = "SIGKILL") -> None:
        """Killing one that does not run is no error: what was wanted holds."""
        ...

    async def pause(self, container: ContainerId) -> None: ...

    async def unpause(self, container: ContainerId) -> None: ...

    async def remove(self, container: ContainerId | str) -> None:
        """By id or name, whatever its state. Removing what is gone is no error."""
        ...

    async def inspect(self, container: ContainerId | str) -> Container:
        """Raises `ContainerMissing`."""
        ...

    async def list(self, labels: Mapping[str, str]) -> tuple[ListedContainer, ...]:
        """Every container, running or not, that carries all of `labels`."""
        ...

    def events(self, labels: Mapping[str, str]) -> AbstractAsyncContextManager[AsyncIterator[EngineEvent]]:
        """From now on; ends with `EngineUnavailable` when the engine goes."""
        ...

    async def usage(self, container: Container) -> Usage:
        """Raises `ContainerMissing` when it does not run."""
        ...

    async def processes(self, container: Container) -> tuple[Process, ...]:
        """Every process that lives in it, zombies apart, by pid. Looks from the host and starts nothing in
        the container. Raises `ContainerMissing` when it does not run."""
        ...

    async def log(self, container: ContainerId | str, *, lines: int = 20) -> str:
        """The last lines that it wrote to stdout and stderr: why a server would not start. Raises
        `ContainerMissing`."""
        ...

    async def wait_exit(self, container: Container) -> Death:
        """Returns when this run of the container has ended, with the true cause."""
        ...

    async def aclose(self) -> None: ...


# ---- one OpenCode server


DEFAULT_USER = "opencode"  # the name that a server takes when it was given none


@frozen(kw_only=True)
class Endpoint:
    """Where one server answers, and the user and password that open it. A server has an instance for each
    `directory`; without one it is asked for its own."""

    url: str
    password: str = field(repr=False)
    directory: str = ""
    user: str = DEFAULT_USER


_NO_MESSAGE = MessageId("")
_NO_PART = PartId("")


@frozen(kw_only=True)
class Rule:
    """What becomes of a tool's call that matches: `action` is allow, ask or deny."""

    tool: str
    pattern: str
    action: str


@frozen(kw_only=True)
class Permissions:
    """What an agent may do: by its `mode`, which is allow, ask, plan, or that of the settings when it is None,
    and by the rules, of which the last one that matches holds."""

    mode: str | None = None
    rules: tuple[Rule, ...] = ()


@frozen(kw_only=True)
class Prompt:
    """One prompt under ids of our own, which make sending it twice the same as once.

    The ids carry the time, so they are made when the prompt is sent and are empty before.
    """

    message_id: MessageId = _NO_MESSAGE
    part_id: PartId = _NO_PART
    text: str = field(repr=False)
    model: str | None = None  # "provider/model"
    agent: str | None = None
    system: str | None = None
    permissions: Permissions | None = None  # None: those of the settings, or of somebody else's server


@frozen(kw_only=True)
class ServerHealth:
    version: str


@frozen(kw_only=True)
class Conversation:
    """What OpenCode calls a session. One with a `parent` is a sub-agent's."""

    id: ConversationId
    title: str
    directory: str
    parent: ConversationId | None = None
    updated_at: float = field(default=0.0, eq=False)  # in epoch seconds


class ConversationState(Enum):
    """Whether somebody's prompt is at work in it, or waits for the model's provider."""

    IDLE = "idle"
    BUSY = "busy"
    RETRY = "retry"


@frozen(kw_only=True)
class Agent:
    """`hidden` is what OpenCode uses for its own purposes."""

    name: str
    mode: str
    description: str = ""
    hidden: bool = False


@frozen(kw_only=True)
class Model:
    """`name` is what a prompt says, provider/model. Without prices nobody knows what it costs."""

    name: str
    title: str = ""
    priced: bool = False


@frozen(kw_only=True)
class Catalog:
    """What a server offers to whoever sends it a prompt."""

    agents: tuple[Agent, ...]
    models: tuple[Model, ...]


@frozen(kw_only=True)
class PendingQuestion:
    """`message` is the one whose tool asks: a ghost's is older than the prompt that runs."""

    request: str
    conversation: ConversationId
    text: str
    options: tuple[str, ...]
    questions: int = 1
    message: MessageId | None = None


@frozen(kw_only=True)
class PendingPermission:
    request: str
    conversation: ConversationId
    permission: str
    text: str
    message: MessageId | None = None


class PermissionReply(Enum):
    """This time, from now on, or not at all."""

    ONCE = "once"
    ALWAYS = "always"
    REJECT = "reject"


class OpenCodeServer(Protocol):
    async def health(self, *, within: float) -> ServerHealth:
        """On a fresh connection each time: a request sent while the server starts is never answered."""
        ...

    async def warm_up(self) -> Catalog:
        """Makes the server load its first instance, which takes a second off the first prompt, and says what
        it offers."""
        ...

    async def has_directory(self) -> bool:
        """Whether the endpoint's directory is there, on the server's machine."""
        ...

    async def create_conversation(self, *, title: str) -> Conversation: ...

    async def conversation(self, conversation: ConversationId) -> Conversation | None:
        """None when the server knows no such conversation."""
        ...

    async def conversations(self) -> tuple[Conversation, ...]:
        """Those that nobody's tool began, of every directory, the newest first; a bounded number."""
        ...

    async def children(self, conversation: ConversationId) -> tuple[Conversation, ...]: ...

    async def fork(
        self, conversation: ConversationId, *, before: MessageId | None = None
    ) -> Conversation: ...

    async def newest(self, conversation: ConversationId) -> float | None:
        """When the newest of its messages was made, in the server's epoch seconds."""
        ...

    async def retell(self, conversation: ConversationId, *, earlier: float) -> Conversation:
        """A copy in which everything was made so many seconds earlier, under ids of that time. A fork's messages
        have new ids and the times of the first ones, and the server goes by the times."""
        ...

    async def submit(self, conversation: ConversationId, prompt: Prompt) -> None:
        """Returns when the server took the prompt, which is not yet acceptance."""
        ...

    async def restrict(self, conversation: ConversationId, rules: Sequence[Mapping[str, str]]) -> None:
        """From its next prompt on: OpenCode's own rules, which go before those of its config and agents."""
        ...

    async def abort(self, conversation: ConversationId) -> None: ...

    async def messages(
        self, conversation: ConversationId, *, since: MessageId | None = None
    ) -> tuple[Message, ...]:
        """Oldest first; with `since`, from that message on (itself included)."""
        ...

    async def status(self) -> Mapping[ConversationId, ConversationState]:
        """Only what is not idle is listed."""
        ...

    async def todos(self, conversation: ConversationId) -> tuple[Todo, ...]: ...

    async def agents(self) -> tuple[Agent, ...]: ...

    async def questions(self) -> tuple[PendingQuestion, ...]: ...

    async def answer_question(self, request: str, answers: tuple[tuple[str, ...], ...]) -> None:
        """One answer for each question, of its options or in free words. A request that is over is
        refused with status 404, as in the calls below."""
        ...

    async def reject_question(self, request: str) -> None:
        """Also ends the prompt that asked."""
        ...

    async def permissions(self) -> tuple[PendingPermission, ...]: ...

    async def answer_permission(
        self, request: str, reply: PermissionReply, *, message: str | None = None
    ) -> None:
        """A rejection without a message ends the prompt that asked; with one, the model goes on."""
        ...

    def events(self) -> AbstractAsyncContextManager[AsyncIterator[tuple[ServerEvent, ...]]]:
        """The server's one stream, in batches: all that one read of the socket brought.

        Entering returns once the server has said that the stream stands. Ends with
        `ServerUnreachable` when the connection does; it never reconnects by itself, because what was
        missed must be read again, and only the reader knows what that is.
        """
        ...

    async def aclose(self) -> None: ...


# ---- OpenClaw's webhooks


@frozen(kw_only=True)
class HookRequest:
    """`key` makes sending it twice the same as once, where the receiver knows of such keys."""

    url: str
    key: str
    body: Mapping[str, object] = field(repr=False)


@frozen(kw_only=True)
class HookAnswer:
    """`status` is None when there was none; `said` is the answer's words, or why there are none. Seconds of
    `retry_after` are asked for by a receiver that is busy."""

    status: int | None
    said: str = ""
    retry_after: float | None = None


class Webhook(Protocol):
    async def post(self, request: HookRequest) -> HookAnswer:
        """Whatever is at the other end: it returns within a bounded time, and raises nothing."""
        ...
