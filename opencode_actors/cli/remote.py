"""The verbs of the front door on the command line: a client of the service that runs."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import trio

from opencode_actors.cli import remote_tables as tables
from opencode_actors.cli.arguments import pairs_of
from opencode_actors.cli.remote_follow import follow
from opencode_actors.cli.status import Status
from opencode_actors.cli.typed import answers_of, check
from opencode_actors.door.client import Client, open_client
from opencode_actors.door.faults import Code
from opencode_actors.errors import CallRefused
from opencode_actors.settings_sources import load_settings

Document = dict[str, Any]
Show = Callable[[Document], None]

_PAGE = 1 << 20


def command(arguments: argparse.Namespace) -> Status:
    check(arguments)
    return trio.run(ask, arguments)


async def ask(arguments: argparse.Namespace) -> Status:
    """Does what was typed, and checked, through the service that runs."""
    settings = load_settings(environment=os.environ, flags=pairs_of(arguments)).settings
    folder = settings.sessions_dir.expanduser()
    if arguments.verb != "follow":
        async with open_client(folder) as client:
            try:
                await _VERBS[arguments.verb](arguments, client)
            except CallRefused as refused:
                raise _in_their_words(refused, arguments.verb) from None
        if not getattr(arguments, "follow", False):
            return Status.OK
    return await follow(
        folder,
        job=arguments.job,
        session=None if arguments.job else arguments.session,
        since=getattr(arguments, "since", None),
        as_json=arguments.json,
    )


def _in_their_words(refused: CallRefused, verb: str) -> CallRefused:
    """Who typed a command is not helped by the protocol's page, which the service hints at."""
    if refused.cause == Code.INVALID_PARAMS.name.lower():
        refused.hint = f"`opencode-actors {verb} --help` shows what it takes"
    return refused


async def _start(arguments: argparse.Namespace, client: Client) -> None:
    answer = await client.call(
        "start", prompt=arguments.prompt, session_id=arguments.session, **_wishes(arguments)
    )
    _began(arguments, answer)


async def _respond(arguments: argparse.Namespace, client: Client) -> None:
    message, place, interrupt = arguments.prompt, _place(arguments), arguments.interrupt
    answer = await client.call("respond", message=message, interrupt=interrupt, **place, **_wishes(arguments))
    _began(arguments, answer)


async def _resume(arguments: argparse.Namespace, client: Client) -> None:
    place = _place(arguments)
    _began(arguments, await client.call("resume", message=arguments.prompt, **place, **_wishes(arguments)))


async def _fork(arguments: argparse.Namespace, client: Client) -> None:
    place = _place(arguments)
    answer = await client.call("fork", message=arguments.prompt, **place, **_wishes(arguments))
    if answer["job"] is not None:
        arguments.job = answer["job"]["jobId"]
    if not arguments.follow:
        _show(arguments, answer, tables.forked)


def _place(arguments: argparse.Namespace) -> dict[str, object]:
    return {"session_id": arguments.session, "job_id": arguments.job}


def _began(arguments: argparse.Namespace, answer: Document) -> None:
    arguments.job = answer["jobId"]
    if not arguments.follow:
        _show(arguments, answer, tables.started)


def _wishes(arguments: argparse.Namespace) -> dict[str, object]:
    return {
        "name": arguments.name,
        "model": arguments.model,
        "permission_mode": arguments.mode,
        "permission_rules": arguments.rule,
        "agent": arguments.agent,
        "system": arguments.system,
        "max_cost_usd": arguments.max_cost_usd,
        "timeout": arguments.timeout,
        "report_every": arguments.report_every,
        "image": arguments.image,
        "key": arguments.key,
    }


async def _status(arguments: argparse.Namespace, client: Client) -> None:
    _show(arguments, await client.call("status", job_id=arguments.job), tables.status)


async def _output(arguments: argparse.Namespace, client: Client) -> None:
    """All of it from the offset on, or as much as was asked for; what comes later is `follow`'s."""
    offset, left, first = arguments.offset, arguments.limit, True
    while first or (left is None or left > 0):
        limit = _PAGE if left is None else min(left, _PAGE)
        piece = await client.call("output", job_id=arguments.job, offset=offset, limit=limit)
        if arguments.json:
            _print(json.dumps(piece, indent=2))
            return
        tables.output(piece["text"])
        if not piece["hasMore"]:
            break
        left = None if left is None else left - (piece["nextOffset"] - offset)
        offset, first = piece["nextOffset"], False


