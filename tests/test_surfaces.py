"""What can be asked for is the same wherever it is asked: as a tool of an agent, in a chat, as a method of OpenClaw's
gateway, over the websocket, on the command line, and by a program that embeds the system. Where one of them has less or
more, that stands here, with the reason.
"""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest
from attrs import fields

from opencode_actors.cli.main import build_parser
from opencode_actors.door.commands import METHODS, Wishes
from opencode_actors.kernel.system import System
from opencode_actors.kernel.wishes import Asked
from opencode_actors.machines import chat_words
from opencode_actors.machines.matters import Matter
from opencode_actors.openclaw_manifest import PLUGIN
from tests.openclaw.test_javascript import NODE

# Of a connection to the websocket itself: what follows on it, who attends on it, whether it lives.
OF_A_CONNECTION = {"ping", "unfollow", "present", "attend", "ack"}
VERBS = sorted(set(METHODS) - OF_A_CONNECTION)

# Said by the plugin of whoever calls, who could pass for somebody else otherwise.
SIGNED = {"key", "origin", "by"}
# A job is named by one word, also by its session's name: the second one is for programs that have both.
NAMED_BY_ONE_WORD = {verb: {"session_id"} for verb in ("status", "output", "cancel")}

LESS_AS_A_TOOL: dict[str, set[str]] = {
    # A session is named by a job of it as well.
    "resume": {"job_id"},
    "fork": {"job_id"},
}
MORE_AS_A_TOOL = {
    # An answer comes at once or after a while, for a tool cannot be told later.
    "follow": {"wait"},
    # A list of texts or of lists would be a union, which some model providers refuse in a schema.
    "answer": {"choices"},
}
LESS_IN_A_CHAT: dict[str, set[str]] = {
    **NAMED_BY_ONE_WORD,
    "respond": {"job_id"},
    "resume": {"job_id"},
    "fork": {"job_id"},
    # A page is as long as the channel's messages, and where a chat goes on is known.
    "output": {"session_id", "limit"},
    "follow": {"since"},
    # The job's name, or its session's.
    "notify": {"session_id"},
}
LESS_ON_THE_COMMAND_LINE: dict[str, set[str]] = NAMED_BY_ONE_WORD
# As the command line has them; a prompt is a `message` where it is not the first one.
ON_THE_COMMAND_LINE = {
    "session": "session_id",
    "place": "session_id",
    "job": "job_id",
    "request": "request_id",
    "mode": "permission_mode",
    "rule": "permission_rules",
    "choose": "answers",
}
# What is said to the command line itself: how it prints, where the service is, and whether to stay.
ITS_OWN = {"help", "json", "set", "follow"}

EMBEDDED = {
    "follow": "follow",
    "output": "output",
    "status": "status",
    "close": "close_session",
    "reset": "reset_session",
    "info": "statistics",
    "statistics": "totals",
    "agents": "offered",
    "models": "offered",
}

# One sentence for each option that a chat knows beside the flags, and the params that it becomes.
SENTENCES = {
    "start": ["start do it"],
    "respond": ["respond demo go on", "interrupt demo go on"],
    "resume": ["resume demo go on"],
    "fork": ["fork demo go on"],
    "status": ["status j"],
    "output": ["output j 7"],
    "cancel": ["cancel j"],
    "sessions": ["sessions"],
    "close": ["close demo"],
    "reset": ["reset demo"],
    "cleanup": ["cleanup"],
    "attach": ["attach far https://far"],
    "detach": ["detach far"],
    "conversations": ["conversations far"],
    "agents": ["agents far"],
    "models": ["models far"],
    "follow": ["follow j"],
    "requests": ["requests"],
    "statistics": ["statistics 3"],
    "notify": ["notify j +text -tool =report"],
    "info": ["info"],
}


def _fields(verb: str) -> set[str]:
    return {attribute.name for attribute in fields(METHODS[verb])} - SIGNED


