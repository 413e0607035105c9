"""Which files of a workspace are named as code that the server runs; nothing in it leads us anywhere."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from opencode_actors.workspace_code import workspace_code


def write(path: Path, text: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_p14_what_the_server_would_run_is_named(tmp_path: Path) -> None:
    write(tmp_path / ".opencode/plugin/a.js")
    write(tmp_path / ".opencode/plugins/b.ts")
    write(tmp_path / ".opencode/opencode.jsonc", '{"plugins": ["./x.js"]}')
    write(tmp_path / "opencode.json", '{"plugin": ["some-package"]}')
    assert workspace_code(tmp_path) == (
        "opencode.json",
        ".opencode/opencode.jsonc",
        ".opencode/plugin/a.js",
        ".opencode/plugins/b.ts",
    )


def test_what_it_does_not_run_is_not_named(tmp_path: Path) -> None:
    assert workspace_code(tmp_path / "nowhere") == ()
    assert workspace_code(tmp_path) == ()
    write(tmp_path / "opencode.json", '{"model": "a/b"}')
    write(tmp_path / ".opencode/plugin/README.md")
    write(tmp_path / ".opencode/agent/reviewer.md")
    write(tmp_path / "plugin/a.js")
    assert workspace_code(tmp_path) == ()


@pytest.mark.parametrize("name", [".opencode", ".opencode/plugin"])
def test_a_link_is_not_followed(tmp_path: Path, name: str) -> None:
    write(tmp_path / "elsewhere/plugin/a.js")
    link = tmp_path / "workspace" / name
    link.parent.mkdir(parents=True)
    link.symlink_to(tmp_path / "elsewhere")
    assert workspace_code(tmp_path / "workspace") == ()


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    """A pipe would hold us for ever, and a config of gigabytes too."""
    os.mkfifo(tmp_path / "opencode.json")
    write(tmp_path / "opencode.jsonc", " " * ((1 << 20) + 1))
    assert workspace_code(tmp_path) == ("opencode.json", "opencode.jsonc")