async def _cancel(arguments: argparse.Namespace, client: Client) -> None:
    _show(arguments, await client.call("cancel", job_id=arguments.job), tables.status)


async def _sessions(arguments: argparse.Namespace, client: Client) -> None:
    _show(arguments, await client.call("sessions", all=arguments.all), tables.sessions)


async def _attach(arguments: argparse.Namespace, client: Client) -> None:
    answer = await client.call(
        "attach",
        name=arguments.name,
        url=arguments.url,
        user=arguments.user,
        password_file=arguments.password_file,
        password_env=arguments.password_env,
        directory=arguments.directory,
        conversation=arguments.conversation,
    )
    _show(arguments, answer, tables.attached)


async def _detach(arguments: argparse.Namespace, client: Client) -> None:
    answer = await client.call("detach", session_id=arguments.session_id)
    _show(
        arguments, answer, lambda gone: _print(f"detached from {gone['server']}; nothing there was touched")
    )


async def _conversations(arguments: argparse.Namespace, client: Client) -> None:
    answer = await client.call("conversations", session_id=arguments.session_id)
    _show(arguments, answer, tables.conversations)


async def _agents(arguments: argparse.Namespace, client: Client) -> None:
    _show(arguments, await client.call("agents", session_id=arguments.session_id), tables.agents)


async def _models(arguments: argparse.Namespace, client: Client) -> None:
    answer = await client.call("models", session_id=arguments.session_id, match=arguments.match)
    _show(arguments, answer, tables.models)


async def _cleanup(arguments: argparse.Namespace, client: Client) -> None:
    answer = await client.call(
        "cleanup",
        delete_workspaces=arguments.delete_workspaces,
        delete_data=arguments.delete_data,
        older_than=arguments.older_than,
    )
    _show(arguments, answer, tables.cleanup)


async def _close(arguments: argparse.Namespace, client: Client) -> None:
    _show(arguments, await client.call("close", session_id=arguments.session_id), tables.closed)


async def _reset(arguments: argparse.Namespace, client: Client) -> None:
    answer = await client.call("reset", session_id=arguments.session_id)
    _show(arguments, answer, lambda session: tables.sessions({"sessions": [session]}))


async def _answer(arguments: argparse.Namespace, client: Client) -> None:
    answer = await client.call(
        "answer",
        job_id=arguments.job,
        request_id=arguments.request,
        answers=answers_of(arguments),
        reply=arguments.reply,
        reject=arguments.reject,
        message=arguments.message,
    )
    _show(arguments, answer, lambda _: _print("answered"))


async def _requests(arguments: argparse.Namespace, client: Client) -> None:
    _show(arguments, await client.call("requests"), tables.requests)


async def _statistics(arguments: argparse.Namespace, client: Client) -> None:
    _show(arguments, await client.call("statistics", days=arguments.days), tables.statistics)


async def _notify(arguments: argparse.Namespace, client: Client) -> None:
    place = {"session_id": arguments.session, "job_id": arguments.job, "channel": arguments.channel}
    choice = {name: _words(getattr(arguments, name)) for name in ("on", "off", "reset")}
    _show(arguments, await client.call("notify", **place, **choice), tables.chosen)


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


async def _info(arguments: argparse.Namespace, client: Client) -> None:
    _show(arguments, await client.call("info"), tables.info)


_VERBS: dict[str, Callable[[argparse.Namespace, Client], Awaitable[None]]] = {
    "start": _start,
    "respond": _respond,
    "resume": _resume,
    "fork": _fork,
    "status": _status,
    "output": _output,
    "cancel": _cancel,
    "sessions": _sessions,
    "attach": _attach,
    "detach": _detach,
    "conversations": _conversations,
    "agents": _agents,
    "models": _models,
    "cleanup": _cleanup,
    "close": _close,
    "reset": _reset,
    "answer": _answer,
    "requests": _requests,
    "statistics": _statistics,
    "notify": _notify,
    "info": _info,
}


def _show(arguments: argparse.Namespace, document: Document, show: Show) -> None:
    if arguments.json:
        _print(json.dumps(document, indent=2))
    else:
        show(document)


_print = partial(print, flush=True)
