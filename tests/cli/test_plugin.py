"""`opencode-actors plugin`: what it has OpenClaw do, and what it says where there is none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from opencode_actors.cli.main import main
from opencode_actors.cli.plugin import own_command, refused_by_openclaw
from opencode_actors.cli.status import Status
from opencode_actors.openclaw_manifest import PLUGIN


def openclaw_that(folder: Path, does: str) -> Path:
    """A stand-in that writes down how it is called; its file is returned."""
    called = folder / "called"
    script = folder / "openclaw"
    script.write_text(f"#!/bin/sh\nprintf '%s\\n' \"$*\" >> {called}\n{does}\n")
    script.chmod(0o755)
    return called


def test_path_prints_the_shipped_folder(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plugin", "path"]) is Status.OK
    assert capsys.readouterr().out == f"{PLUGIN}\n"
    assert (PLUGIN / "openclaw.plugin.json").is_file()


def test_install_has_openclaw_do_it_and_names_the_command_that_starts_the_service(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    called = openclaw_that(tmp_path, "")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert main(["plugin", "install"]) is Status.OK
    service = [*own_command(), "serve"]
    assert called.read_text().splitlines() == [
        f"plugins install -l {PLUGIN} --force --accept-capabilities",
        f"config set plugins.entries.opencode.config.command {json.dumps(service)} --strict-json",
    ]
    assert "the plugin is installed" in capsys.readouterr().out


def test_install_says_when_openclaw_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    called = openclaw_that(tmp_path, "exit 7")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert main(["plugin", "install"]) is Status.ENVIRONMENT
    assert len(called.read_text().splitlines()) == 1
    assert "failed (exit 7)" in capsys.readouterr().err


def test_install_without_openclaw_says_both_ways_to_do_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["plugin", "install"]) is Status.ENVIRONMENT
    said = capsys.readouterr().err
    assert f"openclaw plugins install -l {PLUGIN}" in said
    entries = json.loads(said[said.index("{") :])
    assert entries["plugins"]["load"]["paths"] == [str(PLUGIN)]


def test_a_folder_that_everybody_may_write_in_is_named(tmp_path: Path) -> None:
    """OpenClaw refuses it too, and says that there is no valid manifest."""
    assert refused_by_openclaw(tmp_path) is None
    tmp_path.chmod(0o777)
    assert refused_by_openclaw(tmp_path) == f"everybody may write in {tmp_path}"


def test_this_installations_own_command_can_be_run() -> None:
    assert Path(own_command()[0]).exists()
