"""Whether this host has anything that a model provider would accept, and where it was looked for.

Only names are kept: ids of providers, names of variables, paths. No key ever leaves its place.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import cast

from attrs import frozen

from opencode_actors.errors import SettingsError
from opencode_actors.json5_file import LARGEST_FILE, loads, read_object
from opencode_actors.settings import Settings

# Whom OpenCode's own catalogue of providers gives each variable to.
_PROVIDERS_OF_VARIABLE = {
    "ANTHROPIC_API_KEY": ("anthropic",),
    "OPENAI_API_KEY": ("openai",),
    "OPENROUTER_API_KEY": ("openrouter",),
    "GEMINI_API_KEY": ("google",),
    "GOOGLE_GENERATIVE_AI_API_KEY": ("google",),
    "GROQ_API_KEY": ("groq",),
    "MISTRAL_API_KEY": ("mistral",),
    "DEEPSEEK_API_KEY": ("deepseek",),
    "XAI_API_KEY": ("xai",),
    "TOGETHER_API_KEY": ("togetherai",),
    "FIREWORKS_API_KEY": ("fireworks-ai",),
    "CEREBRAS_API_KEY": ("cerebras",),
    "OPENCODE_API_KEY": ("opencode", "opencode-go"),
}

# OpenCode puts text in the place of these before it parses its config, so they may stand outside of a string.
REFERENCE = re.compile(r"\{(?:env|file):[^}]+\}")


@frozen(kw_only=True)
class Credentials:
    """`problems` are files that are there and cannot be read."""

    auth_file: Path
    logins: tuple[str, ...]
    config_file: Path | None
    configured_providers: tuple[str, ...]
    variables: tuple[str, ...]
    looked_at: tuple[str, ...]
    problems: tuple[str, ...] = ()

    @property
    def found(self) -> bool:
        return bool(self.logins or self.configured_providers or self.variables)

    @property
    def providers(self) -> tuple[str, ...]:
        """The ids of all providers that this makes usable, each once."""
        by_variable = [
            name for variable in self.variables for name in _PROVIDERS_OF_VARIABLE.get(variable, ())
        ]
        return tuple(dict.fromkeys([*self.logins, *self.configured_providers, *by_variable]))

    def __str__(self) -> str:
        places: list[str] = []
        if self.logins:
            places.append(f"{', '.join(self.logins)} in {self.auth_file}")
        if self.configured_providers:
            places.append(f"{', '.join(self.configured_providers)} in {self.config_file}")
        if self.variables:
            places.append(f"environment: {', '.join(self.variables)}")
        return "; ".join(places) or "none"


def find_credentials(settings: Settings, environment: Mapping[str, str]) -> Credentials:
    auth_file = auth_file_of(settings, environment)
    problems: list[str] = []
    logins = _keys(auth_file, "", problems)
    config_file: Path | None = None
    configured: tuple[str, ...] = ()
    candidates = config_files_of(settings, environment)
    for candidate in candidates:
        if candidate.exists():
            config_file = candidate
            configured = _keys(candidate, "provider", problems)
            break
    variables = tuple(name for name in settings.pass_environment if environment.get(name))
    return Credentials(
        auth_file=auth_file,
        logins=logins,
        config_file=config_file,
        configured_providers=configured,
        variables=variables,
        looked_at=(str(auth_file), str(config_file or candidates[0]), _variables_in_words(settings)),
        problems=tuple(problems),
    )


def auth_file_of(settings: Settings, environment: Mapping[str, str]) -> Path:
    """Where OpenCode keeps its logins on this host."""
    if settings.opencode_auth:
        return Path(settings.opencode_auth)
    return _xdg(environment, "XDG_DATA_HOME", ".local/share") / "opencode" / "auth.json"


def config_files_of(settings: Settings, environment: Mapping[str, str]) -> tuple[Path, ...]:
    """Where OpenCode looks for its config on this host; the first one that exists counts."""
    if settings.opencode_config:
        return (Path(settings.opencode_config),)
    if named := environment.get("OPENCODE_CONFIG"):
        return (Path(named),)
    folder = _xdg(environment, "XDG_CONFIG_HOME", ".config") / "opencode"
    return (folder / "opencode.json", folder / "opencode.jsonc")


def _xdg(environment: Mapping[str, str], variable: str, fallback: str) -> Path:
    if set_to := environment.get(variable):
        return Path(set_to)
    return Path(environment.get("HOME") or Path.home()) / fallback


def _keys(path: Path, inside: str, problems: list[str]) -> tuple[str, ...]:
    """The keys of a file's object, or of the one that it has under `inside`; those without a value do not count."""
    try:
        table: object = read_object(path) or {}
    except SettingsError as error:
        table = _as_opencode_reads(path)
        if table is None:
            problems.append(error.message)
            return ()
    if inside:
        table = cast(dict[str, object], table).get(inside)
    if not isinstance(table, dict):
        return ()
    found = cast(dict[str, object], table)
    return tuple(key for key in found if found[key])


def _as_opencode_reads(path: Path) -> object:
    """What a file that is no JSON5 may be to OpenCode all the same; None when it is nothing to it either."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            text = file.read(LARGEST_FILE + 1)
        if not text:
            return {}
        filled = REFERENCE.sub("0", text)
        return None if filled == text or len(text) > LARGEST_FILE else loads(filled)
    except (OSError, ValueError, RecursionError):
        return None


def _variables_in_words(settings: Settings) -> str:
    first, *others = settings.pass_environment or ("no environment variable: passEnvironment is empty",)
    return f"{first} and {len(others)} more variables" if others else first
