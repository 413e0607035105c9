"""A session and its jobs together, in a world that does its worst at any moment."""

from __future__ import annotations

import random

import pytest
from attrs import evolve
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from opencode_actors.machines import job_messages as j
from opencode_actors.machines import session_messages as s
from opencode_actors.machines.vocabulary import OnCrash, OnUnanswered
from opencode_actors.ports import PermissionReply
from opencode_actors.testing import samples
from tests.machines import quiet
from tests.machines.happenings import FAULTS, HONEST, possible
from tests.machines.world import SESSION, World

MANY = 6
BUDGETS = (0.0, 0.6)  # none, and one that is used up by the third message
ANSWERS: tuple[j.Answer, ...] = (
    j.QuestionAnswer(answers=(("Blue",),)),
    j.PermissionAnswer(reply=PermissionReply.ONCE),
    j.Rejection(),
    j.Rejection(message="decide yourself"),
)


def asking(world: World) -> list[tuple[str, str]]:
    """What each job has announced to wait for, also what is over by now."""
    return [(actor.name, request) for actor in world.job_actors() for request in actor.wanted]


class Together(RuleBasedStateMachine):
    world: World

    @initialize(
        output_limit=st.sampled_from([0, 24]),
        unanswered=st.sampled_from(OnUnanswered),
        budget=st.sampled_from(BUDGETS),
        on_crash=st.sampled_from(OnCrash),
        faults=st.frozensets(st.sampled_from(FAULTS), max_size=4),
    )
    def begin(
        self,
        output_limit: int,
        unanswered: OnUnanswered,
        budget: float,
        on_crash: OnCrash,
        faults: frozenset[str],
    ) -> None:
        self.faults = faults
        policy = evolve(
            samples.JOB_POLICY,
            max_output_size=output_limit,
            on_unanswered=unanswered,
            max_cost_usd=budget,
            on_crash=on_crash,
        )
        self.world = World(job_policy=policy)
        self.world.add_job()

    @rule(data=st.data(), times=st.integers(1, 8))
    def something_happens(self, data: st.DataObject, times: int) -> None:
        for _ in range(times):
            things = possible(self.world, faults=self.faults)
            if not things:
                return
            index = data.draw(st.integers(0, len(things) - 1))
            things[index][1]()
            self.world.tick()

    @rule()
    def all_letters_are_read(self) -> None:
        self.world.drain()

    @rule(seconds=st.sampled_from([0.3, 2.0, 11.0, 40.0, 130.0]))
    def time_passes(self, seconds: float) -> None:
        self.world.advance(seconds)

    @precondition(lambda self: self.world.jobs < MANY)
    @rule()
    def another_job_comes(self) -> None:
        self.world.add_job()

    @precondition(lambda self: self.world.jobs < MANY)
    @rule()
    def another_message_goes_first(self) -> None:
        self.world.add_job(first=True)

    @precondition(lambda self: self.world.unsettled())
    @rule(data=st.data())
    def somebody_cancels(self, data: st.DataObject) -> None:
        self.world.drain()
        waiting = [actor.name for actor in self.world.unsettled()]
        if waiting:
            self.world.cancel(data.draw(st.sampled_from(waiting)))

    @precondition(lambda self: bool(asking(self.world)))
    @rule(data=st.data(), answer=st.sampled_from(ANSWERS))
    def somebody_answers(self, data: st.DataObject, answer: j.Answer) -> None:
        name, request = data.draw(st.sampled_from(asking(self.world)))
        self.world.answer(name, request, answer)

    @precondition(lambda self: not self.world.session.owed)
    @rule(really=st.sampled_from([False, False, False, True]))
    def the_session_is_closed(self, really: bool) -> None:  # noqa: FBT001 - hypothesis draws it
        if really and self.world.closed is None:
            self.world.ask(SESSION, s.CloseSession)

    @rule(really=st.sampled_from([False, False, True]))
    def its_place_is_wanted(self, really: bool) -> None:  # noqa: FBT001 - hypothesis draws it
        if really:
            self.world.ask(SESSION, s.RetireSession, why="its place is needed")

    @rule(really=st.sampled_from([False, False, True]))
    def the_service_is_killed_and_comes_back(self, really: bool) -> None:  # noqa: FBT001 - hypothesis draws it
        if really and self.world.closed is None:
            self.world.restart()

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        quiet.come_to_rest(self.world)
        quiet.close(self.world)
        quiet.balance(self.world)


TestTogether = Together.TestCase
TestTogether.settings = settings(
    max_examples=200,
    stateful_step_count=50,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)


@pytest.mark.parametrize("hundred", range(20))
def test_a_hundred_lives(hundred: int) -> None:
    """Longer lives than hypothesis likes, each with faults of a few kinds. A failure names its seed."""
    for seed in range(hundred * 100, hundred * 100 + 100):
        try:
            _live(random.Random(seed))
        except AssertionError as wrong:
            raise AssertionError(f"the life of seed {seed}: {wrong}") from wrong


def _live(dice: random.Random) -> None:
    limit = dice.choice([0, 24])
    unanswered = dice.choice(list(OnUnanswered))
    budget = dice.choice(BUDGETS)
    faults = frozenset(dice.sample(FAULTS, dice.randint(0, 4)))
    often = dice.choice([0.02, 0.1, 1.0])
    cancels = dice.choice([0.0, 0.01, 0.03])
    interrupts = dice.choice([0.0, 0.01, 0.03])
    policy = evolve(
        samples.JOB_POLICY,
        max_output_size=limit,
        on_unanswered=unanswered,
        max_cost_usd=budget,
        on_crash=dice.choice(list(OnCrash)),
    )
    restarts = dice.choice([0.0, 0.0, 0.01, 0.03])
    world = World(job_policy=policy)
    world.add_job()
    for _ in range(dice.randint(10, 250)):
        roll = dice.random()
        if roll < 0.03 and world.jobs < MANY:
            world.add_job(first=roll < interrupts)
        elif roll < 0.03 + cancels:
            world.drain()
            if waiting := world.unsettled():
                world.cancel(dice.choice(waiting).name)
        elif roll < 0.065 and world.closed is None and not world.session.owed and dice.random() < 0.1:
            world.ask(SESSION, s.CloseSession)
        elif roll < 0.068:
            world.ask(SESSION, s.RetireSession, why="its place is needed")
        elif roll < 0.08 and (waiting_for := asking(world)):
            world.answer(*dice.choice(waiting_for), dice.choice(ANSWERS))
        elif dice.random() < restarts and world.closed is None:
            world.restart()
        elif roll < 0.1:
            world.advance(dice.choice([0.3, 2.0, 11.0, 40.0, 130.0]))
        elif roll < 0.3:
            world.drain()
        elif things := possible(world, faults=faults if dice.random() < often else HONEST):
            dice.choice(things)[1]()
            world.tick()
    quiet.come_to_rest(world)
    quiet.close(world)
    quiet.balance(world)
