"""Where settings come from: OpenClaw's config file, the environment, flags; the later one wins.

    plugins.entries.opencode.config.serverReadyTimeout     in openclaw.json (JSON5)
    OPENCODE_ACTORS_SERVER_READY_TIMEOUT                   in the environment; empty means not given
    --set serverReadyTimeout=60                            on the command line

Every value is checked where it comes from, so that a refusal can name its source; `LoadedSettings` keeps
the source of each value for whoever asks why.
"""

from __future__ import annotations

import difflib
import math
import operator
import re
from collections.abc import Callable, Mapping
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Any

from attrs import frozen
from cattrs import Converter

from opencode_actors.errors import SettingsError
from opencode_actors.openclaw_config import OpenClawConfig, read_openclaw_config
from opencode_actors.settings import Settings
from opencode_actors.settings_fit import warnings_of
from opencode_actors.settings_knobs import (
    Cpus,
    Size,
    describe_type,
    describe_value,
    is_on_this_host,
    key_of,
    knobs,
    value_types,
)

ENVIRONMENT_PREFIX = "OPENCODE_ACTORS_"

# Names with the prefix that are not settings: the image's entry reads the one inside the container, and the
# test set-up tells its tests where things are by the other kind.
NOT_SETTINGS = frozenset({"PROVIDER_SOCKET"})
FOR_TESTS = "TEST_"


class SourceKind(Enum):
    DEFAULT = "default"
    FILE = "file"
    ENVIRONMENT = "environment"
    FLAG = "flag"


@frozen(kw_only=True)
class Source:
    """`place` is where a person would change the value."""

    kind: SourceKind
    place: str = ""

    def __str__(self) -> str:
        return self.place or self.kind.value


@frozen(kw_only=True)
class LoadedSettings:
    """`sources` is by attribute name and covers every setting; `file` is None when there is no config file."""

    settings: Settings
    sources: Mapping[str, Source]
    warnings: tuple[str, ...]
    openclaw: OpenClawConfig

    @property
    def file(self) -> Path | None:
        return self.openclaw.path


ATTRIBUTES = {key_of(name): name for name in knobs(Settings)}


def load_settings(
    *, environment: Mapping[str, str], flags: Mapping[str, str] | None = None
) -> LoadedSettings:
    """Raises `SettingsError`. `flags` is text by camelCase key, as it was typed."""
    config = read_openclaw_config(environment)
    given: dict[str, tuple[object, Source]] = {}
    warnings = list(config.warnings)
    given.update(_from_file(config))
    given.update(_from_environment(environment))
    given.update(_from_flags(flags or {}))
    given.update(_from_hooks(config, given))
    _lower_idle_timeout(given)
    settings = _build(given)
    sources = {
        name: given[name][1] if name in given else Source(kind=SourceKind.DEFAULT) for name in knobs(Settings)
    }
    return LoadedSettings(
        settings=settings, sources=sources, warnings=(*warnings, *warnings_of(settings)), openclaw=config
    )


def environment_name(attribute: str) -> str:
    return ENVIRONMENT_PREFIX + attribute.upper()


# ---- the three sources


def _from_file(config: OpenClawConfig) -> dict[str, tuple[object, Source]]:
    given: dict[str, tuple[object, Source]] = {}
    for key, value in config.plugin.items():
        where = f"plugins.entries.opencode.config.{key} in {config.path}"
        attribute = _attribute(key, where=where, known=ATTRIBUTES)
        given[attribute] = (
            _structured(attribute, value, _document, where),
            Source(kind=SourceKind.FILE, place=where),
        )
    return given


def _from_hooks(
    config: OpenClawConfig, given: Mapping[str, tuple[object, Source]]
) -> dict[str, tuple[object, Source]]:
    """OpenClaw's own settings, which stand in for ours. Its token is for a gateway on this host: whoever
    names another address names its token too."""
    found: dict[str, tuple[object, Source]] = {}
    if config.hooks.url is not None and "notify_webhook_url" not in given:
        place = f"gateway.port and hooks.path in {config.path}"
        found["notify_webhook_url"] = (config.hooks.url, Source(kind=SourceKind.FILE, place=place))
    url = given.get("notify_webhook_url", (Settings().notify_webhook_url, None))[0]
    own = given.get("hooks_token", ("", None))[0]
    if config.hooks.token and not own and is_on_this_host(str(url)):
        place = f"hooks.token in {config.path}"
        found["hooks_token"] = (config.hooks.token, Source(kind=SourceKind.FILE, place=place))
    return found


def _from_environment(environment: Mapping[str, str]) -> dict[str, tuple[object, Source]]:
    known = {name.upper(): name for name in knobs(Settings)}
    given: dict[str, tuple[object, Source]] = {}
    for name, text in environment.items():
        word = name.removeprefix(ENVIRONMENT_PREFIX)
        if word == name or word in NOT_SETTINGS or word.startswith(FOR_TESTS) or not text.strip():
            continue
        attribute = _attribute(word, where="environment variable", known=known, prefix=ENVIRONMENT_PREFIX)
        given[attribute] = (
            _structured(attribute, text.strip(), _text, f"environment variable {name}"),
            Source(kind=SourceKind.ENVIRONMENT, place=name),
        )
    return given


def _from_flags(flags: Mapping[str, str]) -> dict[str, tuple[object, Source]]:
    given: dict[str, tuple[object, Source]] = {}
    for key, text in flags.items():
        attribute = _attribute(key, where="command line", known=ATTRIBUTES)
        given[attribute] = (
            _structured(attribute, text, _text, "command line"),
            Source(kind=SourceKind.FLAG, place="command line"),
        )
    return given


