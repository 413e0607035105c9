"""What an agent may do, in words and in OpenCode's own."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import cast

import pytest

from opencode_actors.errors import UsageError
from opencode_actors.machines.permissions import (
    MOST_RULES,
    config_of,
    permissions_of,
    rule_of,
    ruleset_of,
    writes_nothing,
)
from opencode_actors.ports import Permissions, Rule


def with_rules(mode: str, *rules: str) -> Permissions:
    return Permissions(mode=mode, rules=tuple(rule_of(rule) for rule in rules))


def allowed(permissions: Permissions, tool: str, what: str = "x") -> str:
    """As OpenCode decides: the last rule that matches."""
    action = ""
    for known, rules in config_of(permissions, questions=True, directory="/workspace").items():
        patterns = {"*": rules} if isinstance(rules, str) else cast("dict[str, str]", rules)
        for pattern, given in patterns.items():
            if fnmatchcase(tool, known) and fnmatchcase(what, pattern):
                action = given
    return action


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("bash:git push*=deny", Rule(tool="bash", pattern="git push*", action="deny")),
        ("edit=ask", Rule(tool="edit", pattern="*", action="ask")),
        ("bash:FOO=1 make=allow", Rule(tool="bash", pattern="FOO=1 make", action="allow")),
        ("read: *.env = deny", Rule(tool="read", pattern="*.env", action="deny")),
        ("*=deny", Rule(tool="*", pattern="*", action="deny")),
    ],
)
def test_a_rule_is_a_tool_a_pattern_and_what_becomes_of_it(text: str, rule: Rule) -> None:
    assert rule_of(text) == rule


@pytest.mark.parametrize(
    "text",
    ["", "bash", "bash=", "bash=maybe", "=deny", "ba sh=deny", "bash:=deny", "*:rm*=deny", "bash:a\nb=deny"],
)
def test_what_is_no_rule_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        rule_of(text)


@pytest.mark.parametrize(
    ("mode", "edit", "bash", "read", "unknown"),
    [
        ("allow", "allow", "allow", "allow", "allow"),
        ("ask", "ask", "ask", "allow", "allow"),
        ("plan", "deny", "deny", "allow", "deny"),
    ],
)
def test_each_mode(mode: str, edit: str, bash: str, read: str, unknown: str) -> None:
    permissions = Permissions(mode=mode)
    tools = ("edit", "bash", "read", "a_tool_of_tomorrow")
    assert [allowed(permissions, tool) for tool in tools] == [edit, bash, read, unknown]


def test_rules_go_before_the_mode_and_the_last_one_holds() -> None:
    permissions = with_rules("allow", "bash:git *=ask", "bash:git push*=deny", "edit:docs/*=deny")
    assert allowed(permissions, "bash", "ls") == "allow"
    assert allowed(permissions, "bash", "git status") == "ask"
    assert allowed(permissions, "bash", "git push --force") == "deny"
    assert allowed(permissions, "edit", "docs/a.md") == "deny"
    assert allowed(permissions, "edit", "src/a.py") == "allow"
    planned = with_rules("plan", "edit:docs/*=allow")
    assert allowed(planned, "edit", "docs/a.md") == "allow"
    assert allowed(planned, "edit", "src/a.py") == "deny"
    assert allowed(with_rules("allow", "*=deny", "read=allow"), "bash") == "deny"


def test_the_config_keeps_their_order() -> None:
    config = config_of(
        with_rules("allow", "bash:git *=ask", "bash:git push*=deny"), questions=False, directory="/workspace"
    )
    assert config == {
        "*": "allow",
        "question": "deny",
        "bash": {"*": "allow", "git *": "ask", "git push*": "deny"},
    }
    assert next(iter(config_of(Permissions(mode="ask"), questions=True, directory="/workspace"))) == "*"
    again = config_of(
        with_rules("allow", "bash:a=ask", "bash:b=deny", "bash:a=allow"),
        questions=True,
        directory="/workspace",
    )
    assert list(again["bash"].items())[-1] == ("a", "allow")  # type: ignore[attr-defined]


def elsewhere(permissions: Permissions) -> dict[str, str]:
    return {
        rule["permission"]: rule["action"]
        for rule in ruleset_of(permissions, directory="/srv/app")
        if rule["pattern"] == "*"
    }


def test_elsewhere_a_mode_takes_away_and_gives_nothing() -> None:
    assert elsewhere(Permissions(mode="allow")) == {}
    asking = elsewhere(Permissions(mode="ask"))
    assert set(asking.values()) == {"ask", "deny"}
    planning = elsewhere(Permissions(mode="plan"))
    assert planning["*"] == "deny"
    assert not {"edit", "bash"} & planning.keys()


def test_where_something_is_asked_for_elsewhere_there_are_no_sub_agents() -> None:
    assert elsewhere(Permissions(mode="ask"))["task"] == "deny"
    assert elsewhere(with_rules("plan", "bash:rm *=ask"))["task"] == "deny"
    assert elsewhere(Permissions(mode="plan"))["task"] == "allow"  # what is denied is handed down
    assert elsewhere(Permissions(rules=(rule_of("bash=deny"),))) == {"bash": "deny"}


def test_a_path_holds_in_a_repository_and_outside_of_one() -> None:
    permissions = with_rules("allow", "edit:docs/*=deny", "read:*.key=deny", "bash:docs/*=deny")
    for path in ("docs/a.md", "workspace/docs/a.md"):
        assert allowed(permissions, "edit", path) == "deny"
    assert allowed(permissions, "edit", "src/docs/a.md") == "allow"
    assert allowed(permissions, "read", "workspace/a.key") == "deny"
    assert allowed(permissions, "bash", "workspace/docs/run") == "allow"
    patterns = [rule["pattern"] for rule in ruleset_of(permissions, directory="/srv/app")]
    assert patterns == ["docs/*", "srv/app/docs/*", "*.key", "docs/*"]
    assert len(ruleset_of(permissions, directory="")) == 3


def test_only_a_plan_without_exceptions_writes_nothing() -> None:
    assert writes_nothing(Permissions(mode="plan"))
    assert writes_nothing(with_rules("plan", "bash:rm *=deny", "read:*.env=deny"))
    assert not writes_nothing(with_rules("plan", "edit:docs/*=allow"))
    assert not writes_nothing(with_rules("plan", "bash:make*=ask"))
    assert not writes_nothing(Permissions(mode="allow"))


def test_a_mode_begins_afresh_and_rules_alone_keep_it() -> None:
    before = with_rules("plan", "edit:docs/*=allow")
    assert permissions_of(None, None, before=before) is before
    assert permissions_of("ask", None, before=before) == Permissions(mode="ask")
    assert permissions_of(None, ["bash=deny"], before=before) == with_rules("plan", "bash=deny")
    assert permissions_of(None, ["bash=deny"], before=None) == Permissions(rules=(rule_of("bash=deny"),))
    assert permissions_of(None, None, before=None) is None
    with pytest.raises(UsageError, match="allow, ask, plan"):
        permissions_of("sudo", None, before=None)
    with pytest.raises(UsageError, match="more than"):
        permissions_of(None, ["bash=deny"] * (MOST_RULES + 1), before=None)
