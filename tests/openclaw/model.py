"""What the model behind OpenClaw's agents says: it calls the tools that it is told to, and repeats what it is told.

    CALL:opencode_start {"prompt": "…"};;       in a user's message: that call, and what it gave as the answer
    THEN:opencode_output {"job_id": "JOB"};;    in the same message: made when a notice wakes the agent, JOB filled in,
                                                and REQUEST, when the notice is of a question; else it is not made

OpenClaw puts a message of its own, with what it calls internal context, behind the user's and behind a tool's
result; so everything since the model's last word counts. A notice of a job comes as such a message.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, cast

from opencode_actors.testing.provider_script import CallTool, ChatRequest, Say, Step

_CALL = re.compile(r"CALL:([a-z_]+)\s*(\{.*?\})\s*;;", re.DOTALL)
_THEN = re.compile(r"THEN:([a-z_]+)\s*(\{.*?\})\s*;;", re.DOTALL)
_NOTICE = re.compile(r"OpenCode job (\S+)")
_REQUEST = re.compile(r"request_id ([^\s.]+)\.")


def obedient(request: ChatRequest) -> Sequence[Step]:
    messages = [cast(dict[str, Any], message) for message in request.body["messages"]]
    since = _since_the_last_answer(messages)
    results = [_text(message) for message in since if message["role"] == "tool"]
    if results:
        return (Say(pieces=("TOOL SAID: " + "\n".join(results),)),)
    told = "\n".join(_text(message) for message in since if message["role"] == "user")
    offered = request.tools
    calls = _CALL.findall(told)
    if calls:
        name, arguments = calls[-1]
        if name not in offered:
            return (Say(pieces=(f"NOT OFFERED: {name}; offered are {', '.join(sorted(offered))}",)),)
        return (CallTool(name=name, arguments=arguments),)
    if notice := _NOTICE.search(told):
        everything = "\n".join(_text(message) for message in messages if message["role"] == "user")
        request_id = _REQUEST.search(told)
        for name, arguments in reversed(_THEN.findall(everything)):
            if ("REQUEST" in arguments) == (request_id is not None):
                filled = arguments.replace("REQUEST", request_id[1] if request_id else "")
                return (CallTool(name=name, arguments=filled.replace("JOB", notice[1])),)
        return (Say(pieces=(f"NOTICED: {told}",)),)
    return (Say(pieces=(f"HEARD: {told[-400:]}",)),)


def _since_the_last_answer(messages: Sequence[dict[str, Any]]) -> Sequence[dict[str, Any]]:
    last = max((at for at, message in enumerate(messages) if message["role"] == "assistant"), default=-1)
    return messages[last + 1 :]


def _text(message: dict[str, Any]) -> str:
    content = message.get("content")
    if isinstance(content, list):
        parts = cast(list[dict[str, Any]], content)
        return "\n".join(str(part.get("text", "")) for part in parts)
    return str(content or "")
