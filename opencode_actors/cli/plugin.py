"""`opencode-actors plugin path` and `plugin install`: the OpenClaw plugin that is shipped in this package."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

from opencode_actors.cli.status import Status
from opencode_actors.errors import OpenClawError
from opencode_actors.openclaw_manifest import PLUGIN

COMMAND_KEY = "plugins.entries.opencode.config.command"


def path(_: argparse.Namespace) -> Status:
    sys.stdout.write(f"{PLUGIN}\n")
    return Status.OK


def install(_: argparse.Namespace) -> Status:
    """As a user would: `openclaw` does it, and says so. Asks nothing, for the user has just asked for it."""
    if problem := refused_by_openclaw(PLUGIN):
        raise OpenClawError(
            f"OpenClaw would refuse the plugin: {problem}",
            hint="install opencode-actors where only you or root can write, for example in a venv in your home",
        )
    command = shutil.which("openclaw")
    if command is None:
        raise OpenClawError("openclaw is not on PATH, so the plugin is not installed", hint=by_hand())
    _run(_install_command(command))
    service = [*own_command(), "serve"]
    _run([command, "config", "set", COMMAND_KEY, json.dumps(service), "--strict-json"])
    sys.stdout.write(f"the plugin is installed; it starts the service with: {' '.join(service)}\n")
    return Status.OK


def by_hand() -> str:
    """For an OpenClaw that is elsewhere, and a config that is managed by other means."""
    entry = {"enabled": True, "config": {"command": [*own_command(), "serve"]}}
    entries = {"plugins": {"load": {"paths": [str(PLUGIN)]}, "entries": {"opencode": entry}}}
    return (
        f"as the user that runs OpenClaw: {' '.join(_install_command('openclaw'))}\n"
        f"or in its openclaw.json: {json.dumps(entries)}"
    )


def own_command() -> list[str]:
    """How this very installation is called by somebody with another PATH."""
    script = Path(sys.executable).with_name("opencode-actors")
    return [str(script)] if script.exists() else [sys.executable, "-m", "opencode_actors.cli"]


def refused_by_openclaw(folder: Path) -> str | None:
    """OpenClaw runs no plugin that somebody else could change, and says so in misleading words."""
    found = folder.stat()
    if found.st_mode & stat.S_IWOTH:
        return f"everybody may write in {folder}"
    if found.st_uid not in (os.getuid(), 0):
        return f"{folder} belongs to another user (uid {found.st_uid})"
    return None


def _install_command(openclaw: str) -> list[str]:
    return [openclaw, "plugins", "install", "-l", str(PLUGIN), "--force", "--accept-capabilities"]


def _run(command: list[str]) -> None:
    try:
        done = subprocess.run(command, check=False)
    except OSError as error:
        raise OpenClawError(f"{command[0]} cannot be run: {error.strerror}") from error
    if done.returncode != 0:
        raise OpenClawError(
            f"`{' '.join(command)}` failed (exit {done.returncode})", hint="what it printed above says why"
        )
