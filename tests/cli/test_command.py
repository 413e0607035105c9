"""The command as a user calls it: its own process, its streams and its exit status."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from opencode_actors.cli.main import build_parser, main
from opencode_actors.cli.status import Status
from opencode_actors.errors import EngineUnavailable, OpencodeActorsError


def call(
    *arguments: str, home: Path, script: str = "", **environment: str
) -> subprocess.CompletedProcess[str]:
    """With an environment of its own, so that nothing of this host's settings is seen."""
    inherited = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
    code = script or "import sys; from opencode_actors.cli.main import main; sys.exit(main())"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**inherited, "HOME": str(home), **environment},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    "arguments", [(), ("run",), ("doctor",), ("image",), ("image", "build"), ("settings",)]
)
def test_help_reads_well_and_succeeds(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    done = call(*arguments, "--help", home=tmp_path)
    assert done.returncode == 0
    assert done.stdout.startswith(" ".join(("usage: opencode-actors", *arguments)))
    assert done.stderr == ""


def test_help_imports_nothing_slow(tmp_path: Path) -> None:
    script = (
        "import sys\nfrom opencode_actors.cli.main import main\n"
        "try: main(['--help'])\n"
        "finally: print(sorted({'rich', 'json5', 'opencode_actors.cli.run'} & set(sys.modules)), file=sys.stderr)"
    )
    assert call(home=tmp_path, script=script).stderr == "[]\n"


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("walk",),
        ("run",),
        ("run", "x", "--nonsense"),
        ("run", " \n"),
        ("run", "x", "--set", "memory"),
        ("run", "x", "--set", "memroy=1g"),
        ("run", "x", "--timeout", "soon"),
        ("run", "x", "--model", "gpt"),
        ("run", "x", "--engine", "lxc"),
        ("image", "build", "--target", "huge"),
    ],
)
def test_wrong_arguments_are_refused_in_two_lines(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    try:
        status = main(arguments)
    except SystemExit as stop:  # argparse ends by itself
        status = int(str(stop.code))
    assert status == Status.USAGE
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("error: ")
    assert lines[1].startswith("hint: ")
    assert len(lines) == 2


def test_a_broken_config_is_one_error_and_no_traceback(tmp_path: Path) -> None:
    config = tmp_path / ".openclaw" / "openclaw.json"
    config.parent.mkdir()
    config.write_text("{ plugins: ")
    for arguments in (("run", "x"), ("settings",), ("image", "show")):
        done = call(*arguments, home=tmp_path)
        assert done.returncode == Status.USAGE
        assert done.stderr.startswith(f"error: {config} is not JSON5: line 1")
        assert "Traceback" not in done.stderr
        assert done.stdout == ""


def test_doctor_names_a_broken_config_as_the_problem(tmp_path: Path) -> None:
    done = call("doctor", home=tmp_path, OPENCODE_ACTORS_MEMORY="lots")
    assert done.returncode == Status.FAILED
    assert done.stdout.startswith("problem  settings: memory must be a size")


def test_json_carries_the_error_too(tmp_path: Path) -> None:
    done = call("settings", "--json", "--set", "memory=lots", home=tmp_path)
    assert done.returncode == Status.USAGE
    document = json.loads(done.stdout)
    assert document["status"] == "error"
    assert document["error"]["kind"] == "SettingsError"


def test_settings_show_values_and_sources(tmp_path: Path) -> None:
    done = call(
        "settings", "--json", home=tmp_path, OPENCODE_ACTORS_CPUS="2", OPENCODE_ACTORS_HOOKS_TOKEN="secret-1"
    )
    document = json.loads(done.stdout)
    assert document["settings"]["cpus"] == {"value": 2.0, "source": "OPENCODE_ACTORS_CPUS"}
    assert document["settings"]["memory"] == {"value": 1 << 30, "source": "default"}
    assert document["settings"]["hooksToken"]["value"] == "(set)"
    assert "secret-1" not in done.stdout


def test_an_engine_that_is_not_there_is_the_hosts_fault(tmp_path: Path) -> None:
    done = call("image", "show", "--set", f"engineSocket={tmp_path}/none.sock", home=tmp_path)
    assert done.returncode == Status.ENVIRONMENT
    assert done.stderr.startswith("error: no engine answers")
    assert "hint: " in done.stderr


def test_a_bug_is_one_line_and_a_file(tmp_path: Path) -> None:
    script = (
        "import sys\nfrom opencode_actors.cli import main as module\n"
        "def broken(arguments): raise ZeroDivisionError('boom')\n"
        "module._settings = broken\n"
        "sys.exit(module.main(['settings']))"
    )
    done = call(home=tmp_path, script=script)
    assert done.returncode == Status.BUG
    first, second = done.stderr.splitlines()
    assert first == "error: a mistake in opencode-actors itself: ZeroDivisionError: boom"
    file = Path(second.rpartition(" ")[2])
    assert file.parent == tmp_path / ".local/state/opencode-actors"
    assert "ZeroDivisionError: boom" in file.read_text()
    assert file.stat().st_mode & 0o077 == 0


def test_an_error_inside_groups_is_still_the_users(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(arguments: object) -> Status:
        inner = EngineUnavailable("no engine", hint="start it")
        raise ExceptionGroup("outer", [ExceptionGroup("inner", [inner])])

    monkeypatch.setattr("opencode_actors.cli.main._doctor", failing)
    assert main(["doctor"]) == Status.ENVIRONMENT
    assert capsys.readouterr().err == "error: no engine\nhint: start it\n"


def test_ctrl_c_before_a_job_is_a_quiet_end(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(arguments: object) -> Status:
        raise KeyboardInterrupt

    monkeypatch.setattr("opencode_actors.cli.main._doctor", interrupted)
    assert main(["doctor"]) == Status.CANCELLED
    assert capsys.readouterr().err == "cancelled\n"


def test_every_error_has_a_status() -> None:
    from opencode_actors.cli.explain import of_error

    def leaves(kind: type[OpencodeActorsError]) -> list[type[OpencodeActorsError]]:
        return [kind, *(leaf for child in kind.__subclasses__() for leaf in leaves(child))]

    for kind in leaves(OpencodeActorsError):
        assert of_error(kind.__new__(kind)) in (Status.FAILED, Status.USAGE, Status.ENVIRONMENT)


def test_the_parser_knows_the_promised_flags() -> None:
    arguments = build_parser().parse_args(
        [
            "run",
            "-",
            "--session",
            "k",
            "--model",
            "a/b",
            "--engine",
            "docker",
            "--json",
            "--agent",
            "plan",
            "--timeout",
            "9",
        ]
    )
    assert (arguments.prompt, arguments.session, arguments.json) == ("-", "k", True)
