"""Scenarios as files: what they say, and what is said of those that cannot be."""

from __future__ import annotations

from pathlib import Path

import pytest

from opencode_actors import Settings, UsageError
from opencode_actors.stress.plan import make_plan
from opencode_actors.stress.scenario import Arrival, FaultKind, Scenario, Talk, load_scenario, read_scenario
from opencode_actors.stress.talk import ToolLine, Words, expected_of, repeats, write_prompt, wrong_output

WHOLE = """
name = "a busy hour"
sessions = 3
jobs = 20
duration = 3600
arrival = "bursts"
cancelled = 0.5

[prompts]
short = 4
hang = 1

[settings]
idleTimeout = 60
questions = "deny"

[[faults]]
kind = "container_crash"
times = 3

[[faults]]
kind = "engine_away"
at = [10, 20.5]
lasts = 5
"""


def test_a_file_says_all_that_there_is_to_say() -> None:
    scenario = read_scenario(WHOLE)
    assert scenario.arrival is Arrival.BURSTS
    assert scenario.prompts == {Talk.SHORT: 4, Talk.HANG: 1}
    assert [fault.kind for fault in scenario.faults] == [FaultKind.CONTAINER_CRASH, FaultKind.ENGINE_AWAY]
    assert scenario.settings_over(Settings()).idle_timeout == 60
    assert scenario.settings_over(Settings(stop_grace=3.0)).stop_grace == 3.0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("jobs = ", "it is not TOML"),
        ("jobs = 'many'", "must be a whole number, not 'many' @ $.jobs"),
        ("jobs = true", "must be a whole number, not True @ $.jobs"),
        ("jobs = 0", "jobs must be between 1 and 100000, and is 0"),
        ("jbos = 1", "there is no jbos"),
        ("arrival = 'never'", "must be one of steady, random, bursts, not 'never' @ $.arrival"),
        ("cancelled = 2", "cancelled must be between 0.0 and 1.0"),
        ("prompts = {}", "prompts"),
        ("prompts = { short = 0 }", "prompts must have weights from 0 to 1000000, and one above 0"),
        ("prompts = { poem = 1 }", "must be one of short"),
        (f"prompts = {{ short = {'9' * 400} }}", "prompts must have weights from 0 to 1000000"),
        (f"jobs = {'1' * 5_000}", "a number in it has too many digits"),
        (f"jobs = {'[' * 20_000}", "it is nested too deep"),
        ('name = "a\\u001b[31mb"', "name must be one line of 100 printable characters"),
        (f"name = '{'a' * 101}'", "name must be one line of 100 printable characters"),
        ("[settings]\nsessionsDir = '/elsewhere'", "settings cannot have sessionsDir"),
        ("duration = nan", "duration must be between"),
        ("[[faults]]\nkind = 'clock_step'\nat = [nan]", "at must be between 0 and 2.592e+06 seconds"),
        ("[[faults]]\nkind = 'clock_step'\nat = [1, inf]", "and has inf"),
        ("[[faults]]\nkind = 'clock_step'\nat = [-5]", "and has -5.0"),
        ("[[faults]]\nkind = 'clock_step'\nat = [1e300]", "and has 1e+300"),
        ("[[faults]]\nkind = 'clock_step'\nat = [5]\ntimes = 2", "times or at, and not both"),
        ("[[faults]]\ntimes = 1", "kind is missing"),
        ("[[faults]]\nkind = 'earthquake'", "not 'earthquake' @ $.faults[0].kind"),
        ("[faults]\nkind = 'clock_step'", "each is a table of its own, under [[faults]] @ $.faults"),
        ("[[faults]]\nkind = 'clock_step'\nat = 5", "must be a list of numbers"),
        ("[settings]\nidleTimeout = []", "must be a text, a number, true or false"),
    ],
)
def test_what_cannot_be_is_refused_with_its_place(text: str, said: str) -> None:
    with pytest.raises(UsageError) as refused:
        read_scenario(text)
    assert said in refused.value.message


def test_settings_of_a_scenario_are_checked_like_all_others() -> None:
    with pytest.raises(UsageError) as refused:
        read_scenario("[settings]\nidleTimeuot = 60")
    assert refused.value.message == "in [settings]: idleTimeuot is not a setting"


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        load_scenario(tmp_path / "none.toml")
    bad = tmp_path / "bad.toml"
    bad.write_text("jobs = -1")
    with pytest.raises(UsageError, match=r"bad\.toml: jobs must be"):
        load_scenario(bad)


def test_a_seed_is_one_plan_and_another_one_is_another() -> None:
    scenario = read_scenario(WHOLE)
    assert make_plan(scenario, 1) == make_plan(scenario, 1)
    assert make_plan(scenario, 1) != make_plan(scenario, 2)
    plan = make_plan(scenario, 1)
    assert [fault.at for fault in plan.faults if fault.kind is FaultKind.ENGINE_AWAY] == [10, 20.5]
    assert len(plan.only(frozenset({0, 3}), frozenset()).jobs) == 2


def test_what_a_prompt_leads_to_is_known_without_any_system() -> None:
    prompt = '::echo "a"\n::echo "b\\n"\n::bash echo x\n::say bye'
    expected = expected_of(prompt)
    assert expected == (Words("ab\n"), ToolLine("bash"), Words("bye"))
    good = "ab\n[bash] echo x (exit 0, 0.1 s)\nbye"
    assert wrong_output(expected, good, whole=True) is None
    line = range(good.index("[") + 1, good.index("bye"))  # which is written whole or not at all
    for end in range(len(good) + 1):
        assert (wrong_output(expected, good[:end], whole=False) is None) is (end not in line)
    assert wrong_output(expected, good + "bye", whole=True) is not None
    assert wrong_output(expected, good[:-1], whole=True) is not None
    assert wrong_output(expected, good.replace("ab", "aab"), whole=False) is not None
    assert wrong_output(expected, good.replace("exit 0", "exit 1"), whole=True) is not None
    assert wrong_output(expected, "ab\n[bash] echo x (0.1 s)\n", whole=False) is None


def test_what_a_model_says_again_is_its_own_words_and_no_others() -> None:
    expected = expected_of('::echo "a\\n"\n::bash echo x\n::say bye')
    again = "a\n[bash] echo x (exit 0, 0.1 s)\nbye\na\n[bash] echo x (exit 0)\nby"
    assert wrong_output(expected, again, whole=False) is not None
    assert repeats(expected, again)
    assert not repeats(expected, again + "t")
    assert not repeats(expected, again.replace("[bash]", "[read]"))


def test_every_talk_has_words_of_its_own() -> None:
    import random

    for talk in Talk:
        mine = expected_of(write_prompt(talk, 1, random.Random(1)))
        other = expected_of(write_prompt(talk, 2, random.Random(1)))
        assert mine != other


def test_the_usual_scenario_is_one() -> None:
    assert read_scenario("") == Scenario()
