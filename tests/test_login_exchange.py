"""Logins between a host and its sessions, on a real disk: nothing newer is lost, nothing is half-written."""

from __future__ import annotations

import fcntl
import json
import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from opencode_actors import login_exchange
from opencode_actors.agents_files import open_root, opened
from opencode_actors.containers import SessionPlace
from opencode_actors.login_exchange import LoginExchange
from opencode_actors.machines.vocabulary import SessionKey

ROOT = (0, 0)
OLD = {"type": "oauth", "access": "a1", "refresh": "r1", "expires": 1000}
NEW = {"type": "oauth", "access": "a2", "refresh": "r2", "expires": 2000}
NEWER = {"type": "oauth", "access": "a3", "refresh": "r3", "expires": 3000}
KEY = {"type": "api", "key": "sk-1"}
LOGINS = {"one": OLD, "two": OLD, "openai": KEY}


@pytest.fixture
def auth(tmp_path: Path) -> Path:
    folder = tmp_path / "host"
    folder.mkdir()
    auth = folder / "auth.json"
    auth.write_text(json.dumps(LOGINS))
    return auth


@pytest.fixture
def exchange(auth: Path) -> Iterator[LoginExchange]:
    yield LoginExchange(auth)
    assert {path.name for path in auth.parent.iterdir()} <= {"auth.json", "elsewhere.json"}


def make_place(tmp_path: Path, name: str = "demo") -> SessionPlace:
    place = SessionPlace(
        key=SessionKey(name),
        container_name=name,
        data=tmp_path / "sessions" / name / "data",
        workspace=tmp_path / "workspaces" / name,
        owner="test",
    )
    place.data.mkdir(parents=True)
    return place


def copy_of(place: SessionPlace) -> Path:
    return place.data / "opencode" / "auth.json"


def renew_in(place: SessionPlace, **logins: Any) -> None:
    """As the server does it: in place, and not at one go."""
    table = json.loads(copy_of(place).read_text())
    copy_of(place).write_text(json.dumps({**table, **logins}))


def on(path: Path) -> Any:
    return json.loads(path.read_text())


def test_p11_a_renewed_login_is_on_the_host_and_in_the_next_container(
    exchange: LoginExchange, auth: Path, tmp_path: Path
) -> None:
    place = make_place(tmp_path)
    exchange.renew(place, ROOT)
    renew_in(place, one=NEW)
    exchange.carry_back(place)
    assert on(auth) == {**LOGINS, "one": NEW}
    assert stat.S_IMODE(auth.stat().st_mode) == 0o600
    exchange.renew(place, ROOT)
    assert on(copy_of(place)) == {**LOGINS, "one": NEW}
    renew_in(place, one=NEWER)  # and once more, against the renewed one
    exchange.carry_back(place)
    assert on(auth)["one"] == NEWER


def test_p11_a_login_of_the_host_in_between_is_never_overwritten(
    exchange: LoginExchange, auth: Path, tmp_path: Path
) -> None:
    place = make_place(tmp_path)
    exchange.renew(place, ROOT)
    auth.write_text(json.dumps({**LOGINS, "one": NEWER}))
    os.utime(auth, (1, 1))  # clocks prove nothing
    renew_in(place, one=NEW, two=NEW)
    exchange.carry_back(place)
    assert on(auth) == {**LOGINS, "one": NEWER, "two": NEW}
    exchange.renew(place, ROOT)
    assert on(copy_of(place)) == on(auth)


def test_p11_two_sessions_renew_each_its_own_provider_at_the_same_time(
    exchange: LoginExchange, auth: Path, tmp_path: Path
) -> None:
    places = [make_place(tmp_path, name) for name in ("a", "b")]
    for place, provider in zip(places, ("one", "two"), strict=True):
        exchange.renew(place, ROOT)
        renew_in(place, **{provider: NEW})
    threads = [threading.Thread(target=exchange.carry_back, args=(place,)) for place in places]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert on(auth) == {**LOGINS, "one": NEW, "two": NEW}


def test_p11_a_half_written_copy_waits_for_the_next_time(
    exchange: LoginExchange, auth: Path, tmp_path: Path
) -> None:
    place = make_place(tmp_path)
    exchange.renew(place, ROOT)
    renew_in(place, one=NEW)
    whole = copy_of(place).read_text()
    for end in range(len(whole)):
        copy_of(place).write_text(whole[:end])
        exchange.carry_back(place)
        assert on(auth) == LOGINS
    copy_of(place).write_text(whole)
    exchange.carry_back(place)
    assert on(auth)["one"] == NEW


