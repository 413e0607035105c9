"""A text that is not the one that was written is said to be damaged, also where it can be read."""

from __future__ import annotations

import json
import random
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path

import pytest

from opencode_actors.errors import StoreError
from opencode_actors.machines.notices import OutputAdded, OutputKind
from opencode_actors.store.journal import Journal, open_journal
from opencode_actors.store.sums import fields_in, with_sum

from .samples import JOB, SESSION, job, said

FIELDS = {"prompt": "fix the failing test ☃ \x00 \ud800", "cost": 0.1, "todos": [{"~": "look"}]}


def test_it_is_json_for_whoever_knows_nothing_of_sums() -> None:
    assert {**json.loads(with_sum(FIELDS)), "~": None} == {**FIELDS, "~": None}
    assert fields_in(with_sum(FIELDS)) == FIELDS
    assert fields_in(with_sum({})) == {}
    assert fields_in(json.dumps(FIELDS)) == FIELDS, "of before there were sums"


def test_any_letter_that_is_another_one_is_seen() -> None:
    text = with_sum(FIELDS)
    rng = random.Random(7)
    for at in range(len(text)):
        other = text[:at] + chr(ord(text[at]) ^ 1 << rng.randrange(7)) + text[at + 1 :]
        try:
            found = fields_in(other)
        except ValueError:
            continue
        # of the field's own name, or a capital in its number
        assert {name: found[name] for name in FIELDS} == FIELDS, at


async def _status(journal: Journal) -> object:
    return await journal.job(JOB)


async def _notices(journal: Journal) -> object:
    return await journal.notices(JOB, SESSION, after=0, upto=1)


@pytest.mark.parametrize(
    ("change", "ask"),
    [
        ("UPDATE jobs SET snapshot = replace(snapshot, 'failing', 'passing')", _status),
        ("UPDATE notices SET body = replace(body, '[\"text\", 0', '[\"text\", 2')", _notices),
    ],
)
async def test_what_a_disk_changed_is_not_told(
    tmp_path: Path, change: str, ask: Callable[[Journal], Awaitable[object]]
) -> None:
    async with open_journal(tmp_path) as journal:
        piece = OutputAdded(job=JOB, session=SESSION, kind=OutputKind.TEXT, offset=0, text="all of it")
        await journal.append((job(), said("all of it")), (piece,))
    with closing(sqlite3.connect(tmp_path / "journal.sqlite")) as database, database:
        assert database.execute(change).rowcount == 1
    async with open_journal(tmp_path) as journal:
        with pytest.raises(StoreError, match="its sum is another one"):
            await ask(journal)
