"""Output files: any text, in any pieces, read at any pace, is the same text; no character is ever split."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from opencode_actors.machines.vocabulary import JobId
from opencode_actors.store.output_files import OutputFiles, output_slice, whole_characters
from opencode_actors.store.port import OutputSlice

from .samples import JOB

texts = st.text(st.sampled_from("aé€😀\n") | st.characters(exclude_categories=["Cs"]), max_size=40)


@pytest.fixture
def files(tmp_path: Path) -> OutputFiles:
    return OutputFiles(tmp_path)


def read_all(files: OutputFiles, limit: int) -> str:
    text, offset = "", 0
    while True:
        piece = files.read(JOB, offset, limit)
        text, offset = text + piece.text, piece.next_offset
        if not piece.more:
            return text


@given(pieces=st.lists(texts, max_size=8), limit=st.integers(1, 20))
@example(pieces=["é"], limit=1)
@example(pieces=["aé😀"], limit=2)
def test_what_is_read_is_what_was_written(pieces: list[str], limit: int) -> None:
    with TemporaryDirectory() as folder:
        files = OutputFiles(Path(folder))
        for piece in pieces:
            files.append(JOB, piece.encode())
        assert read_all(files, limit) == "".join(pieces)


@given(text=texts, limit=st.integers(1, 20))
def test_an_answer_holds_to_its_limit_unless_one_character_is_longer(text: str, limit: int) -> None:
    data = text.encode()
    piece = output_slice(data, offset=0, limit=limit, size=len(data))
    assert len(piece.text.encode()) <= limit or len(piece.text) == 1


@given(text=texts, cut=st.integers(0, 160))
def test_the_beginning_of_a_character_is_not_there_yet(text: str, cut: int) -> None:
    """A reader between two writes of one piece: it reads whole characters, and on from there later."""
    data = text.encode()
    there = data[:cut]
    piece = output_slice(there, offset=0, limit=1000, size=len(there))
    assert text.startswith(piece.text)
    assert not piece.more
    rest = output_slice(data[piece.next_offset :], offset=piece.next_offset, limit=1000, size=len(data))
    assert piece.text + rest.text == text


@given(data=st.binary(max_size=30), limit=st.integers(1, 8), offset=st.integers(0, 40))
def test_reading_comes_to_an_end_whatever_is_in_the_file(data: bytes, limit: int, offset: int) -> None:
    for _ in range(len(data) + 2):
        piece = output_slice(data[offset:], offset=offset, limit=limit, size=len(data))
        if not piece.more:
            return
        assert piece.next_offset > offset
        offset = piece.next_offset
    raise AssertionError("it goes on for ever")


@given(texts, st.integers(0, 10))
def test_whole_characters_are_a_prefix_that_lacks_less_than_one(text: str, back: int) -> None:
    data = text.encode()
    data = data[: max(0, len(data) - back)]
    whole = whole_characters(data)
    assert data.startswith(whole)
    assert whole.decode() == data.decode(errors="ignore")


def test_a_job_without_output_reads_empty(files: OutputFiles) -> None:
    assert files.read(JOB, 0, 100) == OutputSlice(text="", next_offset=0, more=False)
    files.make_durable(JOB)


@pytest.mark.parametrize("offset", [3, 4, 1 << 40, 1 << 80])
def test_beyond_the_end_there_is_nothing(files: OutputFiles, offset: int) -> None:
    files.append(JOB, b"abc")
    assert files.read(JOB, offset, 1 << 80) == OutputSlice(text="", next_offset=offset, more=False)


def test_files_are_their_owners_alone(files: OutputFiles, tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        files.append(JOB, b"secret")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / f"{JOB}.txt").stat().st_mode) == 0o600


def test_what_a_full_disk_cuts_off_is_taken_back(files: OutputFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the next piece would stand behind half of this one, and every offset after it would be wrong."""
    files.append(JOB, b"before ")
    write, written = os.write, 0

    def fills_up(descriptor: int, data: bytes) -> int:
        nonlocal written
        if written:
            raise OSError(28, "No space left on device")
        written = write(descriptor, data[:5])
        return written

    monkeypatch.setattr(os, "write", fills_up)
    with pytest.raises(OSError, match="No space left"):
        files.append(JOB, b"half of this")
    monkeypatch.undo()
    files.append(JOB, b"after")
    assert read_all(files, 100) == "before after"


def test_jobs_have_a_file_each(files: OutputFiles) -> None:
    files.append(JOB, b"mine")
    files.append(JobId("job_other"), b"another's")
    assert read_all(files, 100) == "mine"
