"""The model of an agent that keeps house for a person: it starts what it is asked to, answers what it can, and
says in a sentence what came of each job.

    CALL:opencode_start {"prompt": "…"};;     in a person's message: that call

A notice of a job comes as a message of OpenClaw's own, which begins with "OpenCode job ID (NAME)". Of what stands
behind `>` in it the butler repeats the first line.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, cast

from opencode_actors.testing.provider_script import CallTool, ChatRequest, Step, words

FAVOURITE = "Blue"

_CALL = re.compile(r"CALL:([a-z_]+)\s*(\{.*?\})\s*;;", re.DOTALL)
_NOTICE = re.compile(r"OpenCode job (job_\w+) \(([^)]*)\) in session \S+ (.+?)(?:[:.]?$|\. )", re.MULTILINE)
_REQUEST = re.compile(r"request_id ([^\s.]+)\.")
_QUOTED = re.compile(r"^> (.+)$", re.MULTILINE)


def butler(request: ChatRequest) -> Sequence[Step]:
    messages = [cast(dict[str, Any], message) for message in request.body["messages"]]
    last = max((at for at, message in enumerate(messages) if message["role"] == "assistant"), default=-1)
    results = [_text(message) for message in messages[last + 1 :] if message["role"] == "tool"]
    if results:
        return (words(_of_result(results[-1])),)
    told = "\n".join(_text(one) for one in messages[last + 1 :] if one["role"] == "user")
    lines = _unfolded(told)
    if notices := _NOTICE.findall(lines):
        asked = _REQUEST.search(lines)
        if asked is not None:
            job = notices[-1][0]
            answer = {"job_id": job, "request_id": asked[1], "answers": [FAVOURITE]}
            return (CallTool(name="opencode_answer", arguments=json.dumps(answer)),)
        said = _QUOTED.findall(lines)
        ends = [f"{name} {how}." for _, name, how in notices]
        return (words(" ".join(ends) + (f' It said: "{said[0]}"' if said else "")),)
    if calls := _CALL.findall(told):
        name, arguments = calls[-1]
        return (CallTool(name=name, arguments=arguments),)
    return (words("Very well."),)


def _unfolded(told: str) -> str:
    """OpenClaw puts `System:` before each line of an event, and quotes events that it gives to a model."""
    return re.sub(r"^System: (\[[^\]]*\] )?", "", told.replace("\\n", "\n"), flags=re.MULTILINE)


def _of_result(result: str) -> str:
    if "answered" in result:
        return f"It asked for a colour. I said {FAVOURITE.lower()}."
    started = re.search(r'"name": ?"([^"]+)"', result)
    return f"{started[1]} has begun; I shall tell you." if started else result[:200]


def _text(message: dict[str, Any]) -> str:
    content = message.get("content")
    if isinstance(content, list):
        parts = cast(list[dict[str, Any]], content)
        return "\n".join(str(part.get("text", "")) for part in parts)
    return str(content or "")
