"""All that Podman and Docker do differently behind the same API stands here, and nowhere else.

Measured with Podman 4.3.1 and Docker Engine 20.10 (API 1.41), both rootful and as told beside each line.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any

from attrs import frozen

from opencode_actors.errors import EngineRefused
from opencode_actors.ports import (
    Container,
    ContainerId,
    ContainerPhase,
    ContainerSpec,
    EngineEvent,
    EngineEventKind,
    EngineInfo,
    EngineKind,
    ImageInfo,
    ListedContainer,
    Mount,
)

Json = Mapping[str, Any]

# The oldest API that both engines speak, and the oldest that Docker Engine 29 still accepts.
OLDEST_API = (1, 41)
NEWEST_API = (1, 44)

# The image's user `opencode`.
IMAGE_UID = IMAGE_GID = 1000


def _part(body: Json | None, name: str) -> Json:
    """A nested object; both engines leave out what is empty, or send null."""
    part: Json | None = (body or {}).get(name)
    return part or {}


# ---- which engine answers


def kind_of(headers: Mapping[str, str]) -> EngineKind:
    return EngineKind.PODMAN if headers.get("server", "").startswith("Libpod/") else EngineKind.DOCKER


def display_name(kind: EngineKind) -> str:
    return {EngineKind.PODMAN: "Podman", EngineKind.DOCKER: "Docker", EngineKind.FAKE: "The fake engine"}[
        kind
    ]


def api_prefix(headers: Mapping[str, str]) -> str:
    """Docker refuses a prefix newer than itself (400) and, from Engine 29 on, one older than 1.44."""
    newest = tuple(int(part) for part in headers.get("api-version", "1.41").split(".")[:2])
    major, minor = min(max(newest, OLDEST_API), NEWEST_API)
    return f"/v{major}.{minor}"


def error_text(content: bytes) -> str:
    """Docker: {"message"}; Podman: {"cause", "message", "response"}; unknown paths: plain text."""
    try:
        reason: Json | str = json.loads(content)
    except ValueError:
        return content.decode(errors="replace").strip() or "no reason given"
    if isinstance(reason, str):
        return reason
    return str(reason.get("message") or reason.get("cause") or reason)


# ---- what the engine and its host can do


def podman_info(headers: Mapping[str, str], libpod: Json) -> EngineInfo:
    """From /libpod/info: Podman's Docker-like /info leaves out what rootless can do."""
    host = _part(libpod, "host")
    security = _part(host, "security")
    rootless = bool(security.get("rootless"))
    cgroup_version = int(str(host.get("cgroupVersion") or "v1").removeprefix("v"))
    # On v2 a user's containers have the controllers that were delegated to the user. Rootless on v1
    # Podman accepts every limit and enforces none (measured).
    enforced: list[str] = []
    if not (rootless and cgroup_version == 1):
        enforced = host.get("cgroupControllers") or []
    return EngineInfo(
        kind=EngineKind.PODMAN,
        version=str(_part(libpod, "version").get("Version", "")),
        api_version=headers.get("api-version", ""),
        rootless=rootless,
        cgroup_version=cgroup_version,
        runtime=str(_part(host, "ociRuntime").get("name", "")),
        storage_driver=str(_part(libpod, "store").get("graphDriverName", "")),
        selinux=bool(security.get("selinuxEnabled")),
        apparmor=bool(security.get("apparmorEnabled")),
        memory_enforced="memory" in enforced,
        cpu_enforced="cpu" in enforced,
        pids_enforced="pids" in enforced,
    )


def docker_info(headers: Mapping[str, str], info: Json) -> EngineInfo:
    """From /info, which says what Docker found it can enforce; "none" is rootless without systemd."""
    options = " ".join(info.get("SecurityOptions") or ())
    enforces = info.get("CgroupDriver") != "none"
    return EngineInfo(
        kind=EngineKind.DOCKER,
        version=str(info.get("ServerVersion", "")),
        api_version=headers.get("api-version", ""),
        rootless="name=rootless" in options,
        cgroup_version=int(info.get("CgroupVersion") or 1),
        runtime=str(info.get("DefaultRuntime", "")),
        storage_driver=str(info.get("Driver", "")),
        selinux="name=selinux" in options,
        apparmor="name=apparmor" in options,
        memory_enforced=enforces and bool(info.get("MemoryLimit")),
        cpu_enforced=enforces and bool(info.get("CpuCfsQuota")),
        pids_enforced=enforces and bool(info.get("PidsLimit")),
    )


