"""Draws both machines as they are: every state that the samples lead to, and what leads from one to another.

    python -m opencode_actors.testing.diagrams docs/architecture.md

rewrites the diagrams in that file, each between its two markers.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

from opencode_actors.machines.job_messages import JobTimerFired
from opencode_actors.machines.job_state import JobState
from opencode_actors.machines.job_state import snapshot as job_snapshot
from opencode_actors.machines.session_messages import SessionTimerFired
from opencode_actors.machines.session_state import Closed, SessionState
from opencode_actors.machines.session_state import status as session_status
from opencode_actors.testing.samples import job_decisions, session_decisions

_OUTSIDE = "[*]"
_ENDS = ("completed", "failed", "cancelled")

# From one phase to another, by a message.
Edge = tuple[str, str, str]


@cache
def job_diagram() -> str:
    edges = (
        (_job_phase(decision.before), _job_phase(decision.step.state), _word(decision.message))
        for decision in job_decisions()
    )
    return _drawn("queued", edges, _ENDS)


@cache
def session_diagram() -> str:
    edges = (
        (_session_phase(decision.before), _session_phase(decision.step.state), _word(decision.message))
        for decision in session_decisions()
    )
    return _drawn("absent", edges, ())


def rewritten(document: str) -> str:
    """`document` with both diagrams as they are now. Raises `ValueError` when a marker is missing."""
    for name, diagram in (("job", job_diagram()), ("session", session_diagram())):
        start, end = f"<!-- the {name}'s diagram is drawn from the code -->\n", f"<!-- end of {name} -->"
        before, found, rest = document.partition(start)
        _, closed, after = rest.partition(end)
        if not (found and closed):
            raise ValueError(f"the document has no place for the {name}'s diagram: {start.strip()} … {end}")
        document = f"{before}{start}```mermaid\n{diagram}```\n{end}{after}"
    return document


def main(arguments: list[str]) -> int:
    for name in arguments:
        path = Path(name)
        path.write_text(rewritten(path.read_text()))
    return 0


def _drawn(first: str, edges: Iterable[Edge], ends: tuple[str, ...]) -> str:
    words: dict[tuple[str, str], list[str]] = {}
    for before, after, word in edges:
        known = words.setdefault((before, after), []) if before != after else []
        if word not in known:
            known.append(word)
    return "".join(f"{line}\n" for line in _lines(first, words, ends))


def _lines(first: str, words: dict[tuple[str, str], list[str]], ends: tuple[str, ...]) -> Iterator[str]:
    yield "stateDiagram-v2"
    yield f"    {_OUTSIDE} --> {first}"
    for (before, after), labels in sorted(words.items()):
        if before != _OUTSIDE:
            yield f"    {before} --> {after} : {', '.join(sorted(labels))}"
    for end in ends:
        yield f"    {end} --> {_OUTSIDE}"


def _job_phase(state: JobState) -> str:
    status = job_snapshot(state, state.created_at).status
    return "queued" if status.value == "pending" else status.value


def _session_phase(state: SessionState) -> str:
    return _OUTSIDE if isinstance(state.phase, Closed) else session_status(state.phase).value


def _word(message: object) -> str:
    if isinstance(message, JobTimerFired | SessionTimerFired):
        return f"{message.timer.value} timer"
    return type(message).__name__


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
