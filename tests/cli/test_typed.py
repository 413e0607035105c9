"""What was typed: words and options in any order, and what cannot be is refused before a service is looked for."""

from __future__ import annotations

import io
import itertools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from opencode_actors.cli.main import build_parser, main
from opencode_actors.cli.status import Status
from opencode_actors.cli.typed import answers_of, check


def typed(*words: str) -> Any:
    arguments = build_parser().parse_args(words)
    check(arguments)
    return arguments


def orders(words: Sequence[str], *options: tuple[str, ...]) -> list[tuple[str, ...]]:
    """Each way to put options before, between and behind the words, which stay in their order."""
    found: list[tuple[str, ...]] = []
    for places in itertools.product(range(len(words) + 1), repeat=len(options)):
        mixed: list[str] = []
        for at in range(len(words) + 1):
            for place, option in zip(places, options, strict=True):
                mixed += option if place == at else ()
            mixed += words[at : at + 1]
        found.append(tuple(mixed))
    return found


MODEL, NAME = ("--model", "x/y"), ("--name", "n")


@pytest.mark.parametrize("verb", ["respond", "resume", "fork"])
@pytest.mark.parametrize("words", orders(("far", "go on"), MODEL, NAME))
def test_where_and_what_stand_anywhere_among_the_options(verb: str, words: tuple[str, ...]) -> None:
    arguments = typed(verb, *words)
    assert (arguments.session, arguments.job, arguments.prompt) == ("far", None, "go on")
    assert (arguments.model, arguments.name) == ("x/y", "n")


@pytest.mark.parametrize("verb", ["respond", "resume", "fork"])
@pytest.mark.parametrize("words", orders(("go on",), MODEL, ("--job", "far")))
def test_the_session_may_be_an_option(verb: str, words: tuple[str, ...]) -> None:
    arguments = typed(verb, *words)
    assert (arguments.session, arguments.job, arguments.prompt) == (None, "far", "go on")


@pytest.mark.parametrize("verb", ["resume", "fork"])
@pytest.mark.parametrize("words", [*orders(("far",), MODEL), *orders((), ("--session", "far"), MODEL)])
def test_without_a_message(verb: str, words: tuple[str, ...]) -> None:
    arguments = typed(verb, *words)
    assert (arguments.session, arguments.prompt, arguments.model) == ("far", None, "x/y")


@pytest.mark.parametrize("words", orders(("j", "r", "Blue", "Red"), ("--json",)))
def test_answers_stand_anywhere(words: tuple[str, ...]) -> None:
    arguments = typed("answer", *words)
    assert (arguments.job, arguments.request, answers_of(arguments)) == ("j", "r", [["Blue"], ["Red"]])


@pytest.mark.parametrize("words", orders(("j", "r"), ("--reject",), ("--message", "hm")))
def test_a_rejection_stands_anywhere(words: tuple[str, ...]) -> None:
    arguments = typed("answer", *words)
    assert (arguments.job, arguments.request, arguments.reject, arguments.message) == ("j", "r", True, "hm")


def test_several_labels_of_one_question() -> None:
    arguments = typed("answer", "j", "r", "--choose", "Tests", "Docs", "--choose", "Blue")
    assert answers_of(arguments) == [["Tests", "Docs"], ["Blue"]]


@pytest.mark.parametrize("words", orders(("job",), ("--since", "3"), ("--json",)))
def test_a_follow_from_a_number_on(words: tuple[str, ...]) -> None:
    arguments = typed("follow", *words)
    assert (arguments.job, arguments.since, arguments.json) == ("job", 3, True)


def test_what_follows_two_dashes_is_a_word() -> None:
    arguments = typed("resume", "far", "--model", "x/y", "--", "--force")
    assert (arguments.session, arguments.prompt, arguments.model) == ("far", "--force", "x/y")


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (("respond", "alone"), "name it first"),
        (("respond", "--session", "far"), "required: MESSAGE"),
        (("resume",), "name it first"),
        (("fork", "--name", "n"), "name it first"),
        (("resume", "far", "go on", "--job", "j"), "named twice"),
        (("resume", "--session", "far", "--job", "j", "go on"), "named twice"),
        (("resume", "far", " "), "the prompt is empty"),
        (("fork", "far", "--follow"), "no job to follow"),
        (("follow", "job", "--session", "far"), "not both"),
        (("answer", "j", "r"), "no answer is given"),
        (("answer", "j", "r", "Blue", "--reject", "--message", "hm"), "give one of"),
        (("answer", "j", "r", "Blue", "--message", "hm"), "rejection only"),
        (("answer", "j", "r", "--message", "hm"), "no answer is given"),
        (("answer", "j", "r", "--reply", "once", "--reject"), "give one of"),
        (("answer", "j", "r", "--reply", "once", "--message", "hm"), "rejection only"),
        (("answer", "j", "r", "Blue", "--choose", "Red"), "beside what is chosen"),
        (("start", "x", "--timeout", "nan"), "--timeout: must be a number of seconds, not 'nan'"),
        (("start", "x", "--timeout", "abc"), "--timeout: must be a number of seconds, not 'abc'"),
        (("start", "x", "--report-every=-inf"), "--report-every: must be a number of seconds"),
        (("start", "x", "--max-cost-usd", "inf"), "--max-cost-usd: must be a number of dollars, not 'inf'"),
        (("start", "x", "--max-cost-usd", "1e999"), "must be a number of dollars, not '1e999'"),
        (("run", "x", "--max-cost-usd", "nan"), "must be a number of dollars, not 'nan'"),
        (("output", "j", "--limit", "1.5"), "must be a whole number, not '1.5'"),
        (("follow", "--since", "9" * 5000), "must be a whole number, not '999"),
        (("cleanup", "--older-than", "7 weeks"), "as 7d, not '7 weeks'"),
        (("cleanup", "--older-than", "nand"), "as 7d, not 'nand'"),
    ],
)
def test_what_cannot_be_is_refused_though_no_service_runs(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    what: str,
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    try:
        status = main(words)
    except SystemExit as stop:  # argparse ends by itself
        status = int(str(stop.code))
    assert status == Status.USAGE
    first, second = capsys.readouterr().err.splitlines()
    assert what in first
    assert second.startswith("hint: ")


@pytest.mark.parametrize(
    ("text", "seconds"), [("0", 0), ("90", 90), ("15m", 900), ("36h", 129_600), ("7d", 604_800)]
)
def test_an_age_may_have_a_unit(text: str, seconds: float) -> None:
    assert typed("cleanup", "--older-than", text).older_than == seconds


def test_stdin_is_read_to_its_end_before_a_service_is_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever types a prompt for a minute answers no ping: no connection waits for that."""
    monkeypatch.setenv("HOME", str(tmp_path))
    read, write = os.pipe()
    os.write(write, b"a long prompt")
    os.close(write)
    with os.fdopen(read, "rb") as pipe, io.TextIOWrapper(pipe) as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        assert main(["start", "-"]) == Status.ENVIRONMENT
        assert "no service runs" in capsys.readouterr().err
        assert pipe.read() == b""


def test_a_clean_up_says_how_far_it_reaches(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        build_parser().parse_args(["cleanup", "--help"])
    assert "ALL sessions that\nare known and not kept" in capsys.readouterr().out
