"""One answer, whatever way it is heard: byte for byte, in order, nothing twice."""

from __future__ import annotations

import random

import pytest
from attrs import evolve, frozen
from hypothesis import given, settings
from hypothesis import strategies as st

from opencode_actors.machines import server_events as e
from opencode_actors.machines import transcript as script
from opencode_actors.machines.notices import OutputKind
from opencode_actors.machines.output import OutputMeter, admit
from opencode_actors.machines.transcript import Ending, Piece, Transcript
from opencode_actors.ports import Prompt
from tests.machines.happenings import CHUNKS
from tests.machines.model_server import CONVERSATION, Server, Storage

PROMPT = Prompt(message_id=e.MessageId("msg_0000"), text="go")


@frozen
class Told:
    """What somebody wrote down who heard the server in some way."""

    transcript: Transcript
    output: str


def answered(life: tuple[int, int]) -> Server:
    """A whole answer: text, tools, steps, retries that say the same again, compactions."""
    dice, steps = random.Random(life[0]), life[1]
    server = Server(storage=Storage())
    server.submit(PROMPT, 0.0)
    server.begin(0.0)
    now = 0.0
    for _ in range(steps):
        now += 0.01
        turn = server.turn
        assert turn is not None
        if turn.text is not None:
            if turn.said >= len(turn.chunks) and dice.random() < 0.3:
                server.end_text()
            elif dice.random() < 0.15:
                server.retry(now)
                server.try_again()
            else:
                server.say(dice.choice(CHUNKS), now)
        elif turn.said < len(turn.chunks):
            server.say("", now)
        else:
            what = dice.random()
            if what < 0.5:
                server.say(dice.choice(CHUNKS), now)
            elif what < 0.7:
                server.start_tool(now)
                server.end_tool(failed=dice.random() < 0.5)
            elif what < 0.9:
                server.next_step(now)
            else:
                server.compact(now)
    turn = server.turn
    assert turn is not None
    while turn.said < len(turn.chunks):
        server.say("", now + 1)
    if turn.text is not None:
        server.end_text()
    server.finish(now + 1)
    return server


