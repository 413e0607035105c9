"""Servers that somebody else runs, and what servers offer, as people type it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from opencode_actors.cli.main import build_parser
from opencode_actors.errors import CallRefused

from .test_remote import a_shell

URL = "http://127.0.0.1:4096"
SECRET = "a secret of theirs"


async def test_attach_conversations_detach(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THEIR_PASSWORD", SECRET)
    file = tmp_path / "their.password"
    file.write_text(SECRET + "\n")
    async with a_shell(tmp_path / "sessions", capsys) as shell:
        server = shell.service.world.servers.start(URL, password=SECRET)
        shown = await shell.type("attach", "far", URL, "--password-file", str(file))
        assert f"server\t{URL}, OpenCode 1.18.33\n" in shown
        assert "a new one, with the first job" in shown
        job = (await shell.json("start", "::say hello", "--session", "far"))["jobId"]
        assert "hello" in await shell.ended(job)
        assert URL in await shell.type("sessions")
        listed = await shell.type("conversations", "far")
        assert "idle, this session's" in listed
        assert await shell.type("detach", "far") == f"detached from {URL}; nothing there was touched\n"
        (conversation,) = server.disk.conversations
        joined = await shell.json(
            "attach", "far", URL, "--password-env", "THEIR_PASSWORD", "--conversation", conversation
        )
        assert joined["conversation"] == conversation
        with pytest.raises(CallRefused, match="not named as a password"):
            await shell.type("attach", "other", URL, "--password-env", "HOME")
    with pytest.raises(SystemExit):
        build_parser().parse_args(["attach", "far", URL, "--password-env", "A", "--password-file", "b"])


async def test_a_mode_and_rules_are_typed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with a_shell(tmp_path / "sessions", capsys) as shell:
        words = ("--mode", "plan", "--rule", "edit:docs/*=allow", "--rule", "bash=deny")
        await shell.ended((await shell.json("start", "::say x", "--session", "demo", *words))["jobId"])
        (container,) = shell.service.world.engine.containers.values()
        config = json.loads(container.spec.environment["OPENCODE_CONFIG_CONTENT"])["permission"]
        assert config["**"] == "deny"
        assert config["e*dit"] == {"docs/*": "allow", "workspace/docs/*": "allow"}


async def test_agents_and_models_are_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with a_shell(tmp_path / "sessions", capsys) as shell:
        await shell.ended((await shell.json("start", "::say x", "--session", "demo"))["jobId"])
        assert "build\tprimary\t" in await shell.type("agents")
        assert "scripted/demo\t" in await shell.type("models", "demo", "--match", "demo")
        with pytest.raises(CallRefused, match="nearest: build"):
            await shell.type("start", "x", "--session", "demo", "--agent", "biuld")
