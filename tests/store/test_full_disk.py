"""A disk that is really full, and one that really cannot be written: a small file system in a name space of
its own, so that no mock speaks for the kernel, and root is refused like everybody."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

IN_A_SPACE = ("unshare", "--user", "--map-root-user", "--mount")


def in_a_small_place(tmp_path: Path, script: str, size: str = "2m") -> dict[str, Any]:
    """What the script prints last, run where `place` is a file system of so many bytes."""
    place = tmp_path / "place"
    place.mkdir()
    if shutil.which("unshare") is None or subprocess.run([*IN_A_SPACE, "true"], check=False).returncode:
        if os.environ.get("CI") == "true":
            pytest.fail("this kernel gives nobody a name space of their own")
        pytest.skip("this kernel gives nobody a name space of their own")
    mount = f'mount -t tmpfs -o size={size} none "$1" && exec "$2" -c "$3" "$1"'
    done = subprocess.run(
        [*IN_A_SPACE, "sh", "-c", mount, "sh", str(place), sys.executable, PREFACE + script],
        check=False,
        timeout=60,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


PREFACE = """
import json, os, subprocess, sys, trio
from pathlib import Path
from opencode_actors.errors import StoreError
from opencode_actors.machines.vocabulary import JobId, JobStatus
from opencode_actors.store.journal import open_journal
from tests.store.samples import job, said

place = Path(sys.argv[1])
state = place / "state"

def ids():
    number = 0
    while True:
        yield JobId(f"job_{number}")
        number += 1

async def append_until_refused(journal, ids):
    acknowledged = []
    for id_ in ids:
        try:
            await journal.append((job(JobStatus.RUNNING, id_=id_), said("all of it " * 100, id_=id_)))
        except StoreError as error:
            return acknowledged, error
        acknowledged.append(id_)

async def found(journal, ids):
    return [id_ for id_ in ids if await journal.job(id_) is not None
        and (await journal.output(id_, offset=0, limit=2000)).text == "all of it " * 100]

"""

FULL = """
async def main():
    names = ids()
    (place / "filler").write_bytes(bytes(500_000))
    async with open_journal(state) as journal:
        first, error = await append_until_refused(journal, names)
        # once more, while it still is: what is refused is not there in part
        more, again = await append_until_refused(journal, names)
        while_full = await found(journal, first + more)
        (place / "filler").unlink()
        later = next(names)
        await journal.append((job(JobStatus.COMPLETED, id_=later), said("all of it " * 100, id_=later)))
    async with open_journal(state) as journal:
        everything = await found(journal, [*first, *more, later])
        unsettled = (await journal.load()).unsettled
    print(json.dumps({"acknowledged": first + more, "later": later, "message": error.message, "hint": error.hint,
        "again": again.message, "while_full": while_full, "found": everything, "unsettled": len(unsettled)}))
trio.run(main)
"""


def test_p13_on_a_full_disk_nothing_that_was_acknowledged_is_lost(tmp_path: Path) -> None:
    told = in_a_small_place(tmp_path, FULL)
    assert len(told["acknowledged"]) > 10
    for message in (told["message"], told["again"]):
        assert f"writing to the state directory {tmp_path}/place/state failed: " in message
        assert any(words in message for words in ("disk is full", "No space left", "disk I/O error"))
    assert "make room on the disk" in told["hint"]
    assert told["while_full"] == told["acknowledged"]
    assert told["found"] == [*told["acknowledged"], told["later"]]
    assert told["unsettled"] == len(told["acknowledged"])


ENDED_FULL = """
async def main():
    async with open_journal(state) as journal:
        acknowledged, error = await append_until_refused(journal, ids())
    # and with the disk as full as it is, the last of the log had no place in the file
    try:
        async with open_journal(state) as journal:
            opened = "opened"
    except StoreError as refused:
        opened = refused.message
    for filler in (state / "outputs").glob("*.txt"):
        filler.unlink()
    async with open_journal(state) as journal:
        known = [id_ for id_ in acknowledged if await journal.job(id_) is not None]
    print(json.dumps({"acknowledged": acknowledged, "known": known, "opened": opened}))
trio.run(main)
"""


def test_p13_a_journal_that_was_closed_on_a_full_disk_is_whole(tmp_path: Path) -> None:
    told = in_a_small_place(tmp_path, ENDED_FULL)
    assert told["known"] == told["acknowledged"]
    assert told["opened"] == "opened" or "cannot be used: " in told["opened"]


NO_ROOM = """
async def main():
    (place / "filler").write_bytes(b"")
    with (place / "filler").open("wb", buffering=0) as filler:
        try:
            while filler.write(bytes(4096)):
                pass
        except OSError:
            pass
    messages = []
    for _ in range(2):
        try:
            async with open_journal(state):
                messages.append("opened")
        except StoreError as error:
            messages.append(error.message)
    (place / "filler").unlink()
    async with open_journal(state) as journal:
        await journal.append((job(),))
    print(json.dumps({"messages": messages}))
trio.run(main)
"""


def test_p13_a_journal_that_has_no_room_to_begin_leaves_nothing_that_is_in_the_way(tmp_path: Path) -> None:
    told = in_a_small_place(tmp_path, NO_ROOM)
    for message in told["messages"]:
        assert f"the state directory {tmp_path}/place/state cannot be used: " in message


READ_ONLY = """
async def main():
    async with open_journal(state) as journal:
        await journal.append((job(),))
    kept = (state / "journal.sqlite").read_bytes()
    told = {}
    async def attempt(name):
        try:
            async with open_journal(state):
                told[name] = "opened"
        except StoreError as error:
            told[name] = error.message
            told["hint"] = error.hint
    file = state / "journal.sqlite"
    subprocess.run(["mount", "--bind", file, file], check=True)
    subprocess.run(["mount", "-o", "remount,ro,bind", file], check=True)
    await attempt("file")
    subprocess.run(["umount", file], check=True)
    subprocess.run(["mount", "-o", "remount,ro", place], check=True)
    await attempt("place")
    told["same"] = (state / "journal.sqlite").read_bytes() == kept
    print(json.dumps(told))
trio.run(main)
"""


def test_what_can_only_be_read_is_said_in_words(tmp_path: Path) -> None:
    told = in_a_small_place(tmp_path, READ_ONLY)
    state = tmp_path / "place" / "state"
    for name in ("file", "place"):
        assert f"the state directory {state} cannot be used: [Errno 30] Read-only file system" in told[name]
    assert "choose another sessionsDir" in told["hint"]
    assert told["same"]


LIMITED = """
import resource
async def main():
    async with open_journal(state) as journal:
        await journal.append((job(id_=JobId("first")),))
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
        acknowledged, error = await append_until_refused(journal, ids())
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        await journal.append((job(id_=JobId("last")),))
    async with open_journal(state) as journal:
        known = [id_ for id_ in ("first", *acknowledged, "last") if await journal.job(id_) is not None]
    print(json.dumps({"acknowledged": acknowledged, "known": known, "message": error.message}))
trio.run(main)
"""


def test_p13_a_file_that_may_not_grow_is_said_in_words(tmp_path: Path) -> None:
    told = in_a_small_place(tmp_path, LIMITED)
    assert told["known"] == ["first", *told["acknowledged"], "last"]
    assert "writing to the state directory" in told["message"]
