"""What every `OpenCodeServer` keeps to when something goes wrong, is taken back, or has to be asked."""

from __future__ import annotations

import pytest
import trio

from opencode_actors.errors import ServerRefused, ServerSilent, ServerUnreachable
from opencode_actors.machines.server_events import (
    ConversationCreated,
    ConversationFailed,
    ConversationId,
    ConversationRetrying,
    PartDelta,
    PartUpdated,
    PermissionAsked,
    QuestionAsked,
    RequestAnswered,
    TextPart,
    ToolPart,
    ToolState,
)
from opencode_actors.ports import ConversationState, PermissionReply

from .engines import within
from .servers import ASKED_FOR, IMPATIENT, ServerBench


async def last_text(bench: ServerBench, conversation: ConversationId) -> str:
    parts = (await bench.opencode.messages(conversation))[-1].parts
    return "".join(part.text for part in parts if isinstance(part, TextPart))


# ---- aborts


@within()
async def test_an_abort_keeps_what_was_said(server_bench: ServerBench) -> None:
    async with server_bench.listening():
        conversation, prompt = await server_bench.say("::words 100 rate=20")
        await server_bench.wait_until(lambda: "word2" in server_bench.told(conversation))
        await server_bench.opencode.abort(conversation)
        assert conversation not in await server_bench.opencode.status()
        await server_bench.wait_idle(conversation, times=2)
        info = server_bench.answer_infos(prompt)[-1]
        assert info.error is not None
        assert (info.error.name, info.finish) == ("MessageAbortedError", None)
        assert info.completed_at is not None
        assert await last_text(server_bench, conversation) == server_bench.told(conversation)
        await server_bench.say("::say another", conversation)
        await server_bench.wait_idle(conversation, times=3)
        assert await last_text(server_bench, conversation) == "another"


@within()
async def test_an_abort_ends_a_running_tool_P6(server_bench: ServerBench) -> None:
    async with server_bench.listening():
        conversation, _ = await server_bench.say("::bash sleep 1000\n::say never")
        await server_bench.wait_for(
            PartUpdated,
            lambda event: isinstance(event.part, ToolPart) and event.part.state is ToolState.RUNNING,
        )
        await server_bench.opencode.abort(conversation)
        await server_bench.wait_idle(conversation, times=2)
    (tool,) = [
        part
        for part in (await server_bench.opencode.messages(conversation))[-1].parts
        if isinstance(part, ToolPart)
    ]
    assert (tool.state, tool.exit_code) == (ToolState.COMPLETED, None)
    assert server_bench.process.model_requests(conversation) == 1


@within()
async def test_an_abort_reaches_a_sub_agent_P6(server_bench: ServerBench) -> None:
    async with server_bench.listening():
        conversation, _ = await server_bench.say("::task ::words 200 rate=20\n::say never")
        child = await server_bench.wait_for(ConversationCreated, lambda event: event.parent is not None)
        await server_bench.wait_until(lambda: "word1" in server_bench.told(child.conversation))
        await server_bench.opencode.abort(conversation)
        await server_bench.wait_idle(conversation, times=2)
        await server_bench.wait_idle(child.conversation, times=2)
        assert dict(await server_bench.opencode.status()) == {}
        info = (await server_bench.opencode.messages(child.conversation))[-1].info
        assert info.error is not None
        assert info.error.name == "MessageAbortedError"


@within()
async def test_an_abort_between_two_tries_leaves_neither_error_nor_finish(server_bench: ServerBench) -> None:
    async with server_bench.listening():
        conversation, prompt = await server_bench.say("::status 500")
        retry = await server_bench.wait_for(ConversationRetrying)
        assert (retry.conversation, retry.attempt) == (conversation, 1)
        assert (await server_bench.opencode.status())[conversation] is ConversationState.RETRY
        await server_bench.opencode.abort(conversation)
        await server_bench.wait_idle(conversation)
    info = server_bench.answer_infos(prompt)[-1]
    assert info.completed_at is not None
    assert (info.error, info.finish) == (None, None)
    assert server_bench.of(ConversationFailed) == []


@within()
async def test_an_abort_of_nothing_says_idle(server_bench: ServerBench) -> None:
    async with server_bench.listening():
        conversation, _ = await server_bench.answered("::say hello")
        await server_bench.opencode.abort(conversation)
        await server_bench.wait_idle(conversation, times=2)


@within()
async def test_a_prompt_that_was_aborted_runs_again_under_its_ids(server_bench: ServerBench) -> None:
    async with server_bench.listening():
        conversation, prompt = await server_bench.say("::hang")
        await server_bench.wait_until(lambda: server_bench.process.model_requests(conversation) == 1)
        await server_bench.opencode.abort(conversation)
        await server_bench.wait_idle(conversation, times=2)
        await server_bench.opencode.submit(conversation, prompt)
        # An abort before the model is asked is told once, and not twice.
        await server_bench.wait_until(lambda: server_bench.process.model_requests(conversation) == 2)
        await server_bench.opencode.abort(conversation)
        await server_bench.wait_idle(conversation, times=4)
    roles = [message.info.role for message in await server_bench.opencode.messages(conversation)]
    assert roles == ["user", "assistant", "assistant"]


