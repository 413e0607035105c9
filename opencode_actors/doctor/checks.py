"""What is wrong with a host, and the command that mends it. Pure: facts in, findings out."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from pathlib import Path

from attrs import frozen

from opencode_actors.doctor.facts import HostFacts
from opencode_actors.image import ImageState
from opencode_actors.settings_knobs import show_size

GIB = 1 << 30
BUILD_IMAGE = "opencode-actors image build"

# A full image build needs about 3 GiB, and a session's data grows with its tools' output.
LITTLE_DISK = 5 * GIB
NO_DISK = 1 * GIB
# So many files of a workspace are named in one line.
_NAMED = 5

# conmon builds a socket's path below the runroot, and silently fails to clean up when it is too long:
# an exit then takes 20 s to be seen.
LONGEST_RUN_ROOT = 50
LONGEST_SOCKET_PATH = 107

# One user in the container, and the usual range of ids that an image's packages use.
NEEDED_SUBORDINATE_IDS = 65_536


class Level(Enum):
    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@frozen(kw_only=True)
class Finding:
    """`fix` is the command that mends it, or the shortest description of what to do."""

    name: str
    level: Level
    text: str
    fix: str = ""


Check = Callable[[HostFacts], tuple[Finding, ...]]


def ok(name: str, text: str) -> tuple[Finding, ...]:
    return (Finding(name=name, level=Level.OK, text=text),)


def warning(name: str, text: str, fix: str = "") -> tuple[Finding, ...]:
    return (Finding(name=name, level=Level.WARNING, text=text, fix=fix),)


def problem(name: str, text: str, fix: str) -> tuple[Finding, ...]:
    return (Finding(name=name, level=Level.PROBLEM, text=text, fix=fix),)


def examine(facts: HostFacts) -> tuple[Finding, ...]:
    return tuple(finding for check in CHECKS for finding in check(facts))


def engine(facts: HostFacts) -> tuple[Finding, ...]:
    info = facts.engine.info
    if info is None:
        return problem("engine", facts.engine.problem, facts.engine.hint)
    how = "rootless" if info.rootless else "rootful"
    return ok(
        "engine", f"{info.kind.value} {info.version}, API {info.api_version}, {how}, runtime {info.runtime}"
    )


def limits(facts: HostFacts) -> tuple[Finding, ...]:
    """P22: a limit that is accepted and not applied is worse than none."""
    info = facts.engine.info
    if info is None:
        return ()
    cgroups = f"cgroup v{info.cgroup_version}"
    limit_enforced = {"memory": info.memory_enforced, "cpus": info.cpu_enforced, "pids": info.pids_enforced}
    missing = [name for name, enforced in limit_enforced.items() if not enforced]
    if not missing:
        return ok("limits", f"memory, cpus and pids are enforced ({cgroups})")
    return problem(
        "limits",
        f"not enforced on this host: {', '.join(missing)} ({cgroups}, {'rootless' if info.rootless else 'rootful'})",
        _mend_limits(cgroup_version=info.cgroup_version),
    )


def _mend_limits(*, cgroup_version: int) -> str:
    if cgroup_version == 1:
        return "run the engine as root, or boot with systemd.unified_cgroup_hierarchy=1 (cgroup v2)"
    return (
        "mkdir -p /etc/systemd/system/user@.service.d && printf '[Service]\\nDelegate=cpu memory pids\\n' "
        "> /etc/systemd/system/user@.service.d/delegate.conf && systemctl daemon-reload, then log in again"
    )


def storage_driver(facts: HostFacts) -> tuple[Finding, ...]:
    """P21: vfs copies the whole image for each container (4-6 s and 1.4 GB measured)."""
    info = facts.engine.info
    if info is None:
        return ()
    if info.storage_driver != "vfs":
        return ok("storage", f"driver {info.storage_driver}")
    config = "/etc/containers/storage.conf" if facts.uid == 0 else "~/.config/containers/storage.conf"
    return warning(
        "storage",
        "driver vfs copies the whole image for each container: seconds and gigabytes instead of an instant",
        f"printf '[storage]\\ndriver = \"overlay\"\\n' > {config} && podman system reset -f (removes all images)",
    )


def image(facts: HostFacts) -> tuple[Finding, ...]:
    name, state = facts.settings.image, facts.image
    if facts.engine.info is None:
        return ()
    if state is None:
        return problem("image", f"{name} is not in {facts.settings.runtime}'s store", BUILD_IMAGE)
    text = describe_image(state)
    if not state.opencode_version:
        return warning("image", f"{text}; it was not built by this project, so nothing is known of it")
    if not state.current:
        return warning("image", f"{text}; another version of opencode-actors built it", BUILD_IMAGE)
    return ok("image", text)


def describe_image(state: ImageState) -> str:
    made = [f"OpenCode {state.opencode_version}"] if state.opencode_version else []
    made += [show_size(state.image.size_bytes), state.image.architecture]
    made += [f"target {state.target}"] if state.target else []
    made += ["base made on this host"] if state.base_made_here else []
    return f"{state.image.reference}: {', '.join(made)}"


def credentials(facts: HostFacts) -> tuple[Finding, ...]:
    found = facts.credentials
    broken = tuple(
        finding
        for text in found.problems
        for finding in problem("credentials", text, "repair or remove the file")
    )
    if found.found:
        return (*broken, *ok("credentials", str(found)))
    return (
        *broken,
        *warning(
            "credentials",
            f"none found (looked at {', '.join(found.looked_at)}): jobs use the built-in demo model",
            "opencode auth login",
        ),
    )


def git_identity(facts: HostFacts) -> tuple[Finding, ...]:
    if facts.git_name and facts.git_email:
        return ok("git identity", f"{facts.git_name} <{facts.git_email}>")
    missing = [
        name for name, value in (("user.name", facts.git_name), ("user.email", facts.git_email)) if not value
    ]
    return warning(
        "git identity",
        f"git's {' and '.join(missing)} not set: agents cannot commit",
        'git config --global user.name "Your Name" && git config --global user.email you@example.com',
    )


def confinement(facts: HostFacts) -> tuple[Finding, ...]:
    info, profile = facts.engine.info, facts.settings.apparmor_profile
    if info is None:
        return ()
    active = [name for name, on in (("SELinux", info.selinux), ("AppArmor", info.apparmor)) if on]
    if profile and not info.apparmor:
        return problem(
            "confinement",
            f"apparmorProfile is {profile}, and this kernel has no AppArmor: containers will not start",
            "unset apparmorProfile",
        )
    if not active:
        return ok("confinement", "neither SELinux nor AppArmor; capabilities, seccomp and limits still hold")
    return ok("confinement", f"{' and '.join(active)} active")


def subordinate_ids(facts: HostFacts) -> tuple[Finding, ...]:
    if facts.settings.runtime != "podman" or facts.uid == 0:
        return ()
    fewest = min(facts.subuids, facts.subgids)
    if fewest >= NEEDED_SUBORDINATE_IDS:
        return ok("subuid/subgid", f"{facts.subuids} uids, {facts.subgids} gids for {facts.user}")
    return problem(
        "subuid/subgid",
        f"{facts.user} may hand {facts.subuids} uids and {facts.subgids} gids to containers; "
        f"{NEEDED_SUBORDINATE_IDS} of each are needed",
        f"sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {facts.user} && podman system migrate",
    )


def lingering(facts: HostFacts) -> tuple[Finding, ...]:
    """P24: logging out ends a user's containers unless the user lingers."""
    info = facts.engine.info
    if info is None or not info.rootless or not facts.systemd:
        return ()
    if facts.lingering:
        return ok("lingering", f"{facts.user}'s containers outlive the login")
    return warning(
        "lingering",
        f"logging out ends {facts.user}'s containers",
        f"sudo loginctl enable-linger {facts.user}",
    )