RUNROOT_HINT = (
    "Set XDG_RUNTIME_DIR to a shorter path (/run/user/UID is usual), or `runroot` in storage.conf, and run"
    " `podman system migrate`."
)


def runroot_trap(libpod: Json) -> str:
    """Empty, or why nothing can be run: conmon's clean-up fails without a word when this path is too long."""
    runroot = str(_part(libpod, "store").get("runRoot", ""))
    if len(runroot) <= 50:
        return ""
    return (
        f"Podman's run root {runroot} is longer than 50 characters, with which each container takes 20 s to"
        " end and is never said to have exited"
    )


# ---- who owns the files


def directory_owner(*, rootless: bool, uid: int, gid: int) -> tuple[int, int]:
    """Who must own a directory on this host so that a container's processes may write to it.

    A service that runs as root gives its containers the image's user (1000), so whoever makes the
    directories hands them over with chown; in every other case they stay with the service's own user.
    """
    if uid == 0 and not rootless:
        return IMAGE_UID, IMAGE_GID
    return uid, gid


def _user(info: EngineInfo, *, uid: int, gid: int) -> dict[str, str]:
    if not info.rootless:
        owner, group = directory_owner(rootless=False, uid=uid, gid=gid)
        return {"User": f"{owner}:{group}"}
    # In a rootless Docker container root is the host's user, and no other id is.
    return {"User": "0:0"} if info.kind is EngineKind.DOCKER else {"User": f"{IMAGE_UID}:{IMAGE_GID}"}


def _user_namespace(info: EngineInfo) -> dict[str, str]:
    # Rootful Podman answers 500 to keep-id, Docker ignores it.
    if info.rootless and info.kind is EngineKind.PODMAN:
        return {"UsernsMode": f"keep-id:uid={IMAGE_UID},gid={IMAGE_GID}"}
    return {}


# ---- creating


def create_body(
    spec: ContainerSpec, info: EngineInfo, *, uid: int, gid: int, take_port: Callable[[], int]
) -> dict[str, Any]:
    """What to POST to /containers/create. Checks what the engines would answer in different ways."""
    body: dict[str, Any] = {
        "Image": spec.image,
        "Env": [f"{name}={value}" for name, value in spec.environment.items()],
        "Labels": dict(spec.labels),
        **_user(info, uid=uid, gid=gid),
        "HostConfig": _host_config(spec, info, take_port),
    }
    if spec.command is not None:
        body["Cmd"] = list(spec.command)
    if publishes(spec):
        # Docker publishes nothing on a free port unless the port is also exposed.
        body["ExposedPorts"] = {f"{spec.port}/tcp": {}}
    return body


def publishes(spec: ContainerSpec) -> bool:
    return spec.port is not None and spec.network not in ("host", "none")


def _host_config(spec: ContainerSpec, info: EngineInfo, take_port: Callable[[], int]) -> dict[str, Any]:
    config: dict[str, Any] = {
        "CapDrop": ["ALL"],
        "SecurityOpt": _security(spec, info),
        "ReadonlyRootfs": True,
        "Init": True,
        **_limits(spec, info),
        # Docker's tmpfs is noexec unless told. No Ulimits: Podman takes a list that names only one
        # as a reason to raise the others to 1048576, which needs CAP_SYS_RESOURCE.
        "Tmpfs": {"/tmp": f"rw,nosuid,nodev,exec,size={spec.tmpfs_bytes}"},  # noqa: S108 - inside
        "Binds": [_bind(mount, info) for mount in spec.mounts],
        "NetworkMode": _network(spec, info),
        "RestartPolicy": {"Name": "no"},
        **_user_namespace(info),
    }
    if publishes(spec):
        # Docker chooses a free port at each start; Podman at creation, and badly (see engine_ports).
        port = "" if info.kind is EngineKind.DOCKER else str(take_port())
        config["PortBindings"] = {f"{spec.port}/tcp": [{"HostIp": "127.0.0.1", "HostPort": port}]}
    if info.kind is EngineKind.DOCKER:
        # Podman writes this name by itself, and does not understand "host-gateway".
        if spec.network not in ("host", "none"):
            config["ExtraHosts"] = ["host.containers.internal:host-gateway"]
        # Docker's and Podman's default logs have no bound.
        config["LogConfig"] = {"Type": "json-file", "Config": {"max-size": "10m", "max-file": "2"}}
    else:
        config["LogConfig"] = {"Type": "k8s-file", "Config": {"max-size": "10m"}}
    return config


