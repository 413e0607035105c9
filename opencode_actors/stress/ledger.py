"""What the scripted model was asked, and what came of it: the world's own word, which no system has a say in."""

from __future__ import annotations

import re
from collections.abc import Iterator

import trio
from attrs import define, field, frozen

from opencode_actors.stress.scenario import FaultKind
from opencode_actors.testing.provider_script import ChatRequest

# All prompts of a plan, and those that their sub-agents are given, tell whose they are.
_WHOSE = re.compile(r"\b(?:job|the child of) (\d+)\b")


@frozen(kw_only=True)
class Asked:
    """One request for job `number`. `fate` is what the provider did to it, if anything; `results` is what the
    model was told by the tools that it used before."""

    at: float
    number: int
    fate: FaultKind | None
    results: tuple[str, ...] = field(repr=False)


@define(eq=False)
class Ledger:
    entries: dict[int, list[Asked]] = field(factory=dict[int, list[Asked]])

    def note(self, request: ChatRequest, fate: FaultKind | None) -> None:
        """For the world, now. Requests that no job made are not noted."""
        whose = _WHOSE.search(request.prompt)
        if whose is None or request.wants_title:
            return
        number = int(whose[1])
        asked = Asked(at=trio.current_time(), number=number, fate=fate, results=request.results)
        self.entries.setdefault(number, []).append(asked)

    def refused(
        self, number: int, kinds: frozenset[FaultKind], since: float, until: float
    ) -> Iterator[Asked]:
        """The requests of this job that one of these faults met."""
        for asked in self.entries.get(number, ()):
            if asked.fate in kinds and since <= asked.at <= until:
                yield asked