def path_lengths(facts: HostFacts) -> tuple[Finding, ...]:
    """P24: a long runroot makes conmon's clean-up fail without a word."""
    if facts.storage is None:
        return ()
    root = facts.storage.run_root
    if len(str(root)) > LONGEST_RUN_ROOT:
        return problem(
            "runroot",
            f"{root} has {len(str(root))} characters; above {LONGEST_RUN_ROOT} Podman's clean-up fails silently and "
            f"an ended container is seen 20 s late",
            "set a shorter runroot in storage.conf, or a shorter XDG_RUNTIME_DIR",
        )
    socket = facts.settings.engine_socket.removeprefix("unix://")
    if len(socket.encode()) > LONGEST_SOCKET_PATH:
        return problem(
            "socket",
            f"{socket} is longer than the {LONGEST_SOCKET_PATH} characters a unix socket may have",
            "set a shorter engineSocket",
        )
    return ok("runroot", str(root))


def disks(facts: HostFacts) -> tuple[Finding, ...]:
    found: list[Finding] = []
    for disk in facts.disks:
        where = f"{disk.name} ({disk.path})"
        if disk.free_bytes is None:
            found += warning("disk", f"{where}: free space unknown")
        elif disk.free_bytes < NO_DISK:
            found += problem(
                "disk", f"{where}: {show_size(disk.free_bytes)} free", _mend_disk(facts, disk.path)
            )
        elif disk.free_bytes < LITTLE_DISK:
            found += warning(
                "disk", f"{where}: {show_size(disk.free_bytes)} free", _mend_disk(facts, disk.path)
            )
        else:
            found += ok("disk", f"{where}: {show_size(disk.free_bytes)} free")
    return tuple(found)


