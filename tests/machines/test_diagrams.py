"""The document shows the machines as they are."""

from __future__ import annotations

from pathlib import Path

import pytest

from opencode_actors.testing import diagrams

DOCUMENT = Path(__file__).parents[2] / "docs" / "architecture.md"


def test_the_diagrams_in_the_document_are_those_of_the_code() -> None:
    text = DOCUMENT.read_text()
    remedy = "run: python -m opencode_actors.testing.diagrams docs/architecture.md"
    assert text == diagrams.rewritten(text), remedy


def test_every_status_is_drawn() -> None:
    job, session = diagrams.job_diagram(), diagrams.session_diagram()
    for status in ("queued", "running", "cancelling", "completed", "failed", "cancelled"):
        assert f" {status} -->" in job
    for status in ("absent", "creating", "starting", "ready", "unready", "stopping", "backing_off"):
        assert f" {status} -->" in session
    for status in ("given_up", "quarantined"):
        assert f" {status} -->" in session


def test_a_document_without_a_place_for_them_is_refused() -> None:
    with pytest.raises(ValueError, match="no place for the job's diagram"):
        diagrams.rewritten("# Architecture\n")


def test_the_command_rewrites_the_file(tmp_path: Path) -> None:
    path = tmp_path / "architecture.md"
    path.write_text(DOCUMENT.read_text().replace("queued --> running", "running --> queued"))
    assert diagrams.main([str(path)]) == 0
    assert path.read_text() == DOCUMENT.read_text()