def heard(server: Server, gaps: list[tuple[int, int]], late: int) -> Told:
    """The stream breaks from the first to the second of each gap; the reading comes `late` events after."""
    transcript = Transcript(conversation=CONVERSATION, prompt=PROMPT.message_id)
    output: list[str] = []

    def write(written: tuple[Transcript, tuple[Piece, ...]]) -> Transcript:
        output.extend(piece.text for piece in written[1])
        return written[0]

    snapshots = replayed(server)
    reading: int | None = None
    for index, event in enumerate(server.said):
        if any(index == end for _, end in gaps):
            transcript = transcript.after_gap()
            reading = index + late
        if not any(start <= index < end for start, end in gaps):
            if isinstance(event, e.MessageUpdated):
                transcript = script.message_updated(transcript, event.info)
            elif isinstance(event, e.PartUpdated):
                transcript = write(script.part_updated(transcript, event.part))
            elif isinstance(event, e.PartDelta):
                transcript = write(script.delta_added(transcript, event))
        if reading is not None and index >= reading:
            # what the server had stored at some time since the stream was there again
            transcript = write(script.conversation_read(transcript, snapshots[max(index - late // 2, 0)]))
            reading = None
    transcript = write(script.conversation_read(transcript, snapshots[-1]))
    return Told(transcript, "".join(output))


def replayed(server: Server) -> list[tuple[e.Message, ...]]:
    """What a reading would have given after each event."""
    storage, snapshots = Storage(), list[tuple[e.Message, ...]]()
    for event in server.said:
        if isinstance(event, e.MessageUpdated):
            storage.messages[event.info.id] = event.info
        elif isinstance(event, e.PartUpdated):
            storage.parts[event.part.id] = event.part
        snapshots.append(storage.read(PROMPT.message_id))
    return snapshots


lives = st.tuples(st.integers(0, 10**9), st.integers(1, 40))


@given(life=lives)
@settings(max_examples=150, deadline=None, derandomize=True)
def test_who_hears_everything_writes_what_is_stored(life: tuple[int, int]) -> None:
    server = answered(life)
    told = heard(server, [], 0)
    assert told.output == server.storage.output(PROMPT.message_id, stored=True)
    assert told.transcript.ending is Ending.ANSWERED


@given(
    life=lives,
    breaks=st.lists(st.tuples(st.integers(0, 120), st.integers(1, 30)), max_size=3),
    late=st.integers(0, 10),
)
@settings(max_examples=300, deadline=None, derandomize=True)
def test_p8_gaps_change_when_it_is_written_and_not_what(
    life: tuple[int, int], breaks: list[tuple[int, int]], late: int
) -> None:
    server = answered(life)
    gaps = [(start, start + length) for start, length in breaks]
    told = heard(server, gaps, late)
    assert told.output == server.storage.output(PROMPT.message_id, stored=True)


@given(life=lives, reads=st.lists(st.integers(0, 200), max_size=6))
@settings(max_examples=150, deadline=None, derandomize=True)
def test_readings_of_any_age_in_any_order_write_nothing_twice(
    life: tuple[int, int], reads: list[int]
) -> None:
    server = answered(life)
    snapshots = replayed(server)
    transcript = Transcript(conversation=CONVERSATION, prompt=PROMPT.message_id)
    for index in [*sorted(reads), len(snapshots) - 1, *reads]:
        transcript, _ = script.conversation_read(transcript, snapshots[min(index, len(snapshots) - 1)])
    transcript, _ = script.conversation_read(transcript, snapshots[-1])
    again, pieces = script.conversation_read(transcript, snapshots[-1])
    assert pieces == ()
    assert again == transcript


@given(life=lives)
@settings(max_examples=50, deadline=None, derandomize=True)
def test_one_reading_at_the_end_is_the_whole_answer(life: tuple[int, int]) -> None:
    server = answered(life)
    transcript = Transcript(conversation=CONVERSATION, prompt=PROMPT.message_id)
    _, pieces = script.conversation_read(transcript, server.storage.read(PROMPT.message_id))
    expected = server.storage.output(PROMPT.message_id, stored=True)
    assert "".join(piece.text for piece in pieces) == expected


@pytest.mark.parametrize("older", ["", "a part of its own. "])
def test_an_older_part_does_not_take_a_newer_ones_place(older: str) -> None:
    """A reading lists the attempts that were abandoned before the one that is heard."""
    info = e.MessageInfo(
        id=e.MessageId("msg_1"), conversation=CONVERSATION, role="assistant", parent=PROMPT.message_id
    )
    old = e.TextPart(id=e.PartId("prt_1"), message=info.id, text=older, finished=bool(older))
    new = e.TextPart(id=e.PartId("prt_2"), message=info.id, text="", finished=False)
    transcript = script.message_updated(Transcript(conversation=CONVERSATION, prompt=PROMPT.message_id), info)
    transcript, _ = script.part_updated(transcript, new)
    transcript, read = script.conversation_read(transcript, [e.Message(info=info, parts=(old, new))])
    _, heard = script.part_updated(transcript, evolve(new, text="whole", finished=True))
    assert "".join(piece.text for piece in read + heard).replace("\n", "") == f"{older}whole"


# ---- what of it is kept


@given(pieces=st.lists(st.text(alphabet="aé漢🙂\n", max_size=8), max_size=12), limit=st.integers(0, 40))
@settings(max_examples=300, deadline=None, derandomize=True)
def test_what_is_kept_is_a_prefix_cut_between_characters(pieces: list[str], limit: int) -> None:
    whole = "".join(pieces)
    meter, kept, size = OutputMeter(limit=limit), "", 0
    for text in pieces:
        meter, placed = admit(meter, (Piece(kind=OutputKind.TEXT, text=text),))
        for place in placed:
            assert place.offset == size
            size += len(place.piece.text.encode())
            kept += place.piece.text
    assert meter.size == size == len(kept.encode())
    if not limit or len(whole.encode()) <= limit:
        assert kept == whole
        assert not meter.truncated
        return
    assert meter.truncated
    words, _, last = kept.partition("\n[output ends here: ")
    assert last == f"maxOutputSize is {limit} bytes]\n"
    assert whole.startswith(words)
    assert limit - 3 <= len(words.encode()) <= limit
