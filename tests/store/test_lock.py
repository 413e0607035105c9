"""One process for one state directory, and the second one is told which is the first."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from opencode_actors.errors import StoreError
from opencode_actors.store.journal import open_journal
from opencode_actors.store.lock import DirectoryLock

HOLD = """
import sys
from pathlib import Path
from opencode_actors.store.lock import DirectoryLock
DirectoryLock(Path(sys.argv[1])).acquire()
print("held", flush=True)
sys.stdin.read()
"""


def test_p11_a_second_process_is_refused_and_told_who_is_there(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(StoreError) as raised:
            DirectoryLock(path).acquire()
        assert f"in use by another opencode-actors (process {holder.pid})" in raised.value.message
        holder.kill()  # however it ends, the next one may begin
    lock = DirectoryLock(path)
    lock.acquire()
    assert lock.held
    assert path.read_text().startswith(f"{os.getpid()}\n")
    lock.release()
    assert not lock.held


async def test_nor_can_one_process_have_it_twice(tmp_path: Path) -> None:
    async with open_journal(tmp_path):
        with pytest.raises(StoreError, match=f"process {os.getpid()}"):
            async with open_journal(tmp_path):
                raise AssertionError("it opened")
    async with open_journal(tmp_path):
        pass


def test_what_cannot_be_locked_is_not_said_to_be_in_use(tmp_path: Path) -> None:
    (tmp_path / "lock").mkdir()
    with pytest.raises(IsADirectoryError):
        DirectoryLock(tmp_path / "lock").acquire()


def test_what_the_one_before_wrote_is_told_from_what_a_power_failure_may_have_taken(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    for left, same_boot in (
        (None, False),  # nobody was here
        (f"1\n{Path('/proc/sys/kernel/random/boot_id').read_text()}", True),
        ("1\n8d1f9c1e-0000-4000-8000-000000000000\n", False),
        ("1\n", False),  # an earlier version of this program
    ):
        if left is not None:
            path.write_text(left)
        lock = DirectoryLock(path)
        lock.acquire()
        assert lock.same_boot is same_boot, left
        lock.release()
