"""What an agent may do, in words and in OpenCode's own."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import cast

import pytest

from opencode_actors.errors import UsageError
from opencode_actors.machines.permissions import (
    MOST_RULES,
    agents_config_of,
    config_of,
    narrows,
    permissions_of,
    rule_of,
    ruleset_of,
    writes_nothing,
)
from opencode_actors.ports import Permissions, Rule


def with_rules(mode: str, *rules: str) -> Permissions:
    return Permissions(mode=mode, rules=tuple(rule_of(rule) for rule in rules))


Table = dict[str, object]


def decided(table: Table, tool: str, what: str = "x") -> str:
    """As OpenCode decides: the last rule that matches."""
    action = ""
    for known, rules in table.items():
        patterns = {"*": rules} if isinstance(rules, str) else cast("dict[str, str]", rules)
        for pattern, given in patterns.items():
            if fnmatchcase(tool, known) and fnmatchcase(what, pattern):
                action = given
    return action


def allowed(permissions: Permissions, tool: str, what: str = "x") -> str:
    return decided(config_of(permissions, questions=True, directory="/workspace"), tool, what)


def merged(below: Table, above: Table) -> Table:
    """As OpenCode puts one config over another: a key stays where it was."""
    together = dict(below)
    for key, value in above.items():
        there = together.get(key)
        both = isinstance(there, dict) and isinstance(value, dict)
        together[key] = merged(cast(Table, there), cast(Table, value)) if both else value
    return together


# An agent's own table, and the host's for all of them: in an order in which ours would not have the last word.
OF_THE_HOST: Table = {
    "bash": {"git push*": "allow", "*": "allow"},
    "edit": "allow",
    "read": "deny",
    "*": "allow",
}


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
        ("ask", "ask", "ask", "allow", "ask"),
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


@pytest.mark.parametrize(
    ("permissions", "push", "status", "edit", "unknown", "read"),
    [
        (Permissions(mode="ask"), "ask", "ask", "ask", "ask", "allow"),
        (Permissions(mode="plan"), "deny", "deny", "deny", "deny", "allow"),
        (with_rules("allow", "bash:git push*=deny"), "deny", "allow", "allow", "allow", "allow"),
        (with_rules("ask", "bash:git *=deny"), "deny", "deny", "ask", "ask", "allow"),
        (with_rules("plan", "edit:docs/*=allow"), "deny", "deny", "deny", "deny", "allow"),
        (with_rules("allow", "*=deny", "bash:git *=ask"), "ask", "ask", "deny", "deny", "deny"),
    ],
)
def test_what_the_host_and_its_agents_say_comes_before(
    permissions: Permissions, push: str, status: str, edit: str, unknown: str, read: str
) -> None:
    for last in (
        config_of(permissions, questions=True, directory="/workspace"),
        agents_config_of(permissions, questions=True, directory="/workspace"),
        agents_config_of(permissions, questions=True, directory="/workspace", legacy=True),
    ):
        table = merged(OF_THE_HOST, last)
        assert decided(table, "bash", "git push --force") == push
        assert decided(table, "bash", "git status") == status
        assert decided(table, "edit", "src/a.py") == edit
        assert decided(table, "a_tool_of_tomorrow") == unknown
        assert decided(table, "read") == read


def test_both_places_of_an_agent_have_keys_of_their_own() -> None:
    """OpenCode puts what stands under `mode` behind what stands under `agent`, key by key."""
    for permissions in (Permissions(mode="ask"), with_rules("allow", "bash=deny", "x:y=ask")):
        first = agents_config_of(permissions, questions=True, directory="/workspace")
        behind = agents_config_of(permissions, questions=True, directory="/workspace", legacy=True)
        assert not first.keys() & behind.keys()
        assert not {"*", "bash", "edit", "read", "x"} & (first.keys() | behind.keys())
        expected = "ask" if permissions.mode == "ask" else "deny"
        assert decided(merged(merged(first, OF_THE_HOST), behind), "bash") == expected


def test_what_an_agent_denies_itself_stays_denied_where_all_is_allowed() -> None:
    careful: Table = {"edit": "deny", "bash": {"rm *": "deny"}}
    last = agents_config_of(
        with_rules("allow", "bash:git push*=deny"), questions=False, directory="/workspace"
    )
    assert decided(merged(careful, last), "edit") == "deny"
    assert decided(merged(careful, last), "bash", "rm -r x") == "deny"
    assert decided(merged(careful, last), "bash", "git push") == "deny"
    assert decided(merged({"question": "allow"}, last), "question") == "deny"


def test_the_config_keeps_their_order() -> None:
    config = config_of(
        with_rules("allow", "bash:git *=ask", "bash:git push*=deny"), questions=False, directory="/workspace"
    )
    assert config == {
        "*": "allow",
        "q*uestion": "deny",
        "b*ash": {"git *": "ask", "git push*": "deny"},
    }
    assert next(iter(config_of(Permissions(mode="ask"), questions=True, directory="/workspace"))) == "**"
    again = config_of(
        with_rules("allow", "bash:a=ask", "bash:b=deny", "bash:a=allow"),
        questions=True,
        directory="/workspace",
    )
    assert list(again["b*ash"].items())[-1] == ("a", "allow")  # type: ignore[attr-defined]


def elsewhere(permissions: Permissions) -> dict[str, str]:
    return {
        rule["permission"]: rule["action"]
        for rule in ruleset_of(permissions, directory="/srv/app")
        if rule["pattern"] == "*"
    }


def test_elsewhere_only_what_takes_away_is_taken() -> None:
    assert narrows(Permissions(mode="plan"))
    assert narrows(with_rules("plan", "read:*.env=deny"))
    assert narrows(Permissions(rules=(rule_of("bash=deny"),)))
    for widens in ("*=allow", "bash:git *=allow", "bash=ask"):
        assert not narrows(Permissions(rules=(rule_of(widens),)))
        assert not narrows(with_rules("plan", widens))
    assert not narrows(Permissions(mode="allow"))
    assert not narrows(Permissions(mode="ask"))  # an ask that comes after a deny makes a question of it


@pytest.mark.parametrize("mode", ["plan", "ask"])
def test_elsewhere_nothing_is_allowed_that_may_be_denied_there(mode: str) -> None:
    put = ruleset_of(with_rules(mode, "bash:rm *=ask", "webfetch=allow"), directory="/srv/app")
    assert {rule["action"] for rule in put} == {"deny"}
    assert {rule["permission"] for rule in put} == {"bash", "edit", "external_directory"}
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
