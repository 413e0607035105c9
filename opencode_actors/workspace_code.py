"""What in a workspace OpenCode's server runs as a part of itself, before any agent asks for anything.

Measured with 1.18.33 in the container: plugins in `.opencode` and those that a config file of the workspace
names are run in spite of `OPENCODE_DISABLE_PROJECT_CONFIG`, `OPENCODE_PURE` and
`OPENCODE_DISABLE_DEFAULT_PLUGINS`. An empty mount over them would keep them out, and would show them as
deleted to an agent that commits. So it is said, and the container is the bound. All calls block.
"""

from __future__ import annotations

from pathlib import Path

from opencode_actors.agents_files import names, open_directory, open_root, opened, read

_CONFIGS = ("opencode.json", "opencode.jsonc")
_PLUGINS = ("plugin", "plugins")
_ENDINGS = (".js", ".ts")
# A config is some hundred bytes; an agent may make it larger than anybody wants to read.
_CONFIG_AT_MOST = 1 << 20


def workspace_code(workspace: Path) -> tuple[str, ...]:
    """The files, as named from the workspace; none where there is no workspace."""
    try:
        root = open_root(workspace)
    except OSError:
        return ()
    with opened(root):
        found = _configs(root, "")
        try:
            folder = open_directory(".opencode", root)
        except OSError:
            return found
        with opened(folder):
            return (*found, *_configs(folder, ".opencode/"), *_modules(folder))


def _configs(folder: int, prefix: str) -> tuple[str, ...]:
    """Those with the word in them. Too large a one is named too: nobody knows what is in it."""
    there = names(folder)
    found: list[str] = []
    for name in _CONFIGS:
        if name in there:
            text = read(name, folder, at_most=_CONFIG_AT_MOST)
            if text is None or b"plugin" in text:
                found.append(prefix + name)
    return tuple(found)


def _modules(folder: int) -> tuple[str, ...]:
    found: list[str] = []
    for name in _PLUGINS:
        try:
            plugins = open_directory(name, folder)
        except OSError:
            continue
        with opened(plugins):
            modules = [file for file in names(plugins) if file.endswith(_ENDINGS)]
        found += [f".opencode/{name}/{file}" for file in sorted(modules)]
    return tuple(found)
