"""What surrounds `serve`: where it may listen, its log, its unit, and what systemd is told."""

from __future__ import annotations

import json
import logging
import os
import socket
import subprocess
import threading
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from opencode_actors.cli.log import JsonLines, PlainLines, log_to_stderr
from opencode_actors.cli.main import main
from opencode_actors.cli.serve import address_of
from opencode_actors.cli.service import unit_text
from opencode_actors.cli.status import Status
from opencode_actors.errors import UsageError
from opencode_actors.service_manager import ServiceManager
from opencode_actors.settings import Settings

# ---- where it listens


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1"])
def test_loopback_needs_no_words(host: str) -> None:
    assert address_of(Settings(door_host=host), insecure=False).host == host


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7"])
def test_beyond_loopback_it_needs_tls_or_words(host: str) -> None:
    with pytest.raises(UsageError, match="can be reached from other machines") as refused:
        address_of(Settings(door_host=host), insecure=False)
    assert "--insecure-listen-anyway" in refused.value.hint
    assert address_of(Settings(door_host=host), insecure=True).host == host
    secured = Settings(door_host=host, door_tls_certificate="/etc/cert.pem")
    assert address_of(secured, insecure=False).certificate == Path("/etc/cert.pem")


# ---- the unit


def test_the_unit_starts_this_python_with_the_settings_that_were_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert main(["service", "install", "--set", "doorPort=0", "--engine", "docker"]) is Status.OK
    text = (tmp_path / "config/systemd/user/opencode-actors.service").read_text()
    assert " -m opencode_actors.cli serve --engine docker --set doorPort=0\n" in text
    assert "Type=notify\n" in text
    assert f"EnvironmentFile=-{tmp_path}/config/opencode-actors/environment\n" in text
    said = capsys.readouterr().out
    assert "systemctl --user enable --now opencode-actors.service" in said
    assert "loginctl enable-linger" in said


def test_what_serve_would_refuse_is_refused_when_it_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert main(["service", "install", "--set", "doorHost=0.0.0.0"]) is Status.USAGE
    assert "can be reached from other machines" in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.service"))


def test_systemd_reads_the_words_of_the_command_as_they_are() -> None:
    text = unit_text(["/usr/bin/python3", "--set", 'model=a b/"c"', "100%", "$HOME"], Path("/50%/env"))
    assert 'ExecStart=/usr/bin/python3 --set "model=a b/\\"c\\"" "100%%" "$$HOME"\n' in text
    assert "EnvironmentFile=-/50%%/env\n" in text


def test_systemd_itself_finds_no_fault_with_the_unit(tmp_path: Path) -> None:
    try:
        subprocess.run(["systemd-analyze", "--version"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("systemd-analyze is not here")
    unit = tmp_path / "opencode-actors.service"
    unit.write_text(unit_text([os.path.realpath("/bin/sh"), "-c", "true"], tmp_path / "environment"))
    checked = subprocess.run(
        ["systemd-analyze", "verify", "--user", str(unit)], capture_output=True, text=True, check=False
    )
    assert "opencode-actors.service" not in checked.stderr, checked.stderr


# ---- what systemd is told


def test_the_manager_hears_one_datagram_for_each_thing(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        ServiceManager(str(tmp_path / "notify")).say("READY=1", "STATUS=listening")
        assert manager.recv(1000) == b"READY=1\nSTATUS=listening"
    ServiceManager(str(tmp_path / "notify")).say("STOPPING=1")  # nobody hears it
    ServiceManager("").say("READY=1")


async def test_the_watchdog_is_fed_twice_a_period(autojump_clock: MockClock) -> None:
    said: list[float] = []

    class Manager(ServiceManager):
        def say(self, *lines: str) -> None:
            assert lines == ("WATCHDOG=1",)
            said.append(trio.current_time())

    with trio.move_on_after(25):
        await Manager(watchdog=10.0).keep_alive()
    assert said == pytest.approx([0, 5, 10, 15, 20])
    await Manager(watchdog=0.0).keep_alive()


def test_the_manager_is_found_in_the_environment() -> None:
    found = ServiceManager.of({"NOTIFY_SOCKET": "@x", "WATCHDOG_USEC": "30000000"})
    assert found == ServiceManager("@x", 30.0)
    others = {"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}
    assert ServiceManager.of(others) == ServiceManager("", 0.0)
    assert ServiceManager.of({"WATCHDOG_USEC": "soon"}) == ServiceManager("", 0.0)


# ---- the log


def record(message: str, level: int = logging.INFO) -> logging.LogRecord:
    made = logging.LogRecord("opencode_actors", level, "", 0, message, None, None)
    made.created = 1_760_000_000.5
    return made


def test_a_line_of_the_log_is_for_people_or_for_programs() -> None:
    assert PlainLines(with_time=False).format(record("it runs")) == "it runs"
    assert PlainLines(with_time=False).format(record("hm", logging.WARNING)) == "warning: hm"
    assert PlainLines(with_time=True).format(record("it runs")).endswith(" it runs")
    assert json.loads(JsonLines().format(record("it runs"))) == {
        "at": "2025-10-09T08:53:20.500+00:00",
        "level": "info",
        "message": "it runs",
    }


def test_a_bug_is_one_line_and_its_traceback_is_in_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    with log_to_stderr(as_json=False):
        logging.getLogger("opencode_actors").error(
            "a bug ended %s", "something", exc_info=ValueError("broken")
        )
    (line,) = [line for line in capfd.readouterr().err.splitlines() if "bug" in line]
    assert "error: a bug ended something: ValueError('broken'); details in " in line
    details = Path(line.rsplit("details in ", 1)[1])
    assert "ValueError: broken" in details.read_text()


def test_a_reader_of_the_log_who_stops_holds_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """More than ten times what the queue and the pipe hold: none of these calls waits."""
    monkeypatch.setattr("opencode_actors.cli.log._LAST_LINES_WITHIN", 0.05)
    reading, writing = os.pipe()
    nobody_reads = open(writing, "w")  # noqa: PTH123, SIM115 - a descriptor, closed when the thread is free
    monkeypatch.setattr("sys.stderr", nobody_reads)
    with log_to_stderr(as_json=False):
        for _ in range(20_000):
            logging.getLogger("opencode_actors").info("a line of some length, said very often %s", "x" * 80)
    monkeypatch.undo()
    os.close(reading)
    (writer,) = [thread for thread in threading.enumerate() if thread.name == "log"]
    assert writer.daemon
