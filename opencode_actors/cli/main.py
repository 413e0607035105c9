"""The command line. Imports late: `--help` and a mistyped flag must not wait for the rest."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from opencode_actors.cli.figures import dollars
from opencode_actors.cli.service_parsers import add_service, add_verbs
from opencode_actors.cli.status import TABLE, Status

if TYPE_CHECKING:
    from opencode_actors.errors import OpencodeActorsError

ErrorT = TypeVar("ErrorT", bound=Exception)

Command = Callable[[argparse.Namespace], Status]

EXAMPLES = """\
examples:
  opencode-actors run "write a haiku about containers"
  opencode-actors run --session demo "and now one about supervisors"
  git diff | opencode-actors run - > review.txt
  opencode-actors serve &  opencode-actors start --follow "fix the failing test"
  opencode-actors doctor
"""


class Parser(argparse.ArgumentParser):
    """With `intermixed`, options may stand before, between and behind the words, in any order."""

    intermixed = False

    def parse_known_args(self, *given: Any, **named: Any) -> Any:
        if not self.intermixed:
            return super().parse_known_args(*given, **named)
        self.intermixed = False  # argparse does it in two rounds of this method
        try:
            return self.parse_known_intermixed_args(*given, **named)
        finally:
            self.intermixed = True

    def error(self, message: str) -> NoReturn:
        sys.stderr.write(f"error: {message}\nhint: `{self.prog} --help` shows how it is used\n")
        raise SystemExit(Status.USAGE)


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status. What is no error of this package is a bug, and is reported as one."""
    from opencode_actors.cli.bug import report_bugs

    report_bugs()
    arguments = build_parser().parse_args(argv)
    import errno

    from opencode_actors.errors import OpencodeActorsError, StoreError

    failures: list[OpencodeActorsError] = []
    status = Status.CANCELLED
    try:
        command: Command = arguments.command
        status = command(arguments)
        sys.stdout.flush()
    except* OpencodeActorsError as group:
        failures.extend(_leaves(group))
    except* KeyboardInterrupt:
        sys.stderr.write("cancelled\n")
    except* BrokenPipeError:
        _forget_stdout()
    except* OSError as full:
        if any(error.errno != errno.ENOSPC for error in _leaves(full)):
            raise
        _forget_stdout()
        failures.append(
            StoreError("there is no room left for what it writes", hint="make room, then try again")
        )
    return _failed(failures, as_json=bool(getattr(arguments, "json", False))) if failures else status


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="opencode-actors",
        description="Runs OpenCode agents in containers and supervises them.",
        epilog=f"{EXAMPLES}\n{TABLE}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=_Version, help="print the version and exit")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=Parser)
    _add_run(commands)
    add_service(commands, _add_common, Parser)
    add_verbs(commands)
    _add_doctor(commands)
    _add_image(commands)
    _add_settings(commands)
    _add_plugin(commands)
    _add_stress(commands)
    return parser


class _Version(argparse.Action):
    """The version is looked up only when it is asked for."""

    def __init__(self, option_strings: Sequence[str], dest: str, help: str) -> None:  # noqa: A002 - argparse's name
        super().__init__(option_strings, dest, nargs=0, help=help)

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        from importlib.metadata import version

        sys.stdout.write(f"opencode-actors {version('opencode-actors')}\n")
        parser.exit()


if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[Parser]  # noqa: SLF001 - argparse has no public name


