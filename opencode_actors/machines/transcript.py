"""One prompt's answer, put together from what the server says: in order, complete, nothing twice.

Text streams in as deltas under a part; only when the part ends does the server itself know its text.
So the own buffer leads, a finished part decides, and a re-read conversation is applied like events.
When the provider fails in mid-answer, the server asks again and sends the deltas again under a new part
of the same message: what was shown already is matched against them and not shown twice.
When the stream broke, what is heard waits until what was missed has been read: otherwise the words after
the gap would stand before those that fell into it.
Ids of messages and parts sort in the order of time, which is the order of the output. One message of an answer may
stand before what it follows: the clock was set back while the model worked. What the model says in it, it says in
the right order; from then on OpenCode takes an older message for the last one, and asks again and again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import Enum

from attrs import evolve, frozen

from opencode_actors.machines.notices import OutputKind
from opencode_actors.machines.server_events import (
    ConversationId,
    Message,
    MessageId,
    MessageInfo,
    Part,
    PartDelta,
    PartId,
    TextPart,
    ToolPart,
    ToolState,
)

# The finish reasons after which the server itself goes on with another message.
_GOES_ON = frozenset({"tool-calls", "unknown"})

NO_PART = PartId("")

# The name of the error that an abort leaves.
ABORTED = "MessageAbortedError"

_STARTS_AGAIN = "[the answer broke off, and the model started it again]"


@frozen(kw_only=True)
class Piece:
    """Output as it is appended to the job's file. `part` is the server's that it is of, if it is of any, and
    `at` the character of that part's text at which it begins."""

    kind: OutputKind
    text: str
    part: PartId = NO_PART
    at: int = 0


class Ending(Enum):
    ANSWERED = "answered"
    FAILED = "failed"
    ABORTED = "aborted"


@frozen(kw_only=True)
class OpenText:
    """A text part that has not ended. `shown` is what stands in the output for it."""

    message: MessageId
    text: str = ""
    shown: str = ""
    # Deltas were missed: nothing more can be shown until the part ends.
    gap: bool = False


@frozen(kw_only=True)
class Transcript:
    conversation: ConversationId
    prompt: MessageId
    at_line_start: bool = True
    text_seen: bool = False
    answers: Mapping[MessageId, MessageInfo] = {}
    # When the server took the prompt, by its own clock.
    asked_at: float = 0.0
    # The first that was made after the clock had been set back, as long as it is the last one.
    set_back: MessageId | None = None
    # The server has gone on behind that one, and knows no end any more.
    astray: bool = False
    # Those to an earlier prompt of the same job, which ended without a final one.
    earlier: tuple[MessageInfo, ...] = ()
    open_texts: Mapping[PartId, OpenText] = {}
    ended_parts: frozenset[PartId] = frozenset()
    running_tools: Mapping[PartId, ToolPart] = {}
    newest_texts: Mapping[MessageId, PartId] = {}
    # What an earlier process has shown of parts that this one has not seen yet.
    told: Mapping[PartId, str] = {}
    # While what was missed is being read: the latest word on each message and part that is heard.
    held: Mapping[str, MessageInfo | Part] | None = None

    @property
    def last(self) -> MessageInfo | None:
        if self.set_back is not None:
            return self.answers[self.set_back]
        return max(self.answers.values(), key=_order, default=None)

    @property
    def has_no_end(self) -> bool:
        """The server will ask the model again, whatever it has answered."""
        return self.astray or (self.set_back is not None and self.ending is Ending.ANSWERED)

    @property
    def ending(self) -> Ending | None:
        """How the answer ended, decided by its last message alone; None while it goes on.

        A message that is complete with neither error nor finish was aborted between two attempts.
        """
        last = self.last
        if last is None:
            return None
        if last.error is not None:
            return Ending.ABORTED if last.error.name == ABORTED else Ending.FAILED
        if last.completed_at is None:
            return None
        if last.finish is None:
            return Ending.ABORTED
        return None if last.finish in _GOES_ON else Ending.ANSWERED

    @property
    def silence(self) -> str:
        """What is missing, were nothing to come any more."""
        last = self.last
        if last is not None and len(self.answers) > 1 and last.id not in self.newest_texts:
            return "the model has not said a word since its last tool call ended"
        if self.text_seen:
            return "the model fell silent in the middle of its answer"
        return "the model's first word never came"

    @property
    def infos(self) -> tuple[MessageInfo, ...]:
        """All that were made for this job."""
        return (*self.earlier, *self.answers.values())

    def after_gap(self) -> Transcript:
        """The event stream broke: the deltas of what is open now are lost until their parts end."""
        gaps = {id_: evolve(text, gap=True) for id_, text in self.open_texts.items()}
        return evolve(self, open_texts=gaps, held=self.held or {})

    def continued(self, prompt: MessageId) -> Transcript:
        """Its server has ended, and another one is asked to go on: nothing more comes of what was open."""
        return evolve(
            self,
            prompt=prompt,
            answers={},
            asked_at=0.0,
            set_back=None,
            astray=False,
            earlier=self.infos,
            open_texts={},
            running_tools={},
        )