def _attribute(key: str, *, where: str, known: Mapping[str, str], prefix: str = "") -> str:
    if key in known:
        return known[key]
    by_letters = {_letters(name): name for name in known}
    near = difflib.get_close_matches(_letters(key), by_letters, n=1, cutoff=0.6)
    hint = (
        f"did you mean {prefix}{by_letters[near[0]]}?"
        if near
        else "`opencode-actors settings` lists all settings"
    )
    raise SettingsError(prefix + key, f"{prefix}{key} is not a setting ({where})", hint=hint)


def _letters(name: str) -> str:
    return name.replace("_", "").replace("-", "").lower()


# ---- one value


def _structured(attribute: str, value: object, converter: Converter, where: str) -> object:
    key, wanted = key_of(attribute), value_types(Settings)[attribute]
    secret = knobs(Settings)[attribute].secret
    try:
        return converter.structure(value, wanted)
    except (ValueError, TypeError) as error:
        shown = "what is given" if secret else describe_value(value)
        detail = str(error) or f"must be {describe_type(wanted)}, not {shown}"
        raise SettingsError(
            key, f"{key} {detail} ({where})", hint=knobs(Settings)[attribute].meaning
        ) from None


def _build(given: Mapping[str, tuple[object, Source]]) -> Settings:
    values: dict[str, Any] = {name: value for name, (value, _) in given.items()}
    try:
        return Settings(**values)
    except SettingsError as error:
        source = given.get(ATTRIBUTES[error.key], (None, Source(kind=SourceKind.DEFAULT)))[1]
        raise SettingsError(error.key, f"{error.message} ({source})", hint=error.hint) from None


def _lower_idle_timeout(given: dict[str, tuple[object, Source]]) -> None:
    """A short jobTimeout alone is no contradiction to a default; both given are."""
    if "job_timeout" not in given:
        return
    job_timeout, source = given["job_timeout"]
    idle_timeout, idle_source = given.get("idle_timeout", (Settings().idle_timeout, None))
    if (
        not isinstance(job_timeout, float)
        or not isinstance(idle_timeout, float)
        or not 0 < job_timeout < idle_timeout
    ):
        return
    if idle_source is None:
        given["idle_timeout"] = (job_timeout, source)
        return
    raise SettingsError(
        "idleTimeout",
        f"idleTimeout ({idle_timeout:g} s) is longer than jobTimeout ({job_timeout:g} s) and could never be reached "
        f"({idle_source}; {source})",
        hint="lower idleTimeout, or set jobTimeout to 0 for no bound",
    )


# ---- strict converters: one for JSON's types, one for text


def _wrong() -> ValueError:
    """Without a text of its own: the sentence is made where the setting's name is known."""
    return ValueError()


def _number(value: object, _: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _wrong()
    return _finite(value)


def _finite(value: float) -> float:
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ValueError(f"must be a finite number, not {number}")
    return number


def _integer(value: object, _: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise _wrong()
    return value


def _string(value: object, _: object) -> str:
    if not isinstance(value, str):
        raise _wrong()
    return value


def _path(value: object, _: object) -> Path:
    if not isinstance(value, str) or not value:
        raise _wrong()
    return Path(value)


def _size(value: object, _: object) -> int:
    return parse_size(value) if isinstance(value, str) else _integer(value, _)


def _number_or_text(value: object, _: object) -> float:
    return _number_of_text(value, _) if isinstance(value, str) else _number(value, _)


def _names(value: object, _: object) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise _wrong()
    items: list[object] = value  # pyright: ignore[reportUnknownVariableType]
    return tuple(_string(item, str) for item in items)


def _number_of_text(value: object, _: object) -> float:
    text = str(value)
    if not re.fullmatch(
        r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?|[+-]?(inf|infinity|nan)", text, re.ASCII | re.IGNORECASE
    ):
        raise _wrong()
    return _finite(float(text))


def _integer_of_text(value: object, _: object) -> int:
    text = str(value)
    if not re.fullmatch(r"[+-]?\d{1,18}", text, re.ASCII):
        raise _wrong()
    return int(text)


def _size_of_text(value: object, _: object) -> int:
    return parse_size(str(value))


def _names_of_text(value: object, _: object) -> tuple[str, ...]:
    return tuple(word for word in re.split(r"[\s,]+", str(value)) if word)


_FACTORS = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


def parse_size(text: str) -> int:
    """ "512m", "1.5 GiB", "1048576": units are powers of 1024 whatever their spelling, as engines read them."""
    match = re.fullmatch(
        r"(\d{1,15}(?:\.\d{1,6})?)\s*(?:([kmgt])(?:i?b)?|(b?))", text.strip().lower(), re.ASCII
    )
    if match is None:
        raise _wrong()
    return (
        int(float(match[1]) * _FACTORS[match[2] or ""])
        if "." in match[1]
        else int(match[1]) * _FACTORS[match[2] or ""]
    )


Hook = Callable[[object, object], object]


def _converter(hooks: Mapping[Any, Hook]) -> Converter:
    """cattrs alone makes 'None' of a None that should be a text, and 1 of True: each type has a hook here."""
    converter = Converter()
    for wanted, hook in hooks.items():
        if isinstance(wanted, type):
            converter.register_structure_hook(wanted, hook)
        else:  # an Annotated or a tuple[...] is no class, and is found by predicate only
            converter.register_structure_hook_func(partial(operator.eq, wanted), hook)
    return converter


_document = _converter(
    {
        str: _string,
        int: _integer,
        float: _number,
        Path: _path,
        Size: _size,
        Cpus: _number_or_text,
        tuple[str, ...]: _names,
    }
)
_text = _converter(
    {
        str: _string,
        int: _integer_of_text,
        float: _number_of_text,
        Path: _path,
        Size: _size_of_text,
        Cpus: _number_of_text,
        tuple[str, ...]: _names_of_text,
    }
)