def test_p11_what_the_host_could_not_take_over_is_kept_for_it(
    exchange: LoginExchange, auth: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = make_place(tmp_path)
    exchange.renew(place, ROOT)
    renew_in(place, one=NEW)
    monkeypatch.setattr(login_exchange, "_LOCK_WITHIN", 0.0)
    with opened(open_root(auth.parent)) as folder:
        fcntl.flock(folder, fcntl.LOCK_EX)
        exchange.renew(place, ROOT)
        assert on(auth) == LOGINS
        assert on(copy_of(place))["one"] == NEW  # the old one is void by now
    exchange.carry_back(place)
    assert on(auth) == {**LOGINS, "one": NEW}


def test_p11_a_host_that_writes_at_the_same_moment_is_not_overwritten(
    exchange: LoginExchange, auth: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = make_place(tmp_path)
    exchange.renew(place, ROOT)
    renew_in(place, one=NEW)
    fsync = os.fsync

    def logs_in_meanwhile(descriptor: int) -> None:
        auth.write_text(json.dumps({**LOGINS, "one": NEWER}))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", logs_in_meanwhile)
    exchange.carry_back(place)
    assert on(auth)["one"] == NEWER


def test_p11_after_a_logout_on_the_host_sessions_have_no_copy_of_it_either(
    exchange: LoginExchange, auth: Path, tmp_path: Path
) -> None:
    place = make_place(tmp_path)
    exchange.renew(place, ROOT)
    assert on(copy_of(place)) == LOGINS
    auth.unlink()
    exchange.renew(place, ROOT)
    assert not copy_of(place).exists()
    # and what never came from the host is not the host's to take
    copy_of(place).write_text(json.dumps(LOGINS))
    exchange.renew(place, ROOT)
    assert on(copy_of(place)) == LOGINS
    auth.write_text(json.dumps(LOGINS))
    exchange.renew(place, ROOT)
    exchange.carry_back(place)
    assert on(auth) == on(copy_of(place)) == LOGINS


def test_a_file_that_a_user_keeps_behind_a_link_stays_behind_it(
    exchange: LoginExchange, auth: Path, tmp_path: Path
) -> None:
    real = auth.rename(auth.with_name("elsewhere.json"))
    auth.symlink_to(real)
    place = make_place(tmp_path)
    exchange.renew(place, ROOT)
    renew_in(place, one=NEW)
    exchange.carry_back(place)
    assert auth.is_symlink()
    assert on(real)["one"] == NEW


# ---- what an agent plants


def plant_link(place: SessionPlace, victim: Path) -> None:
    copy_of(place).unlink()
    copy_of(place).symlink_to(victim)


def plant_link_for_the_folder(place: SessionPlace, victim: Path) -> None:
    copy_of(place).unlink()
    copy_of(place).parent.rmdir()
    copy_of(place).parent.symlink_to(victim.parent)


def plant_pipe(place: SessionPlace, victim: Path) -> None:
    del victim
    copy_of(place).unlink()
    os.mkfifo(copy_of(place))


def plant_folder(place: SessionPlace, victim: Path) -> None:
    del victim
    copy_of(place).unlink()
    copy_of(place).mkdir()


def plant_much(place: SessionPlace, victim: Path) -> None:
    del victim
    copy_of(place).write_text(json.dumps({**LOGINS, "one": NEW, "much": "x" * (2 << 20)}))


def plant_nesting(place: SessionPlace, victim: Path) -> None:
    del victim
    copy_of(place).write_text("[" * 200_000)


@pytest.mark.parametrize(
    "plant", [plant_link, plant_link_for_the_folder, plant_pipe, plant_folder, plant_much, plant_nesting]
)
def test_p14_nothing_planted_reaches_the_host(
    exchange: LoginExchange, auth: Path, tmp_path: Path, plant: Any
) -> None:
    place = make_place(tmp_path)
    victim = tmp_path / "victim" / "auth.json"
    victim.parent.mkdir()
    victim.write_text(json.dumps({**LOGINS, "one": NEW}))
    exchange.renew(place, ROOT)
    plant(place, victim)
    exchange.carry_back(place)
    assert on(auth) == LOGINS
    assert [path.name for path in victim.parent.iterdir()] == ["auth.json"]


def test_the_base_lies_where_no_agent_writes(exchange: LoginExchange, tmp_path: Path) -> None:
    place = make_place(tmp_path)
    exchange.renew(place, ROOT)
    base = place.data.parent / "logins.json"
    assert on(base) == LOGINS
    assert stat.S_IMODE(base.stat().st_mode) == 0o600