def _mend_disk(facts: HostFacts, path: Path) -> str:
    if path in (facts.settings.sessions_dir, facts.settings.workspaces_dir):
        return f"du -sh {path}/* shows what is large"
    return f"{facts.settings.runtime} image prune"


def workspaces(facts: HostFacts) -> tuple[Finding, ...]:
    """OpenCode runs it in its server, with all that the server can reach, whatever its settings say."""
    found: tuple[Finding, ...] = ()
    for workspace, code in facts.workspace_code:
        more = f" and {len(code) - _NAMED} more" if len(code) > _NAMED else ""
        found += warning(
            "workspace",
            f"{workspace} has code that OpenCode runs by itself: {', '.join(code[:_NAMED])}{more}",
            f"look into {facts.settings.workspaces_dir.expanduser() / workspace}, and remove what is not yours",
        )
    return found


def notifications(facts: HostFacts) -> tuple[Finding, ...]:
    """P16: what OpenClaw would not take is said here once, and not with every job."""
    settings, openclaw = facts.settings, facts.loaded.openclaw
    url = settings.notify_webhook_url
    if not url:
        return ok("notifications", "off: notifyWebhookUrl is empty")
    if not settings.hooks_token and openclaw.path is None:
        return ok("notifications", "off: no OpenClaw is configured for this user")
    if not settings.hooks_token:
        return warning(
            "notifications",
            "OpenClaw is not told when a job ends: no hooks token is known",
            "openclaw config set hooks.token $(openssl rand -hex 24) && openclaw config set hooks.enabled true",
        )
    if openclaw.path is not None and not openclaw.hooks.enabled:
        return warning(
            "notifications",
            f"OpenClaw will not take what is sent to {url}: hooks.enabled is not true in {openclaw.path}",
            "openclaw config set hooks.enabled true",
        )
    if openclaw.path is not None and not openclaw.hooks.aimed:
        text = f"to {url}; not to the very session that asked: hooks.allowRequestSessionKey is not true"
        return ok("notifications", text)
    return ok("notifications", f"to {url}")


def settings(facts: HostFacts) -> tuple[Finding, ...]:
    changed = [str(source) for source in facts.loaded.sources.values() if source.place]
    found = [warning_of(text) for text in facts.loaded.warnings]
    whole = facts.total_memory_bytes
    wanted = facts.settings.memory * facts.settings.max_sessions
    if whole is not None and facts.settings.memory > whole:
        found += problem(
            "settings",
            f"memory: {show_size(facts.settings.memory)} for one container, and the host has {show_size(whole)}",
            "lower memory",
        )
    elif whole is not None and wanted > whole:
        found += warning(
            "settings",
            f"maxSessions: {facts.settings.max_sessions} containers of {show_size(facts.settings.memory)} are more "
            f"than the host's {show_size(whole)}",
            "lower maxSessions or memory",
        )
    if not found:
        count = len(changed)
        text = (
            "all at their defaults" if not count else f"{count} changed ({', '.join(sorted(set(changed)))})"
        )
        return ok("settings", text)
    return tuple(found)


def warning_of(text: str) -> Finding:
    return Finding(name="settings", level=Level.WARNING, text=text, fix="opencode-actors settings")


CHECKS: tuple[Check, ...] = (
    engine,
    limits,
    storage_driver,
    image,
    credentials,
    git_identity,
    confinement,
    subordinate_ids,
    lingering,
    path_lengths,
    disks,
    workspaces,
    notifications,
    settings,
)
