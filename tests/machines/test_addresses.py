"""Which addresses a server elsewhere may have. Nothing that is refused repeats what may be a secret."""

from __future__ import annotations

import pytest

from opencode_actors.errors import UsageError
from opencode_actors.machines.addresses import (
    password_path,
    server_address,
    travels_openly,
    user_name,
    variable_name,
)

SECRET = "hunter2hunter2"


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("http://127.0.0.1:4096", "http://127.0.0.1:4096"),
        ("https://Example.COM/", "https://example.com"),
        ("https://example.com/opencode/", "https://example.com/opencode"),
        ("http://[::1]:4096", "http://[::1]:4096"),
        ("http://localhost:80", "http://localhost:80"),
    ],
)
def test_what_is_an_address_is_kept_in_one_form(given: str, kept: str) -> None:
    assert server_address(given) == kept


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (f"http://opencode:{SECRET}@127.0.0.1", "user or password"),
        (f"http://{SECRET}@127.0.0.1", "user or password"),
        (f"ftp://{SECRET}", "http:// or https://"),
        (f"{SECRET}:4096", "http:// or https://"),
        (f"http://host:{SECRET}", "host and port"),
        ("http://host:0", "port 0"),
        ("http://host:70000", "host and port"),
        ("http://", "no host"),
        ("http://-a", "no host"),
        ("http://[::1", "host and port"),
        (f"http://host?auth_token={SECRET}", "query"),
        (f"http://host#{SECRET}", "fragment"),
        (f"http://host/{SECRET} x", "not a URL"),
        (f"http://host/{SECRET}\n", "not a URL"),
        ("http://host/" + "x" * 3000, "not a URL"),
        ("", "http:// or https://"),
    ],
)
def test_what_is_none_is_refused_and_not_repeated(given: str, why: str) -> None:
    with pytest.raises(UsageError, match=why) as refused:
        server_address(given)
    assert SECRET not in refused.value.message + refused.value.hint


@pytest.mark.parametrize(
    ("url", "openly"),
    [
        ("http://127.0.0.1:1", False),
        ("http://localhost", False),
        ("http://[::1]:1", False),
        ("http://10.0.0.7", True),
        ("http://far", True),
        ("https://far", False),
    ],
)
def test_what_can_be_read_on_the_way(url: str, openly: bool) -> None:  # noqa: FBT001 - a table's column
    assert travels_openly(url) is openly


def test_only_what_is_named_as_a_password_is_one() -> None:
    assert variable_name("FAR_PASSWORD") == "FAR_PASSWORD"
    assert password_path("/etc/opencode/far.password") == "/etc/opencode/far.password"
    for text in ("ANTHROPIC_API_KEY", "HOME"):
        with pytest.raises(UsageError, match="not named as a password"):
            variable_name(text)
    with pytest.raises(UsageError, match="not the name") as refused:
        variable_name(f"{SECRET} {SECRET}")
    assert SECRET not in refused.value.message
    for text, why in (("far.password", "absolute"), ("/etc/shadow", "not named as a password")):
        with pytest.raises(UsageError, match=why):
            password_path(text)


@pytest.mark.parametrize("text", ["maria", "ci-bot@example.com", "a" * 128])
def test_a_user_is_called_as_the_server_likes(text: str) -> None:
    assert user_name(text) == text


@pytest.mark.parametrize("text", [f"maria:{SECRET}", f"{SECRET} x", f"{SECRET}\n", "é" + SECRET, SECRET * 10])
def test_what_is_no_users_name_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(UsageError, match="user is no name") as refused:
        user_name(text)
    assert SECRET not in refused.value.message + refused.value.hint
