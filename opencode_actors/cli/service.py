"""`opencode-actors service install`: a systemd user unit for `serve`, and the commands that enable it."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from opencode_actors.cli.arguments import settings_of
from opencode_actors.cli.serve import address_of
from opencode_actors.cli.status import Status
from opencode_actors.errors import StoreError

UNIT = "opencode-actors.service"

_TEXT = """\
# Written by `opencode-actors service install`, which writes it anew; `systemctl --user edit` adds to it.
[Unit]
Description=opencode-actors: OpenCode agents in supervised containers
Documentation=man:systemd.service(5)
StartLimitIntervalSec=300
StartLimitBurst=10

[Service]
Type=notify
NotifyAccess=main
ExecStart={command}
# Providers' keys, and OPENCODE_ACTORS_… settings, as NAME=value lines; the file need not exist.
EnvironmentFile=-{environment}
Restart=on-failure
RestartSec=2
WatchdogSec=60
TimeoutStopSec=120
# Containers at work outlive the service, and it ends the others itself, each with its own grace.
KillMode=process

[Install]
WantedBy=default.target
"""


def install(arguments: argparse.Namespace) -> Status:
    loaded = settings_of(arguments)  # what `serve` would refuse is refused here, where somebody looks
    address_of(loaded.settings, insecure=bool(arguments.insecure_listen_anyway))
    text = unit_text(serve_command(arguments), environment_file(os.environ))
    if arguments.print:
        sys.stdout.write(text)
        return Status.OK
    path = unit_path(os.environ)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise StoreError(
            f"{path} cannot be written: {error.strerror}", hint="check its permissions"
        ) from error
    sys.stdout.write(
        f"{path} is written. To start the service now and at every login:\n\n"
        f"  systemctl --user daemon-reload\n"
        f"  systemctl --user enable --now {UNIT}\n\n"
        f"To keep it running when nobody is logged in (without this, logging out ends the containers too):\n\n"
        f"  loginctl enable-linger\n\n"
        f"Its log: journalctl --user -u {UNIT} -f\n"
        f"Providers' keys go into {environment_file(os.environ)} as NAME=value lines (chmod 600).\n"
    )
    return Status.OK


def serve_command(arguments: argparse.Namespace) -> list[str]:
    """This very Python and package, with the settings that were given here."""
    command = [sys.executable, "-m", "opencode_actors.cli", "serve"]
    for flag in ("engine", "image"):
        given: str | None = getattr(arguments, flag)
        if given is not None:
            command += [f"--{flag}", given]
    for pair in arguments.set:
        command += ["--set", pair]
    for option in ("stop_sessions", "insecure_listen_anyway"):
        if getattr(arguments, option):
            command.append(f"--{option.replace('_', '-')}")
    return command


def unit_text(command: Sequence[str], environment: Path) -> str:
    return _TEXT.format(
        command=" ".join(_quoted(word) for word in command), environment=str(environment).replace("%", "%%")
    )


def _quoted(word: str) -> str:
    """As systemd reads it: `%` and `$` are its own, quotes and backslashes are C's."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{escaped}"' if escaped != word or not word or any(map(str.isspace, word)) else word


def unit_path(environment: Mapping[str, str]) -> Path:
    return _config(environment) / "systemd" / "user" / UNIT


def environment_file(environment: Mapping[str, str]) -> Path:
    return _config(environment) / "opencode-actors" / "environment"


def _config(environment: Mapping[str, str]) -> Path:
    return Path(environment.get("XDG_CONFIG_HOME") or Path("~/.config").expanduser())
