"""`opencode-actors serve`: the system behind its front door, until it is told to end."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from importlib.metadata import version
from pathlib import Path

import trio

from opencode_actors.adapters.engine import open_engine
from opencode_actors.cli.arguments import settings_of
from opencode_actors.cli.bug import keep_details
from opencode_actors.cli.explain import explain
from opencode_actors.cli.log import log_to_stderr
from opencode_actors.cli.render import duration, one_line
from opencode_actors.cli.status import Status
from opencode_actors.door.files import Whereabouts, announce, door_file, keep_token, token_file, withdraw
from opencode_actors.door.limits import Limits
from opencode_actors.door.methods import SystemDesk
from opencode_actors.door.results import About
from opencode_actors.door.serving import Address, open_door
from opencode_actors.errors import UsageError
from opencode_actors.kernel.opening import open_system
from opencode_actors.kernel.system import System
from opencode_actors.machines.notices import InputWanted, JobEnded, JobStarted, SessionChanged
from opencode_actors.machines.vocabulary import Failure, Leave, SessionStatus
from opencode_actors.model_access import ChosenModel, open_model_access
from opencode_actors.service_manager import ServiceManager
from opencode_actors.settings import Settings
from opencode_actors.settings_sources import LoadedSettings

_log = logging.getLogger("opencode_actors")
_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_TROUBLE = (SessionStatus.BACKING_OFF, SessionStatus.GIVEN_UP, SessionStatus.QUARANTINED)


def serve(arguments: argparse.Namespace) -> Status:
    loaded = settings_of(arguments)
    address = address_of(loaded.settings, insecure=bool(arguments.insecure_listen_anyway))
    leave = Leave.NOTHING if arguments.stop_sessions else Leave.ALL
    model = open_model_access(loaded.settings, os.environ, lasting=leave is Leave.ALL)
    with log_to_stderr(as_json=bool(arguments.json)):
        return trio.run(serve_until_told, loaded, address, model, leave)


def address_of(settings: Settings, *, insecure: bool) -> Address:
    """Raises `UsageError` for what would carry the token, and all that agents say, readable over a network."""
    certificate, key = settings.door_tls_certificate, settings.door_tls_key
    address = Address(
        host=settings.door_host,
        port=settings.door_port,
        certificate=Path(certificate).expanduser() if certificate else None,
        key=Path(key).expanduser() if key else None,
    )
    if address.is_loopback or address.certificate is not None or insecure:
        return address
    raise UsageError(
        f"doorHost {address.host} can be reached from other machines, and without TLS whoever listens on the way "
        f"reads the token, which opens everything",
        hint="set doorTlsCertificate and doorTlsKey, or listen on 127.0.0.1; if the network itself is protected, "
        "say --insecure-listen-anyway",
    )


async def serve_until_told(
    loaded: LoadedSettings,
    address: Address,
    model: AbstractAsyncContextManager[ChosenModel],
    leave: Leave,
) -> Status:
    """Until a signal. `model` is entered for as long as the service runs."""
    manager = ServiceManager.of(os.environ)
    for warning in loaded.warnings:
        _log.warning("%s", warning)
    with trio.open_signal_receiver(*_SIGNALS) as signals:
        async with trio.open_nursery() as nursery:
            told_to_end = trio.Event()
            nursery.start_soon(_obey, signals, told_to_end, nursery.cancel_scope, manager)
            nursery.start_soon(manager.keep_alive)
            manager.say(f"STATUS=connecting to {loaded.settings.runtime}")
            async with model as chosen:
                await _run(chosen, address, manager, told_to_end, leave=leave)
            nursery.cancel_scope.cancel()
    _log.info("ended")
    return Status.OK


async def _obey(
    signals: AsyncIterator[int],
    told_to_end: trio.Event,
    everything: trio.CancelScope,
    manager: ServiceManager,
) -> None:
    """A first signal ends it in order; a second one does not wait for who is slow to be told."""
    async for number in signals:
        name = signal.Signals(number).name
        manager.say("STOPPING=1", f"STATUS={name}: shutting down")
        if told_to_end.is_set():
            _log.warning("%s again: no longer waiting for clients", name)
            everything.cancel()
        else:
            _log.info("%s: shutting down", name)
            told_to_end.set()


async def _run(
    chosen: ChosenModel,
    address: Address,
    manager: ServiceManager,
    told_to_end: trio.Event,
    *,
    leave: Leave,
) -> None:
    if chosen.remark:
        _log.warning("%s", chosen.remark)
    settings = chosen.settings
    async with open_engine(runtime=settings.runtime, socket=settings.engine_socket) as engine:
        # Before it has taken over any job: one that went away just then ended it, and with --stop-sessions all of them.
        about = About(
            version=version("opencode-actors"),
            pid=os.getpid(),
            started_at=round(time.time(), 3),
            engine=await engine.info(),
        )
        async with (
            open_system(settings, engine=engine, access=chosen.access, notify=True, leave=leave) as system,
            trio.open_nursery() as nursery,
        ):
            await _open(system, about, nursery, address, manager, told_to_end)
            await _say_what_is_left(system, leave)
            nursery.cancel_scope.cancel()


async def _say_what_is_left(system: System, leave: Leave) -> None:
    if leave is Leave.ALL and (busy := [s.key for s in await system.sessions() if s.running or s.queued]):
        _log.info("left to the next start, at work: %s", ", ".join(busy))


async def _open(
    system: System,
    about: About,
    nursery: trio.Nursery,
    address: Address,
    manager: ServiceManager,
    told_to_end: trio.Event,
) -> None:
    settings, limits = system.settings, Limits()
    folder = settings.sessions_dir.expanduser()
    token = keep_token(token_file(folder))

    def explained(failure: Failure) -> tuple[str, str]:
        explanation = explain(failure, settings)
        return explanation.what, explanation.hint

    desk = SystemDesk(system, about, limits, explained, nursery)
    async with open_door(
        address,
        desk,
        token=token,
        report=lambda error: _as_text(keep_details(error)),
        origins=settings.door_origins,
        limits=limits,
    ) as door:
        where = Whereabouts(
            url=door.url,
            token_file=token_file(folder),
            pid=about.pid,
            version=about.version,
            started_at=about.started_at,
            certificate=address.certificate,
        )
        try:
            announce(door_file(folder), where)
            engine = about.engine
            _log.info(
                "listening on %s (%s %s, token in %s)",
                door.url,
                engine.kind.value,
                engine.version,
                where.token_file,
            )
            manager.say("READY=1", f"STATUS=listening on {door.url}")
            nursery.start_soon(_tell, system)
            await told_to_end.wait()
        finally:
            withdraw(door_file(folder), about.pid)


def _as_text(path: Path | None) -> str | None:
    return None if path is None else str(path)


async def _tell(system: System) -> None:
    """What an operator wants to read later: who began, who ended and how, what went wrong."""
    async for notice in system.follow():
        match notice:
            case JobStarted():
                _log.info("job %s of session %s has started", notice.job, notice.session)
            case JobEnded(snapshot=job):
                failure = (
                    f" ({job.failure.cause.value}: {one_line(job.failure.message)})" if job.failure else ""
                )
                took = duration(job.elapsed_seconds)
                _log.info(
                    "job %s of session %s %s%s after %s", job.id, job.session, job.status.value, failure, took
                )
            case InputWanted():
                _log.info("job %s of session %s asks: %s", notice.job, notice.session, one_line(notice.text))
            case SessionChanged() if notice.status in _TROUBLE:
                _log.warning(
                    "session %s is %s: %s", notice.session, notice.status.value, one_line(notice.detail)
                )
            case _:
                pass
