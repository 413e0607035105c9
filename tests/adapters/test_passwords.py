"""The password of a server that somebody else runs: from a plain file of the service's user, and from nothing else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from attrs import evolve

from opencode_actors.adapters.passwords import endpoint_of
from opencode_actors.errors import UsageError
from opencode_actors.machines.notices import Attachment
from opencode_actors.settings import Settings

URL = "http://127.0.0.1:4096"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    for name in ("sessions", "workspaces", "own"):
        (tmp_path / name).mkdir()
    return Settings(sessions_dir=tmp_path / "sessions", workspaces_dir=tmp_path / "workspaces")


async def password_in(file: Path, settings: Settings) -> str:
    return (await endpoint_of(Attachment(url=URL, password_file=str(file)), settings)).password


async def test_a_plain_file_has_it_alone(tmp_path: Path, settings: Settings) -> None:
    file = tmp_path / "own" / "far.password"
    file.write_text("the password\n")
    assert await password_in(file, settings) == "the password"
    # The folder that it lies in may be reached by a link: that is the user's.
    (tmp_path / "by").symlink_to(tmp_path / "own")
    assert await password_in(tmp_path / "by" / "far.password", settings) == "the password"


async def test_a_pipe_holds_nobody(tmp_path: Path, settings: Settings) -> None:
    """Forty of them held all threads that there are, and the next start with them."""
    os.mkfifo(tmp_path / "own" / "password")
    with pytest.raises(UsageError, match="no plain file"):
        await password_in(tmp_path / "own" / "password", settings)
    (tmp_path / "own" / "folder.password").mkdir()
    with pytest.raises(UsageError, match="no plain file"):
        await password_in(tmp_path / "own" / "folder.password", settings)


async def test_a_link_to_another_secret_is_not_followed(tmp_path: Path, settings: Settings) -> None:
    (tmp_path / "door.token").write_text("the token of the door")
    (tmp_path / "own" / "password").symlink_to(tmp_path / "door.token")
    with pytest.raises(UsageError, match="it is a link") as refused:
        await password_in(tmp_path / "own" / "password", settings)
    assert "the token" not in str(refused.value)


@pytest.mark.parametrize("where", ["sessions", "workspaces"])
async def test_what_an_agent_may_have_written_is_no_password(
    tmp_path: Path, settings: Settings, where: str
) -> None:
    (tmp_path / where / "password").write_text("made up")
    (tmp_path / "own" / "by").symlink_to(tmp_path / where)
    by = tmp_path / "own" / "by"
    linked = evolve(settings, sessions_dir=by) if where == "sessions" else evolve(settings, workspaces_dir=by)
    for place, known in (
        (tmp_path / where, settings),
        (tmp_path / "own" / "by", settings),
        (tmp_path / where, linked),
        (tmp_path / "own" / ".." / where, settings),
    ):
        with pytest.raises(UsageError, match="where agents write"):
            await password_in(place / "password", known)


async def test_another_users_file_is_not_read(
    tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "own" / "password"
    file.write_text("theirs")
    if os.geteuid() == 0:
        os.chown(file, 12345, 12345)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: 12345)
    with pytest.raises(UsageError, match="another user"):
        await password_in(file, settings)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "no password"),
        (b"two\nlines", "no password"),
        (b"\xff\xfe", "not text"),
        (b"x" * 5000, "no password"),
    ],
)
async def test_what_is_no_password_is_said(
    tmp_path: Path, settings: Settings, content: bytes, says: str
) -> None:
    (tmp_path / "own" / "password").write_bytes(content)
    with pytest.raises(UsageError, match=says):
        await password_in(tmp_path / "own" / "password", settings)
    with pytest.raises(UsageError, match="No such file"):
        await password_in(tmp_path / "own" / "another-password", settings)