# ---- the model's provider


@within()
async def test_a_refusal_for_good_is_told_at_once(server_bench: ServerBench) -> None:
    async with server_bench.listening():
        conversation, prompt = await server_bench.say("::status 401")
        await server_bench.wait_idle(conversation, times=2)
    (failed,) = server_bench.of(ConversationFailed)
    assert failed.conversation == conversation
    assert (failed.error.name, failed.error.status_code, failed.error.retryable) == ("APIError", 401, False)
    assert server_bench.answer_infos(prompt)[-1].error == failed.error


@within()
async def test_a_refusal_for_now_is_tried_again_when_asked_P3(server_bench: ServerBench) -> None:
    async with server_bench.listening():
        conversation, prompt = await server_bench.answered(
            "::status 429 times=1 retry-after=1\n::say at last"
        )
    (retry,) = server_bench.of(ConversationRetrying)
    assert (retry.conversation, retry.attempt) == (conversation, 1)
    assert retry.next_at > 0
    assert server_bench.process.model_requests(conversation) == 2
    assert server_bench.answer_infos(prompt)[-1].finish == "stop"
    assert server_bench.of(ConversationFailed) == []


@within()
@pytest.mark.parametrize("begins", ["", "::say so far\n"], ids=["no header", "no chunk"])
async def test_a_provider_that_falls_silent_is_asked_again_P3(server_bench: ServerBench, begins: str) -> None:
    async with server_bench.listening():
        conversation, _ = await server_bench.say(f"{begins}::hang", model=IMPATIENT)
        retry = await server_bench.wait_for(ConversationRetrying)
        assert (retry.conversation, retry.attempt) == (conversation, 1)
        assert "timed out" in retry.message
        assert server_bench.told(conversation) == ("so far" if begins else "")
        await server_bench.wait_until(lambda: server_bench.process.model_requests(conversation) == 2)
        assert server_bench.of(ConversationFailed) == []
        await server_bench.opencode.abort(conversation)
        await server_bench.wait_idle(conversation)


@within()
async def test_a_provider_that_falls_silent_for_a_sub_agent_is_asked_again(server_bench: ServerBench) -> None:
    async with server_bench.listening():
        conversation, _ = await server_bench.say("::task ::hang\n::say never", model=IMPATIENT)
        child = await server_bench.wait_for(ConversationCreated, lambda event: event.parent is not None)
        retry = await server_bench.wait_for(ConversationRetrying)
        assert (retry.conversation, retry.attempt) == (child.conversation, 1)
        await server_bench.opencode.abort(conversation)
        await server_bench.wait_idle(conversation)


@within()
async def test_a_broken_answer_is_told_again_under_a_new_part(server_bench: ServerBench) -> None:
    async with server_bench.listening():
        conversation, _ = await server_bench.answered("::words 3 rate=10\n::drop times=1\n::say end")
    parts = list(dict.fromkeys(delta.part for delta in server_bench.of(PartDelta)))
    assert len(parts) == 2
    text = "word0 word1 word2 end"
    told = [
        "".join(delta.text for delta in server_bench.of(PartDelta) if delta.part == part) for part in parts
    ]
    assert told[1] == text
    assert text.startswith(told[0])
    assert await last_text(server_bench, conversation) == text


# ---- questions and permissions


@within()
async def test_a_question_waits_for_its_answer_P2(server_bench: ServerBench) -> None:
    async with server_bench.listening():
        conversation, prompt = await server_bench.say("::ask Which colour? | Red | Blue")
        asked = await server_bench.wait_for(QuestionAsked)
        assert (asked.conversation, asked.text) == (conversation, "Which colour?")
        assert asked.options == ("Red", "Blue")
        (listed,) = [q for q in await server_bench.opencode.questions() if q.conversation == conversation]
        assert (listed.request, listed.text, listed.options) == (asked.request, asked.text, asked.options)
        await server_bench.opencode.answer_question(asked.request, (("Blue",),))
        await server_bench.wait_idle(conversation)
        assert RequestAnswered(conversation=conversation, request=asked.request) in server_bench.events
        assert "Blue" in await last_text(server_bench, conversation)
        with pytest.raises(ServerRefused) as refusal:
            await server_bench.opencode.answer_question(asked.request, (("Red",),))
        assert refusal.value.status == 404
    assert server_bench.answer_infos(prompt)[-1].finish == "stop"


