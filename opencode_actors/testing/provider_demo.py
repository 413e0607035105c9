"""The embedded default model: what it says when nobody wrote a script.

A first run needs no credentials and no network, and still shows everything that is real: the container,
the server in it, a tool that runs, text that streams.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from opencode_actors.testing.provider_markers import steps_of, turn_of
from opencode_actors.testing.provider_script import CallTool, ChatRequest, Step, words

DEMO_FILE = "hello-from-opencode-actors.txt"
_RATE = 30.0  # words a second: fast enough for the impatient, slow enough to see that it streams
_PROMPT_SHOWN = 60
_RESULT_SHOWN = 400


def demo_script(request: ChatRequest) -> Sequence[Step]:
    """Follows the prompt's `::` lines where it has some, and introduces itself where it has none."""
    if request.wants_title:
        return (words("A conversation with the scripted model"),)
    if not request.tools:  # the server's own requests, such as the summary of a long conversation
        return (words("A conversation with the scripted model, which keeps no memory."),)
    steps = steps_of(request.prompt)
    if steps:
        return turn_of(steps, request)
    return _introduce(request) if request.turn == 0 else _conclude(request)


def _introduce(request: ChatRequest) -> Sequence[Step]:
    prompt = " ".join(request.prompt.split())
    if len(prompt) > _PROMPT_SHOWN:
        prompt = prompt[:_PROMPT_SHOWN] + "…"
    text = (
        "I am the scripted demo model of opencode-actors: no intelligence, no network, no cost. "
        f"You asked: “{prompt}”. I cannot do that, but I can show that everything around me is real. "
        "I ask OpenCode to run a command in your container.\n\n"
    )
    if "bash" not in request.tools:
        return (words(text, rate=_RATE),)
    command = (
        f"printf 'Written by a scripted model, in a real container, on %s.\\n' \"$(uname -s)\" > {DEMO_FILE}"
        f" && cat {DEMO_FILE}"
    )
    arguments = json.dumps({"command": command, "description": "Writes a small file and shows it"})
    return (words(text, rate=_RATE), CallTool(name="bash", arguments=arguments))


def _conclude(request: ChatRequest) -> Sequence[Step]:
    result = request.results[-1].strip()[:_RESULT_SHOWN] if request.results else ""
    text = (
        f"The command ran in the container and printed:\n\n    {result}\n\n"
        f"The file {DEMO_FILE} is in the workspace. "
        "For a real answer, log in with OpenCode or choose a model with --model provider/model.\n"
    )
    return (words(text, rate=_RATE),)
