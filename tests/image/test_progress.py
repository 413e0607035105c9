from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opencode_actors.errors import ImageBuildFailed
from opencode_actors.image.progress import (
    MAX_LINE,
    BuildLog,
    BuildPhase,
    BuildProgress,
    EngineLine,
    LineReader,
    parse_step,
)

from .fake_engine_api import Lines

# What Podman 4.3.1 and Docker 20.10.24 sent, shortened
PODMAN: Lines = [
    {"stream": "[1/3] STEP 1/2: FROM docker.io/library/debian:bookworm-slim AS tools\n"},
    {"stream": "[1/3] STEP 2/2: RUN apt-get update\n"},
    {"stream": "(Reading database ... \r(Reading database ... 50%\r(Reading database ... 100%\r"},
    {"stream": "\nSetting up jq (1.6) ...\r\n"},
    {"stream": "--> dd869a91af5\n"},
    {"aux": {"ID": "sha256:6b2de78b2cfe7b5e"}},
    {"stream": "Successfully built 6b2de78b2cfe\n"},
]
DOCKER: Lines = [
    {"stream": "Step 2/12 : RUN apt-get update"},
    {"stream": "\n"},
    {"stream": " ---> Running in 0123456789ab\n"},
    {"aux": {"ID": "sha256:6b2de78b2cfe7b5e"}},
]
FAILED: Lines = [
    {"stream": "[4/5] STEP 5/5: RUN sh /fetch/fetch-toolchain\n"},
    {"stream": "cur"},
    {"stream": "l"},
    {"stream": ": (6) Could not resolve host\n"},
    {
        "error": 'building at STEP "RUN sh x": while running runtime: exit status 1',
        "errorDetail": {"message": "x"},
    },
]


def encoded(objects: Lines) -> bytes:
    return b"".join(json.dumps(entry).encode() + b"\r\n" for entry in objects)


def log_of(objects: Lines) -> tuple[BuildLog, list[BuildProgress]]:
    reported: list[BuildProgress] = []
    log = BuildLog(report=reported.append)
    for line in LineReader().feed(encoded(objects)):
        log.hear(line)
    return log, reported


def test_podmans_steps_are_reported_with_their_stage() -> None:
    log, reported = log_of(PODMAN)
    assert [(p.stage, p.stages, p.step, p.steps) for p in reported] == [(1, 3, 1, 2), (1, 3, 2, 2)]
    assert reported[1] == BuildProgress(
        phase=BuildPhase.BUILD, text="RUN apt-get update", stage=1, stages=3, step=2, steps=2
    )
    assert log.built
    assert not log.error


def test_dockers_steps_are_reported() -> None:
    log, reported = log_of(DOCKER)
    assert [(p.step, p.steps, p.text) for p in reported] == [(2, 12, "RUN apt-get update")]
    assert log.built


def test_of_lines_that_were_written_over_the_last_state_is_kept() -> None:
    log, _ = log_of(PODMAN[:4])
    assert log.printed.splitlines() == ["(Reading database ... 100%", "Setting up jq (1.6) ..."]


def test_a_failure_shows_what_the_step_printed_and_not_the_engines_book_keeping() -> None:
    log, _ = log_of(FAILED)
    assert not log.built
    text = log.failure(log.error)
    assert text.splitlines() == [
        'the image could not be built: building at STEP "RUN sh x": while running runtime: exit status 1',
        "    curl: (6) Could not resolve host",
    ]


def test_a_long_command_is_shortened_in_the_reason_but_its_end_is_kept() -> None:
    log = BuildLog(report=lambda _: None)
    text = log.failure('building at STEP "RUN ' + "x " * 500 + '": while running runtime: exit status 1')
    assert len(text) < 200
    assert text.endswith("exit status 1")


@given(st.lists(st.integers(1, 40)))
def test_lines_are_the_same_however_the_bytes_arrive(cuts: list[int]) -> None:
    data, reader = encoded(PODMAN), LineReader()
    lines: list[EngineLine] = []
    for cut in cuts:
        lines += reader.feed(data[:cut])
        data = data[cut:]
    lines += reader.feed(data) + reader.end()
    assert lines == LineReader().feed(encoded(PODMAN))


def test_an_answer_that_ends_without_a_newline_is_heard_to_its_end() -> None:
    reader = LineReader()
    assert reader.feed(b'{"error":"no space left on device"}') == []
    assert reader.end() == [EngineLine(error="no space left on device")]
    assert reader.end() == []


@pytest.mark.parametrize("line", [b"not json\n", b'"a string"\n', b"[1]\n", b"\xff\xfe\n", b"null\n"])
def test_what_is_no_object_is_taken_as_text(line: bytes) -> None:
    (parsed,) = LineReader().feed(line)
    assert parsed.text
    assert not parsed.error


def test_a_line_without_end_is_refused() -> None:
    reader = LineReader()
    reader.feed(b"x" * MAX_LINE)
    with pytest.raises(ImageBuildFailed, match="a line of more than"):
        reader.feed(b"x")


@pytest.mark.parametrize("text", ["STEP", "a STEP 1/2: RUN", "Step one/two : x", "", "[1/2] RUN"])
def test_what_is_no_step_is_none(text: str) -> None:
    assert parse_step(text) is None
