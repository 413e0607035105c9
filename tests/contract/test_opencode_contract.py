"""What every `OpenCodeServer` keeps to: prompts, what is told of them, and what can be read again."""

from __future__ import annotations

import json

import pytest
from attrs import evolve

from opencode_actors.errors import ServerRefused
from opencode_actors.machines.server_events import (
    ConversationBusy,
    ConversationCreated,
    ConversationFailed,
    ConversationId,
    ConversationIdle,
    Message,
    MessageUpdated,
    PartDelta,
    PartUpdated,
    ReasoningPart,
    StepPart,
    TextPart,
    TodosUpdated,
    ToolPart,
    ToolState,
)
from opencode_actors.ports import Conversation, ConversationState

from .engines import within
from .servers import ServerBench

NOBODY = ConversationId("ses_e02ffffffffffh4PnDCJyaIUFl")


@within()
async def test_a_healthy_server_tells_its_version(server_bench: ServerBench) -> None:
    assert (await server_bench.opencode.health(within=10)).version
    offered = await server_bench.opencode.warm_up()
    assert "scripted/demo" in {model.name for model in offered.models if model.priced}
    assert {"build", "plan"} <= {agent.name for agent in offered.agents}
    assert "build" in {agent.name for agent in await server_bench.opencode.agents()}


@within()
async def test_a_wrong_password_opens_nothing_P14(server_bench: ServerBench) -> None:
    stranger = server_bench.process.connect("not the password")
    for attempt in (stranger.agents, stranger.questions, lambda: stranger.health(within=10)):
        with pytest.raises(ServerRefused) as refusal:
            await attempt()
        assert refusal.value.status == 401
    with pytest.raises(ServerRefused, match="password"):
        async with stranger.events():
            raise AssertionError("the stream must not stand")
    await stranger.aclose()


@within()
async def test_a_directory_is_there_or_not(server_bench: ServerBench) -> None:
    assert await server_bench.opencode.has_directory()
    nowhere = server_bench.process.connect(directory="/nowhere")
    assert not await nowhere.has_directory()
    await nowhere.aclose()


@within()
async def test_a_conversation_is_found_again(server_bench: ServerBench) -> None:
    made = await server_bench.converse("a title of its own")
    assert made.title == "a title of its own"
    assert made.parent is None
    assert await server_bench.opencode.conversation(made.id) == made
    assert await server_bench.opencode.messages(made.id) == ()
    assert await server_bench.opencode.children(made.id) == ()
    assert await server_bench.opencode.todos(made.id) == ()


@within()
async def test_conversations_are_listed_the_newest_first(server_bench: ServerBench) -> None:
    older, newer = await server_bench.converse("older"), await server_bench.converse("newer")
    listed = [one.id for one in await server_bench.opencode.conversations()]
    assert listed.index(newer.id) < listed.index(older.id)


@within()
async def test_rules_of_a_conversation_hold_from_its_next_prompt_on(server_bench: ServerBench) -> None:
    made, other = await server_bench.converse(), await server_bench.converse()

    async def ends(conversation: ConversationId, command: str) -> ToolState:
        server_bench.forget()
        await server_bench.say(f"::bash {command}", conversation)
        await server_bench.wait_idle(conversation)
        parts = [event.part for event in server_bench.of(PartUpdated) if isinstance(event.part, ToolPart)]
        return parts[-1].state

    async with server_bench.listening():
        assert await ends(made.id, "echo one") is ToolState.COMPLETED
        rules = [
            {"permission": "bash", "pattern": "*", "action": "deny"},
            {"permission": "bash", "pattern": "echo fine*", "action": "allow"},
        ]
        await server_bench.opencode.restrict(made.id, rules)
        assert await ends(made.id, "echo two") is ToolState.ERROR
        assert await ends(made.id, "echo fine") is ToolState.COMPLETED
        assert await ends(other.id, "echo two") is ToolState.COMPLETED
        # What comes later is put behind what is there.
        later = {"permission": "bash", "pattern": "echo two", "action": "allow"}
        await server_bench.opencode.restrict(made.id, [later])
        assert await ends(made.id, "echo two") is ToolState.COMPLETED
        assert await ends(made.id, "echo three") is ToolState.ERROR


