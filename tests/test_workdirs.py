"""A session's directories: whose they are, and that an agent cannot make its host write anywhere else."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trio
from attrs import evolve

from opencode_actors.containers import ModelAccess, SessionPlace
from opencode_actors.errors import StoreError
from opencode_actors.machines.vocabulary import SessionKey
from opencode_actors.settings import Settings
from opencode_actors.workdirs import HostDirectories

OWNER = (1234, 4321)
ROOT = (0, 0)


@pytest.fixture
def place(tmp_path: Path) -> SessionPlace:
    return SessionPlace(
        key=SessionKey("demo"),
        container_name="demo",
        data=tmp_path / "sessions" / "demo" / "data",
        workspace=tmp_path / "workspaces" / "demo",
        owner="test",
    )


@pytest.fixture
def auth(tmp_path: Path) -> Path:
    auth = tmp_path / "auth.json"
    auth.write_text('{"provider": "key"}')
    return auth


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[int, int]]:
    """What was given to whom, by path; whoever runs the test, it is root to the code."""
    given: dict[str, tuple[int, int]] = {}

    def fchown(descriptor: int, uid: int, gid: int) -> None:
        given[str(Path(f"/proc/self/fd/{descriptor}").readlink())] = (uid, gid)

    monkeypatch.setattr(os, "fchown", fchown)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    return given


def directories(
    place: SessionPlace, auth: Path | None = None, config: Path | None = None, **settings: Any
) -> HostDirectories:
    where = Settings(sessions_dir=place.data.parent.parent, workspaces_dir=place.workspace.parent)
    access = ModelAccess(auth_file=auth, config_file=config)
    return HostDirectories(evolve(where, **{"min_free_disk": 0, **settings}), access)


def make(place: SessionPlace, owner: tuple[int, int], auth: Path | None, config: Path | None = None) -> None:
    trio.run(directories(place, auth, config).make, place, owner)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def copy_of(place: SessionPlace) -> Path:
    return place.data / "opencode" / "auth.json"


# ---- what is made


def test_what_is_missing_is_made_for_its_owner_alone(
    place: SessionPlace, auth: Path, given: dict[str, tuple[int, int]]
) -> None:
    before = os.umask(0)
    try:
        make(place, OWNER, auth)
    finally:
        os.umask(before)
    folders = (place.data.parent, place.data, place.data / "opencode", place.workspace)
    assert [mode(folder) for folder in folders] == [0o700] * 4
    assert mode(copy_of(place)) == 0o600
    assert copy_of(place).read_text() == '{"provider": "key"}'
    whose = {Path(path).name.partition(".json")[0]: owner for path, owner in given.items()}
    assert whose == {"data": OWNER, "opencode": OWNER, "auth": OWNER, "demo": OWNER}


def test_who_is_not_root_gives_nothing_away(
    place: SessionPlace, auth: Path, given: dict[str, tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    make(place, OWNER, auth)
    assert not given


def test_a_container_that_runs_as_root_is_given_nothing(
    place: SessionPlace, auth: Path, given: dict[str, tuple[int, int]]
) -> None:
    make(place, ROOT, auth)
    assert not given


def test_what_is_there_is_left_as_it_is(place: SessionPlace, given: dict[str, tuple[int, int]]) -> None:
    make(place, OWNER, None)
    given.clear()
    (place.workspace / "file").write_text("work")
    place.workspace.chmod(0o755)
    make(place, OWNER, None)
    assert mode(place.workspace) == 0o755
    assert (place.workspace / "file").read_text() == "work"
    assert not given
    assert list(place.data.iterdir()) == []


# ---- the credentials


def test_p11_each_session_has_a_copy_that_follows_the_hosts(
    place: SessionPlace, auth: Path, given: dict[str, tuple[int, int]]
) -> None:
    make(place, OWNER, auth)
    copy = copy_of(place)
    copy.write_text("no logins at all")
    auth.write_text('{"provider": "logged in anew"}')
    os.utime(auth, (1, 1))
    make(place, OWNER, auth)
    assert copy.read_text() == '{"provider": "logged in anew"}'
    assert [path.name for path in copy.parent.iterdir()] == ["auth.json"]


def test_no_credentials_on_the_host_are_no_error(place: SessionPlace, tmp_path: Path) -> None:
    make(place, ROOT, tmp_path / "none.json")
    assert not copy_of(place).exists()


# ---- the config


def test_the_config_is_always_the_hosts_and_only_its_owner_reads_it(
    place: SessionPlace, tmp_path: Path, given: dict[str, tuple[int, int]]
) -> None:
    config = tmp_path / "opencode.jsonc"
    config.write_text("{}")
    os.utime(config, (1, 1))
    copy = place.data / "opencode" / "host-opencode.jsonc"
    for planted in (None, "the agent's", config):
        if isinstance(planted, str):
            copy.write_text(planted)
        elif planted is not None:
            copy.unlink()
            copy.symlink_to(planted)
        make(place, OWNER, None, config)
        assert not copy.is_symlink()
        assert (copy.read_text(), mode(copy)) == ("{}", 0o600)
    copies = [owner for path, owner in given.items() if "host-opencode.jsonc" in path]
    assert copies == [OWNER] * 3

    config.unlink()
    make(place, OWNER, None, config)
    assert not copy.exists()


# ---- what an agent plants in its own directory


@pytest.fixture
def victim(tmp_path: Path) -> Iterator[Path]:
    """A file and a folder of the host's, which nothing may happen to."""
    folder = tmp_path / "host"
    folder.mkdir(mode=0o755)
    file = folder / "auth.json"
    file.write_text("the host's")
    file.chmod(0o644)
    os.utime(file, (1, 1))
    before = file.stat()
    yield file
    after = file.stat()
    assert file.read_text() == "the host's"
    assert (after.st_ino, after.st_mode, after.st_mtime) == (before.st_ino, before.st_mode, 1)
    assert (after.st_uid, after.st_gid) == (before.st_uid, before.st_gid)
    assert [path.name for path in folder.iterdir()] == ["auth.json"]
    assert mode(folder) == 0o755


