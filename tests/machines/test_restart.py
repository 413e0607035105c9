"""How often, how soon, and when no more."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opencode_actors.machines.restart import (
    CrashHistory,
    GiveUp,
    RestartAfter,
    RestartPolicy,
    after_crash,
    after_health,
)
from opencode_actors.machines.vocabulary import Moment

POLICY = RestartPolicy(max_restarts=5, period=600.0, delay=0.5, factor=2.0, delay_cap=30.0, jitter=0.5)

policies = st.builds(
    RestartPolicy,
    max_restarts=st.integers(0, 12),
    period=st.floats(1.0, 5000.0),
    delay=st.floats(0.0, 20.0),
    factor=st.floats(1.0, 4.0),
    delay_cap=st.floats(20.0, 120.0),
    jitter=st.floats(0.0, 1.0),
)
rolls = st.floats(0.0, 1.0, exclude_max=True)


def at(now: float, roll: float = 0.0) -> Moment:
    return Moment(now=now, wall=now, roll=roll)


def crashes(policy: RestartPolicy, slow: float, roll: float, most: int, *, ready: bool = True) -> int | None:
    """A container that always takes `slow` seconds to crash: the crash at which it is given up.

    `ready` is whether it was, for a moment, each time.
    """
    now, history = 0.0, CrashHistory()
    for count in range(1, most + 1):
        now += slow
        decision = after_crash(policy, history, at(now, roll))
        if isinstance(decision, GiveUp):
            return count
        now += decision.seconds
        history = decision.history.ready() if ready else decision.history
    return None


def test_the_delays_grow_up_to_their_cap() -> None:
    history, delays = CrashHistory(), list[float]()
    policy = RestartPolicy(max_restarts=9, period=600.0, delay=0.5, factor=2.0, delay_cap=5.0, jitter=0.5)
    for crash in range(6):
        decision = after_crash(policy, history, at(float(crash)))
        assert isinstance(decision, RestartAfter)
        history = decision.history
        delays.append(decision.seconds)
    assert delays == [0.5, 1.0, 2.0, 4.0, 5.0, 5.0]


@given(policy=policies, roll=rolls, times=st.lists(st.floats(0.0, 100.0), max_size=15))
@settings(max_examples=200, deadline=None, derandomize=True)
def test_a_delay_lies_between_the_plain_one_and_its_jitter(
    policy: RestartPolicy, roll: float, times: list[float]
) -> None:
    now, history = 0.0, CrashHistory()
    for gap in times:
        now += gap
        decision = after_crash(policy, history, at(now, roll))
        history = decision.history
        if isinstance(decision, RestartAfter):
            assert 0.0 <= decision.seconds <= policy.delay_cap * (1 + policy.jitter)
            assert len(history.at) <= policy.max_restarts


@given(policy=policies, slow=st.floats(0.0, 200.0), roll=rolls)
@settings(max_examples=400, deadline=None, derandomize=True)
def test_settings_that_can_give_up_do_at_the_first_crash_too_many(
    policy: RestartPolicy, slow: float, roll: float
) -> None:
    if policy.can_give_up(slowest_crash=slow):
        assert crashes(policy, slow, roll, 50) == policy.max_restarts + 1


@given(policy=policies, slow=st.floats(0.0, 200.0))
@settings(max_examples=400, deadline=None, derandomize=True)
def test_settings_that_cannot_give_up_may_go_on_for_ever(policy: RestartPolicy, slow: float) -> None:
    """The check is not stricter than it must be: with the longest delays such a container is never given up."""
    longest = RestartPolicy(
        max_restarts=policy.max_restarts,
        period=policy.period,
        delay=policy.delay_cap,
        factor=1.0,
        delay_cap=policy.delay_cap,
        jitter=policy.jitter,
    )
    gap = longest.max_restarts * (slow + longest.delay_cap * (1 + longest.jitter))
    if longest.max_restarts and not longest.can_give_up(slowest_crash=slow) and gap > longest.period * 1.01:
        almost_one = 1.0 - 1e-9
        assert crashes(longest, slow, almost_one, 40) is None


@given(policy=policies, slow=st.floats(0.0, 10_000.0), roll=rolls)
@settings(max_examples=200, deadline=None, derandomize=True)
def test_one_that_is_never_ready_is_given_up_however_slowly_it_fails(
    policy: RestartPolicy, slow: float, roll: float
) -> None:
    assert crashes(policy, slow, roll, 50, ready=False) == policy.max_restarts + 1


def test_five_in_two_minutes_with_slow_starts_would_never_be_given_up() -> None:
    """Measured with a prototype: 96 starts in an hour."""
    policy = RestartPolicy(max_restarts=5, period=120.0, delay=0.5, factor=2.0, delay_cap=30.0, jitter=0.5)
    assert not policy.can_give_up(slowest_crash=30.0)
    assert crashes(policy, 30.0, 0.5, 96) is None


def test_the_defaults_give_up() -> None:
    assert POLICY.can_give_up(slowest_crash=90.0)
    assert crashes(POLICY, 90.0, 0.99, 50) == 6


@pytest.mark.parametrize("most", [0, 1])
def test_no_restarts_means_none(most: int) -> None:
    policy = RestartPolicy(max_restarts=most, period=60.0, delay=1.0, factor=1.0, delay_cap=1.0, jitter=0.0)
    assert crashes(policy, 1.0, 0.0, 9) == most + 1


def test_a_long_healthy_life_starts_afresh() -> None:
    history = CrashHistory(at=(0.0, 100.0))
    assert after_health(POLICY, history, at(599.0)) == history
    assert after_health(POLICY, history, at(650.0)) == CrashHistory(at=(100.0,))
    assert after_health(POLICY, history, at(701.0)) == CrashHistory()
