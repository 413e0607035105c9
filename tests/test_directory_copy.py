"""Copying what is an agent's: whole, without following a link, and a database at rest."""

from __future__ import annotations

import os
import sqlite3
import stat
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from opencode_actors.agents_files import open_root, opened
from opencode_actors.directory_copy import (
    Copied,
    Limits,
    NoRoom,
    Unsettled,
    copy_conversation,
    copy_tree,
)

OWNER = (os.getuid(), os.getgid())


def copied(copy: Callable[..., Copied | None], source: Path, target: Path) -> Copied | None:
    target.mkdir()
    with opened(open_root(source)) as here, opened(open_root(target)) as there:
        return copy(here, there, OWNER)


def everything(folder: Path) -> dict[str, tuple[str, int, int, bytes]]:
    """Kind, rights, time and content of all that is in it."""
    found: dict[str, tuple[str, int, int, bytes]] = {}
    for path in sorted(folder.rglob("*")):
        about = path.lstat()
        rights = stat.S_IMODE(about.st_mode)
        if path.is_symlink():
            found[str(path.relative_to(folder))] = ("link", 0, 0, str(path.readlink()).encode())
        elif path.is_dir():
            found[str(path.relative_to(folder))] = ("directory", rights, 0, b"")
        else:
            content = path.read_bytes()
            found[str(path.relative_to(folder))] = ("file", rights, about.st_mtime_ns, content)
    return found


def a_tree(folder: Path) -> None:
    (folder / "src" / "deep").mkdir(parents=True)
    (folder / "src" / "deep" / "main.py").write_text("print(1)\n")
    (folder / "run").write_bytes(os.urandom(3 << 20))
    (folder / "run").chmod(0o755)
    (folder / "empty").touch()
    (folder / "link").symlink_to("src/deep/main.py")
    (folder / "out").symlink_to("/etc/hostname")
    os.utime(folder / "run", ns=(1, 1_600_000_000_123_456_789))


def test_all_of_a_directory_is_copied_as_it_is(tmp_path: Path) -> None:
    a_tree(tmp_path / "source")
    before = everything(tmp_path / "source")
    done = copied(copy_tree, tmp_path / "source", tmp_path / "target")
    assert everything(tmp_path / "target") == before == everything(tmp_path / "source")
    assert done == Copied(repository=False, files=3, size=(3 << 20) + len("print(1)\n"))


def test_a_repository_is_told_from_a_directory(tmp_path: Path) -> None:
    (tmp_path / "source" / ".git").mkdir(parents=True)
    done = copied(copy_tree, tmp_path / "source", tmp_path / "target")
    assert done == Copied(repository=True, files=0, size=0)


def test_where_the_kernel_does_not_copy_by_itself_it_is_done_by_hand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "copy_file_range", refuse)
    a_tree(tmp_path / "source")
    copied(copy_tree, tmp_path / "source", tmp_path / "target")
    assert everything(tmp_path / "target") == everything(tmp_path / "source")


def test_what_is_no_file_is_left_out_and_rights_of_others_are_not_taken_over(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    os.mkfifo(tmp_path / "source" / "pipe")
    (tmp_path / "source" / "tool").touch()
    (tmp_path / "source" / "tool").chmod(0o4755)
    copied(copy_tree, tmp_path / "source", tmp_path / "target")
    assert everything(tmp_path / "target").keys() == {"tool"}
    assert stat.S_IMODE((tmp_path / "target" / "tool").stat().st_mode) == 0o755


def test_directories_without_end_are_refused(tmp_path: Path) -> None:
    deep = tmp_path / "source" / "/".join(["d"] * 200)
    deep.mkdir(parents=True)
    with pytest.raises(OSError, match="nested"):
        copied(copy_tree, tmp_path / "source", tmp_path / "target")


def on_disk(folder: Path) -> int:
    """Bytes, a file with several names once."""
    found = {path.lstat().st_ino: path.lstat().st_blocks * 512 for path in folder.rglob("*")}
    return sum(found.values())


def test_holes_stay_holes(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    with (tmp_path / "source" / "sparse").open("wb") as file:
        file.truncate(1 << 40)  # more than any disk here has
        file.seek(1 << 30)
        file.write(b"in the middle")
    (tmp_path / "source" / "sparse").chmod(0o644)
    done = copied(copy_tree, tmp_path / "source", tmp_path / "target")
    assert done is not None
    assert done.size < 1 << 20
    assert on_disk(tmp_path / "target") <= on_disk(tmp_path / "source") + (1 << 20)
    with (tmp_path / "target" / "sparse").open("rb") as file:
        assert os.fstat(file.fileno()).st_size == 1 << 40
        file.seek(1 << 30)
        assert file.read(14) == b"in the middle\0"


def test_the_names_of_one_file_stay_names_of_one(tmp_path: Path) -> None:
    a_tree(tmp_path / "source")
    for number in range(9):
        (tmp_path / "source" / "src" / f"again-{number}").hardlink_to(tmp_path / "source" / "run")
    copied(copy_tree, tmp_path / "source", tmp_path / "target")
    assert everything(tmp_path / "target") == everything(tmp_path / "source")
    assert (tmp_path / "target" / "run").stat().st_nlink == 10
    assert (tmp_path / "source" / "run").stat().st_nlink == 10
    assert on_disk(tmp_path / "target") < on_disk(tmp_path / "source") + (1 << 20)


def test_of_a_file_that_grows_so_much_is_copied_as_there_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "log").write_bytes(b"x" * 4096)
    copy = os.copy_file_range

    def grown(*arguments: int) -> int:
        with (tmp_path / "source" / "log").open("ab") as file:
            file.write(b"more" * 4096)
        return copy(*arguments)

    monkeypatch.setattr(os, "copy_file_range", grown)
    copied(copy_tree, tmp_path / "source", tmp_path / "target")
    assert (tmp_path / "target" / "log").read_bytes() == b"x" * 4096


def test_of_a_file_that_gets_shorter_what_is_left_is_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "log").write_bytes(os.urandom(1 << 20))
    copy = os.copy_file_range

    def shortened(*arguments: int) -> int:
        os.truncate(tmp_path / "source" / "log", 4096)
        return copy(*arguments)

    monkeypatch.setattr(os, "copy_file_range", shortened)
    copied(copy_tree, tmp_path / "source", tmp_path / "target")
    left = (tmp_path / "source" / "log").read_bytes()
    assert (tmp_path / "target" / "log").read_bytes() == left
    assert len(left) == 4096