def link_for_the_copy(place: SessionPlace, victim: Path) -> None:
    (place.data / "opencode").mkdir()
    copy_of(place).symlink_to(victim)


def hard_link_for_the_copy(place: SessionPlace, victim: Path) -> None:
    (place.data / "opencode").mkdir()
    inside = place.data / "inside"
    inside.write_text("its own")
    copy_of(place).hardlink_to(inside)
    del victim


def links_for_names_beside_it(place: SessionPlace, victim: Path) -> None:
    (place.data / "opencode").mkdir()
    for name in ("auth.new", "auth.json.new", "auth.tmp", "auth.json.tmp", ".auth.json"):
        (place.data / "opencode" / name).symlink_to(victim)


@pytest.mark.parametrize("plant", [link_for_the_copy, hard_link_for_the_copy, links_for_names_beside_it])
def test_p14_links_in_the_way_are_replaced_and_never_followed(
    place: SessionPlace,
    auth: Path,
    victim: Path,
    given: dict[str, tuple[int, int]],
    plant: Callable[[SessionPlace, Path], None],
) -> None:
    make(place, OWNER, None)
    plant(place, victim)
    later = auth.stat().st_mtime + 10
    os.utime(auth, (later, later))
    make(place, OWNER, auth)
    copy = copy_of(place)
    assert not copy.is_symlink()
    assert copy.stat().st_nlink == 1
    assert copy.read_text() == '{"provider": "key"}'
    assert str(victim) not in given


def link_for_the_folder(place: SessionPlace, victim: Path) -> None:
    (place.data / "opencode").symlink_to(victim.parent)


def dangling_link_for_the_folder(place: SessionPlace, victim: Path) -> None:
    (place.data / "opencode").symlink_to(victim.parent / "new")


def file_for_the_folder(place: SessionPlace, victim: Path) -> None:
    (place.data / "opencode").write_text("in the way")
    del victim


def folder_for_the_copy(place: SessionPlace, victim: Path) -> None:
    copy_of(place).mkdir(parents=True)
    (copy_of(place) / "full").touch()
    del victim


def pipe_for_the_folder(place: SessionPlace, victim: Path) -> None:
    os.mkfifo(place.data / "opencode")
    del victim


@pytest.mark.parametrize(
    "plant",
    [
        link_for_the_folder,
        dangling_link_for_the_folder,
        file_for_the_folder,
        folder_for_the_copy,
        pipe_for_the_folder,
    ],
)
def test_p14_what_cannot_be_gone_around_is_refused_and_nothing_outside_is_touched(
    place: SessionPlace,
    auth: Path,
    victim: Path,
    given: dict[str, tuple[int, int]],
    plant: Callable[[SessionPlace, Path], None],
) -> None:
    make(place, OWNER, None)
    given.clear()
    plant(place, victim)
    with pytest.raises(StoreError, match="the directories of session demo cannot be made") as refused:
        make(place, OWNER, auth)
    # What is in the way, and not the two directories that everything is in.
    assert refused.value.hint.startswith("look at")
    assert not [path for path in given if path.startswith(str(victim.parent))]
    assert not list(place.data.rglob("auth.json.*"))


def test_a_pipe_in_the_place_of_the_copy_holds_nobody(
    place: SessionPlace, auth: Path, given: dict[str, tuple[int, int]]
) -> None:
    make(place, OWNER, None)
    copy_of(place).parent.mkdir()
    os.mkfifo(copy_of(place))
    make(place, OWNER, auth)
    assert copy_of(place).read_text() == '{"provider": "key"}'


# ---- errors