@within()
async def test_an_unknown_conversation_is_nothing_or_refused(server_bench: ServerBench) -> None:
    opencode = server_bench.opencode
    assert await opencode.conversation(NOBODY) is None
    await opencode.abort(NOBODY)
    prompt = server_bench.prompt("::say hello")
    for attempt in (
        lambda: opencode.messages(NOBODY),
        lambda: opencode.messages(NOBODY, since=prompt.message_id),
        lambda: opencode.children(NOBODY),
        lambda: opencode.todos(NOBODY),
        lambda: opencode.fork(NOBODY),
        lambda: opencode.submit(NOBODY, prompt),
    ):
        with pytest.raises(ServerRefused) as refusal:
            await attempt()
        assert refusal.value.status == 404


@within()
async def test_a_prompt_is_told_in_order_and_once(server_bench: ServerBench) -> None:
    async with server_bench.listening():
        conversation, prompt = await server_bench.answered("::words 5 rate=20")
    events = server_bench.events

    def place(kind: type[object], index: int = 0) -> int:
        return [at for at, event in enumerate(events) if isinstance(event, kind)][index]

    assert events[place(ConversationCreated)] == ConversationCreated(conversation=conversation, parent=None)
    text = "word0 word1 word2 word3 word4 "
    texts = [event.part for event in server_bench.of(PartUpdated) if isinstance(event.part, TextPart)]
    asked, opened, finished = texts
    assert (asked.id, asked.message, asked.text) == (prompt.part_id, prompt.message_id, prompt.text)
    assert (opened.text, opened.finished) == ("", False)
    assert (finished.text, finished.finished) == (text, True)
    assert opened.id == finished.id
    assert server_bench.told(conversation) == text
    deltas = server_bench.of(PartDelta)
    assert {(delta.part, delta.message) for delta in deltas} == {(finished.id, finished.message)}
    order = [
        place(ConversationCreated),
        place(MessageUpdated),
        place(PartUpdated),
        place(ConversationBusy),
        place(PartUpdated, 1),
        place(PartDelta),
        place(PartUpdated, 2),
        place(ConversationIdle),
    ]
    assert order == sorted(order)
    answer = server_bench.answer_infos(prompt)[-1]
    assert (answer.finish, answer.error, answer.summary) == ("stop", None, False)
    assert answer.completed_at is not None
    assert answer.cost > 0
    assert answer.tokens.output > 0
    assert (answer.model, answer.agent) == ("scripted/demo", "build")
    assert server_bench.idles(conversation) == 1


@within()
async def test_what_was_told_can_be_read_again(server_bench: ServerBench) -> None:
    async with server_bench.listening():
        conversation, first = await server_bench.answered(
            "::think hmm\n::bash echo hi; exit 3\n::say the end"
        )
        _, second = await server_bench.say("::say again", conversation)
        await server_bench.wait_idle(conversation, times=2)
    messages = await server_bench.opencode.messages(conversation)
    assert [message.info.role for message in messages] == [
        "user",
        "assistant",
        "assistant",
        "user",
        "assistant",
    ]
    assert messages[0].info.id == first.message_id
    assert {message.info.parent for message in messages[1:3]} == {first.message_id}
    reasoning, tool, step = messages[1].parts
    assert isinstance(reasoning, ReasoningPart)
    assert (reasoning.text, reasoning.finished) == ("hmm", True)
    assert isinstance(tool, ToolPart)
    assert (tool.tool, tool.state, tool.exit_code) == ("bash", ToolState.COMPLETED, 3)
    assert tool.title == "echo hi; exit 3"
    assert tool.ended_at is not None
    assert tool.started_at is not None
    assert tool.ended_at >= tool.started_at
    assert isinstance(step, StepPart)
    assert messages[1].info.finish == "tool-calls"
    text = messages[2].parts[0]
    assert isinstance(text, TextPart)
    assert (text.text, text.finished) == ("the end", True)
    since = await server_bench.opencode.messages(conversation, since=second.message_id)
    assert since == messages[3:]
    assert await server_bench.opencode.messages(conversation, since=first.message_id) == messages


@within()
async def test_a_tool_is_seen_from_pending_to_its_end(server_bench: ServerBench) -> None:
    async with server_bench.listening():
        await server_bench.answered("::bash echo one; sleep 0.2; echo two\n::say done")
    states = [event.part.state for event in server_bench.of(PartUpdated) if isinstance(event.part, ToolPart)]
    assert states[0] is ToolState.PENDING
    assert states[-1] is ToolState.COMPLETED
    assert set(states[1:-1]) == {ToolState.RUNNING}
    assert len(states) > 3


