"""How the service and its verbs are written on the command line. Imports nothing else, so that --help is fast."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING

from opencode_actors.cli.figures import age, dollars, seconds, whole
from opencode_actors.cli.status import TABLE, Status

if TYPE_CHECKING:
    from opencode_actors.cli.main import Commands, Parser

AddCommon = Callable[["Parser"], None]

_JOB = "its id, its name, or its session's"
_SESSION = "its name, or a job of it"

_ANSWERING = """\

Several questions of one request take one ANSWER each, in their order:
  opencode-actors answer JOB REQUEST Blue "by the end of May"
Where several options may be chosen for one question, --choose takes them, once for each question:
  opencode-actors answer JOB REQUEST --choose Tests Docs --choose Blue"""

_CLEANING = """\

Conversations and files stay, unless they are asked for. --delete-data and --delete-workspaces go over ALL sessions that
are known and not kept, not only those that this ends: also over those that were closed long ago, and whose files
somebody may still want. There is no way back. --older-than narrows it to what has not been used for so long."""


def add_service(commands: Commands, add_common: AddCommon, parser_class: type[Parser]) -> None:
    serve = commands.add_parser(
        "serve",
        help="run the service that other programs, OpenClaw among them, connect to",
        description="Runs jobs for whoever connects to its websocket (docs/protocol.md), until SIGTERM or Ctrl-C.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    serve.add_argument("--json", action="store_true", help="log lines as JSON")
    _add_stop_sessions(serve)
    _add_insecure(serve)
    add_common(serve)
    serve.set_defaults(command=_serve)

    service = commands.add_parser("service", help="run `serve` under systemd")
    actions = service.add_subparsers(
        title="commands", metavar="COMMAND", required=True, parser_class=parser_class
    )
    install = actions.add_parser(
        "install",
        help="write a systemd user unit",
        description="Writes a systemd user unit for `serve` with the settings that are given here, and prints the "
        "commands that enable it.",
    )
    install.add_argument("--print", action="store_true", help="print the unit, and write nothing")
    _add_stop_sessions(install)
    _add_insecure(install)
    add_common(install)
    install.set_defaults(command=_install)


def _add_stop_sessions(parser: Parser) -> None:
    parser.add_argument(
        "--stop-sessions",
        action="store_true",
        help="end all jobs and containers with the service; without it, jobs go on, and the next start follows them",
    )


def _add_insecure(parser: Parser) -> None:
    parser.add_argument(
        "--insecure-listen-anyway",
        action="store_true",
        help="listen beyond this host without TLS: whoever sees the traffic controls the agents",
    )


def add_verbs(commands: Commands) -> None:
    start = _verb(commands, "start", "give the service a prompt; its job id at once")
    start.add_argument("prompt", metavar="PROMPT", help="what to do; - reads it from stdin")
    start.add_argument("--session", metavar="KEY", help="go on with this session, or begin it")
    start.set_defaults(job=None)
    _add_wishes(start)

    respond = _verb(commands, "respond", "say more in the conversation of a session")
    _add_place(respond)
    respond.add_argument("prompt", metavar="MESSAGE", help="what to say; - reads it from stdin")
    respond.add_argument(
        "--interrupt", action="store_true", help="end the turn that runs, and go before all that waits"
    )
    _add_wishes(respond)

    resume = _verb(commands, "resume", "go on with a session that has ended, in its conversation")
    _add_place(resume)
    resume.add_argument(
        "prompt", metavar="MESSAGE", nargs="?", help="what to say (default: to finish what it was at)"
    )
    _add_wishes(resume)

    fork = _verb(
        commands, "fork", "branch a session: a new one with its conversation and a copy of its files"
    )
    _add_place(fork)
    fork.add_argument("prompt", metavar="MESSAGE", nargs="?", help="what to say in the new one at once")
    _add_wishes(fork, name="what the new session is called")

    status = _verb(commands, "status", "how a job is")
    status.add_argument("job", metavar="JOB", help=_JOB)

    output = _verb(commands, "output", "what a job has said so far, with the tools' lines")
    output.add_argument("job", metavar="JOB", help=_JOB)
    output.add_argument("--offset", metavar="BYTES", type=whole, default=0, help="from there on")
    output.add_argument("--limit", metavar="BYTES", type=whole, help="at most so much (default: all of it)")

    cancel = _verb(commands, "cancel", "end a job; returns when it has ended")
    cancel.add_argument("job", metavar="JOB", help=_JOB)

    sessions = _verb(commands, "sessions", "which sessions there are")
    sessions.add_argument("--all", action="store_true", help="also those that have ended")

    attach = _verb(commands, "attach", "a session whose OpenCode server somebody else runs")
    attach.add_argument("name", metavar="NAME", help="what the session is called")
    attach.add_argument("url", metavar="URL", help="where the server answers: http://… or https://…")
    attach.add_argument("--user", metavar="NAME", help="whom the server lets in, unless it is `opencode`")
    secret = attach.add_mutually_exclusive_group()
    secret.add_argument(
        "--password-file", metavar="PATH", help="the file that has its password, on the service's machine"
    )
    secret.add_argument(
        "--password-env", metavar="NAME", help="the environment variable of the service that has it"
    )
    attach.add_argument("--directory", metavar="PATH", help="where it works, on its own machine")
    attach.add_argument("--conversation", metavar="ID", help="go on with this conversation of theirs")

    detach = _verb(commands, "detach", "forget an attached session; nothing there is touched")
    detach.add_argument("session_id", metavar="SESSION", help=_SESSION)

    conversations = _verb(commands, "conversations", "which conversations a session's server has")
    conversations.add_argument("session_id", metavar="SESSION", help=_SESSION)

    agents = _verb(commands, "agents", "which agents a prompt may name")
    models = _verb(commands, "models", "which models a prompt may name")
    models.add_argument("--match", metavar="WORD", help="only those with this word in their name")
    for parser in (agents, models):
        parser.add_argument(
            "session_id",
            metavar="SESSION",
            nargs="?",
            help="of this session's server (default: of any container's)",
        )

    cleanup = _verb(
        commands, "cleanup", "end idle sessions and their containers; running ones never", more=_CLEANING
    )
    cleanup.add_argument(
        "--delete-workspaces",
        action="store_true",
        help="delete the agents' files, of all sessions that are not kept, also of those closed long ago",
    )
    cleanup.add_argument(
        "--delete-data", action="store_true", help="delete the conversations, of all those sessions"
    )
    cleanup.add_argument(
        "--older-than",
        metavar="AGE",
        type=age,
        help="keep what was used within it: seconds, or as 15m, 36h, 7d (default: only what is at work)",
    )

    close = _verb(commands, "close", "end a session's container, and its jobs; conversation and files stay")
    close.add_argument("session_id", metavar="SESSION", help=_SESSION)

    reset = _verb(
        commands,
        "reset",
        "make a session usable again that is given_up or quarantined, once its cause is mended",
    )
    reset.add_argument("session_id", metavar="SESSION", help=_SESSION)

    follow = _verb(commands, "follow", "what happens, as it happens, also across a restart of the service")
    follow.add_argument("job", metavar="JOB", nargs="?", help="this job, from its beginning to its end")
    follow.add_argument("--session", metavar="KEY", help="this session (default: everything)")
    follow.add_argument(
        "--since", metavar="SEQ", type=whole, help="what came after the notice of this number"
    )

    answer = _verb(commands, "answer", "answer what a job asks", more=_ANSWERING)
    answer.add_argument("job", metavar="JOB", help=_JOB)
    answer.add_argument("request", metavar="REQUEST", help="the request's id, as status and follow show it")
    answer.add_argument(
        "answers",
        metavar="ANSWER",
        nargs="*",
        help="an option, or free words; one for each question, in their order",
    )
    answer.add_argument(
        "--choose",
        metavar="LABEL",
        nargs="+",
        action="append",
        help="all that is chosen for one question; behind JOB and REQUEST, and instead of ANSWER",
    )
    answer.add_argument("--reply", choices=("once", "always"), help="for a permission")
    answer.add_argument("--reject", action="store_true", help="say no")
    answer.add_argument("--message", metavar="TEXT", help="with --reject: what the agent is told")

    _verb(commands, "requests", "what all jobs ask and wait to be answered")

    statistics = _verb(commands, "statistics", "what the jobs of the last days came to: cost, time, outcomes")
    statistics.add_argument(
        "--days", metavar="N", type=whole, default=7, help="so many, with today (default: 7)"
    )

    notify = _verb(commands, "notify", "which chats are told what of their jobs; choose it")
    place = notify.add_mutually_exclusive_group()
    place.add_argument("--session", metavar="KEY", help="of the jobs of this session")
    place.add_argument("--job", metavar="JOB", help="of the jobs of this one's session")
    place.add_argument("--channel", metavar="NAME", help="to all chats of this channel, for example telegram")
    kinds = "comma-separated: completed, failed, cancelled, limit, waiting, answered, running, report, started, text, tool, all"
    notify.add_argument("--on", metavar="KINDS", default="", help=kinds)
    notify.add_argument("--off", metavar="KINDS", default="", help="these are not told")
    notify.add_argument("--reset", metavar="KINDS", default="", help="these are as the settings say")

    _verb(commands, "info", "which service this is")


def _verb(commands: Commands, name: str, help_: str, *, more: str = "") -> Parser:
    parser = commands.add_parser(
        name,
        help=help_,
        description=f"{help_[0].upper()}{help_[1:]}. Asks the service that `opencode-actors serve` runs.\n{more}",
        epilog=TABLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--set",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        help="any setting; sessionsDir finds the service",
    )
    parser.set_defaults(command=_remote, verb=name, follow=False, session=None, job=None, since=None)
    parser.intermixed = True
    return parser


def _add_place(parser: Parser) -> None:
    parser.add_argument("place", metavar="SESSION", nargs="?", help=_SESSION)
    parser.add_argument("--session", metavar="SESSION", help="the same, instead of the first word")
    parser.add_argument("--job", metavar="JOB", help="the session of this job, by its id or name")


def _add_wishes(parser: Parser, *, name: str = "what people call the job") -> None:
    parser.add_argument("--follow", action="store_true", help="and show it until its end, as `run` does")
    parser.add_argument("--name", metavar="NAME", help=name)
    parser.add_argument("--model", metavar="PROVIDER/MODEL", help="the model that answers")
    parser.add_argument(
        "--mode",
        choices=("allow", "ask", "plan", "default"),
        help="what the agent may do: all; what a person allows; only read; what the settings say",
    )
    parser.add_argument(
        "--rule",
        metavar="TOOL:PATTERN=ACTION",
        action="append",
        help="before the mode: allow, ask or deny, for example 'bash:git push*=deny'; may be given several times",
    )
    parser.add_argument("--agent", metavar="NAME", help="the OpenCode agent that answers")
    parser.add_argument("--system", metavar="TEXT", help="added to the agent's system prompt")
    parser.add_argument(
        "--max-cost-usd", metavar="USD", type=dollars, help="the job is ended when it has cost more"
    )
    parser.add_argument("--timeout", metavar="SECONDS", type=seconds, help="bound for the whole job")
    parser.add_argument(
        "--report-every", metavar="SECONDS", type=seconds, help="its chat is told how far it is; 0 for never"
    )
    parser.add_argument("--image", metavar="NAME", help="the image of a session that has no container yet")
    parser.add_argument(
        "--key", metavar="KEY", help="the same key within a day is the same job, so asking again is safe"
    )


def _serve(arguments: argparse.Namespace) -> Status:
    from opencode_actors.cli.serve import serve

    return serve(arguments)


def _install(arguments: argparse.Namespace) -> Status:
    from opencode_actors.cli.service import install

    return install(arguments)


def _remote(arguments: argparse.Namespace) -> Status:
    from opencode_actors.cli.remote import command

    return command(arguments)
