"""What was typed, as a whole: refused, and read from stdin, before the service is asked.

A connection is not held meanwhile: who takes a minute to type a prompt answers no ping, and what cannot be is
the caller's mistake whether or not a service runs.
"""

from __future__ import annotations

import argparse

from opencode_actors.cli.run import prompt_of
from opencode_actors.errors import UsageError
from opencode_actors.kernel.answers import answer_of

_PLACED = ("respond", "resume", "fork")


def check(arguments: argparse.Namespace) -> None:
    """Puts what was found into its place. Raises `UsageError`."""
    verb = arguments.verb
    if verb in _PLACED:
        _find_place(arguments)
    if verb == "start" or (verb in _PLACED and arguments.prompt is not None):
        arguments.prompt = prompt_of(arguments.prompt)
    if verb == "fork" and arguments.follow and arguments.prompt is None:
        raise UsageError("there is no job to follow", hint="give a message, or leave --follow out")
    if verb == "follow" and arguments.job is not None and arguments.session is not None:
        raise UsageError("follow a job or a session, not both", hint="a session's jobs are in it")
    if verb == "answer":
        _check_answer(arguments)


def _find_place(arguments: argparse.Namespace) -> None:
    """The first word says where, unless an option does; then the only one is the message."""
    verb = arguments.verb
    options = [option for option in (arguments.session, arguments.job) if option is not None]
    words = [word for word in (arguments.place, arguments.prompt) if word is not None]
    if len(options) > 1 or (options and arguments.place is not None and arguments.prompt is not None):
        raise UsageError(
            "the session is named twice",
            hint=f"`opencode-actors {verb} SESSION MESSAGE` is all that it takes",
        )
    if options:
        arguments.prompt = words[0] if words else None
    elif words:
        arguments.session, *rest = words
        arguments.prompt = rest[0] if rest else None
    if not (options or words) or (verb == "respond" and arguments.prompt is None):
        raise UsageError(
            "a message goes into a session: name it first",
            hint=f"opencode-actors {verb} SESSION MESSAGE; `opencode-actors sessions --all` lists them",
        )


def answers_of(arguments: argparse.Namespace) -> list[list[str]] | None:
    return arguments.choose or [[answer] for answer in arguments.answers] or None


def _check_answer(arguments: argparse.Namespace) -> None:
    if arguments.choose and arguments.answers:
        raise UsageError(
            f"{arguments.answers[0]!r} is an answer beside what is chosen",
            hint="give each question's to --choose",
        )
    answers, message = answers_of(arguments), arguments.message or ""
    if answers is None and arguments.reply is None and not arguments.reject:
        raise UsageError("no answer is given", hint="give the answer, or --reply once|always, or --reject")
    answer_of(answers=answers, reply=arguments.reply, reject=arguments.reject, message=message)
