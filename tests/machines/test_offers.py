"""A wrong name is refused with those that may have been meant."""

from __future__ import annotations

import pytest

from opencode_actors.machines.offers import objection
from opencode_actors.ports import Agent, Catalog, Model

CATALOG = Catalog(
    agents=(
        Agent(name="build", mode="primary"),
        Agent(name="plan", mode="primary"),
        Agent(name="title", mode="primary", hidden=True),
    ),
    models=tuple(
        Model(name=name)
        for name in ("anthropic/claude-opus-4", "anthropic/claude-sonnet-4", "openai/gpt-5", "router/x/y-1")
    ),
)


@pytest.mark.parametrize(
    ("model", "agent"), [(None, None), ("openai/gpt-5", "build"), ("router/x/y-1", None), (None, "title")]
)
def test_what_is_there_is_not_objected_to(model: str | None, agent: str | None) -> None:
    assert objection(CATALOG, model=model, agent=agent) == ""


@pytest.mark.parametrize(
    ("model", "nearest"),
    [
        ("anthropic/claude-sonet-4", "anthropic/claude-sonnet-4"),
        ("opnai/gpt-5", "openai/gpt-5"),
        ("anthropic/GPT-5", "openai/gpt-5"),  # the right name at the wrong provider
        ("router/y-1", "router/x/y-1"),
    ],
)
def test_the_nearest_model_is_named_first(model: str, nearest: str) -> None:
    said = objection(CATALOG, model=model, agent=None)
    assert said.startswith(f"there is no model {model!r}; nearest: {nearest}")


def test_the_nearest_agent_is_named_and_no_hidden_one() -> None:
    assert objection(CATALOG, model=None, agent="biuld") == "there is no agent 'biuld'; nearest: build"
    said = objection(CATALOG, model=None, agent="zzz")
    assert said == "there is no agent 'zzz'; there are build, plan"


def test_nothing_near_lists_some_and_counts_the_rest() -> None:
    said = objection(CATALOG, model="q/q", agent=None)
    assert said.endswith("openai/gpt-5 and 1 more")
    empty = Catalog(agents=(), models=())
    assert objection(empty, model="q/q", agent=None) == "there is no model 'q/q'; OpenCode has none at all"
