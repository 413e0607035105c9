"""What one setting is: its documentation, and the checks a value must pass.

`Settings` is written with `knob(...)`, one per line. A check returns what is wrong with the value as the
rest of a sentence ("must be …"), or None; the name of the setting and the source of the value are put
around it by whoever knows them.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, TypeVar, cast, get_origin, get_type_hints
from urllib.parse import urlsplit

from attrs import Attribute, field, fields, frozen

from opencode_actors.errors import SettingsError, UsageError
from opencode_actors.machines.matters import settings_of
from opencode_actors.machines.permissions import rule_of
from opencode_actors.routes import routes_of


@frozen
class SizeInBytes:
    """Marks an `int` that may be written "1g" or "512MiB"; units are powers of 1024, as engines read them."""


@frozen
class NumberOrText:
    """Marks a `float` that may also be written as a string ("1.0"), as users of the CPU limit are used to."""


Size = Annotated[int, SizeInBytes()]
Cpus = Annotated[float, NumberOrText()]

Check = Callable[[Any], str | None]
T = TypeVar("T")

_KNOB = "opencode_actors.knob"


@frozen(kw_only=True)
class Knob:
    """The documentation of one setting. `empty` says what an empty or zero value stands for."""

    meaning: str
    unit: str = ""
    empty: str = ""
    secret: bool = False
    check: Check | None = None


def knob(
    default: T,
    meaning: str,
    *,
    unit: str = "",
    empty: str = "",
    secret: bool = False,
    check: Check | None = None,
) -> T:
    """An attrs field that carries its own documentation."""
    documentation = Knob(meaning=meaning, unit=unit, empty=empty, secret=secret, check=check)
    made: T = field(
        default=default,
        repr=not secret,
        converter=_expanded if isinstance(default, Path) or check in (absolute_path, unix_socket) else None,
        validator=_validate,
        metadata={_KNOB: documentation},
    )
    return made


def key_of(attribute: str) -> str:
    """`server_ready_timeout` is written `serverReadyTimeout` wherever a user writes it."""
    first, *rest = attribute.split("_")
    return first + "".join(word.capitalize() for word in rest)


def knob_of(attribute: Attribute[Any]) -> Knob:
    return cast(Knob, attribute.metadata[_KNOB])


def knobs(settings_class: type[Any]) -> dict[str, Knob]:
    """By attribute name, in the order they are declared."""
    return {attribute.name: knob_of(attribute) for attribute in fields(settings_class)}


@functools.cache
def value_types(settings_class: Any) -> dict[str, Any]:
    return get_type_hints(settings_class, include_extras=True)


def _expanded(path: T) -> T:
    if not isinstance(path, Path | str) or not str(path).startswith("~"):
        return path
    try:
        return type(path)(Path(path).expanduser())
    except (RuntimeError, ValueError):  # no home directory, or a NUL: the checks that follow name the setting
        return path


def _validate(instance: object, attribute: Attribute[Any], value: object) -> None:
    wanted = value_types(cast(Any, type(instance)))[attribute.name]
    problem = _type_problem(value, wanted)
    documentation = knob_of(attribute)
    if problem is None and documentation.check is not None:
        problem = documentation.check(value)
    if problem is not None:
        key = key_of(attribute.name)
        raise SettingsError(key, f"{key} {problem}", hint=documentation.meaning)


def _type_problem(value: object, wanted: Any) -> str | None:
    """Embedders are held to the same types as files; a bool is an int to Python, but not a number to anybody."""
    plain: Any = wanted.__origin__ if get_origin(wanted) is Annotated else wanted
    if plain is float:
        fits = isinstance(value, int | float) and not isinstance(value, bool)
    elif plain is int:
        fits = isinstance(value, int) and not isinstance(value, bool)
    elif get_origin(plain) is tuple:
        fits = isinstance(value, tuple)
    else:
        fits = isinstance(value, plain)
    return None if fits else f"must be {describe_type(wanted)}, not {describe_value(value)}"


def describe_type(wanted: Any) -> str:
    names: dict[Any, str] = {
        Size: 'a size such as "512m" or a number of bytes',
        Cpus: "a number",
        float: "a number",
        int: "a whole number",
        str: "a text",
        Path: "a path",
    }
    return names.get(wanted, "a list of texts")


def describe_value(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | tuple):
        return "a list"
    if isinstance(value, dict):
        return "an object"
    text = repr(value) if not isinstance(value, str) else f'"{value}"'
    return text if len(text) <= 60 else text[:57] + "…"


# ---- checks, each a sentence's end


def number(
    *, at_least: float | None = None, above: float | None = None, at_most: float | None = None
) -> Check:
    def check(value: float) -> str | None:
        if not math.isfinite(value):
            return f"must be a finite number, not {value}"
        if at_least is not None and value < at_least:
            return f"must be at least {at_least:g}, not {value:g}"
        if above is not None and value <= above:
            return f"must be more than {above:g}, not {value:g}"
        if at_most is not None and value > at_most:
            return f"must be at most {at_most:g}, not {value:g}"
        return None

    return check


def gap(shortest: float, longest: float) -> Check:
    """Between two messages; 0 is none at all."""
    inside = number(at_least=shortest, at_most=longest)

    def check(value: float) -> str | None:
        wrong = inside(value) if value else None
        return wrong and f"{wrong} (or 0)"

    return check


def size(*, at_least: int = 0, zero_allowed: bool = False) -> Check:
    def check(value: int) -> str | None:
        if value == 0 and zero_allowed:
            return None
        if value < at_least:
            return f'must be at least {show_size(at_least)}, not {value} bytes (write "512m" for 512 MiB)'
        return None

    return check


def one_of(*words: str) -> Check:
    def check(value: str) -> str | None:
        if value in words:
            return None
        return f"must be {' or '.join(words)}, not {describe_value(value)}"

    return check


def matching(pattern: str, what: str, *, or_empty: bool = False) -> Check:
    compiled = re.compile(pattern)

    def check(value: str) -> str | None:
        if (or_empty and not value) or compiled.fullmatch(value):
            return None
        return f"must be {what}, not {describe_value(value)}"

    return check


def one_line(value: str) -> str | None:
    return None if value.isprintable() else "must be one line of text without control characters"


def secret_text(value: str) -> str | None:
    """Never repeats the value."""
    if value.isascii() and value.isprintable() and " " not in value:
        return None
    return "must be one word of plain ASCII, because it travels in an HTTP header"


def http_url(value: str) -> str | None:
    if not value:
        return None
    try:
        parts = urlsplit(value)
        port_is_readable = parts.port is None or parts.port > 0
    except ValueError:
        return f"must be a URL, not {describe_value(value)}"
    if parts.scheme in ("http", "https") and parts.hostname and port_is_readable and " " not in value:
        return None
    return f"must be an http:// or https:// URL, not {describe_value(value)}"


def ip_literal(value: str) -> str | None:
    try:
        ip_address(value)
    except ValueError:
        return f"must be an IP address of this host such as 127.0.0.1, not {describe_value(value)}"
    return None


def web_origins(value: tuple[object, ...]) -> str | None:
    for origin in value:
        if not isinstance(origin, str) or not re.fullmatch(r"https?://[^/\s]+", origin):
            return (
                f"must be a list of origins such as https://example.org, and {describe_value(origin)} is none"
            )
    return None


def is_on_this_host(url: str) -> bool:
    try:
        host = urlsplit(url).hostname or ""
    except ValueError:
        return False
    return host in ("localhost", "::1") or bool(re.fullmatch(r"127(\.\d{1,3}){3}", host))


def network_word(value: str) -> str | None:
    if value in ("none", "host"):
        return (
            f'cannot be "{value}": the server is reached through a port published on 127.0.0.1, '
            f"and that network publishes none"
        )
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", value):
        return None
    return f"must be bridge, slirp4netns, pasta or the name of a network, not {describe_value(value)}"


def own_directory(value: Path) -> str | None:
    if not value.is_absolute():
        return f"must be an absolute path or begin with ~/, not {describe_value(str(value))}"
    if ".." in value.parts or len(value.parts) < 2:
        return f"must be a directory of its own, named without '..', not {describe_value(str(value))}"
    return path_text(str(value))


def absolute_path(value: str) -> str | None:
    if not value:
        return None
    if not value.startswith(("/", "~/")):
        return f"must be an absolute path or begin with ~/, not {describe_value(value)}"
    return path_text(value)


def unix_socket(value: str) -> str | None:
    return absolute_path(value.removeprefix("unix://"))


def path_text(value: str) -> str | None:
    if not value.isprintable():
        return "must be a path without control characters"
    if ":" in value:
        return "must not contain ':', which a container engine takes for the end of the path"
    return None


def environment_names(value: tuple[object, ...]) -> str | None:
    for name in value:
        if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            return f"must be a list of environment variable names, and {describe_value(name)} is none"
    return None


def notice_kinds(value: tuple[object, ...]) -> str | None:
    try:
        settings_of(_texts(value))
    except UsageError as error:
        return f"names what is not told of jobs: {error.message} ({error.hint})"
    return None


def chat_routes(value: tuple[object, ...]) -> str | None:
    try:
        routes_of(_texts(value))
    except UsageError as error:
        return f"must be a list such as ~/code/shop=agent:main:main: {error.message}"
    return None


def _texts(value: tuple[object, ...]) -> tuple[str, ...]:
    return tuple(one if isinstance(one, str) else describe_value(one) for one in value)


def permission_rules(value: tuple[object, ...]) -> str | None:
    for rule in value:
        try:
            rule_of(rule if isinstance(rule, str) else "")
        except UsageError:
            return f"must be a list of rules like bash:git push*=deny, and {describe_value(rule)} is none"
    return None


_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB")


def show_size(size_in_bytes: int) -> str:
    amount, unit = float(size_in_bytes), 0
    while amount >= 1024 and unit < len(_UNITS) - 1:
        amount, unit = amount / 1024, unit + 1
    return f"{amount:.4g} {_UNITS[unit]}"