@within()
async def test_text_that_still_streams_cannot_be_read(server_bench: ServerBench) -> None:
    async with server_bench.listening():
        conversation, _ = await server_bench.say("::words 3\n::hang")
        await server_bench.wait_until(lambda: "word2" in server_bench.told(conversation))
        part = (await server_bench.opencode.messages(conversation))[-1].parts[-1]
        assert isinstance(part, TextPart)
        assert (part.text, part.finished) == ("", False)
        await server_bench.opencode.abort(conversation)
        await server_bench.wait_idle(conversation, times=2)


@within()
async def test_any_character_arrives_as_it_was_said(server_bench: ServerBench) -> None:
    """U+2028, U+0085 and their like end a line for many a reader, and JSON leaves them bare."""
    odd = "a\u2028b\u2029c\x1dd\x7fe — ä 漢 🎉 \ufeff\u200d \\ud83d \"'"
    async with server_bench.listening():
        conversation, prompt = await server_bench.answered(f"::bash echo hi\n::echo {json.dumps(odd)}")
    finished = [
        event.part.text
        for event in server_bench.of(PartUpdated)
        if isinstance(event.part, TextPart) and event.part.finished and event.part.id != prompt.part_id
    ]
    assert finished == [odd]
    assert server_bench.told(conversation) == odd


@within()
async def test_a_prompt_sent_again_is_the_same_prompt(server_bench: ServerBench) -> None:
    async with server_bench.listening():
        conversation, prompt = await server_bench.say("::words 10 rate=20")
        await server_bench.wait_until(lambda: "word1" in server_bench.told(conversation))
        await server_bench.opencode.submit(conversation, prompt)
        await server_bench.wait_idle(conversation)
        await server_bench.opencode.submit(conversation, prompt)
        await server_bench.wait_idle(conversation, times=2)
    messages = await server_bench.opencode.messages(conversation)
    assert [len(message.parts) for message in messages] == [1, 2]
    assert server_bench.process.model_requests(conversation) == 1


@within()
async def test_two_prompts_at_once_are_answered_together(server_bench: ServerBench) -> None:
    """Which is why one prompt at a time is sent to a conversation."""
    async with server_bench.listening():
        conversation, first = await server_bench.say("::words 6 rate=20")
        await server_bench.wait_until(lambda: "word1" in server_bench.told(conversation))
        _, second = await server_bench.say("::say second", conversation)
        await server_bench.wait_idle(conversation)
    assert server_bench.idles(conversation) == 1
    infos = [message.info for message in await server_bench.opencode.messages(conversation)]
    assert [info.parent for info in infos if info.role == "assistant"] == [
        first.message_id,
        second.message_id,
    ]


@within()
async def test_an_unknown_agent_is_neither_busy_nor_idle(server_bench: ServerBench) -> None:
    async with server_bench.listening():
        conversation = (await server_bench.converse()).id
        await server_bench.opencode.submit(conversation, server_bench.prompt("::say x", agent="nobody"))
        failed = await server_bench.wait_for(ConversationFailed)
        await server_bench.answered("::say a whole prompt of another conversation")
    assert failed.conversation == conversation
    assert "nobody" in failed.error.message
    assert ConversationBusy(conversation=conversation) not in server_bench.events
    assert server_bench.idles(conversation) == 0
    assert await server_bench.opencode.messages(conversation) == ()


@within()
async def test_a_list_of_tasks_is_told_and_kept(server_bench: ServerBench) -> None:
    async with server_bench.listening():
        conversation, _ = await server_bench.answered("::todo first; second\n::say done")
    todos = await server_bench.opencode.todos(conversation)
    assert [(todo.content, todo.status) for todo in todos] == [("first", "pending"), ("second", "pending")]
    assert server_bench.of(TodosUpdated)[-1] == TodosUpdated(conversation=conversation, todos=todos)


@within()
async def test_while_a_sub_agent_works_both_are_busy_P9(server_bench: ServerBench) -> None:
    async with server_bench.listening():
        conversation, _ = await server_bench.say("::task ::words 8 rate=10\n::say done")
        child = await server_bench.wait_for(ConversationCreated, lambda event: event.parent is not None)
        await server_bench.wait_until(lambda: "word1" in server_bench.told(child.conversation))
        assert child.parent == conversation
        assert dict(await server_bench.opencode.status()) == {
            conversation: ConversationState.BUSY,
            child.conversation: ConversationState.BUSY,
        }
        await server_bench.wait_idle(conversation)
        assert dict(await server_bench.opencode.status()) == {}
    (kept,) = await server_bench.opencode.children(conversation)
    assert (kept.id, kept.parent) == (child.conversation, conversation)
    order = [event.conversation for event in server_bench.of(ConversationIdle)]
    assert order == [child.conversation, conversation]


