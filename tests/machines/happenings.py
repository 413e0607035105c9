"""Everything that may happen next in a `World`, likely or not. The first outcome is the honest one."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from opencode_actors.machines import job_messages as j
from opencode_actors.machines import server_events as e
from opencode_actors.machines import session_messages as s
from opencode_actors.machines.vocabulary import Cause, Failure, Rung
from opencode_actors.ports import ConversationState, Death, Process, Usage
from tests.machines.model_server import CHILD, CONVERSATION, Server
from tests.machines.world import Actor, Box, Flying, World

CHUNKS = ("so ", "é漢", "🙂\n", "it is done. ")
AWAY = Failure(cause=Cause.ENGINE_UNAVAILABLE, message="no engine answers")
NO_IMAGE = Failure(cause=Cause.IMAGE_MISSING, message="no such image")

# What can go wrong; a run has some of it, so that each has its chance.
FAULTS = (
    "launch", "slow", "breaks", "submit", "read", "abort", "reply", "away", "dies", "oom", "frozen", "unheard",
    "ignores_stop", "ignores_kill", "ignores_remove", "deaf", "strays", "unwatched", "grows",
)  # fmt: skip
HONEST: frozenset[str] = frozenset()

# What one step of an operation gives: its next message, or None when nobody hears of it.
Outcome = tuple[str, Callable[[], Any]]
Thing = tuple[str, Callable[[], None]]


def possible(world: World, *, faults: frozenset[str]) -> list[Thing]:
    things: list[Thing] = []
    for actor in world.actors.values():
        if actor.mailbox:
            message = type(actor.mailbox[0].message).__name__
            things.append((f"{actor.name} reads {message}", partial(world.deliver, actor)))
        for flying in actor.flying.values():
            things += [
                (f"{actor.name}'s {type(flying.operation).__name__} {word}", _landing(world, actor, make))
                for word, make in outcomes(world, flying, faults=faults)
            ]
    box = world.box
    if box is not None:
        things += server_things(world, box)
        things += [(word, act) for name, word, act in box_faults(world, box) if name in faults]
        for entry in [entry for entry in world.limbo if entry[0] is box and box.answers]:
            things.append(("what was cut off arrives", partial(_arrive, world, entry)))
    if "away" in faults:
        things.append(("the engine goes or comes", lambda: _toggle(world, "engine_away")))
    return things


def _landing(world: World, actor: Actor, make: Callable[[], Any]) -> Callable[[], None]:
    def land() -> None:
        flying, message = make()
        if message is not None:
            world.post(actor, flying, message)

    return land


def _arrive(world: World, entry: tuple[Box, Callable[[Server], None]]) -> None:
    world.limbo.remove(entry)
    entry[1](entry[0].server)


def _toggle(thing: object, name: str) -> None:
    setattr(thing, name, not getattr(thing, name))


# ---- operations


def outcomes(world: World, flying: Flying, *, faults: frozenset[str]) -> list[Outcome]:
    if flying.landed:
        return []
    match flying.operation:
        case s.LaunchContainer():
            found = _launch(world, faults=faults)
        case s.WatchExit(container=container):
            found = _exit(world.boxes[container.pid])
        case s.ProbeServer(endpoint=endpoint):
            found = _probe(world.at(endpoint), faults=faults)
        case s.OpenConversation(endpoint=endpoint):
            found = _open(world.at(endpoint), faults=faults)
        case s.CatchUp():
            found = [("has caught up", lambda: s.CaughtUp(conversation=CONVERSATION, upto=None))]
        case s.FollowServer(endpoint=endpoint):
            return _follow(world, flying, world.at(endpoint), faults=faults)
        case s.SampleUsage():
            found = _sample(faults=faults)
        case s.TidyUp():
            found = [("measures", lambda: s.TidiedUp(disk_bytes=1 << 20)), ("fails", lambda: None)]
        case s.EndContainer(rung=rung):
            found = _end(world, rung)
        case j.SubmitPrompt(endpoint=endpoint) if not flying.looked:
            return [("looks around first", lambda: _look_first(flying, world.at(endpoint)))]
        case j.SubmitPrompt(endpoint=endpoint):
            found = _submit(world, flying, world.at(endpoint), faults=faults)
        case j.ReadConversation(endpoint=endpoint):
            found = _read(world, flying, world.at(endpoint), faults=faults)
        case j.ReadRequests(endpoint=endpoint, tools=tools):
            found = _list(flying, world.at(endpoint), tools=tools, faults=faults)
        case j.ReplyToRequest(endpoint=endpoint):
            found = _reply(world, flying, world.at(endpoint), faults=faults)
        case j.AbortConversation(endpoint=endpoint):
            found = _abort(flying, world.at(endpoint), faults=faults)
        case j.LookAtProcesses(container=container):
            found = _look(world.boxes[container.pid])
        case _:
            raise AssertionError(flying.operation)
    return [(word, _last(flying, make)) for word, make in found]


def _last(flying: Flying, make: Callable[[], Any]) -> Callable[[], Any]:
    """The operation's only word, unless what it gives is a step on its way."""

    def once() -> Any:
        message = make()
        flying.landed = not isinstance(message, _OnItsWay)
        return flying, None if isinstance(message, _OnItsWay) else message

    return once