@pytest.fixture(scope="module")
def plugin() -> Any:
    """The plugin's tables, and what its chat makes of these sentences."""
    sentences = [text for texts in SENTENCES.values() for text in texts]
    script = f"""
        const [tools, parse, operations, format, answers] = await Promise.all(
            ["tools", "parse", "operations", "format", "answers"].map((name) => import({json.dumps(str(PLUGIN))} + `/${{name}}.js`)),
        );
        const {{ answerTo, rejectionOf }} = answers;
        const asks = (kind) => ({{ jobId: "j", pending: [{{ requestId: "r", kind, text: "Which?" }}] }});
        console.log(JSON.stringify({{
            tools: tools.TOOLS,
            kinds: tools.KINDS,
            verbs: Object.keys(parse.VERBS),
            flags: parse.FLAGS,
            read: Object.fromEntries({json.dumps(sentences)}.map((text) => [text, parse.parse(text).params])),
            answers: [answerTo(asks("question"), "Red"), answerTo(asks("permission"), "once"), rejectionOf(asks("question"), "no")],
            operations: Object.keys(operations.OPERATIONS),
            help: parse.HELP,
            sizes: format.SIZES,
            size: format.SIZE,
            quoted: format.quoted({json.dumps(_LINES)}),
            line: format.oneLine({json.dumps(_LINES)}, 1000),
        }}));
    """
    printed = subprocess.run(
        [NODE, "--input-type=module", "--eval", script],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return json.loads(printed.stdout)


_LINES = "".join(f"a{end}b" for end in "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029") + "c\r\nd"


def _options(verb: str) -> set[str]:
    parsers: Any = next(
        action.choices
        for action in build_parser()._actions  # pyright: ignore[reportPrivateUsage]
        if action.choices
    )
    return {action.dest for action in parsers[verb]._actions}


@pytest.mark.parametrize("verb", VERBS)
def test_an_agent_has_a_tool_for_it_with_all_its_options(plugin: Any, verb: str) -> None:
    (tool,) = (tool for tool in plugin["tools"].values() if tool["operation"] == verb)
    offered = _fields(verb) - LESS_AS_A_TOOL.get(verb, set()) | MORE_AS_A_TOOL.get(verb, set())
    assert set(tool["properties"]) == offered
    assert set(tool.get("required", ())) <= offered


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb != "answer"])
def test_a_chat_has_a_word_for_it_with_all_its_options(plugin: Any, verb: str) -> None:
    read = [plugin["read"][text] for text in SENTENCES[verb]]
    said = {name for params in read for name in params} | set(plugin["flags"].get(verb, {}).values())
    if verb == "notify":
        said.add("channel")  # the word, which stands for this chat's own
    assert said == _fields(verb) - LESS_IN_A_CHAT.get(verb, set())
    assert verb in plugin["verbs"]


def test_a_chat_answers_and_rejects_with_all_that_an_answer_has(plugin: Any) -> None:
    said = {name for answer in plugin["answers"] for name in answer}
    assert said == _fields("answer") - {"reject"}  # which is what the reply of that word does
    assert {"answer", "reject"} <= set(plugin["verbs"])


def test_a_chats_help_names_all_that_it_knows(plugin: Any) -> None:
    for verb in plugin["verbs"]:
        assert f"/opencode {verb}" in plugin["help"]
    for flags in plugin["flags"].values():
        for flag in flags:
            assert f"--{flag}" in plugin["help"]


def test_the_gateway_has_a_method_for_each(plugin: Any) -> None:
    assert set(plugin["operations"]) == set(VERBS)  # and takes what the websocket takes


@pytest.mark.parametrize("verb", VERBS)
def test_the_command_line_has_a_verb_for_it_with_all_its_options(verb: str) -> None:
    message = "message" if "message" in _fields(verb) else "prompt"
    names = {**ON_THE_COMMAND_LINE, "prompt": message}
    taken = _options(verb) - ITS_OWN
    said = {names.get(name, name) for name in taken} - SIGNED
    assert said == _fields(verb) - LESS_ON_THE_COMMAND_LINE.get(verb, set())


@pytest.mark.parametrize("verb", VERBS)
def test_a_program_that_embeds_the_system_has_it(verb: str) -> None:
    assert callable(getattr(System, EMBEDDED.get(verb, verb)))


def test_what_a_program_may_ask_for_with_a_message_the_websocket_takes() -> None:
    embedded = {"timeout" if name == "job_timeout" else name for name in Asked.__annotations__}
    assert embedded | {"by"} == {attribute.name for attribute in fields(Wishes)}


def test_the_kinds_of_notices_are_those_of_the_service(plugin: Any) -> None:
    assert plugin["kinds"] == [*(matter.value for matter in Matter), "all"]


def test_what_a_job_wrote_is_marked_by_one_rule(plugin: Any) -> None:
    """For both write into the same chats."""
    assert plugin["quoted"].split("\n") == chat_words.quoted(_LINES)
    assert plugin["line"] == chat_words.shortened(_LINES)


def test_a_channel_takes_as_much_from_either(plugin: Any) -> None:
    assert plugin["sizes"] == chat_words.SIZES
    assert plugin["size"] == chat_words.SIZE