@within()
async def test_a_fork_has_what_came_before(server_bench: ServerBench) -> None:
    async with server_bench.listening():
        conversation, _ = await server_bench.answered("::say one")
        _, second = await server_bench.say("::say two", conversation)
        await server_bench.wait_idle(conversation, times=2)
        whole = await server_bench.opencode.fork(conversation)
        half = await server_bench.opencode.fork(conversation, before=second.message_id)
        assert len(await server_bench.opencode.messages(whole.id)) == 4
        assert len(await server_bench.opencode.messages(half.id)) == 2
        assert whole.parent is None
        assert (await server_bench.opencode.messages(half.id))[0].info.id != second.message_id


@pytest.mark.parametrize(
    ("script", "finish"), [("::say a b\n::finish length", "length"), ("::empty", "stop")]
)
@within()
async def test_an_answer_cut_short_or_empty_is_an_answer(
    server_bench: ServerBench, script: str, finish: str
) -> None:
    async with server_bench.listening():
        _, prompt = await server_bench.answered(script)
    answer = server_bench.answer_infos(prompt)[-1]
    assert (answer.finish, answer.error) == (finish, None)


@within()
async def test_a_call_of_a_tool_that_is_none_is_told_to_the_model(server_bench: ServerBench) -> None:
    async with server_bench.listening():
        conversation, _ = await server_bench.answered('::tool bash {"command": ')
    message = (await server_bench.opencode.messages(conversation))[1]
    (tool,) = [part for part in message.parts if isinstance(part, ToolPart)]
    assert (tool.tool, tool.state) == ("invalid", ToolState.COMPLETED)
    assert server_bench.process.model_requests(conversation) == 2


@within()
async def test_a_prompt_before_the_last_answer_is_never_answered(server_bench: ServerBench) -> None:
    """Nor is it in a fork: the server goes by the times at which messages were made, and a fork keeps them."""
    opencode = server_bench.opencode
    async with server_bench.listening():
        conversation, _ = await server_bench.answered("::say first")
        server_bench.process.set_clock_back(conversation)
        fork = server_bench.converse_in(await opencode.fork(conversation))
        for place in (conversation, fork):
            asked = server_bench.process.model_requests(place)
            idles = server_bench.idles(place)
            _, prompt = await server_bench.say("::say second", place)
            await server_bench.wait_idle(place, times=idles + 1)
            assert server_bench.answer_infos(prompt) == []
            assert server_bench.process.model_requests(place) == asked
            assert (await opencode.messages(place))[0].info.id == prompt.message_id


@within()
async def test_a_conversation_that_is_retold_as_earlier_goes_on(server_bench: ServerBench) -> None:
    opencode = server_bench.opencode
    async with server_bench.listening():
        conversation, _ = await server_bench.answered("::bash echo hi\n::say first")
        before = await opencode.newest(conversation)
        server_bench.process.set_clock_back(conversation)
        newest = await opencode.newest(conversation)
        assert before is not None
        assert newest == before + 3600
        copy = server_bench.converse_in(await opencode.retell(conversation, earlier=3600))
        assert await opencode.newest(copy) == before
        assert await opencode.conversation(copy) == evolve(await _known(server_bench, conversation), id=copy)
        told, original = await opencode.messages(copy), await opencode.messages(conversation)
        assert [_said(message) for message in told] == [_said(message) for message in original]
        ids = [message.info.id for message in told]
        assert ids == sorted(set(ids))
        assert [ids.index(m.info.parent) for m in told if m.info.parent is not None] == [0, 0]
        _, prompt = await server_bench.say("::say second", copy)
        await server_bench.wait_idle(copy)
        (*_, last) = await opencode.messages(copy)
        assert (last.info.parent, last.info.finish) == (prompt.message_id, "stop")
        assert len(await opencode.messages(copy)) == len(told) + 2
        assert await opencode.messages(conversation) == original


async def _known(bench: ServerBench, conversation: ConversationId) -> Conversation:
    known = await bench.opencode.conversation(conversation)
    assert known is not None
    return known


def _said(message: Message) -> tuple[str, str | None, list[str]]:
    texts = [part.text for part in message.parts if isinstance(part, TextPart)]
    return message.info.role, message.info.finish, texts