@within()
async def test_a_question_takes_free_words_for_an_answer_and_the_prompt_goes_on_P2(
    server_bench: ServerBench,
) -> None:
    async with server_bench.listening():
        conversation, prompt = await server_bench.say("::ask Which? | A | B")
        asked = await server_bench.wait_for(QuestionAsked)
        assert asked.questions == 1
        (listed,) = [q for q in await server_bench.opencode.questions() if q.conversation == conversation]
        assert listed.message is not None
        assert listed.message > prompt.message_id
        await server_bench.opencode.answer_question(asked.request, (("nobody is here",),))
        await server_bench.wait_idle(conversation)
        assert "nobody is here" in await last_text(server_bench, conversation)
    assert server_bench.process.model_requests(conversation) == 2


@within()
async def test_a_rejected_question_ends_the_prompt_P2(server_bench: ServerBench) -> None:
    async with server_bench.listening():
        conversation, prompt = await server_bench.say("::ask Which? | A | B")
        asked = await server_bench.wait_for(QuestionAsked)
        await server_bench.opencode.reject_question(asked.request)
        await server_bench.wait_idle(conversation)
    info = server_bench.answer_infos(prompt)[-1]
    assert (info.finish, info.error) == ("tool-calls", None)
    assert server_bench.process.model_requests(conversation) == 1


@within()
async def test_an_aborted_question_stays_as_a_ghost(server_bench: ServerBench) -> None:
    async with server_bench.listening():
        conversation, _ = await server_bench.say("::ask Which? | A | B")
        asked = await server_bench.wait_for(QuestionAsked)
        await server_bench.opencode.abort(conversation)
        await server_bench.wait_idle(conversation, times=2)
        assert asked.request in {question.request for question in await server_bench.opencode.questions()}
        assert conversation not in await server_bench.opencode.status()


@pytest.mark.parametrize(
    ("reply", "message", "requests"),
    [
        (PermissionReply.ONCE, None, 2),
        (PermissionReply.REJECT, "not today", 2),
        (PermissionReply.REJECT, None, 1),
    ],
)
@within()
async def test_a_permission_waits_for_its_answer_P1(
    server_bench: ServerBench, reply: PermissionReply, message: str | None, requests: int
) -> None:
    async with server_bench.listening():
        conversation, _ = await server_bench.say(f"::bash {ASKED_FOR}")
        asked = await server_bench.wait_for(PermissionAsked)
        assert (asked.conversation, asked.permission, asked.text) == (conversation, "bash", ASKED_FOR)
        (listed,) = [p for p in await server_bench.opencode.permissions() if p.request == asked.request]
        assert listed.message is not None
        await server_bench.opencode.answer_permission(asked.request, reply, message=message)
        await server_bench.wait_idle(conversation)
        assert RequestAnswered(conversation=conversation, request=asked.request) in server_bench.events
        with pytest.raises(ServerRefused):
            await server_bench.opencode.answer_permission(asked.request, reply)
    assert server_bench.process.model_requests(conversation) == requests


# ---- the server itself


@within()
async def test_what_a_crash_leaves_P7(server_bench: ServerBench) -> None:
    bench = server_bench
    conversation, prompt = await bench.say("::pause 0.2\n::words 3\n::hang")
    with pytest.RaisesGroup(ServerUnreachable):
        async with bench.listening():
            await bench.wait_until(lambda: "word2" in bench.told(conversation))
            bench.process.kill()
            await trio.sleep_forever()
    with pytest.raises(ServerUnreachable):
        await bench.opencode.agents()
    with pytest.raises(ServerUnreachable):
        await bench.opencode.health(within=1)
    with pytest.raises(ServerUnreachable):
        async with bench.opencode.events():
            raise AssertionError("nothing listens")
    bench.process.start()
    await bench.wait_ready()
    asked, answer = await bench.opencode.messages(conversation)
    assert asked.info.id == prompt.message_id
    assert (answer.info.completed_at, answer.info.finish, answer.info.error) == (None, None, None)
    assert await last_text(bench, conversation) == ""
    assert dict(await bench.opencode.status()) == {}
    bench.forget()
    async with bench.listening():
        await bench.say("::say goes on", conversation)
        await bench.wait_idle(conversation)
    assert await last_text(bench, conversation) == "goes on"


@within()
async def test_a_frozen_server_is_silent_P12(server_bench: ServerBench) -> None:
    bench = server_bench
    conversation = (await bench.converse()).id
    bench.process.freeze()
    try:
        with pytest.raises(ServerSilent):
            await bench.opencode.health(within=0.3)
        with trio.move_on_after(0.3) as scope:
            await bench.opencode.agents()
        assert scope.cancelled_caught
    finally:
        bench.process.thaw()
    assert (await bench.opencode.health(within=10)).version
    assert await bench.opencode.conversation(conversation) is not None


@within()
async def test_sending_a_prompt_does_not_wait_for_its_answer_P10(server_bench: ServerBench) -> None:
    async with server_bench.listening():
        conversation, _ = await server_bench.say("::hang")  # returns, or the test's deadline is up
        await server_bench.wait_until(lambda: server_bench.process.model_requests(conversation) == 1)
        assert (await server_bench.opencode.status())[conversation] is ConversationState.BUSY
        await server_bench.opencode.abort(conversation)
        await server_bench.wait_idle(conversation, times=2)
