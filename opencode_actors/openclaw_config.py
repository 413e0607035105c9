"""OpenClaw's config file, as far as it concerns this project: the plugin's entry, and the hooks."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from attrs import Factory, field, frozen

from opencode_actors.errors import SettingsError
from opencode_actors.json5_file import read_object

ENTRY = ("plugins", "entries", "opencode", "config")

# Options in the same object that are the plugin's, and not the service's: how it finds and starts the service.
# They are no settings here, and no mistakes either.
OF_THE_PLUGIN: Mapping[str, Mapping[str, object]] = {
    "url": {
        "type": "string",
        "default": "",
        "description": "where the service listens (ws:// or wss://); empty: what its door.json in sessionsDir says",
    },
    "token": {
        "type": "string",
        "default": "",
        "description": "the service's token; empty: read from tokenFile",
    },
    "tokenFile": {
        "type": "string",
        "default": "",
        "description": "file with the service's token; empty: the one that door.json names",
    },
    "autoStart": {
        "type": "boolean",
        "default": True,
        "description": "start the service when none runs",
    },
    "command": {
        "type": "array",
        "items": {"type": "string"},
        "default": ["opencode-actors", "serve"],
        "description": "the command that starts the service, and its arguments",
    },
}


USUAL_PORT = 18789
USUAL_HOOKS_PATH = "/hooks"


@frozen(kw_only=True)
class Hooks:
    """How OpenClaw's gateway takes webhooks. `url` is None when all of it is as usual, or cannot be told;
    `aimed` is whether a request may name the session that it is for."""

    enabled: bool = False
    token: str = field(default="", repr=False)
    url: str | None = None
    aimed: bool = False


@frozen(kw_only=True)
class OpenClawConfig:
    """`path` is None when there is no file. `plugin` is the settings in the entry's `config`, `${VAR}`s filled in."""

    path: Path | None
    plugin: Mapping[str, object] = Factory(dict[str, object])
    hooks: Hooks = Factory(Hooks)
    warnings: tuple[str, ...] = ()


def config_path(environment: Mapping[str, str]) -> tuple[Path, bool]:
    """Where OpenClaw would look, and whether somebody named that very file."""
    home = Path(environment.get("OPENCLAW_HOME") or environment.get("HOME") or Path.home())
    if named := environment.get("OPENCLAW_CONFIG_PATH"):
        return _under(home, named), True
    if state := environment.get("OPENCLAW_STATE_DIR"):
        return _under(home, state) / "openclaw.json", False
    return home / ".openclaw" / "openclaw.json", False


def read_openclaw_config(environment: Mapping[str, str]) -> OpenClawConfig:
    """Raises `SettingsError` when the file is there and cannot be used; no file at all is an empty one."""
    path, named = config_path(environment)
    document = read_object(path)
    if document is None and named:
        raise SettingsError(
            "OPENCLAW_CONFIG_PATH", f"{path} does not exist", hint="correct or unset OPENCLAW_CONFIG_PATH"
        )
    if document is None:
        return OpenClawConfig(path=None)
    plugin: dict[str, object] = {}
    for key, value in _table(document, ENTRY, path).items():
        if key in OF_THE_PLUGIN:
            continue
        plugin[key] = _filled_in(value, environment, f"{'.'.join(ENTRY)}.{key} in {path}")
    hooks = _table(document, ("hooks",), path)
    token, warnings = _hooks_token(hooks.get("token"), environment, path)
    port = _table(document, ("gateway",), path).get("port", USUAL_PORT)
    read = Hooks(
        enabled=hooks.get("enabled") is True,
        token=token,
        url=_hooks_url(port, hooks.get("path", USUAL_HOOKS_PATH)),
        aimed=hooks.get("allowRequestSessionKey") is True,
    )
    return OpenClawConfig(path=path, plugin=plugin, hooks=read, warnings=warnings)


def _under(home: Path, text: str) -> Path:
    return home / text[2:] if text.startswith("~/") else Path(text)


def _table(document: dict[str, Any], keys: tuple[str, ...], path: Path) -> dict[str, Any]:
    table = document
    for depth, key in enumerate(keys, start=1):
        value = table.get(key, {})
        if not isinstance(value, dict):
            name = ".".join(keys[:depth])
            raise SettingsError(
                name, f"{name} in {path} must be an object", hint="write { … } there, or remove it"
            )
        table = cast(dict[str, Any], value)
    return table


_REFERENCE = re.compile(r"(\$?)\$\{([A-Z_][A-Z0-9_]*)\}")


def _filled_in(value: object, environment: Mapping[str, str], where: str) -> object:
    """`${NAME}` is replaced, `$${NAME}` is the text `${NAME}`: as OpenClaw treats its own file."""
    if not isinstance(value, str):
        return value

    def replacement(match: re.Match[str]) -> str:
        if match[1]:
            return match[0][1:]
        if found := environment.get(match[2]):
            return found
        raise SettingsError(
            where.split(" ", 1)[0].rsplit(".", 1)[-1],
            f"${{{match[2]}}} is used but not set ({where})",
            hint=f"set the environment variable {match[2]}, or write the value itself",
        )

    return _REFERENCE.sub(replacement, value)


def _hooks_token(value: object, environment: Mapping[str, str], path: Path) -> tuple[str, tuple[str, ...]]:
    """A token that cannot be read is OpenClaw's business, and no reason to refuse to run."""
    if value is None:
        return "", ()
    unreadable = f"hooksToken: hooks.token in {path} cannot be used here"
    if not isinstance(value, str):
        return "", (f"{unreadable}: it is not a text; set hooksToken itself",)
    try:
        return str(_filled_in(value, environment, f"hooks.token in {path}")), ()
    except SettingsError as error:
        return "", (f"{unreadable}: {error.message}",)


def _hooks_url(port: object, folder: object) -> str | None:
    """What OpenClaw itself would refuse is its business, and no reason to refuse to run."""
    if (port, folder) == (USUAL_PORT, USUAL_HOOKS_PATH):
        return None
    if isinstance(port, bool) or not isinstance(port, int) or not 0 < port < 65_536:
        return None
    if not isinstance(folder, str):
        return None
    inside = folder.strip("/")
    if not re.fullmatch(r"[A-Za-z0-9._~/-]+", inside):
        return None
    return f"http://localhost:{port}/{inside}/agent"
