"""The public face is what it says it is, and the machines are as pure as they say."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any, get_args, get_type_hints

import pytest

import opencode_actors

PACKAGE = "opencode_actors"
ROOT = Path(opencode_actors.__file__).parent
PURE = ["opencode_actors.errors", "opencode_actors.ports", "opencode_actors.machines"]

# What an embedder may bring along instead of the real thing, and the figures of our own insides: they are
# imported from where they stand.
OWN_PARTS = {
    "Engine",
    "OpenCodeServer",
    "Endpoint",
    "Store",
    "Remembered",
    "SessionPlace",
    "Directories",
    "ActorStatistics",
    "HubStatistics",
    "SupervisorStatistics",
    "FollowingStatistics",
    "OutboxStatistics",
    "AttentionStatistics",
    "Webhook",
}


def public(name: str) -> Any:
    return getattr(opencode_actors, name)


# ---- the names


def test_it_has_what_it_says_and_nothing_else() -> None:
    visible = {
        name
        for name, value in vars(opencode_actors).items()
        if not name.startswith("_") and not isinstance(value, ModuleType)
    }
    assert visible == set(opencode_actors.__all__)


def test_the_list_is_in_order_and_has_nothing_private() -> None:
    names = opencode_actors.__all__
    assert len(names) == len(set(names))
    assert not [name for name in names if name.startswith("_")]


@pytest.mark.parametrize("name", opencode_actors.__all__)
def test_every_name_says_what_it_is(name: str) -> None:
    value = public(name)
    if not isinstance(value, type | FunctionType):
        return  # the name of a type, not one itself
    assert vars(value).get("__doc__") if isinstance(value, type) else value.__doc__, name
    for method_name, method in _methods(value):
        assert inspect.getdoc(method), f"{name}.{method_name}"


@pytest.mark.parametrize("name", opencode_actors.__all__)
def test_whatever_it_hands_out_has_a_name_here_too(name: str) -> None:
    """An embedder that gets something can name its type without looking into the insides."""
    value = public(name)
    hints: list[Any] = []
    if isinstance(value, FunctionType):
        hints += get_type_hints(value).values()
    elif isinstance(value, type):
        hints += [hint for field, hint in get_type_hints(value).items() if not field.startswith("_")]
        for _, method in _methods(value):
            hints += get_type_hints(method).values()
    elif get_args(value):
        hints.append(value)
    mentioned = {
        cls.__name__ for hint in hints for cls in _classes(hint) if cls.__module__.startswith(PACKAGE)
    }
    assert mentioned - OWN_PARTS <= set(opencode_actors.__all__)


def _methods(value: object) -> Iterator[tuple[str, FunctionType]]:
    if not isinstance(value, type):
        return
    for name, member in vars(value).items():
        method = member.fget if isinstance(member, property) else member
        if isinstance(method, FunctionType) and not name.startswith("_"):
            yield name, method


def _classes(hint: Any) -> Iterator[type]:
    if isinstance(hint, type):
        yield hint
    for argument in get_args(hint):
        yield from _classes(argument)


# ---- who imports what


@cache
def _imports(module: str) -> frozenset[str]:
    """All that is imported when `module` is, as far as its own lines say it; its packages left out."""
    path = ROOT.parent.joinpath(*module.split("."))
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} imports relatively"
            assert node.module is not None
            found.add(node.module)
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return frozenset(found)


def _is_module(name: str) -> bool:
    path = ROOT.parent.joinpath(*name.split("."))
    return name.startswith(PACKAGE) and (path.with_suffix(".py").exists() or path.is_dir())


def _all_imports(module: str) -> set[str]:
    seen, waiting = set[str](), [module]
    while waiting:
        for name in _imports(waiting.pop()) - seen:
            seen.add(name)
            if _is_module(name):
                waiting.append(name)
    return seen


def _modules_of(names: list[str]) -> list[str]:
    modules: list[str] = []
    for name in names:
        path = ROOT.parent.joinpath(*name.split("."))
        below = sorted(path.glob("*.py")) if path.is_dir() else [path.with_suffix(".py")]
        modules += [".".join(file.relative_to(ROOT.parent).with_suffix("").parts) for file in below]
    return [module.removesuffix(".__init__") for module in modules]


@pytest.mark.parametrize("module", _modules_of(PURE))
def test_what_decides_knows_neither_clock_nor_network_nor_chance(module: str) -> None:
    impure = {"trio", "httpx", "h11", "time", "random", "secrets", "os", "socket", "threading", "datetime"}
    assert not {name.partition(".")[0] for name in _all_imports(module)} & impure


@pytest.mark.parametrize("module", _modules_of(PURE))
def test_what_decides_knows_nothing_of_who_acts(module: str) -> None:
    others = {name for name in _all_imports(module) if name.startswith(PACKAGE + ".")}
    assert not [name for name in others if not name.startswith(tuple(PURE))]


def test_only_the_supervisor_catches_what_it_does_not_know() -> None:
    """And nobody catches a cancellation."""
    catchers = [
        str(file.relative_to(ROOT))
        for file in sorted(ROOT.rglob("*.py"))
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.ExceptHandler)
        and (node.type is None or {"Exception", "BaseException"} & _names(node.type))
    ]
    assert catchers == ["kernel/supervisor.py"]


def _names(node: ast.expr) -> set[str]:
    return {inner.id for inner in ast.walk(node) if isinstance(inner, ast.Name)}


def test_importing_it_does_nothing_to_be_seen() -> None:
    code = "import opencode_actors, threading, sys; sys.exit(threading.active_count() - 1)"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
