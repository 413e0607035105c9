"""What is said to which engine, and what each answer means."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

from opencode_actors.adapters import engine_dialect as dialect
from opencode_actors.errors import EngineRefused
from opencode_actors.ports import (
    ContainerPhase,
    ContainerSpec,
    EngineEventKind,
    EngineInfo,
    EngineKind,
    Mount,
)

SPEC = ContainerSpec(
    name="oa-demo",
    image="localhost/opencode-actors:latest",
    labels={"owner": "me"},
    environment={"KEY": "value"},
    memory_bytes=1 << 30,
    cpus=1.5,
    pids=512,
    tmpfs_bytes=512 << 20,
)

ROOTFUL_PODMAN = EngineInfo(
    kind=EngineKind.PODMAN,
    version="4.3.1",
    api_version="1.41",
    rootless=False,
    cgroup_version=1,
    runtime="runc",
    storage_driver="overlay",
    selinux=False,
    apparmor=False,
    memory_enforced=True,
    cpu_enforced=True,
    pids_enforced=True,
)
ROOTLESS_PODMAN = evolve(ROOTFUL_PODMAN, rootless=True, cgroup_version=2)
DOCKER = evolve(ROOTFUL_PODMAN, kind=EngineKind.DOCKER, version="20.10.24")
ROOTLESS_DOCKER = evolve(DOCKER, rootless=True)


def _body(
    info: EngineInfo, spec: ContainerSpec = SPEC, *, uid: int = 1002, gid: int = 1003
) -> dict[str, Any]:
    return dialect.create_body(spec, info, uid=uid, gid=gid, take_port=lambda: 20_001)


def _host(info: EngineInfo, spec: ContainerSpec = SPEC) -> dict[str, Any]:
    config: dict[str, Any] = _body(info, spec)["HostConfig"]
    return config


# ---- creating


@pytest.mark.parametrize("info", [ROOTFUL_PODMAN, ROOTLESS_PODMAN, DOCKER, ROOTLESS_DOCKER])
def test_p14_every_container_has_the_same_walls(info: EngineInfo) -> None:
    body = _body(info)
    host = body["HostConfig"]
    assert host["CapDrop"] == ["ALL"]
    assert host["SecurityOpt"] == ["no-new-privileges"]
    assert host["ReadonlyRootfs"] is True
    assert host["Init"] is True
    assert host["Memory"] == host["MemorySwap"] == 1 << 30
    assert host["NanoCpus"] == 1_500_000_000
    assert host["PidsLimit"] == 512
    assert host["Tmpfs"] == {"/tmp": "rw,nosuid,nodev,exec,size=536870912"}  # noqa: S108 - inside
    assert host["PortBindings"]["4096/tcp"][0]["HostIp"] == "127.0.0.1"
    assert body["ExposedPorts"] == {"4096/tcp": {}}
    assert body["Env"] == ["KEY=value"]
    assert "Ulimits" not in host
    assert "Cmd" not in body


@pytest.mark.parametrize(
    ("info", "uid", "user", "namespace"),
    [
        (ROOTFUL_PODMAN, 0, "1000:1000", None),
        (ROOTFUL_PODMAN, 1002, "1002:1003", None),
        (DOCKER, 0, "1000:1000", None),
        (DOCKER, 1002, "1002:1003", None),
        (ROOTLESS_PODMAN, 1002, "1000:1000", "keep-id:uid=1000,gid=1000"),
        (ROOTLESS_DOCKER, 1002, "0:0", None),
    ],
)
def test_who_a_container_runs_as(info: EngineInfo, uid: int, user: str, namespace: str | None) -> None:
    body = _body(info, uid=uid, gid=0 if uid == 0 else 1003)
    assert body["User"] == user
    assert body["HostConfig"].get("UsernsMode") == namespace


@pytest.mark.parametrize(
    ("rootless", "uid", "owner"),
    [(False, 0, (1000, 1000)), (False, 1002, (1002, 1003)), (True, 1002, (1002, 1003)), (True, 0, (0, 1003))],
)
def test_who_owns_what_it_writes(rootless: bool, uid: int, owner: tuple[int, int]) -> None:  # noqa: FBT001
    assert dialect.directory_owner(rootless=rootless, uid=uid, gid=1003) == owner


def test_podman_is_told_a_port_and_docker_chooses_one() -> None:
    assert _host(ROOTFUL_PODMAN)["PortBindings"]["4096/tcp"][0]["HostPort"] == "20001"
    assert _host(DOCKER)["PortBindings"]["4096/tcp"][0]["HostPort"] == ""


@pytest.mark.parametrize("spec", [evolve(SPEC, port=None), evolve(SPEC, network="host")])
def test_nothing_is_published_where_nothing_can_be(spec: ContainerSpec) -> None:
    body = _body(DOCKER, spec)
    assert "ExposedPorts" not in body
    assert "PortBindings" not in body["HostConfig"]


def test_the_host_has_the_same_name_in_every_container() -> None:
    assert _host(DOCKER)["ExtraHosts"] == ["host.containers.internal:host-gateway"]
    assert "ExtraHosts" not in _host(DOCKER, evolve(SPEC, network="none"))
    assert "ExtraHosts" not in _host(ROOTFUL_PODMAN)  # it writes the name itself


def test_a_rootless_podman_keeps_its_own_network() -> None:
    assert _host(ROOTLESS_PODMAN)["NetworkMode"] == "default"
    assert _host(ROOTFUL_PODMAN)["NetworkMode"] == "bridge"
    assert _host(ROOTLESS_PODMAN, evolve(SPEC, network="none"))["NetworkMode"] == "none"


def test_p13_logs_are_bounded_on_both_engines() -> None:
    assert _host(DOCKER)["LogConfig"]["Config"]["max-size"] == "10m"
    assert _host(ROOTFUL_PODMAN)["LogConfig"]["Config"]["max-size"] == "10m"


def test_p22_a_limit_without_its_controller_is_not_asked_of_a_rootless_engine_that_would_refuse() -> None:
    limits = {"cpu": ["NanoCpus"], "memory": ["Memory", "MemorySwap"], "pids": ["PidsLimit"]}
    every = {name for names in limits.values() for name in names}
    for controller, names in limits.items():
        lacking: dict[str, Any] = {f"{controller}_enforced": False}
        assert every - _host(evolve(ROOTLESS_PODMAN, **lacking)).keys() == set(names)
        on_v1 = evolve(ROOTLESS_PODMAN, cgroup_version=1, **lacking)
        assert every <= _host(on_v1).keys()
        assert every <= _host(evolve(ROOTFUL_PODMAN, cgroup_version=2, **lacking)).keys()


def test_p14_an_apparmor_profile_is_refused_where_there_is_no_apparmor() -> None:
    spec = evolve(SPEC, apparmor_profile="opencode-actors")
    for engine in (ROOTFUL_PODMAN, DOCKER):
        with pytest.raises(EngineRefused, match="AppArmor profile opencode-actors") as refused:
            _host(engine, spec)
        assert "apparmorProfile" in refused.value.hint
    with_apparmor = evolve(ROOTFUL_PODMAN, apparmor=True)
    assert _host(with_apparmor, spec)["SecurityOpt"] == ["no-new-privileges", "apparmor=opencode-actors"]
    assert _host(with_apparmor)["SecurityOpt"] == ["no-new-privileges"]


def test_p24_selinux_labels_are_private_for_what_is_written_and_shared_for_what_is_read(
    tmp_path: Path,
) -> None:
    mounts = (Mount(source=tmp_path, target="/data"), Mount(source=tmp_path, target="/in", read_only=True))
    spec = evolve(SPEC, mounts=mounts)
    assert _host(ROOTFUL_PODMAN, spec)["Binds"] == [f"{tmp_path}:/data:rw", f"{tmp_path}:/in:ro"]
    labelled = _host(evolve(ROOTLESS_PODMAN, selinux=True), spec)["Binds"]
    assert labelled == [f"{tmp_path}:/data:rw,Z", f"{tmp_path}:/in:ro,z"]


@pytest.mark.parametrize("name", ["missing", "with:colon"])
def test_what_cannot_be_mounted_is_refused_before_an_engine_makes_it(tmp_path: Path, name: str) -> None:
    spec = evolve(SPEC, mounts=(Mount(source=tmp_path / name, target="/data"),))
    with pytest.raises(EngineRefused, match=name) as refused:
        _body(DOCKER, spec)
    assert refused.value.hint


def test_the_password_is_in_no_repr() -> None:
    assert "value" not in repr(SPEC)


# ---- which engine, and what it can enforce


@pytest.mark.parametrize(
    ("newest", "prefix"), [("1.41", "/v1.41"), ("1.43", "/v1.43"), ("1.44", "/v1.44"), ("1.52", "/v1.44")]
)
def test_the_api_version_is_one_that_both_sides_speak(newest: str, prefix: str) -> None:
    assert dialect.api_prefix({"api-version": newest}) == prefix


def test_engines_are_told_apart_by_their_server_header() -> None:
    assert dialect.kind_of({"server": "Libpod/4.3.1 (linux)"}) is EngineKind.PODMAN
    assert dialect.kind_of({"server": "Docker/20.10.24+dfsg1 (linux)"}) is EngineKind.DOCKER


def _libpod(*, rootless: bool, version: str, controllers: list[str] | None) -> dict[str, Any]:
    return {
        "host": {
            "cgroupVersion": version,
            "cgroupControllers": controllers,
            "ociRuntime": {"name": "crun"},
            "security": {"rootless": rootless, "selinuxEnabled": True, "apparmorEnabled": False},
        },
        "store": {"graphDriverName": "overlay", "runRoot": "/run/user/1002/containers"},
        "version": {"Version": "4.3.1"},
    }


ALL = ["cpuset", "cpu", "io", "memory", "pids"]


@pytest.mark.parametrize(
    ("rootless", "version", "controllers", "enforced"),
    [
        (False, "v1", ALL, (True, True, True)),
        (False, "v2", ALL, (True, True, True)),
        (True, "v1", ALL, (False, False, False)),
        (True, "v2", ALL, (True, True, True)),
        (True, "v2", ["memory", "pids"], (True, False, True)),  # what systemd delegates by default
        (True, "v2", [], (False, False, False)),
        (True, "v2", None, (False, False, False)),
    ],
)
def test_p22_what_podman_can_enforce(
    rootless: bool,  # noqa: FBT001
    version: str,
    controllers: list[str] | None,
    enforced: tuple[bool, bool, bool],
) -> None:
    libpod = _libpod(rootless=rootless, version=version, controllers=controllers)
    info = dialect.podman_info({"api-version": "1.41"}, libpod)
    assert (info.memory_enforced, info.cpu_enforced, info.pids_enforced) == enforced
    assert (info.rootless, info.cgroup_version) == (rootless, int(version[1]))
    assert (info.runtime, info.storage_driver, info.version) == ("crun", "overlay", "4.3.1")
    assert (info.selinux, info.apparmor) == (True, False)


@pytest.mark.parametrize(
    ("driver", "options", "rootless", "memory"),
    [
        ("cgroupfs", ["name=seccomp,profile=default"], False, True),
        ("systemd", ["name=apparmor", "name=rootless", "name=cgroupns"], True, True),
        ("none", ["name=rootless"], True, False),
    ],
)
def test_p22_what_docker_can_enforce(
    driver: str,
    options: list[str],
    rootless: bool,  # noqa: FBT001
    memory: bool,  # noqa: FBT001
) -> None:
    body = {
        "CgroupDriver": driver,
        "CgroupVersion": "2",
        "SecurityOptions": options,
        "MemoryLimit": True,
        "CpuCfsQuota": True,
        "PidsLimit": False,
        "ServerVersion": "24.0.1",
    }
    info = dialect.docker_info({"api-version": "1.43"}, body)
    assert (info.rootless, info.memory_enforced, info.cpu_enforced) == (rootless, memory, memory)
    assert info.pids_enforced is False
    assert info.apparmor is ("name=apparmor" in options)
    assert (info.version, info.api_version, info.cgroup_version) == ("24.0.1", "1.43", 2)


def test_p24_a_run_root_that_is_too_long_is_named() -> None:
    libpod = _libpod(rootless=True, version="v2", controllers=ALL)
    assert dialect.runroot_trap(libpod) == ""
    libpod["store"]["runRoot"] = "/home/somebody/.cache/run/user/1002/with/a/long/path/containers"
    assert "longer than 50 characters" in dialect.runroot_trap(libpod)


# ---- answers


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b'{"message":"No such image: nosuch:1"}', "No such image: nosuch:1"),
        (b'{"cause":"why","message":"what: why","response":500}', "what: why"),
        (b"Not Found\n", "Not Found"),
        (b'"a word"', "a word"),
        (b"", "no reason given"),
    ],
)
def test_an_error_is_read_from_whatever_says_it(content: bytes, text: str) -> None:
    assert dialect.error_text(content) == text


@pytest.mark.parametrize(
    ("status", "phase"),
    [
        ("created", ContainerPhase.CREATED),
        ("running", ContainerPhase.RUNNING),
        ("stopping", ContainerPhase.RUNNING),
        ("paused", ContainerPhase.PAUSED),
        ("stopped", ContainerPhase.EXITED),
        ("exited", ContainerPhase.EXITED),
        ("Exited", ContainerPhase.EXITED),
        ("dead", ContainerPhase.EXITED),
    ],
)
def test_states_are_four(status: str, phase: ContainerPhase) -> None:
    assert dialect.phase_of(status) is phase


def test_a_state_that_nobody_knows_is_no_guess() -> None:
    with pytest.raises(EngineRefused, match="hibernating"):
        dialect.phase_of("hibernating")


@pytest.mark.parametrize(
    ("status", "text", "question", "answer"),
    [
        (409, "Conflict. The container name is already in use", dialect.name_in_use, True),
        (500, "creating container storage: the container name is already in use", dialect.name_in_use, True),
        (500, "no space left on device", dialect.name_in_use, False),
        (409, "Container x is not running", dialect.not_running, True),
        (500, "can only kill running containers. x is in state exited", dialect.not_running, True),
        (500, "could not kill: permission denied", dialect.not_running, False),
        (404, "No such container: x", dialect.container_missing, True),
        (500, "container x does not exist in database: no such container", dialect.container_missing, True),
        (500, "database is locked", dialect.container_missing, False),
        (500, "cannot listen on the TCP port: bind: address already in use", dialect.port_taken, True),
        (500, "no such file", dialect.port_taken, False),
    ],
)
def test_one_refusal_has_two_spellings(status: int, text: str, question: Any, answer: bool) -> None:  # noqa: FBT001
    assert question(EngineRefused(text, status=status)) is answer


@pytest.mark.parametrize(
    ("action", "attributes", "kind", "exit_code"),
    [
        ("start", {}, EngineEventKind.STARTED, None),
        ("die", {"exitCode": "137"}, EngineEventKind.DIED, 137),
        ("died", {"containerExitCode": "7"}, EngineEventKind.DIED, 7),
        ("oom", {}, EngineEventKind.OOM, None),
        ("remove", {"exitCode": "0"}, EngineEventKind.REMOVED, None),
        ("destroy", {}, EngineEventKind.REMOVED, None),
    ],
)
def test_both_engines_events(
    action: str, attributes: dict[str, str], kind: EngineEventKind, exit_code: int | None
) -> None:
    body = {"Action": action, "Actor": {"ID": "abc", "Attributes": {**attributes, "a": "b"}}, "timeNano": 5}
    when_and_event = dialect.engine_event(body)
    assert when_and_event is not None
    when, event = when_and_event
    assert (when, event.kind, event.container, event.exit_code) == (5, kind, "abc", exit_code)
    assert dialect.carries(event.labels, {"a": "b"})
    assert not dialect.carries(event.labels, {"a": "b", "c": "d"})


def test_events_that_nobody_waits_for_are_none() -> None:
    assert dialect.engine_event({"Action": "exec_died", "Actor": {"ID": "abc"}}) is None


def test_an_event_filter_names_no_action() -> None:
    assert json.loads(dialect.event_filters({"a": "b"})) == {"type": ["container"], "label": ["a=b"]}


def test_a_log_comes_in_frames() -> None:
    frames = b"\x01\0\0\0\0\0\0\x04one\n" + b"\x02\0\0\0\0\0\0\x04two\n"
    assert dialect.log_text(frames) == "one\ntwo\n"
    assert dialect.log_text(b"") == ""