class _OnItsWay:
    pass


def _launch(world: World, *, faults: frozenset[str]) -> list[Outcome]:
    def launched() -> s.ContainerLaunched:
        container, endpoint = world.launch()
        return s.ContainerLaunched(container=container, endpoint=endpoint)

    away: Outcome = ("finds no engine", lambda: s.LaunchFailed(failure=AWAY, retryable=True))
    if world.engine_away:
        return [away]
    fatal: Outcome = ("finds no image", lambda: s.LaunchFailed(failure=NO_IMAGE, retryable=False))
    return [("launches", launched), *([away, fatal] if "launch" in faults else [])]


def _exit(box: Box) -> list[Outcome]:
    if box.alive or (box.unwatched and box.there):
        return []
    death = Death(exit_code=137, oom_killed=box.oom, removed=not box.there)
    return [("sees the end", lambda: s.ContainerExited(death=death))]


def _probe(box: Box, *, faults: frozenset[str]) -> list[Outcome]:
    failed: Outcome = ("fails", lambda: s.ProbeFailed(reason="no answer came"))
    if not box.answers:
        return [failed]
    return [("succeeds", lambda: s.ProbeSucceeded(version="1")), *([failed] if "slow" in faults else [])]


def _open(box: Box, *, faults: frozenset[str]) -> list[Outcome]:
    failure = Failure(cause=Cause.CRASH, message="HTTP 500")
    failed: Outcome = ("fails", lambda: s.OpeningFailed(failure=failure))
    if not box.answers:
        return [failed]
    opened = s.ConversationOpened(conversation=CONVERSATION, fresh=not box.number)
    return [("opens", lambda: opened), *([failed] if "slow" in faults else [])]


def _follow(world: World, flying: Flying, box: Box, *, faults: frozenset[str]) -> list[Outcome]:
    def lost() -> Any:
        flying.landed = True
        return flying, s.StreamLost(reason="the connection broke")

    def opened() -> Any:
        world.streams_lost += box.followed  # whatever was said since the stream before is lost
        box.followed = True
        flying.heard = len(box.server.said)
        return flying, j.StreamOpened()

    def heard(until: int) -> Any:
        events = tuple(box.server.said[flying.heard : until])
        flying.heard = until
        return flying, j.EventsSeen(events=events or (e.Heartbeat(),))

    if not box.alive:
        return [("breaks", lost)]
    if box.frozen:
        return []
    if flying.heard < 0:
        connects = box.answers and not box.unheard
        return [("connects", opened)] if connects else [("is refused", lost)]
    said = len(box.server.said)
    found: list[Outcome] = [("brings all", lambda: heard(said))]
    if said > flying.heard + 1:
        found.append(("brings one", lambda: heard(flying.heard + 1)))
    return [*found, ("breaks", lost)] if "breaks" in faults else found


def _sample(*, faults: frozenset[str]) -> list[Outcome]:
    def reading(memory: int) -> s.UsageSampled:
        return s.UsageSampled(usage=Usage(cpu_seconds=0.0, memory_bytes=memory, pids=9, oom_kills=0))

    found: list[Outcome] = [("gives figures", lambda: reading(1 << 29)), ("fails", lambda: None)]
    if "grows" in faults:
        found.append(("finds it grown", lambda: reading((1 << 30) - 1)))
    return found


