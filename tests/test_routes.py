"""Which chat a directory belongs to."""

from __future__ import annotations

from pathlib import Path

import pytest

from opencode_actors.errors import SettingsError, UsageError
from opencode_actors.machines.vocabulary import Origin
from opencode_actors.routes import routed, routes_of
from opencode_actors.settings import Settings

ROUTES = routes_of(
    (
        "/code/=agent:main:main",
        "/code/shop=agent:blue:telegram:direct:42@telegram",
        "/code/shop/old=hook:archive",
        "/spaces/demo-*=agent:red:main",
    )
)


@pytest.mark.parametrize(
    ("directory", "chat"),
    [
        ("/code/else", Origin(session_key="agent:main:main", agent_id="main")),
        (
            "/code/shop",
            Origin(session_key="agent:blue:telegram:direct:42", agent_id="blue", channel="telegram"),
        ),
        (
            "/code/shop/src",
            Origin(session_key="agent:blue:telegram:direct:42", agent_id="blue", channel="telegram"),
        ),
        ("/code/shopping", Origin(session_key="agent:main:main", agent_id="main")),
        ("/code/shop/old/x", Origin(session_key="hook:archive")),
        ("/spaces/demo-abc", Origin(session_key="agent:red:main", agent_id="red")),
        ("/spaces/other", None),
    ],
)
def test_the_longest_directory_that_fits_says_which_chat_C10(directory: str, chat: Origin | None) -> None:
    assert routed(None, Path(directory), ROUTES) == chat


def test_a_job_that_a_chat_asked_for_is_that_chats_C10() -> None:
    chat = Origin(session_key="agent:main:other")
    assert routed(chat, Path("/code/shop"), ROUTES) is chat
    known = routed(Origin(agent_id="x"), Path("/spaces/other"), ROUTES)
    assert known == Origin(agent_id="x")


def test_a_home_directory_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    (route,) = routes_of(("~/shop=agent:main:main",))
    assert route.directory == "/home/me/shop"


@pytest.mark.parametrize(
    "entry", ["", "shop=agent:main:main", "/shop", "/shop=", "=agent:main:main", "/shop=a\nb"]
)
def test_what_is_no_route_is_said_with_how_one_is_written(entry: str) -> None:
    with pytest.raises(UsageError, match="is no route"):
        routes_of((entry,))
    with pytest.raises(SettingsError, match="routes must be a list such as"):
        Settings(routes=(entry,))