def _limits(spec: ContainerSpec, info: EngineInfo) -> dict[str, int]:
    """Rootless on cgroup v2 a container whose limit has no delegated controller does not start (on v1 the
    limit is accepted, and ignored). Everywhere else all are sent: a wall is not left out on a guess."""
    refused = info.rootless and info.cgroup_version == 2
    limits: dict[str, int] = {}
    if info.memory_enforced or not refused:
        limits["Memory"] = spec.memory_bytes
        limits["MemorySwap"] = spec.memory_bytes  # unset means twice the memory, half of it swap
    if info.cpu_enforced or not refused:
        limits["NanoCpus"] = math.ceil(spec.cpus * 1e9)
    if info.pids_enforced or not refused:
        limits["PidsLimit"] = spec.pids
    return limits


def _security(spec: ContainerSpec, info: EngineInfo) -> list[str]:
    options = ["no-new-privileges"]
    if spec.apparmor_profile:
        if not info.apparmor:
            # Podman would answer 500, and Docker would run it without the wall that was asked for.
            raise EngineRefused(
                f"cannot confine container {spec.name} with the AppArmor profile {spec.apparmor_profile}:"
                f" {info.kind.value} has no AppArmor here, because its kernel has none or because it is"
                " rootless; with apparmorProfile empty it runs without",
                status=400,
                hint="Set apparmorProfile to empty, or use an engine and a kernel with AppArmor.",
            )
        options.append(f"apparmor={spec.apparmor_profile}")
    return options


def _network(spec: ContainerSpec, info: EngineInfo) -> str:
    # A rootless Podman's own default keeps containers apart; its bridge needs one more namespace.
    if spec.network == "bridge" and info.rootless and info.kind is EngineKind.PODMAN:
        return "default"
    return spec.network


def _bind(mount: Mount, info: EngineInfo) -> str:
    if ":" in str(mount.source) or ":" in mount.target:
        raise EngineRefused(
            f"cannot mount {mount.source}: container engines cannot mount a path with a colon",
            status=400,
            hint="Choose a directory without a colon in its path.",
        )
    if not mount.source.exists():
        # Both engines would make it, as root.
        raise EngineRefused(
            f"cannot mount {mount.source}: it does not exist",
            status=400,
            hint="Make it first, owned by the user who runs the containers.",
        )
    options = ["ro" if mount.read_only else "rw"]
    if info.selinux:
        # Private to this container; but what is read is read by several, and Z would lock them out.
        options.append("z" if mount.read_only else "Z")
    return f"{mount.source}:{mount.target}:{','.join(options)}"


# ---- reading answers

_PHASES = {
    "created": ContainerPhase.CREATED,
    "configured": ContainerPhase.CREATED,
    "initialized": ContainerPhase.CREATED,
    "running": ContainerPhase.RUNNING,
    "restarting": ContainerPhase.RUNNING,
    "paused": ContainerPhase.PAUSED,
    # Podman's "stopped" is "exited" before its clean-up ran; "stopping" has had its SIGTERM.
    "stopping": ContainerPhase.RUNNING,
    "stopped": ContainerPhase.EXITED,
    "exited": ContainerPhase.EXITED,
    "dead": ContainerPhase.EXITED,
    "removing": ContainerPhase.EXITED,
}


def phase_of(status: str) -> ContainerPhase:
    try:
        return _PHASES[status.lower()]
    except KeyError:
        raise EngineRefused(
            f"the engine reports a container state that is not known: {status}", status=500
        ) from None


class Passing(Enum):
    """Podman's states that say less than they seem: somebody may be about to remove it. One that is stopped
    or removed passes through all three, one that is killed through the second."""

    STOPPING = "stopping"
    STOPPED = "stopped"
    REMOVING = "removing"


@frozen(kw_only=True)
class Inspected:
    """`oom_flag` is the engine's own word: true on Docker for any process killed, never true on
    Podman with cgroup v1 (measured in more than 12 runs)."""

    container: Container
    passing: Passing | None
    oom_flag: bool


def inspected(body: Json) -> Inspected:
    state = _part(body, "State")
    phase = phase_of(str(state.get("Status", "")))
    alive = phase in (ContainerPhase.RUNNING, ContainerPhase.PAUSED)
    config = _part(body, "Config")
    container = Container(
        id=ContainerId(str(body["Id"])),
        name=str(body.get("Name", "")).removeprefix("/"),
        image=str(config.get("Image", "")),
        labels=dict(config.get("Labels") or {}),
        phase=phase,
        pid=int(state.get("Pid") or 0) if alive else 0,
        port=_published_port(body) if alive else None,
        exit_code=int(state.get("ExitCode") or 0) if phase is ContainerPhase.EXITED else None,
    )
    status = str(state.get("Status", "")).lower()
    passing = Passing(status) if status in {state.value for state in Passing} else None
    return Inspected(container=container, passing=passing, oom_flag=bool(state.get("OOMKilled")))


