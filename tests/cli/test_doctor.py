"""Each check of `doctor`: the facts of a host in, what is wrong and how to mend it out."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest

from opencode_actors.cli.doctor import document, plain_lines, status_of
from opencode_actors.cli.status import Status
from opencode_actors.credentials import Credentials
from opencode_actors.doctor.checks import Level, examine
from opencode_actors.doctor.facts import Disk, EngineFacts, HostFacts, Storage, _subordinate_ids
from opencode_actors.image import ImageState
from opencode_actors.openclaw_config import Hooks, OpenClawConfig
from opencode_actors.ports import EngineInfo, EngineKind, ImageInfo
from opencode_actors.settings import Settings
from opencode_actors.settings_knobs import knobs
from opencode_actors.settings_sources import LoadedSettings, Source, SourceKind

GIB = 1 << 30
INFO = EngineInfo(
    kind=EngineKind.PODMAN,
    version="4.3.1",
    api_version="1.41",
    rootless=True,
    cgroup_version=2,
    runtime="crun",
    storage_driver="overlay",
    selinux=False,
    apparmor=False,
    memory_enforced=True,
    cpu_enforced=True,
    pids_enforced=True,
)
IMAGE = ImageState(
    image=ImageInfo(
        id="sha256:1", reference="localhost/x:latest", size_bytes=600 << 20, labels={}, architecture="amd64"
    ),
    current=True,
    opencode_version="1.18.33",
    target="standard",
    base_made_here=False,
)
CREDENTIALS = Credentials(
    auth_file=Path("/home/u/.local/share/opencode/auth.json"),
    logins=("acme",),
    config_file=None,
    configured_providers=(),
    variables=(),
    looked_at=("here", "there"),
)


OPENCLAW = OpenClawConfig(path=Path("/o.json"))


def loaded(openclaw: OpenClawConfig | None = None, **values: object) -> LoadedSettings:
    settings = Settings(**values)  # type: ignore[arg-type]
    default = Source(kind=SourceKind.DEFAULT)
    return LoadedSettings(
        settings=settings,
        sources=dict.fromkeys(knobs(Settings), default),
        warnings=(),
        openclaw=openclaw or OpenClawConfig(path=None),
    )


HEALTHY = HostFacts(
    user="u",
    uid=1000,
    loaded=loaded(),
    engine=EngineFacts(info=INFO),
    image=IMAGE,
    credentials=CREDENTIALS,
    git_name="U",
    git_email="u@example.com",
    subuids=65536,
    subgids=65536,
    systemd=True,
    lingering=True,
    storage=Storage(graph_root=Path("/g"), run_root=Path("/run/user/1000/containers")),
    disks=(Disk(name="sessionsDir", path=Path("/s"), free_bytes=50 * GIB),),
    total_memory_bytes=64 * GIB,
)


def facts(**changes: object) -> HostFacts:
    return attrs.evolve(HEALTHY, **changes)  # type: ignore[arg-type]


def engine(**changes: object) -> EngineFacts:
    return EngineFacts(info=attrs.evolve(INFO, **changes))  # type: ignore[arg-type]


def test_a_healthy_host_has_nothing_but_ok() -> None:
    findings = examine(HEALTHY)
    assert {finding.level for finding in findings} == {Level.OK}
    assert status_of(findings) is Status.OK


@pytest.mark.parametrize(
    ("changes", "name", "level", "says", "fix"),
    [
        (
            {
                "engine": EngineFacts(info=None, problem="no podman", hint="apt-get install podman"),
                "image": None,
            },
            "engine",
            Level.PROBLEM,
            "no podman",
            "apt-get install podman",
        ),
        (
            {
                "engine": engine(
                    cgroup_version=1, memory_enforced=False, cpu_enforced=False, pids_enforced=False
                )
            },
            "limits",
            Level.PROBLEM,
            "not enforced on this host: memory, cpus, pids (cgroup v1, rootless)",
            "unified_cgroup_hierarchy",
        ),
        ({"engine": engine(cpu_enforced=False)}, "limits", Level.PROBLEM, "cpus (cgroup v2", "Delegate=cpu"),
        ({"engine": engine(storage_driver="vfs")}, "storage", Level.WARNING, "vfs", "storage.conf"),
        ({"image": None}, "image", Level.PROBLEM, "not in podman's store", "opencode-actors image build"),
        (
            {"image": attrs.evolve(IMAGE, current=False)},
            "image",
            Level.WARNING,
            "another version",
            "opencode-actors image build",
        ),
        (
            {"image": attrs.evolve(IMAGE, opencode_version="")},
            "image",
            Level.WARNING,
            "not built by this",
            "",
        ),
        (
            {"credentials": attrs.evolve(CREDENTIALS, logins=())},
            "credentials",
            Level.WARNING,
            "none found (looked at here, there)",
            "opencode auth login",
        ),
        (
            {"credentials": attrs.evolve(CREDENTIALS, problems=("auth.json is broken",))},
            "credentials",
            Level.PROBLEM,
            "auth.json is broken",
            "repair",
        ),
        ({"git_email": ""}, "git identity", Level.WARNING, "user.email not set", "git config --global"),
        (
            {"loaded": loaded(apparmor_profile="opencode")},
            "confinement",
            Level.PROBLEM,
            "no AppArmor",
            "unset apparmorProfile",
        ),
        ({"engine": engine(selinux=True)}, "confinement", Level.OK, "SELinux active", ""),
        ({"loaded": loaded(notify_webhook_url="")}, "notifications", Level.OK, "off: notifyWebhookUrl", ""),
        (
            {"loaded": loaded(OPENCLAW)},
            "notifications",
            Level.WARNING,
            "no hooks token is known",
            "openclaw config set hooks.token",
        ),
        (
            {"loaded": loaded(OPENCLAW, hooks_token="t-1")},
            "notifications",
            Level.WARNING,
            "hooks.enabled is not true in /o.json",
            "openclaw config set hooks.enabled true",
        ),
        (
            {"loaded": loaded(attrs.evolve(OPENCLAW, hooks=Hooks(enabled=True)), hooks_token="t-1")},
            "notifications",
            Level.OK,
            "hooks.allowRequestSessionKey is not true",
            "",
        ),
        (
            {
                "loaded": loaded(
                    attrs.evolve(OPENCLAW, hooks=Hooks(enabled=True, aimed=True)), hooks_token="t-1"
                )
            },
            "notifications",
            Level.OK,
            "to http://localhost:18789/hooks/agent",
            "",
        ),
        ({"subuids": 0}, "subuid/subgid", Level.PROBLEM, "0 uids", "usermod --add-subuids"),
        ({"lingering": False}, "lingering", Level.WARNING, "logging out", "loginctl enable-linger u"),
        (
            {"storage": Storage(graph_root=Path("/g"), run_root=Path("/" + "r" * 50))},
            "runroot",
            Level.PROBLEM,
            "51 characters",
            "shorter",
        ),
        (
            {"disks": (Disk(name="d", path=Path("/d"), free_bytes=100 << 20),)},
            "disk",
            Level.PROBLEM,
            "100 MiB free",
            "prune",
        ),
        (
            {"disks": (Disk(name="d", path=Path("/d"), free_bytes=2 * GIB),)},
            "disk",
            Level.WARNING,
            "2 GiB free",
            "prune",
        ),
        (
            {"workspace_code": (("demo", tuple(f".opencode/plugin/{n}.js" for n in range(7))),)},
            "workspace",
            Level.WARNING,
            ".opencode/plugin/4.js and 2 more",
            "opencode-workspaces/demo",
        ),
        (
            {"disks": (Disk(name="d", path=Path("/d"), free_bytes=None),)},
            "disk",
            Level.WARNING,
            "unknown",
            "",
        ),
        ({"total_memory_bytes": 4 * GIB}, "settings", Level.WARNING, "maxSessions", "lower"),
        ({"total_memory_bytes": GIB >> 1}, "settings", Level.PROBLEM, "memory:", "lower memory"),
        (
            {"loaded": attrs.evolve(loaded(), warnings=("memory: little",))},
            "settings",
            Level.WARNING,
            "memory: little",
            "opencode-actors settings",
        ),
    ],
)
def test_what_is_wrong_is_found_and_mended(
    changes: dict[str, object], name: str, level: Level, says: str, fix: str
) -> None:
    findings = examine(facts(**changes))
    found = next(finding for finding in findings if finding.name == name)
    assert found.level is level
    assert says in found.text
    assert fix in found.fix
    assert status_of(findings) is (Status.FAILED if level is Level.PROBLEM else Status.OK)


def test_P22_limits_that_are_not_enforced_are_a_problem() -> None:
    (found,) = (f for f in examine(facts(engine=engine(memory_enforced=False))) if f.name == "limits")
    assert found.level is Level.PROBLEM


def test_P24_a_long_runroot_and_a_log_out_are_found() -> None:
    long = Storage(graph_root=Path("/g"), run_root=Path("/run", "x" * 60))
    names = {f.name for f in examine(facts(storage=long, lingering=False)) if f.level is not Level.OK}
    assert names == {"runroot", "lingering"}


def test_P21_vfs_is_a_warning() -> None:
    (found,) = (f for f in examine(facts(engine=engine(storage_driver="vfs"))) if f.name == "storage")
    assert found.level is Level.WARNING


def test_a_long_engine_socket_is_a_problem() -> None:
    long = loaded(engine_socket="unix:///" + "s" * 107)
    assert any(f.name == "socket" and f.level is Level.PROBLEM for f in examine(facts(loaded=long)))


def test_root_needs_no_subordinate_ids() -> None:
    assert not any(f.name == "subuid/subgid" for f in examine(facts(uid=0, subuids=0, subgids=0)))


def test_subordinate_ids_are_added_up(tmp_path: Path) -> None:
    file = tmp_path / "subuid"
    file.write_text("u:100000:65536\nother:1:5\n1000:200000:10\nu:bad\n\n")
    assert _subordinate_ids(file, "u", 1000) == 65546
    assert _subordinate_ids(tmp_path / "missing", "u", 1000) == 0


def test_plain_lines_and_document() -> None:
    findings = examine(facts(image=None))
    lines = plain_lines(findings)
    assert "ok       engine: podman 4.3.1, API 1.41, rootless, runtime crun" in lines
    assert "         mend: opencode-actors image build" in lines
    made = document(HEALTHY, findings)
    assert made["ok"] is False
    assert isinstance(made["engine"], dict)
    assert made["engine"]["kind"] == "podman"
