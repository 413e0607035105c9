"""Whose process is it?"""

from __future__ import annotations

import pytest

from opencode_actors.machines.leftovers import in_words, of_the_job
from opencode_actors.ports import Process
from opencode_actors.testing.samples import DAEMON, RESIDENTS

FIRST = RESIDENTS[0].pid


def process(pid: int, session: int, *, started: int = 100) -> Process:
    return Process(pid=pid, started=started, session=session, name="demo")


@pytest.mark.parametrize(
    ("born", "is_the_jobs"),
    [
        pytest.param(process(5000, FIRST), False, id="a language server shares the server's session"),
        pytest.param(process(5000, 5000), True, id="a command has a session of its own"),
        pytest.param(process(5001, 4999), True, id="what outlives the leader of its session"),
        pytest.param(process(5000, 4250), False, id="what an earlier job's daemon started since"),
    ],
)
def test_p6_a_process_is_the_jobs_when_its_session_is(born: Process, is_the_jobs: bool) -> None:  # noqa: FBT001
    residents = frozenset((*RESIDENTS, DAEMON))
    found = of_the_job((*RESIDENTS, DAEMON, born), residents, first=FIRST)
    assert found == ((born,) if is_the_jobs else ())


def test_a_resident_stays_one_whatever_session_it_goes_to() -> None:
    moved = process(DAEMON.pid, 6000, started=DAEMON.started)
    assert of_the_job((*RESIDENTS, moved), frozenset((*RESIDENTS, DAEMON)), first=FIRST) == ()


def test_a_pid_that_was_given_away_again_is_another_process_and_another_session() -> None:
    born, child = process(DAEMON.pid, DAEMON.session, started=500), process(7000, DAEMON.session)
    living = (*RESIDENTS, born, child)
    assert of_the_job(living, frozenset((*RESIDENTS, DAEMON)), first=FIRST) == (born, child)


def test_where_nobody_saw_the_beginning_only_the_servers_own_session_is_spared() -> None:
    assert of_the_job((*RESIDENTS, DAEMON), None, first=FIRST) == (DAEMON,)


def test_few_are_named_and_the_others_counted() -> None:
    many = tuple(process(pid, pid) for pid in range(1, 6))
    assert in_words(many[:1]) == "demo (pid 1)"
    assert in_words(many) == "demo (pid 1), demo (pid 2), demo (pid 3) and 2 more"
