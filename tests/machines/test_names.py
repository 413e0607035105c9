"""Session keys and what is made of them: one name for one key, on every file system."""

from __future__ import annotations

import re
import string
from pathlib import PurePosixPath

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from opencode_actors.errors import UsageError
from opencode_actors.machines.names import LONGEST_KEY, directory_name, name_of, session_key

FIRST = string.ascii_letters + string.digits
keys = st.builds(str.__add__, st.sampled_from(FIRST), st.text(FIRST + "._:-", max_size=LONGEST_KEY - 1)).map(
    session_key
)


@given(keys, keys)
@example(session_key("a.b"), session_key("a-b"))
@example(session_key("Demo"), session_key("demo"))
@example(session_key("x" * 63 + "a"), session_key("x" * 63 + "b"))
def test_no_two_keys_share_a_name_even_where_a_is_a(one: str, other: str) -> None:
    names = [directory_name(session_key(key)).casefold() for key in (one, other)]
    assert (names[0] == names[1]) == (one == other)


@given(keys)
@example(session_key("CON"))
@example(session_key("0:"))
def test_a_name_is_one_plain_part_of_a_path_and_of_a_host_name(key: str) -> None:
    name = directory_name(session_key(key))
    assert PurePosixPath(name).name == name
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name)
    assert len(f"opencode-actors-01234567-{name}") <= 63


def test_a_person_finds_the_session_again() -> None:
    assert directory_name(session_key("Fix_the.Bug:42")).startswith("fix-the-bug-42-")


def test_a_name_stays_the_same() -> None:
    """Data and workspace of a session are found by it for ever."""
    assert directory_name(session_key("demo")) == "demo-fklvc3bvjnuijdg3"


@given(st.text())
@example("")
@example("../up")
@example("a/b")
@example("a\n")
@example("a\x00")
@example("\N{FULLWIDTH LATIN SMALL LETTER A}")
@example(".hidden")
@example("-rf")
def test_any_text_is_a_key_or_is_refused_in_words(text: str) -> None:
    try:
        key: str | None = session_key(text)
    except UsageError as error:
        key, hint = None, error.hint
    else:
        hint = ""
    well_formed = re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,63}", text) is not None
    assert key == (text if well_formed else None)
    assert bool(hint) != well_formed


def test_a_session_is_not_called_like_a_jobs_id() -> None:
    with pytest.raises(UsageError, match="looks like a job's id"):
        session_key("job_0123456789abcdef")
    assert session_key("job_0123456789abcde")


def test_a_key_has_its_longest() -> None:
    assert session_key("x" * LONGEST_KEY)
    with pytest.raises(UsageError, match="at most 64 characters, and this one has 65"):
        session_key("x" * (LONGEST_KEY + 1))


@pytest.mark.parametrize(
    ("prompt", "name"),
    [
        ("Please fix the login test.\nIt fails since Monday.", "fix-login-test"),
        ("\n  -- \n\nMend it, and then the other thing", "mend-other-thing"),
        ("Über alle Bücher hinweg", "uber-alle-bucher-hinweg"),
    ],
)
def test_a_job_is_called_by_the_first_line_that_says_something(prompt: str, name: str) -> None:
    assert name_of(prompt) == name
