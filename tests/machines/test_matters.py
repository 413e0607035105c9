"""Which chats are told what: a session's choice, then a channel's, then the settings, then what is sensible."""

from __future__ import annotations

import pytest
from attrs import evolve

from opencode_actors.errors import UsageError
from opencode_actors.machines.matters import (
    SENSIBLE,
    Choice,
    Matrix,
    Matter,
    Scope,
    Source,
    matter_of_end,
    matters_named,
    settings_of,
)
from opencode_actors.machines.vocabulary import Cause, Failure, JobStatus
from tests.machines.test_notification import JOB


def why(
    matrix: Matrix, matter: Matter, session: str = "demo", channel: str = "telegram"
) -> tuple[bool, Source]:
    return matrix.why(matter, session=session, channel=channel)


def test_a_channel_is_not_flooded_by_default_C6() -> None:
    told = {matter for matter in Matter if Matrix().tells(matter, session="", channel="")}
    assert told == {
        Matter.COMPLETED,
        Matter.FAILED,
        Matter.CANCELLED,
        Matter.LIMIT,
        Matter.WAITING,
        Matter.RUNNING,
        Matter.REPORT,
    }
    assert SENSIBLE.keys() == set(Matter)


def test_the_nearest_choice_wins_and_can_be_taken_back_C6() -> None:
    matrix = Matrix(settings=settings_of(["text", "telegram:-text", "-running"]))
    assert why(matrix, Matter.TEXT) == (False, Source.SETTINGS)
    assert why(matrix, Matter.TEXT, channel="discord") == (True, Source.SETTINGS)
    assert why(matrix, Matter.RUNNING) == (False, Source.SETTINGS)
    assert why(matrix, Matter.TOOL) == (False, Source.DEFAULT)
    channel = Choice(scope=Scope.CHANNEL, name="telegram", matter=Matter.TEXT, on=True)
    session = Choice(scope=Scope.SESSION, name="demo", matter=Matter.TEXT, on=False)
    matrix = matrix.chosen([channel])
    assert why(matrix, Matter.TEXT) == (True, Source.CHANNEL)
    matrix = matrix.chosen([session])
    assert why(matrix, Matter.TEXT) == (False, Source.SESSION)
    assert why(matrix, Matter.TEXT, session="other") == (True, Source.CHANNEL)
    matrix = matrix.chosen([evolve(session, on=None), evolve(channel, on=None)])
    assert why(matrix, Matter.TEXT) == (False, Source.SETTINGS)


def test_all_stands_for_each_and_a_wrong_name_is_said_with_the_right_ones() -> None:
    assert matters_named(["all"]) == tuple(Matter)
    assert set(settings_of(["-all", "failed"]).values()) == {False, True}
    with pytest.raises(UsageError, match="'finished'") as wrong:
        matters_named(["finished"])
    assert "completed" in str(wrong.value.hint)


@pytest.mark.parametrize(
    ("status", "cause", "matter"),
    [
        (JobStatus.COMPLETED, None, Matter.COMPLETED),
        (JobStatus.CANCELLED, None, Matter.CANCELLED),
        (JobStatus.FAILED, Cause.CRASH, Matter.FAILED),
        (JobStatus.FAILED, Cause.BUDGET, Matter.LIMIT),
        (JobStatus.FAILED, Cause.JOB_TIMEOUT, Matter.LIMIT),
    ],
)
def test_an_end_is_a_limits_when_one_was_reached(
    status: JobStatus, cause: Cause | None, matter: Matter
) -> None:
    failure = None if cause is None else Failure(cause=cause, message="no")
    assert matter_of_end(evolve(JOB, status=status, failure=failure)) is matter