def _end(world: World, rung: Rung) -> list[Outcome]:
    def end() -> Any:
        box = world.box
        if world.engine_away:
            return s.StopRefused(rung=rung, reason="no engine answers", away=True)
        if box is None:
            return s.ContainerRemoved()
        if rung is Rung.STOP and not (box.ignores_stop or box.frozen):
            world.die(box)
        if rung is Rung.KILL and not box.ignores_kill:
            world.die(box)
        if rung is not Rung.REMOVE:
            return s.StopAnswered(rung=rung)
        if box.ignores_remove:
            return s.StopRefused(rung=rung, reason="it is still there")
        world.die(box)
        box.there = False
        return s.ContainerRemoved()

    return [(f"{rung.name} is answered", end)]


def _submit(world: World, flying: Flying, box: Box, *, faults: frozenset[str]) -> list[Outcome]:
    def arrive() -> _OnItsWay:
        flying.arrived = True
        box.server.submit(flying.operation.prompt, world.now)
        return _OnItsWay()

    unsure: Outcome = ("gets no answer", lambda: j.PromptUnsure(reason="no answer came"))
    refusal = Failure(cause=Cause.REJECTED, message="HTTP 400")
    if flying.arrived:
        return [("is taken", j.PromptTaken), *([unsure] if "submit" in faults else [])]
    if not box.answers:
        return [unsure]
    refused: Outcome = ("is refused", lambda: j.PromptRefused(failure=refusal))
    return [("arrives", arrive), *([unsure, refused] if "submit" in faults else [])]


def _look_first(flying: Flying, box: Box) -> Any:
    flying.looked = True
    return flying, j.ResidentsSeen(processes=_living(box)) if box.alive else None


def _look(box: Box) -> list[Outcome]:
    if not box.alive:
        return [("fails", lambda: j.LookFailed(reason="the container does not run"))]
    return [("sees all", lambda: j.ProcessesSeen(processes=_living(box)))]


def _living(box: Box) -> tuple[Process, ...]:
    def process(pid: int, session: int) -> Process:
        return Process(pid=pid, started=pid, session=session, name="demo")

    return (process(box.number, box.number), *(process(stray, stray) for stray in box.strays))


def _read(world: World, flying: Flying, box: Box, *, faults: frozenset[str]) -> list[Outcome]:
    def status() -> _OnItsWay:
        flying.status = box.server.state()
        return _OnItsWay()

    def messages() -> j.ConversationRead:
        state = flying.status or ConversationState.IDLE
        return j.ConversationRead(messages=world.storage.read(flying.operation.since), state=state)

    failed: Outcome = ("fails", lambda: j.ReadFailed(reason="no answer came"))
    if not box.answers:
        return [failed]
    honest: Outcome = ("reads the state", status) if flying.status is None else ("reads all", messages)
    return [honest, *([failed] if "read" in faults else [])]


def _list(flying: Flying, box: Box, *, tools: bool, faults: frozenset[str]) -> list[Outcome]:
    def arrive() -> _OnItsWay:
        flying.arrived = True
        server = box.server
        busy = server.children()
        if server.turn is not None:
            busy |= {CONVERSATION}
        flying.found = j.RequestsRead(
            children=server.children(),
            busy=busy,
            requests=server.waits(),
            delegated=j.Delegated(runs=bool(server.children()), ended_at=None) if tools else None,
        )
        return _OnItsWay()

    failed: Outcome = ("fails", lambda: j.RequestsUnread(reason="no answer came"))
    if not box.answers and not flying.arrived:
        return [failed]
    honest: Outcome = ("brings the lists", lambda: flying.found) if flying.arrived else ("reads them", arrive)
    return [honest, *([failed] if "read" in faults else [])]