def _published_port(body: Json) -> int | None:
    """Docker lists ports only while it runs and chooses anew at each start; Podman keeps its choice."""
    ports: Mapping[str, list[Json] | None] = _part(_part(body, "NetworkSettings"), "Ports")
    for bindings in ports.values():
        for binding in bindings or ():
            if binding.get("HostPort"):
                return int(binding["HostPort"])
    return None


def listed(entry: Json) -> ListedContainer:
    names: list[str] = entry.get("Names") or [""]
    return ListedContainer(
        id=ContainerId(str(entry["Id"])),
        name=names[0].removeprefix("/"),
        labels=dict(entry.get("Labels") or {}),
        phase=phase_of(str(entry.get("State", ""))),
    )


def image_info(reference: str, body: Json) -> ImageInfo:
    config = _part(body, "Config")
    return ImageInfo(
        id=str(body.get("Id", "")).removeprefix("sha256:"),
        reference=reference,
        size_bytes=int(body.get("Size") or 0),
        labels=dict(config.get("Labels") or {}),
        architecture=str(body.get("Architecture", "")),
    )


def log_text(content: bytes) -> str:
    """Frames of eight bytes of header (the last four are the length) and their text; both engines alike."""
    text = b""
    while len(content) >= 8:
        end = 8 + int.from_bytes(content[4:8], "big")
        text, content = text + content[8:end], content[end:]
    return text.decode(errors="replace")


# ---- refusals that mean "it is so already", or that both engines should say alike


def name_in_use(refusal: EngineRefused) -> bool:
    """Docker: 409. Podman: 500 with a sentence."""
    return refusal.status == 409 or (refusal.status == 500 and "already in use" in refusal.message)


def container_missing(refusal: EngineRefused) -> bool:
    """404; but while it is being removed Podman answers 500 "does not exist in database"."""
    return refusal.status == 404 or (refusal.status == 500 and "no such container" in refusal.message)


def port_taken(refusal: EngineRefused) -> bool:
    """At a start: somebody listens on the port that Podman wrote down at the creation."""
    return "address already in use" in refusal.message


def not_running(refusal: EngineRefused) -> bool:
    """Kill of a stopped one. Docker: 409 "is not running"; Podman: 500 "can only kill running containers"."""
    text = refusal.message
    return refusal.status in (409, 500) and (
        "is not running" in text or "can only kill running" in text or "container state improper" in text
    )


# ---- events

_EVENT_KINDS = {
    "start": EngineEventKind.STARTED,
    "die": EngineEventKind.DIED,
    "died": EngineEventKind.DIED,
    "oom": EngineEventKind.OOM,  # Podman on cgroup v1 never sends it
    "destroy": EngineEventKind.REMOVED,
    "remove": EngineEventKind.REMOVED,
}


def event_filters(labels: Mapping[str, str]) -> str:
    # No filter on the action: Podman 4.3.1 wants "died" for an event that it then calls "die".
    return json.dumps({"type": ["container"], "label": [f"{k}={v}" for k, v in labels.items()]})


def engine_event(body: Json) -> tuple[int, EngineEvent] | None:
    """The event and when it happened in ns, or None for one that nobody here waits for."""
    kind = _EVENT_KINDS.get(str(body.get("Action") or body.get("status") or ""))
    if kind is None:
        return None
    actor = _part(body, "Actor")
    attributes: dict[str, str] = dict(actor.get("Attributes") or {})
    exit_code = attributes.get("exitCode") or attributes.get("containerExitCode")
    event = EngineEvent(
        kind=kind,
        container=ContainerId(str(actor.get("ID") or body.get("id") or "")),
        labels=attributes,
        exit_code=int(exit_code) if kind is EngineEventKind.DIED and exit_code else None,
    )
    return int(body.get("timeNano") or 0), event


def carries(labels: Mapping[str, str], wanted: Mapping[str, str]) -> bool:
    """Podman's event filter takes several labels as alternatives, Docker's as all; all is meant."""
    return all(labels.get(name) == value for name, value in wanted.items())
