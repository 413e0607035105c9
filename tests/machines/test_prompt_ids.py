"""Ids as the server makes them: they sort by time, and no two prompts have the same."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from opencode_actors.machines.prompt_ids import stamped
from opencode_actors.machines.vocabulary import Moment
from opencode_actors.ports import Prompt

PROMPT = Prompt(text="go")
# made by the server at this time: msg_1fcedc49c001…
WALL = 1_795_244_803.228


def at(wall: float, roll: float) -> Prompt:
    return stamped(PROMPT, Moment(now=0.0, wall=wall, roll=roll))


@given(st.integers(0, 2**35), st.integers(1, 2**30), st.floats(0, 1, exclude_max=True))
def test_ids_sort_by_time(now: int, later: int, roll: float) -> None:
    first, second = at(now / 1000, roll), at((now + later) / 1000, roll)
    assert first.message_id <= second.message_id
    assert len(first.message_id) == len("msg_") + 12 + 14


def test_ids_of_one_moment_differ() -> None:
    rng = random.Random(1)
    assert len({at(WALL, rng.random()).part_id for _ in range(1000)}) == 1000


def test_an_id_is_of_the_servers_own_form() -> None:
    prompt = at(WALL, 0.5)
    assert prompt.message_id.startswith("msg_1fcedc49c001")
    assert prompt.part_id == prompt.message_id.replace("msg_", "prt_")
    assert prompt.message_id.isascii()
    assert prompt.message_id.replace("msg_", "").isalnum()
