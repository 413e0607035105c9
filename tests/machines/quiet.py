"""The end of a model run: the world turns honest, everything comes to rest, and the books must balance."""

from __future__ import annotations

from opencode_actors.machines import session_messages as s
from opencode_actors.machines.vocabulary import JobStatus, Rung
from tests.machines.happenings import HONEST, outcomes, server_things
from tests.machines.world import SESSION, Actor, World

# A container that never gets ready, as often as it may be tried, and more.
LONGEST = 4 * 3600.0
SLACK = 5.0  # the moments in which letters stay unread


def come_to_rest(world: World) -> None:
    """No more faults. What is broken stays broken."""
    world.engine_away = False
    world.drain()
    until = world.now + LONGEST
    while world.unsettled():
        assert world.now < until, f"never settled: {[actor.name for actor in world.unsettled()]}"
        _go_on(world)


def close(world: World) -> None:
    ask = world.ask(SESSION, s.CloseSession)
    until = world.now + LONGEST
    world.drain()
    while ask not in world.session.answered:
        assert world.now < until, "never closed"
        _go_on(world)
    world.drain()


def _go_on(world: World) -> None:
    if _honestly(world):
        return
    due = world.next_due()
    world.advance(max(0.0, due - world.now) if due is not None else 60.0)


def _honestly(world: World) -> bool:
    """Lets every operation and the server take one honest step; False when there was none to take. Nobody
    answers what it asks: its time has to run out."""
    moved = False
    for actor in tuple(world.actors.values()):
        for flying in tuple(actor.flying.values()):
            if flying not in actor.flying.values():
                continue
            steps = outcomes(world, flying, faults=HONEST)
            if steps and (flying.heard < 0 or flying.heard < len(world.latest.server.said) or not world.box):
                found, message = steps[0][1]()
                if message is not None:
                    world.post(actor, found, message)
                world.drain()
                moved = True
    asked = world.box is not None and world.box.server.waits()
    if world.box is not None and not asked and (things := server_things(world, world.box)):
        things[0][1]()
        moved = True
    return moved


# ---- the books


def balance(world: World) -> None:
    for actor in world.job_actors():
        _settled_once(world, actor)
        _output_whole(world, actor)
        _cancelled_in_time(world, actor)
        assert sorted(actor.wanted) == sorted(actor.input_ended), "what was asked is never said to be over"
    _answered_once(world)
    granted = world.granted
    assert len(granted) == len(set(granted)), "a turn was granted twice"
    assert granted == [name for name in world.accepted if name in granted], "not in the order of the queue"
    for actor in world.actors.values():
        assert not actor.owed, f"{actor.name} owes answers"
        if actor.finished:
            assert not actor.flying
            assert not actor.timers
    assert world.closed is not None
    assert world.box is None or world.closed.ended_by is Rung.QUARANTINE, "the container is left behind"


def _answered_once(world: World) -> None:
    assert len(world.storage.answered) == len(set(world.storage.answered)), "a request was answered twice"


def _settled_once(world: World, actor: Actor) -> None:
    assert len(actor.ended) == int(actor.name in world.accepted or bool(actor.cancelled_at is not None))
    assert actor.finished == bool(actor.ended)


def _output_whole(world: World, actor: Actor) -> None:
    assert actor.records == actor.notices
    if not actor.ended:
        return
    (ended,) = actor.ended
    assert ended.output_bytes == len(actor.records.encode())
    prompt = actor.state.prompt.message_id
    if not prompt or prompt in world.storage.diverged or actor.state.continuation is not None:
        return
    limit = world.job_policy.max_output_size
    if ended.status is JobStatus.COMPLETED:
        assert actor.records == _kept(world.storage.output(prompt, stored=True), limit)
    elif not world.streams_lost and prompt not in world.storage.retried:
        whole = _kept(world.storage.output(prompt, stored=False), limit)
        assert whole.startswith(actor.records) or ended.output_truncated


def _kept(text: str, limit: int) -> str:
    whole = text.encode()
    if not limit or len(whole) <= limit:
        return text
    return whole[:limit].decode(errors="ignore") + f"\n[output ends here: maxOutputSize is {limit} bytes]\n"


def _cancelled_in_time(world: World, actor: Actor) -> None:
    if actor.cancelled_at is None:
        return
    graces = world.job_policy.graces
    longest = graces.abort + graces.stop + 2 + graces.kill + graces.remove
    assert world.ended_at[actor.name] - actor.cancelled_at <= longest + SLACK