Written = tuple[Transcript, tuple[Piece, ...]]


def from_prompt(messages: tuple[Message, ...], prompt: MessageId) -> tuple[Message, ...]:
    """Of a conversation, in the server's order: the prompt and what came behind it. What answers it and stands
    before it was made when the clock had been set back. Where what came behind has come to an end, OpenCode had asked
    again: it makes nothing more after that, so what stands before was made earlier, and is no part of the answer."""
    ids = [message.info.id for message in messages]
    if prompt not in ids:
        return tuple(message for message in messages if message.info.id > prompt)
    first = ids.index(prompt)
    behind = messages[first:]
    if any(_ends_answer(message.info, prompt) for message in behind):
        return behind
    early = tuple(message for message in messages[:first] if message.info.parent == prompt)
    return (*behind, *early)


def _ends_answer(info: MessageInfo, prompt: MessageId) -> bool:
    whole = info.completed_at is not None and info.error is None and not info.summary
    return whole and info.parent == prompt and info.finish is not None and info.finish not in _GOES_ON


def message_updated(transcript: Transcript, info: MessageInfo) -> Transcript:
    if transcript.held is not None:
        return evolve(transcript, held={**transcript.held, info.id: info})
    return _message_said(transcript, info)


def part_updated(transcript: Transcript, part: Part) -> Written:
    if transcript.held is not None:
        return evolve(transcript, held={**transcript.held, part.id: part}), ()
    return _part_said(transcript, part, live=True)


def delta_added(transcript: Transcript, delta: PartDelta) -> Written:
    known = transcript.open_texts.get(delta.part)
    if known is None or known.gap:
        return transcript, ()
    return _show(transcript, delta.part, evolve(known, text=known.text + delta.text), finished=False)


def conversation_read(transcript: Transcript, messages: Iterable[Message]) -> Written:
    """Closes a gap: first what was read, then what was heard while it was read."""
    said: list[MessageInfo | Part] = []
    for message in messages:
        said.append(message.info)
        said.extend(message.parts)
    transcript, read = _all_said(transcript, said)
    transcript, heard = released(transcript)
    return transcript, read + heard


def released(transcript: Transcript) -> Written:
    """What was heard since the stream broke, also when what was missed will never be read."""
    held = transcript.held or {}
    return _all_said(evolve(transcript, held=None), held.values())


def _all_said(transcript: Transcript, said: Iterable[MessageInfo | Part]) -> Written:
    pieces: list[Piece] = []
    for word in said:
        if isinstance(word, MessageInfo):
            transcript = _message_said(transcript, word)
        else:
            transcript, more = _part_said(transcript, word, live=False)
            pieces.extend(more)
    return transcript, tuple(pieces)


def _message_said(transcript: Transcript, info: MessageInfo) -> Transcript:
    if info.id == transcript.prompt:
        return evolve(transcript, asked_at=info.created_at)
    if info.role != "assistant" or info.parent is None or info.summary:
        return transcript
    if info.parent < transcript.prompt:
        # It answers an earlier prompt. A later one of this conversation is the server's own: after a
        # compaction it goes on under a user message that it made itself.
        return transcript
    known = transcript.answers.get(info.id)
    if known is None:
        newest = max((transcript.asked_at, *(answer.created_at for answer in transcript.answers.values())))
        behind = info.created_at < newest
        if transcript.set_back is not None and (behind or transcript.ending is Ending.ANSWERED):
            return evolve(transcript, astray=True)
        transcript = evolve(transcript, set_back=info.id if behind else None)
    if known is not None and known.completed_at is not None and info.completed_at is None:
        return transcript  # an older reading
    transcript = evolve(transcript, answers={**transcript.answers, info.id: info})
    return _without_stale_tools(transcript, info) if _over(info) else transcript


def _order(info: MessageInfo) -> tuple[float, MessageId]:
    return info.created_at, info.id


def _over(info: MessageInfo) -> bool:
    return info.completed_at is not None or info.error is not None


def _without_stale_tools(transcript: Transcript, info: MessageInfo) -> Transcript:
    """Parts of a message that is over can say "running" for ever."""
    running = {id_: tool for id_, tool in transcript.running_tools.items() if tool.message != info.id}
    return evolve(transcript, running_tools=running)


def _part_said(transcript: Transcript, part: Part, *, live: bool) -> Written:
    if part.message not in transcript.answers or part.id in transcript.ended_parts:
        return transcript, ()
    if isinstance(part, TextPart):
        return _text_updated(transcript, part, live=live)
    if isinstance(part, ToolPart):
        return _tool_updated(transcript, part)
    return transcript, ()


