"""What can be an answer: one thing, and not half of two."""

from __future__ import annotations

from typing import Any

import pytest

from opencode_actors.errors import UsageError
from opencode_actors.kernel.answers import answer_of
from opencode_actors.machines.job_messages import Answer, PermissionAnswer, QuestionAnswer, Rejection
from opencode_actors.ports import PermissionReply


@pytest.mark.parametrize(
    ("given", "answer"),
    [
        ({"answers": "Blue"}, QuestionAnswer(answers=(("Blue",),))),
        ({"answers": (("Blue", "Red"), ("7",))}, QuestionAnswer(answers=(("Blue", "Red"), ("7",)))),
        ({"reply": "once"}, PermissionAnswer(reply=PermissionReply.ONCE)),
        ({"reject": True}, Rejection(message="")),
        ({"reply": "reject", "message": "no"}, Rejection(message="no")),
        ({"reject": True, "reply": "reject", "message": "no"}, Rejection(message="no")),
    ],
)
def test_one_thing_is_an_answer(given: dict[str, Any], answer: Answer) -> None:
    assert answer_of(**given) == answer


@pytest.mark.parametrize(
    ("given", "what"),
    [
        ({}, "give one of"),
        ({"message": "well"}, "give one of"),
        ({"answers": "Blue", "reject": True}, "give one of"),
        ({"answers": "Blue", "reject": True, "message": "hm"}, "give one of"),
        ({"answers": "Blue", "reply": "once"}, "give one of"),
        ({"answers": "Blue", "reply": "reject"}, "give one of"),
        ({"reply": "once", "reject": True}, "give one of"),
        ({"reply": "always", "message": "well"}, "rejection only"),
        ({"answers": "Blue", "message": "hm"}, "rejection only"),
        ({"reply": "maybe"}, "is no reply"),
    ],
)
def test_what_contradicts_itself_is_refused(given: dict[str, Any], what: str) -> None:
    with pytest.raises(UsageError, match=what):
        answer_of(**given)