def _add_run(commands: Commands) -> None:
    parser = commands.add_parser(
        "run",
        help="give OpenCode a prompt and watch it work",
        description="Runs one prompt in a container of its own and streams the answer.\n"
        "The answer goes to stdout, everything else to stderr. Ctrl-C cancels; a second one kills.",
        epilog=TABLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("prompt", metavar="PROMPT", help="what to do; - reads it from stdin")
    parser.add_argument(
        "--session", metavar="KEY", help="go on with this session, or begin it (default: a new one)"
    )
    parser.add_argument("--model", metavar="PROVIDER/MODEL", help="the model that answers")
    parser.add_argument("--agent", metavar="NAME", help="the OpenCode agent that answers")
    parser.add_argument("--timeout", metavar="SECONDS", help="bound for the whole job")
    parser.add_argument(
        "--max-cost-usd", metavar="USD", type=dollars, help="the job is ended when it has cost more"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of the answer")
    _add_common(parser)
    parser.set_defaults(command=_run)


def _add_doctor(commands: Commands) -> None:
    parser = commands.add_parser(
        "doctor",
        help="check this host, and say how to mend what is wrong",
        description="Checks engine, image, limits, credentials and settings of this host.",
        epilog=TABLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    _add_common(parser)
    parser.set_defaults(command=_doctor)


def _add_image(commands: Commands) -> None:
    parser = commands.add_parser("image", help="build or show the container image")
    actions = parser.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=Parser)
    build = actions.add_parser(
        "build", help="build the image unless it is up to date", description="Builds the container image."
    )
    build.add_argument(
        "--target", choices=("standard", "full"), default="standard", help="full adds Go and TinyGo"
    )
    build.add_argument("--rebuild", action="store_true", help="build it even when it is up to date")
    _add_common(build)
    build.set_defaults(command=_image_build)
    show = actions.add_parser("show", help="say what the image is", description="Shows the container image.")
    show.add_argument("--json", action="store_true", help="print one JSON document")
    _add_common(show)
    show.set_defaults(command=_image_show)


def _add_settings(commands: Commands) -> None:
    parser = commands.add_parser(
        "settings",
        help="list all settings, their values and where they come from",
        description="Lists every setting: value, default, unit, meaning, and the source of its value.\n"
        "Sources, later ones win: openclaw.json (plugins.entries.opencode.config), environment\n"
        "(OPENCODE_ACTORS_<NAME_IN_CAPITALS>), flags (--set name=value).",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print one JSON document")
    form.add_argument("--markdown", action="store_true", help="print the table of the documentation")
    _add_common(parser)
    parser.set_defaults(command=_settings)


def _add_plugin(commands: Commands) -> None:
    parser = commands.add_parser("plugin", help="install the OpenClaw plugin, or say where it is")
    actions = parser.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=Parser)
    path = actions.add_parser(
        "path", help="print the plugin's folder", description="Prints the folder of the OpenClaw plugin."
    )
    path.set_defaults(command=_plugin_path)
    install = actions.add_parser(
        "install",
        help="install the plugin into OpenClaw",
        description="Installs the OpenClaw plugin with `openclaw plugins install`, and tells it how to start\n"
        "the service. A running gateway takes it up by itself.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    install.set_defaults(command=_plugin_install)


def _add_stress(commands: Commands) -> None:
    parser = commands.add_parser(
        "stress",
        help="drive the whole system through trouble, and hold it to its rules",
        description="Runs scenarios of jobs and faults against the whole system, in a world where hours take\n"
        "seconds, and reports each rule that is broken with the seed that breaks it again.",
        epilog=TABLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "scenario",
        metavar="SCENARIO",
        nargs="?",
        help="a TOML file, or a usual one's name (default: all those)",
    )
    parser.add_argument(
        "--world",
        choices=("virtual", "local", "real"),
        default="virtual",
        help="local: real time, sockets and journal; real: containers, and a service that is killed",
    )
    parser.add_argument("--seed", metavar="SEED", help="the first seed (default: a fresh one)")
    parser.add_argument("--runs", metavar="COUNT", help="so many seeds, one after another (default: 1)")
    parser.add_argument("--replay", metavar="SEED", help="exactly this seed, once")
    parser.add_argument("--jobs", metavar="NUMBERS", help="of one run, these jobs alone, such as 3,7")
    parser.add_argument("--faults", metavar="NUMBERS", help="of one run, these faults alone")
    parser.add_argument("--shrink", action="store_true", help="drop what a failure does not need")
    parser.add_argument("--html", metavar="FILE", help="write a page with plots")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    _add_common(parser)
    parser.set_defaults(command=_stress)


def _add_common(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("settings (`opencode-actors settings` lists all)")
    group.add_argument("--engine", metavar="podman|docker", help="the container engine")
    group.add_argument("--image", metavar="NAME", help="the container image")
    group.add_argument(
        "--set", metavar="NAME=VALUE", action="append", default=[], help="any setting; repeatable"
    )


# ---- the commands


def _run(arguments: argparse.Namespace) -> Status:
    from opencode_actors.cli.run import run

    return run(arguments)


def _doctor(arguments: argparse.Namespace) -> Status:
    from opencode_actors.cli.doctor import doctor

    return doctor(arguments)


def _image_build(arguments: argparse.Namespace) -> Status:
    from opencode_actors.cli.image import build

    return build(arguments)


def _image_show(arguments: argparse.Namespace) -> Status:
    from opencode_actors.cli.image import show

    return show(arguments)


def _settings(arguments: argparse.Namespace) -> Status:
    from opencode_actors.cli.settings_table import settings

    return settings(arguments)


def _plugin_path(arguments: argparse.Namespace) -> Status:
    from opencode_actors.cli.plugin import path

    return path(arguments)


def _plugin_install(arguments: argparse.Namespace) -> Status:
    from opencode_actors.cli.plugin import install

    return install(arguments)


def _stress(arguments: argparse.Namespace) -> Status:
    from opencode_actors.cli.stress import stress

    return stress(arguments)


# ---- errors


def _leaves(group: BaseExceptionGroup[ErrorT]) -> list[ErrorT]:
    found: list[ErrorT] = []
    for error in group.exceptions:
        found.extend(_leaves(error) if isinstance(error, BaseExceptionGroup) else (error,))
    return found


def _failed(failures: list[OpencodeActorsError], *, as_json: bool) -> Status:
    from opencode_actors.cli.explain import error_document, of_error

    for failure in failures:
        hint = f"hint: {failure.hint}\n" if failure.hint else ""
        sys.stderr.write(f"error: {failure.message}\n{hint}")
    if as_json:
        import json

        sys.stdout.write(json.dumps(error_document(failures[0])) + "\n")
    return of_error(failures[0])


def _forget_stdout() -> None:
    """Whoever read the output has gone; Python would complain about it once more at its exit."""
    import os

    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