def _text_updated(transcript: Transcript, part: TextPart, *, live: bool) -> Written:
    if part.synthetic:
        return transcript, ()
    known = transcript.open_texts.get(part.id)
    if known is None:
        if part.id < transcript.newest_texts.get(part.message, "") and not part.finished:
            # An attempt that was abandoned before we ever heard of it.
            return evolve(transcript, ended_parts=transcript.ended_parts | {part.id}), ()
        transcript, known = _opened(transcript, part, live=live)
    if not part.text:
        # The start of a part, or one that the server abandoned: neither takes anything back.
        return transcript, ()
    if not part.finished and (known.gap or len(part.text) < len(known.text)):
        return transcript, ()
    return _show(transcript, part.id, evolve(known, text=part.text), finished=part.finished)


def _opened(transcript: Transcript, part: TextPart, *, live: bool) -> tuple[Transcript, OpenText]:
    """A new part. Read and not heard, some of its deltas may have been missed."""
    transcript, shown = _take_over(transcript, part)
    shown = transcript.told.get(part.id, shown)
    known = OpenText(message=part.message, shown=shown, gap=not live)
    newest = max(part.id, transcript.newest_texts.get(part.message, part.id))
    return evolve(
        transcript,
        open_texts={**transcript.open_texts, part.id: known},
        newest_texts={**transcript.newest_texts, part.message: newest},
    ), known


def _take_over(transcript: Transcript, part: TextPart) -> tuple[Transcript, str]:
    """What an abandoned attempt at the same message has shown already, which the new part repeats."""
    abandoned = sorted(
        id_ for id_, text in transcript.open_texts.items() if text.message == part.message and id_ < part.id
    )
    if not abandoned:
        return transcript, ""
    shown = transcript.open_texts[abandoned[-1]].shown
    rest = {id_: text for id_, text in transcript.open_texts.items() if id_ not in abandoned}
    ended = transcript.ended_parts.union(abandoned)
    return evolve(transcript, open_texts=rest, ended_parts=ended), shown


def _show(transcript: Transcript, part: PartId, text: OpenText, *, finished: bool) -> Written:
    pieces: tuple[Piece, ...] = ()
    if text.text.startswith(text.shown):
        transcript, pieces = _text(transcript, part, text.text, after=len(text.shown))
        text = evolve(text, shown=text.text)
    elif finished or not text.shown.startswith(text.text):
        transcript, pieces = remarked(transcript, _STARTS_AGAIN)
        transcript, again = _text(transcript, part, text.text, after=0)
        pieces += again
        text = evolve(text, shown=text.text)
    if finished:
        rest = {id_: open_ for id_, open_ in transcript.open_texts.items() if id_ != part}
        ended = transcript.ended_parts | {part}
        return evolve(transcript, open_texts=rest, ended_parts=ended), pieces
    return evolve(transcript, open_texts={**transcript.open_texts, part: text}), pieces


def _text(transcript: Transcript, part: PartId, whole: str, *, after: int) -> Written:
    text = whole[after:]
    if not text:
        return transcript, ()
    if not after and not transcript.at_line_start:
        text = "\n" + text
    transcript = evolve(transcript, at_line_start=text.endswith("\n"), text_seen=True)
    return transcript, (Piece(kind=OutputKind.TEXT, text=text, part=part, at=after),)


def _tool_updated(transcript: Transcript, part: ToolPart) -> Written:
    if part.state is ToolState.PENDING:
        return transcript, ()  # the model still writes the call, and may fall silent while it does
    if part.state is ToolState.RUNNING:
        if _over(transcript.answers[part.message]):
            return transcript, ()
        running = {**transcript.running_tools, part.id: part}
        return evolve(transcript, running_tools=running), ()
    running = {id_: tool for id_, tool in transcript.running_tools.items() if id_ != part.id}
    ended = transcript.ended_parts | {part.id}
    transcript = evolve(transcript, running_tools=running, ended_parts=ended)
    return _line(transcript, OutputKind.TOOL, tool_line(part), part.id)


def remarked(transcript: Transcript, remark: str) -> Written:
    """A line of our own."""
    return _line(transcript, OutputKind.REMARK, remark, NO_PART)


def _line(transcript: Transcript, kind: OutputKind, line: str, part: PartId) -> Written:
    start = "" if transcript.at_line_start else "\n"
    piece = Piece(kind=kind, text=f"{start}{line}\n", part=part)
    return evolve(transcript, at_line_start=True), (piece,)


def tool_line(part: ToolPart) -> str:
    """`[bash] make test (exit 0, 3.2 s)`"""
    outcome: list[str] = []
    if part.state is ToolState.ERROR:
        outcome.append(f"failed: {part.error}" if part.error else "failed")
    elif part.exit_code is not None:
        outcome.append(f"exit {part.exit_code}")
    # The server's clock may have been set back meanwhile.
    if part.started_at is not None and part.ended_at is not None and part.ended_at >= part.started_at:
        outcome.append(f"{part.ended_at - part.started_at:.1f} s")
    words = [f"[{part.tool}]"]
    if part.title:
        words.append(part.title)
    if outcome:
        words.append(f"({', '.join(outcome)})")
    return " ".join(words)