def test_a_copy_ends_where_the_disk_has_no_more_room_than_is_to_be_left(tmp_path: Path) -> None:
    a_tree(tmp_path / "source")
    (tmp_path / "target").mkdir()
    with (
        opened(open_root(tmp_path / "source")) as here,
        opened(open_root(tmp_path / "target")) as there,
        pytest.raises(NoRoom),
    ):
        copy_tree(here, there, OWNER, Limits(least_free=1 << 60))


# ---- OpenCode's data


def a_database(folder: Path) -> sqlite3.Connection:
    """Open, with what was written last still in its WAL."""
    (folder / "opencode").mkdir(parents=True)
    database = sqlite3.connect(folder / "opencode" / "opencode.db", check_same_thread=False)
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("CREATE TABLE said (number INTEGER PRIMARY KEY, again INTEGER)")
    database.commit()
    return database


def said(folder: Path) -> list[tuple[int, int]]:
    database = sqlite3.connect(folder / "opencode" / "opencode.db")
    try:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        return database.execute("SELECT number, again FROM said ORDER BY number").fetchall()
    finally:
        database.close()


def test_a_conversation_is_copied_while_its_server_has_it_open(tmp_path: Path) -> None:
    database = a_database(tmp_path / "source")
    with database:
        database.executemany("INSERT INTO said VALUES (?, ?)", [(n, n) for n in range(500)])
    own = tmp_path / "source" / "opencode"
    for name in ("auth.json", "tool-output/long", "log/now"):
        (own / name).parent.mkdir(exist_ok=True)
        (own / name).write_text("x")
    before = {path: path.read_bytes() for path in own.rglob("*") if path.is_file()}
    copied(copy_conversation, tmp_path / "source", tmp_path / "target")
    assert {path: path.read_bytes() for path in before} == before
    database.close()
    assert len(said(tmp_path / "target")) == 500
    there = tmp_path / "target" / "opencode"
    assert (there / "tool-output" / "long").read_text() == "x"
    assert not (there / "auth.json").exists()
    assert not (there / "log").exists()


def test_a_conversation_that_is_written_to_is_copied_whole_or_not_at_all(tmp_path: Path) -> None:
    """Each transaction writes both columns of many rows: half of one would show."""
    database = a_database(tmp_path / "source")
    stop = threading.Event()

    def write() -> None:
        number = 0
        while not stop.wait(0.05):
            number += 1
            with database:
                database.executemany(
                    "INSERT OR REPLACE INTO said VALUES (?, ?)", [(n, number) for n in range(300)]
                )

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for turn in range(8):
            copied(copy_conversation, tmp_path / "source", tmp_path / f"target-{turn}")
            rows = said(tmp_path / f"target-{turn}")
            assert len(rows) in (0, 300)
            assert len({again for _, again in rows}) <= 1
    finally:
        stop.set()
        writer.join()
        database.close()


def test_a_database_that_never_rests_is_not_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    database = a_database(tmp_path / "source")

    def sleep(_: float) -> None:
        with database:
            database.execute("INSERT INTO said (again) VALUES (1)")

    monkeypatch.setattr(time, "sleep", sleep)
    monkeypatch.setattr(
        time, "time", lambda: 0.0
    )  # whatever this machine does meanwhile, it was written just now
    sleep(0)
    with pytest.raises(Unsettled):
        copied(copy_conversation, tmp_path / "source", tmp_path / "target")
    database.close()