def _reply(world: World, flying: Flying, box: Box, *, faults: frozenset[str]) -> list[Outcome]:
    request, answer = flying.operation.request.id, flying.operation.answer

    def arrive() -> _OnItsWay:
        flying.arrived = True
        ends = isinstance(answer, j.Rejection) and not answer.message
        taken = box.server.reject(request, world.now) if ends else box.server.answer(request)
        flying.found = j.ReplyTaken() if taken else j.ReplyFailed(gone=True, reason="no such request")
        return _OnItsWay()

    failed: Outcome = ("gets no answer", lambda: j.ReplyFailed(gone=False, reason="no answer came"))
    if flying.arrived:
        return [("is answered", lambda: flying.found), *([failed] if "reply" in faults else [])]
    if not box.answers:
        return [failed]
    return [("arrives", arrive), *([failed] if "reply" in faults else [])]


def _abort(flying: Flying, box: Box, *, faults: frozenset[str]) -> list[Outcome]:
    def arrive() -> _OnItsWay:
        flying.arrived = True
        box.server.abort()
        return _OnItsWay()

    failed: Outcome = ("gets no answer", lambda: j.AbortFailed(reason="no answer came"))
    if flying.arrived:
        return [("is answered", j.AbortAnswered), *([failed] if "abort" in faults else [])]
    return [("arrives", arrive)] if box.answers else [failed]


# ---- the server's own life


def server_things(world: World, box: Box) -> list[Thing]:
    if box.alive and not box.booted:
        return [("the server boots", lambda: setattr(box, "booted", True))]
    server, now = box.server, world.now
    if not box.alive and box.unwatched and not world.engine_away and not world.session.mailbox:
        return [("the engine tells of the end", partial(world.find_dead, box))]
    if not box.answers:
        return []
    if server.echo:
        return [("idle is said again", server.say_idle_again), *_turn_things(server, now)]
    return _turn_things(server, now)


def _turn_things(server: Server, now: float) -> list[Thing]:
    turn = server.turn
    if turn is None:
        if server.pending is None:
            return []
        return [("the turn begins", lambda: server.begin(now)), ("nobody answers", server.never_begin)]
    if turn.aborting:
        return [("the abort is over", lambda: server.finish_abort(now))]
    if turn.ended:
        return [("the turn rests", server.rest)]
    if turn.retrying:
        return [("the provider is asked again", server.try_again)]
    if turn.question is not None:
        return [("somebody answers elsewhere", lambda: _drop(server.answer()))]
    if turn.child:
        return [
            ("the child is done", lambda: server.end_child(now)),
            ("the child asks", lambda: server.ask(by=CHILD)),
        ]
    if turn.tool is not None:
        return [
            ("the tool ends", lambda: server.end_tool(failed=False)),
            ("the tool fails", lambda: server.end_tool(failed=True)),
            ("a question is asked", server.ask),
            ("a child starts", server.start_child),
        ]
    says = [(f"the model says {chunk!r}", partial(server.say, chunk, now)) for chunk in CHUNKS]
    retry: list[Thing] = [("the provider fails", lambda: server.retry(now))] if turn.attempt < 5 else []
    if turn.text is not None:
        return [("the text ends", server.end_text), *says, *retry]
    return [
        ("the turn is done", lambda: server.finish(now)),
        ("the next step begins", lambda: server.next_step(now)),
        ("a tool starts", lambda: server.start_tool(now)),
        ("the talk is compacted", lambda: server.compact(now)),
        ("the provider refuses", lambda: server.fail(now)),
        *says,
        *retry,
    ]


def _drop(_: object) -> None:
    """What came of it is the server's own matter."""


def box_faults(world: World, box: Box) -> list[tuple[str, str, Callable[[], None]]]:
    def broken(name: str) -> Callable[[], None]:
        return lambda: setattr(box, name, True)

    faults = [
        (name, f"fault: {name}", broken(name))
        for name in ("frozen", "unheard", "unwatched", "ignores_stop", "ignores_kill", "ignores_remove")
    ]
    if box.alive:
        faults.append(("dies", "fault: the container dies", lambda: world.die(box)))
        faults += [("strays", "a stray ends", partial(box.end_stray, stray)) for stray in tuple(box.strays)]
        faults.append(("oom", "fault: out of memory", lambda: world.die(box, oom=True)))
    if box.server.turn is not None:
        turn = box.server.turn
        faults.append(("deaf", "fault: deaf to abort", lambda: setattr(turn, "deaf_to_abort", True)))
        if box.alive:
            leave = partial(world.leave_stray, box, turn.prompt)
            faults.append(("strays", "fault: a command leaves a stray", leave))
    return faults
