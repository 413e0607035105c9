"""From parsed arguments to settings."""

from __future__ import annotations

import argparse
import os

from opencode_actors.errors import UsageError
from opencode_actors.settings_sources import LoadedSettings, load_settings

# The flags that have a name of their own beside `--set`.
_NAMED = {"engine": "runtime", "image": "image", "model": "model", "agent": "agent", "timeout": "jobTimeout"}


def settings_of(arguments: argparse.Namespace) -> LoadedSettings:
    return load_settings(environment=os.environ, flags=flags_of(arguments))


def pairs_of(arguments: argparse.Namespace) -> dict[str, str]:
    """What `--set` was given."""
    flags: dict[str, str] = {}
    pairs: list[str] = arguments.set
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise UsageError(f'--set takes NAME=VALUE, not "{pair}"', hint="for example --set memory=2g")
        flags[key.strip()] = value
    return flags


def flags_of(arguments: argparse.Namespace) -> dict[str, str]:
    flags = pairs_of(arguments)
    for flag, key in _NAMED.items():
        given: str | None = getattr(arguments, flag, None)
        if given is not None:
            flags[key] = given
    return flags