def test_what_cannot_be_made_is_said_in_words(place: SessionPlace) -> None:
    place.workspace.parent.parent.mkdir(parents=True, exist_ok=True)
    place.workspace.parent.write_text("in the way")
    with pytest.raises(StoreError) as raised:
        make(place, ROOT, None)
    assert "check sessionsDir and workspacesDir" in raised.value.hint


# ---- a copy for another session


@pytest.fixture
def branch(place: SessionPlace) -> SessionPlace:
    data = place.data.parent.with_name("branch") / "data"
    return evolve(place, key=SessionKey("branch"), data=data, workspace=place.workspace.with_name("branch"))


def full(place: SessionPlace) -> HostDirectories:
    (place.data / "opencode").mkdir(parents=True)
    (place.data / "opencode" / "opencode.db").write_bytes(b"said")
    os.utime(place.data / "opencode" / "opencode.db", (1.0, 1.0))
    place.workspace.mkdir(parents=True)
    (place.workspace / "a.txt").write_text("made")
    return directories(place)


def test_another_session_gets_a_copy_of_its_own(
    place: SessionPlace, branch: SessionPlace, given: dict[str, tuple[int, int]]
) -> None:
    where = full(place)
    copied = trio.run(where.copy_workspace, place, branch, OWNER)
    assert (copied.files, copied.size, copied.repository) == (1, 4, False)
    trio.run(where.copy_conversation, place, branch, OWNER)
    assert (branch.workspace / "a.txt").read_text() == "made"
    assert (branch.data / "opencode" / "opencode.db").read_bytes() == b"said"
    assert set(given.values()) == {OWNER}
    assert len(given) == 5  # two directories, OpenCode's own, and two files
    assert trio.run(where.has_conversation, branch)


def test_what_another_session_has_already_is_left_alone(place: SessionPlace, branch: SessionPlace) -> None:
    where = full(place)
    branch.workspace.mkdir()
    (branch.workspace / "theirs").touch()
    with pytest.raises(StoreError, match="is there already"):
        trio.run(where.copy_workspace, place, branch, ROOT)
    assert [path.name for path in branch.workspace.iterdir()] == ["theirs"]


def test_a_copy_that_fails_leaves_nothing(
    place: SessionPlace, branch: SessionPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(28, "No space left on device")

    where = full(place)
    monkeypatch.setattr(os, "copy_file_range", refuse)
    with pytest.raises(StoreError, match="No space left"):
        trio.run(where.copy_workspace, place, branch, ROOT)
    assert [path.name for path in place.workspace.parent.iterdir()] == ["demo"]


def test_a_copy_for_which_there_is_no_room_is_not_begun(place: SessionPlace, branch: SessionPlace) -> None:
    full(place)
    where = directories(place, min_free_disk=1 << 60)
    with pytest.raises(StoreError, match=r"a copy of .* takes"):
        trio.run(where.copy_workspace, place, branch, ROOT)
    assert not branch.workspace.exists()


def test_what_grows_beyond_the_room_that_there_is_ends_the_copy_in_words(
    place: SessionPlace, branch: SessionPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was looked at when it was small."""
    full(place)
    where = directories(place, min_free_disk=1 << 60)

    def plenty(_: Path) -> SimpleNamespace:
        return SimpleNamespace(free=1 << 61)

    monkeypatch.setattr(shutil, "disk_usage", plenty)
    with pytest.raises(StoreError, match=r"was ended, for it is larger than what is free \(minFreeDisk is"):
        trio.run(where.copy_workspace, place, branch, ROOT)
    assert [path.name for path in place.workspace.parent.iterdir()] == ["demo"]


def test_who_forks_and_is_cancelled_waits_for_one_piece_alone(
    place: SessionPlace, branch: SessionPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = full(place)
    for number in range(20):
        (place.workspace / f"{number}").write_text("more")
    copy, pieces = os.copy_file_range, list[int]()

    async def fork() -> None:
        with trio.CancelScope() as scope:

            def cancelled_meanwhile(*arguments: int) -> int:
                pieces.append(1)
                trio.from_thread.run_sync(scope.cancel)
                return copy(*arguments)

            monkeypatch.setattr(os, "copy_file_range", cancelled_meanwhile)
            await where.copy_workspace(place, branch, ROOT)
        assert scope.cancelled_caught

    trio.run(fork)
    assert pieces == [1]
    assert [path.name for path in place.workspace.parent.iterdir()] == ["demo"]


def test_a_clean_up_leaves_a_copy_that_is_being_made(
    place: SessionPlace, branch: SessionPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = full(place)
    copy = os.copy_file_range

    def swept_meanwhile(*arguments: int) -> int:
        trio.from_thread.run(where.sweep)
        return copy(*arguments)

    monkeypatch.setattr(os, "copy_file_range", swept_meanwhile)
    trio.run(where.copy_workspace, place, branch, ROOT)
    assert (branch.workspace / "a.txt").read_text() == "made"
