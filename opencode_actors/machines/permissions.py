"""What an agent may do, as a mode and rules: read from words, and written in OpenCode's own."""

from __future__ import annotations

import re
from collections.abc import Iterable

from opencode_actors.errors import UsageError
from opencode_actors.ports import Permissions, Rule

MODES = ("allow", "ask", "plan")
ACTIONS = ("allow", "ask", "deny")
MOST_RULES = 50
_TOOL = re.compile(r"\*|[A-Za-z0-9_-]{1,64}")
_LONGEST_PATTERN = 256
_EXAMPLE = "write TOOL:PATTERN=ACTION, for example `bash:git push*=deny`, or TOOL=ACTION"

# What an agent changes with, by OpenCode's own names of permissions. `edit` is every tool that writes files.
_CHANGING = ("bash", "edit", "external_directory")
# All that reads, and what is only written into the agent's own list. Whatever else there is, or will be, may write.
_READING = (
    "read", "grep", "glob", "list", "lsp", "codesearch", "skill", "task", "todoread", "todowrite", "doom_loop",
)  # fmt: skip
_WEB = ("webfetch", "websearch")
# Whose patterns are paths: below the root of a repository, or of the whole file system where there is none.
_OF_PATHS = ("edit", "read")
_WRITING = ("*", "bash", "edit")


def rule_of(text: str) -> Rule:
    """`TOOL:PATTERN=ACTION` or `TOOL=ACTION`. Raises `UsageError`."""
    left, equals, action = text.rpartition("=")
    tool, colon, pattern = left.partition(":")
    if not equals or action.strip() not in ACTIONS or not _TOOL.fullmatch(tool.strip()):
        raise UsageError(f"{text[:80]!r} is no rule for permissions", hint=_EXAMPLE)
    pattern = pattern.strip() if colon else "*"
    if not (0 < len(pattern) <= _LONGEST_PATTERN and pattern.isprintable()):
        raise UsageError(f"{text[:80]!r} has no pattern that could be matched", hint=_EXAMPLE)
    if tool.strip() == "*" and pattern != "*":
        raise UsageError(f"{text[:80]!r} has a pattern for every tool", hint="name the tool that it is for")
    return Rule(tool=tool.strip(), pattern=pattern, action=action.strip())


def permissions_of(
    mode: str | None, rules: Iterable[str] | None, *, before: Permissions | None
) -> Permissions | None:
    """A mode begins afresh, rules alone are those of the mode `before`; without either nothing changes. Raises
    `UsageError`."""
    if mode is not None and mode not in MODES:
        raise UsageError(f"{mode[:80]!r} is no permission mode: there are {', '.join(MODES)}")
    if mode is None and rules is None:
        return before
    read = tuple(rule_of(text) for text in rules or ())
    if len(read) > MOST_RULES:
        raise UsageError(f"{len(read)} rules are more than the {MOST_RULES} that are taken")
    return Permissions(mode=mode or (before.mode if before is not None else None), rules=read)


def in_words(permissions: Permissions) -> str:
    rules = ", ".join(f"{rule.tool}:{rule.pattern}={rule.action}" for rule in permissions.rules)
    return f"{permissions.mode or 'the settings'}{f' with {rules}' if rules else ''}"


def config_of(permissions: Permissions, *, questions: bool, directory: str) -> dict[str, object]:
    """In the config of an OpenCode that works in this directory. The last rule that matches holds, and the
    host's own come before these."""
    last = agents_config_of(permissions, questions=questions, directory=directory)
    return {"*": "allow", **last} if _is_open(permissions) else last


def agents_config_of(
    permissions: Permissions, *, questions: bool, directory: str, legacy: bool = False
) -> dict[str, object]:
    """For each agent that the host's config says something of: what an agent may itself comes after what all
    may, so it would have the last word. `legacy` is for those under `mode`, which OpenCode puts behind all others.
    """
    table: dict[str, dict[str, str]] = {}
    for rule in _placed(_ruleset(permissions, questions=questions), directory):
        patterns = table.setdefault(_spelled(rule.tool, legacy=legacy), {})
        # A key that comes again stands where it stood first.
        patterns.pop(rule.pattern, None)
        patterns[rule.pattern] = rule.action
    return {tool: patterns["*"] if list(patterns) == ["*"] else patterns for tool, patterns in table.items()}


def _spelled(tool: str, *, legacy: bool) -> str:
    """OpenCode merges configs key by key, and a key of ours that the host's has, too, would stand where the host
    put it, before others of the host's. A key may be a pattern, so this is the same tool by a key that nobody
    else writes."""
    return tool[0] + ("**" if legacy else "*") + tool[1:]


def narrows(permissions: Permissions) -> bool:
    """Whether it takes away, and gives nothing, whatever it is put behind."""
    return permissions.mode in (None, "plan") and all(rule.action == "deny" for rule in permissions.rules)


def ruleset_of(permissions: Permissions, *, directory: str) -> list[dict[str, str]]:
    """For one conversation of a server that somebody else runs, to be put behind what that server says, of what
    `narrows`: only denied is here. To deny everything and then let reading through would let through what the
    server denies. OpenCode hands down to sub-agents what is denied. A job that waits since a version that took
    more than that is denied what it was to ask for."""
    rules = _all(_CHANGING, "deny") if permissions.mode in ("ask", "plan") else []
    rules += [rule for rule in _placed(permissions.rules, directory) if rule.action != "allow"]
    return [{"permission": rule.tool, "pattern": rule.pattern, "action": "deny"} for rule in rules]


def _placed(rules: Iterable[Rule], directory: str) -> list[Rule]:
    """A path holds whether the directory is a repository or not."""
    placed: list[Rule] = []
    for rule in rules:
        placed.append(rule)
        if rule.tool in _OF_PATHS and directory and not rule.pattern.startswith(("*", "/")):
            placed.append(
                Rule(tool=rule.tool, pattern=f"{directory.strip('/')}/{rule.pattern}", action=rule.action)
            )
    return placed


def _all(tools: Iterable[str], action: str) -> list[Rule]:
    return [Rule(tool=tool, pattern="*", action=action) for tool in tools]


def writes_nothing(permissions: Permissions) -> bool:
    """Whether even what a pattern lets through by mistake may be kept from writing: it reads, and no rule lets
    it do more."""
    opened = any(rule.tool in _WRITING and rule.action != "deny" for rule in permissions.rules)
    return permissions.mode == "plan" and not opened


def _is_open(permissions: Permissions) -> bool:
    """Whether everything is allowed but for what is named. What an agent of the host's denies itself stays
    denied then."""
    return permissions.mode not in ("ask", "plan") and not any(rule.tool == "*" for rule in permissions.rules)


def _ruleset(permissions: Permissions, *, questions: bool) -> list[Rule]:
    """What is put behind everything else."""
    every = [rule for rule in permissions.rules if rule.tool == "*"]
    rules: list[Rule] = []
    if every:
        # One for every tool takes the place of all that the mode says.
        rules = [every[-1]]
    elif permissions.mode == "plan":
        rules = [Rule(tool="*", pattern="*", action="deny"), *_all((*_READING, *_WEB), "allow")]
    elif permissions.mode == "ask":
        # What may be a tool of an MCP server, or of tomorrow, is asked for, too.
        rules = [Rule(tool="*", pattern="*", action="ask"), *_all(_READING, "allow")]
    rules.append(Rule(tool="question", pattern="*", action="allow" if questions else "deny"))
    return rules + [rule for rule in permissions.rules if rule.tool != "*"]
