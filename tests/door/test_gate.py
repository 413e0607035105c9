"""Who is let in, decided from the upgrade request."""

from __future__ import annotations

import pytest

from opencode_actors.door.gate import Admitted, TurnedAway, admit

TOKEN = "the-token-of-this-door"
RIGHT = (b"Authorization", f"Bearer {TOKEN}".encode())


def verdict(
    *headers: tuple[bytes, bytes], path: str = "/", subprotocols: tuple[str, ...] = ()
) -> Admitted | TurnedAway:
    return admit(
        path=path,
        headers=headers,
        subprotocols=subprotocols,
        token=TOKEN,
        origins=("https://good.example",),
    )


def test_the_token_opens_as_a_header() -> None:
    assert verdict(RIGHT) == Admitted(subprotocol=None)
    assert verdict((b"authorization", f"bearer  {TOKEN}".encode())) == Admitted(subprotocol=None)


def test_the_token_opens_as_a_subprotocol_which_is_never_the_one_that_is_selected() -> None:
    given = ("opencode-actors.v1", f"opencode-actors.token.{TOKEN}")
    assert verdict(subprotocols=given) == Admitted(subprotocol="opencode-actors.v1")
    assert verdict(subprotocols=given[1:]) == Admitted(subprotocol=None)


@pytest.mark.parametrize(
    "headers",
    [
        (),
        ((b"Authorization", b"Bearer "),),
        ((b"Authorization", b"Bearer wrong"),),
        ((b"Authorization", TOKEN.encode()),),
        ((b"Authorization", f"Basic {TOKEN}".encode()),),
        ((b"Authorization", f"Bearer {TOKEN}x".encode()),),
        ((b"Authorization", "Bearer ä".encode()),),
        ((b"Cookie", f"token={TOKEN}".encode()),),
    ],
)
def test_without_the_token_nobody_comes_in(headers: tuple[tuple[bytes, bytes], ...]) -> None:
    answer = verdict(*headers)
    assert isinstance(answer, TurnedAway)
    assert answer.status == 401
    assert TOKEN not in answer.text


def test_a_token_in_the_url_is_none_because_urls_are_logged() -> None:
    assert isinstance(verdict(path=f"/?token={TOKEN}"), TurnedAway)


def test_a_page_in_a_browser_comes_in_only_from_where_it_may() -> None:
    evil = verdict(RIGHT, (b"Origin", b"https://evil.example"))
    assert isinstance(evil, TurnedAway)
    assert evil.status == 403
    assert isinstance(verdict(RIGHT, (b"Origin", b"null")), TurnedAway)
    assert isinstance(verdict(RIGHT, (b"Origin", b"https://good.example")), Admitted)


def test_there_is_one_path() -> None:
    answer = verdict(RIGHT, path="/other")
    assert isinstance(answer, TurnedAway)
    assert answer.status == 404
    assert isinstance(verdict(RIGHT, path="/?x=1"), Admitted)
