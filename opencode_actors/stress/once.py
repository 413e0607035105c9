"""Whether each prompt came to the model once: the world's own count, which no system has a say in."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import pairwise

import trio
from attrs import define, field

from opencode_actors.machines.vocabulary import JobStatus
from opencode_actors.stress.files import JobFile
from opencode_actors.stress.scenario import Talk
from opencode_actors.testing.provider_script import ChatRequest


@define(eq=False)
class Reached:
    """What the model was asked to begin with. A request that the provider refused, or left without a word, is made
    again by OpenCode itself and does not count; neither do the model's further turns, nor what OpenCode says that it
    asks again."""

    begun: dict[str, list[float]] = field(factory=lambda: defaultdict[str, list[float]](list))

    def note(self, request: ChatRequest) -> None:
        """For the world, when the model begins to answer."""
        if request.turn == 0 and not request.wants_title:
            self.begun[_words_of(request.prompt)].append(trio.current_time())

    def wrong(self, files: Iterable[JobFile], patience: float) -> Iterator[tuple[JobFile, str]]:
        """Of jobs that have ended. One that was not completed may have ended before its prompt was there. Of a model
        that has said nothing for as long as OpenCode's `patience` is, OpenCode asks again."""
        for file in files:
            if file.planned is None or file.end is None:
                continue
            moments = self.begun[_words_of(file.planned.prompt)]
            waited = sum(after - before >= patience for before, after in pairwise(moments))
            times = len(moments) - (waited if file.planned.talk is Talk.HANG else 0)
            least = 1 if file.end.status is JobStatus.COMPLETED else 0
            if not least <= times <= 1 + file.retries:
                yield file, f"its prompt came to the model {times} times"


def _words_of(prompt: str) -> str:
    """Its first step, which tells whose it is; the real OpenCode may put words of its own around all of them."""
    return next((line for line in prompt.splitlines() if line.startswith("::")), "")
