"""Which logins of a session the host takes over: renewals, and nothing else that an agent may write."""

from __future__ import annotations

from typing import Any

import pytest

from opencode_actors import logins

OLD = {"type": "oauth", "access": "a1", "refresh": "r1", "expires": 1000, "accountId": "me"}
NEW = {**OLD, "access": "a2", "refresh": "r2", "expires": 2000}
NEWER = {**OLD, "access": "a3", "refresh": "r3", "expires": 3000}
KEY = {"type": "api", "key": "sk-1"}
BASE = {"anthropic": OLD, "openai": KEY}


def test_p11_a_renewal_goes_back() -> None:
    assert logins.renewed(BASE, BASE, {**BASE, "anthropic": NEW}) == {"anthropic": NEW}


def test_p11_what_the_host_has_changed_since_is_the_hosts() -> None:
    for host in ({**BASE, "anthropic": NEWER}, {"openai": KEY}, {}):
        assert logins.renewed(BASE, host, {**BASE, "anthropic": NEW}) == {}


def test_p11_two_providers_are_renewed_each_for_itself() -> None:
    base = {"one": OLD, "two": OLD}
    host = {"one": NEWER, "two": OLD}
    assert logins.renewed(base, host, {"one": NEW, "two": NEW}) == {"two": NEW}


@pytest.mark.parametrize(
    "planted",
    [
        pytest.param({"anthropic": OLD}, id="nothing new"),
        pytest.param({"evil": NEW}, id="a provider that was not there"),
        pytest.param({"openai": {"type": "api", "key": "sk-evil"}}, id="a key"),
        pytest.param({"openai": NEW}, id="a login in the place of a key"),
        pytest.param({"anthropic": KEY}, id="a key in the place of a login"),
        pytest.param({"anthropic": {**NEW, "enterpriseUrl": "https://evil"}}, id="one field more"),
        pytest.param({"anthropic": {**NEW, "accountId": "other"}}, id="another account"),
        pytest.param({"anthropic": {k: v for k, v in NEW.items() if k != "refresh"}}, id="one field less"),
        pytest.param({"anthropic": {**NEW, "access": ""}}, id="no token"),
        pytest.param({"anthropic": {**NEW, "access": 7}}, id="a number for a token"),
        pytest.param({"anthropic": {**NEW, "refresh": "r\n2"}}, id="a token of two lines"),
        pytest.param({"anthropic": {**NEW, "access": "x" * (33 << 10)}}, id="a huge token"),
        pytest.param({"anthropic": {**NEW, "expires": 1000}}, id="no longer than before"),
        pytest.param({"anthropic": {**NEW, "expires": True}}, id="a truth for a time"),
        pytest.param({"anthropic": {**NEW, "expires": "2000"}}, id="a text for a time"),
        pytest.param({"anthropic": {**NEW, "expires": 10**30}}, id="the end of time"),
        pytest.param({"anthropic": [NEW]}, id="a list"),
        pytest.param({"anthropic": None}, id="nothing"),
    ],
)
def test_p14_what_is_no_renewal_stays_where_it_is(planted: dict[str, Any]) -> None:
    assert logins.renewed(BASE, BASE, {**BASE, **planted}) == {}


@pytest.mark.parametrize(
    "text", [None, b"", b'{"a": ', b"[]", b"1", b"\xff", b'{"a": NaN}', b"[" * 100_000, b'{"a": Infinity}']
)
def test_what_is_no_object_of_json_is_nothing(text: bytes | None) -> None:
    assert logins.parsed(text) is None


def test_what_is_written_is_read_again() -> None:
    table = {**BASE, "ü": {"type": "oauth", "access": "漢"}}
    assert logins.parsed(logins.written(table)) == table
