"""The two files by which a client finds the door."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from opencode_actors.door.files import (
    Whereabouts,
    announce,
    door_file,
    find_door,
    keep_token,
    read_token,
    token_file,
    withdraw,
)
from opencode_actors.errors import StoreError


def whereabouts(folder: Path, pid: int = 0) -> Whereabouts:
    return Whereabouts(
        url="ws://127.0.0.1:18790/",
        token_file=token_file(folder),
        pid=pid or os.getpid(),
        version="0.1.0",
        started_at=1.5,
        certificate=folder / "cert.pem",
    )


def test_the_token_is_made_once_and_for_its_user_alone(tmp_path: Path) -> None:
    path = token_file(tmp_path / "sessions")
    token = keep_token(path)
    assert len(token) >= 32
    assert path.stat().st_mode & 0o777 == 0o600
    assert keep_token(path) == token == read_token(path)
    assert keep_token(tmp_path / "other") != token


@pytest.mark.parametrize("text", ["", "short", "two words of some length", "ä" * 20, "x" * 15])
def test_what_is_no_token_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "door.token"
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(StoreError, match="no usable token"):
        keep_token(path)


def test_a_token_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "door.token"
    path.write_text("x" * 32)
    path.chmod(0o644)
    with pytest.raises(StoreError, match="can be read by others") as refused:
        keep_token(path)
    assert "chmod 600" in refused.value.hint


def test_the_door_is_found_until_it_is_withdrawn(tmp_path: Path) -> None:
    path = door_file(tmp_path)
    assert find_door(path) is None
    announce(path, whereabouts(tmp_path))
    assert find_door(path) == whereabouts(tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["door.json"]
    withdraw(path, os.getpid())
    assert find_door(path) is None


def test_another_process_door_is_left_alone(tmp_path: Path) -> None:
    path = door_file(tmp_path)
    announce(path, whereabouts(tmp_path, pid=1))
    withdraw(path, os.getpid())
    assert find_door(path) is not None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"url":1}', '{"url":"ws://x/","tokenFile":"/x"}'])
def test_a_door_file_that_cannot_be_used_is_named(tmp_path: Path, text: str) -> None:
    path = door_file(tmp_path)
    path.write_text(text)
    with pytest.raises(StoreError, match=r"door\.json cannot be used"):
        find_door(path)
    withdraw(path, os.getpid())
    assert path.exists()
