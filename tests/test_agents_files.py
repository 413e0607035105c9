"""Removing and measuring what is an agent's: all of it, and nothing else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import trio
from attrs import evolve

from opencode_actors import workdirs
from opencode_actors.agents_files import open_root, opened, remove
from opencode_actors.containers import NO_AGENTS, HostAgents, ModelAccess, SessionPlace
from opencode_actors.disk_use import prune, size_of
from opencode_actors.errors import StoreError
from opencode_actors.machines.vocabulary import SessionKey
from opencode_actors.settings import Settings
from opencode_actors.workdirs import HostDirectories

MIB = 1 << 20


def remove_at(folder: Path) -> None:
    with opened(open_root(folder.parent)) as above:
        remove(folder.name, above)


def test_what_is_removed_is_gone_however_deep_and_read_only_it_is(tmp_path: Path) -> None:
    folder = tmp_path / "deep"
    folder.mkdir()
    here = os.getcwd()  # noqa: PTH109 - a path this deep has no other name
    try:
        os.chdir(folder)
        for _ in range(2000):
            Path("d").mkdir()
            Path("file").touch()
            os.chdir("d")
    finally:
        os.chdir(here)
    cache = folder / "go" / "mod"
    cache.mkdir(parents=True)
    (cache / "file").touch()
    cache.chmod(0o555)
    (folder / "none").mkdir(mode=0o000)
    remove_at(folder)
    assert list(tmp_path.iterdir()) == []


def test_p14_links_are_removed_and_not_what_they_point_to(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "file").write_text("the host's")
    folder = tmp_path / "folder"
    (folder / "below").mkdir(parents=True)
    (folder / "link").symlink_to(victim)
    (folder / "below" / "link").symlink_to(victim / "file")
    (folder / "below" / "up").symlink_to("../..")
    os.mkfifo(folder / "below" / "pipe")
    remove_at(folder)
    link = tmp_path / "link"
    link.symlink_to(victim)
    remove_at(link)
    assert [path.name for path in tmp_path.iterdir()] == ["victim"]
    assert (victim / "file").read_text() == "the host's"


def test_a_removal_that_was_cut_off_is_ended_by_the_next(tmp_path: Path) -> None:
    left = tmp_path / f"{workdirs._LEAVING}0123"
    (left / "below").mkdir(parents=True)
    (tmp_path / "demo").mkdir()
    (tmp_path / "kept").mkdir()
    directories = HostDirectories(Settings(sessions_dir=tmp_path), ModelAccess())
    assert trio.run(directories.set_aside, tmp_path / "not there") is False
    assert trio.run(directories.set_aside, tmp_path / "demo") is True
    assert not (tmp_path / "demo").exists()
    trio.run(directories.sweep)
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


# ---- P13


def write(path: Path, size: int, age: float) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(os.urandom(size))
    os.utime(path, (1e9 - age, 1e9 - age))
    return path


def pruned(data: Path, bound: int) -> int:
    with opened(open_root(data)) as folder:
        return prune(folder, bound=bound)


def test_p13_saved_outputs_and_logs_go_oldest_first_and_the_conversation_never(tmp_path: Path) -> None:
    own = tmp_path / "opencode"
    database = write(own / "opencode.db", MIB, age=900)
    old, middle, new = (
        write(own / "tool-output" / name, MIB, age) for name, age in (("c", 30), ("a", 20), ("b", 10))
    )
    logs = [write(own / "log" / f"{n}.log", MIB, age=100 - n) for n in range(2)]

    assert pruned(tmp_path, 10 * MIB) >= 6 * MIB
    assert all(path.exists() for path in (old, middle, new))
    assert pruned(tmp_path, 4 * MIB + MIB // 2) < 5 * MIB
    assert not old.exists()
    assert not middle.exists()
    assert new.exists()
    assert pruned(tmp_path, MIB) > MIB
    assert database.exists()
    assert not new.exists()
    assert [path.exists() for path in logs] == [False, True]  # the newest is still written


def test_p13_a_measure_follows_no_link_and_counts_what_the_disk_holds(tmp_path: Path) -> None:
    outside = write(tmp_path / "outside" / "file", 8 * MIB, age=0)
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "link").symlink_to(outside)
    (inside / "folder").symlink_to(outside.parent)
    with (inside / "sparse").open("wb") as file:
        file.truncate(1 << 40)
    with opened(open_root(inside)) as folder:
        assert size_of(folder) < MIB


def test_p13_links_in_the_place_of_what_can_go_lead_nowhere(tmp_path: Path) -> None:
    outside = write(tmp_path / "outside" / "file", 2 * MIB, age=0)
    data = tmp_path / "data"
    write(data / "opencode" / "opencode.db", 2 * MIB, age=0)
    (data / "opencode" / "tool-output").symlink_to(outside.parent)
    (data / "opencode" / "log").mkdir()
    (data / "opencode" / "log" / "1").symlink_to(outside)
    assert pruned(data, MIB) >= 2 * MIB
    assert outside.exists()


def place_in(base: Path) -> SessionPlace:
    return SessionPlace(
        key=SessionKey("demo"),
        container_name="demo",
        data=base / "sessions" / "demo" / "data",
        workspace=base / "workspaces" / "demo",
        owner="test",
    )


def test_p13_data_beyond_its_bound_keeps_a_container_from_starting(tmp_path: Path) -> None:
    place = place_in(tmp_path)
    settings = Settings(
        sessions_dir=tmp_path / "sessions", workspaces_dir=tmp_path / "workspaces", max_session_disk=16 * MIB
    )
    directories = HostDirectories(settings, ModelAccess())
    trio.run(directories.make, place, (0, 0))
    write(place.data / "opencode" / "opencode.db", 17 * MIB, age=0)
    assert trio.run(directories.tidy, place) > 17 * MIB
    with pytest.raises(StoreError, match=r"session demo takes 17.* MiB \(maxSessionDisk is 16 MiB\)"):
        trio.run(directories.make, place, (0, 0))


@pytest.mark.parametrize(
    ("config", "agents"),
    [
        ("", NO_AGENTS),
        ('{"model": "a/b"}', NO_AGENTS),
        (
            '{"agent": {"free": {"permission": {"bash": "allow"}}, /* */ "x": {},}, "mode": {"old": {}}}',
            HostAgents(agents=("free", "x"), modes=("old",)),
        ),
        ('{"agent": {"free": {file:x}}}', HostAgents(agents=("free",))),
    ],
)
def test_the_agents_of_the_hosts_config_are_known_before_a_container_starts(
    tmp_path: Path, config: str, agents: HostAgents
) -> None:
    place, file = place_in(tmp_path), tmp_path / "opencode.jsonc"
    settings = Settings(sessions_dir=tmp_path / "sessions", workspaces_dir=tmp_path / "workspaces")
    directories = HostDirectories(settings, ModelAccess(config_file=file))
    assert trio.run(directories.make, place, (0, 0)) == NO_AGENTS  # no file yet
    file.write_text(config)
    assert trio.run(directories.make, place, (0, 0)) == agents
    for unreadable in ('{"agent": {file:agents.json}}', '{"agent"'):
        file.write_text(unreadable)
        with pytest.raises(StoreError, match=r"the agents in .*opencode.jsonc cannot be read"):
            trio.run(directories.make, place, (0, 0))


def test_p13_a_disk_without_room_is_said_before_a_job_is_taken(tmp_path: Path) -> None:
    settings = Settings(
        sessions_dir=tmp_path / "sessions", workspaces_dir=tmp_path / "workspaces", min_free_disk=0
    )
    trio.run(HostDirectories(settings, ModelAccess()).check_room)
    plenty = HostDirectories(evolve(settings, min_free_disk=1 << 60), ModelAccess())
    with pytest.raises(StoreError, match=r"sessionsDir .* has only .* free, and minFreeDisk is"):
        trio.run(plenty.check_room)
