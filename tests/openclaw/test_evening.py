"""One evening of a person who drives many sessions from a chat, and the morning after. Nothing is faked but the
models and the date: OpenClaw's gateway, the service that its plugin starts, containers of Podman, OpenCode in each,
and one more OpenCode server that somebody else runs."""

from __future__ import annotations

import json
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import trio
from attrs import frozen

from opencode_actors.testing.provider import open_provider
from tests.contract.engines import within
from tests.contract.servers import PASSWORD
from tests.e2e.elsewhere import a_remote
from tests.e2e.rig import short_folder
from tests.openclaw.butler import butler
from tests.openclaw.gateway import GatewayClient
from tests.openclaw.house import PATIENCE, House, open_house, result_of
from tests.openclaw.person import Person

pytestmark = [pytest.mark.openclaw, pytest.mark.opencode, pytest.mark.podman, pytest.mark.image]

A_DAY = 86_400
TOMORROW = Path(__file__).with_name("tomorrow.py")
AN_EVENING = 10 * PATIENCE


@frozen(kw_only=True)
class Home:
    house: House
    base: Path

    @property
    def clock(self) -> Path:
        return self.base / "ahead"

    async def sleep_until_morning(self) -> None:
        """Everything ends, and begins again a day later."""
        await self.house.gateway.stop()
        await self.house.end_service()
        self.clock.write_text(str(A_DAY))
        await self.house.gateway.start()

    def conversation_of(self, session: str) -> str:
        file = self.house.sessions_dir / "journal.sqlite"
        with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as journal:
            (found,) = journal.execute(
                "SELECT conversation FROM sessions WHERE key = ?", (session,)
            ).fetchone()
        return str(found)


@pytest.fixture
def home() -> Iterator[Home]:
    with short_folder() as base:
        (base / "ahead").write_text("0")
        command = [sys.executable, str(TOMORROW), str(base / "ahead"), "serve"]
        with open_house(("main",), {"command": command}) as house:
            yield Home(house=house, base=base)


async def until_output(client: GatewayClient, job: str, words: str) -> None:
    with trio.fail_after(PATIENCE):
        while words not in (await result_of(client, "opencode.output", job_id=job))["text"]:  # noqa: ASYNC110
            await trio.sleep(0.2)


def asked(prompt: str, **wishes: object) -> str:
    return f"CALL:opencode_start {json.dumps({'prompt': prompt, **wishes})};;"


@within(AN_EVENING)
async def test_an_evening_with_many_sessions_and_the_morning_after(
    home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    house, person = home.house, Person("agent:main:main")
    async with (
        open_provider(port=house.model_port, script=butler),
        a_remote(home.base) as remote,
    ):
        async with house.gateway.client() as chat:
            await two_at_once(chat, person)
            await interrupted_and_redirected(chat, person)
            await branched(chat, person, house)
            await over_its_budget(chat, person)
            secret = home.base / "far.password"
            secret.write_text(PASSWORD)
            secret.chmod(0o600)
            await on_a_server_elsewhere(chat, person, remote.url, secret)
            started = await person.types(
                chat,
                "/opencode start --name archive Index the archive.\n::bash sleep 20\n::say It is indexed.",
            )
            assert started.startswith("archive is ")
        await house.gateway.stop()
        await house.gateway.start()
        async with house.gateway.client() as chat:
            await person.until_told(chat, "archive is completed")
            assert "guide-in-german" in await person.types(chat, "/opencode sessions")
            assert "6 ended" in await person.types(chat, "/opencode cleanup")
        before = home.conversation_of("guide")
        await home.sleep_until_morning()
        async with house.gateway.client() as chat:
            await gone_on_with(chat, person)
            assert home.conversation_of("guide") == before
            screen = await person.screen(chat)
        assert PASSWORD not in screen
        assert remote.process.is_running
    with capsys.disabled():
        sys.stdout.write(f"\n{screen}\n")


async def two_at_once(chat: GatewayClient, person: Person) -> None:
    mend = asked("Mend the login test.\n::bash sleep 2\n::say It passes again.", name="login-test")
    await person.asks(chat, f"Please have the login test mended. {mend}")
    await person.until_told(chat, "login-test has begun")
    await person.types(
        chat,
        "/opencode start --name paint Paint the button.\n::ask Which colour? | Red | Blue\n::say It is painted.",
    )
    await person.until_told(chat, "It asked for a colour")
    await person.until_told(chat, "paint is completed", "It is painted.")
    await person.until_told(chat, "login-test is completed")


async def interrupted_and_redirected(chat: GatewayClient, person: Person) -> None:
    await person.types(
        chat,
        "/opencode start --name guide --session guide Write the guide.\n"
        "::write chapter-1.md It begins.\n::say Chapter one is written.\n::bash sleep 600",
    )
    await until_output(chat, "guide", "Chapter one is written.")
    await person.types(
        chat, "/opencode interrupt guide Only a summary, please.\n::say The summary is written."
    )
    await person.until_told(chat, "The summary is written.")
    first = await result_of(chat, "opencode.status", job_id="guide")
    assert first["status"] == "cancelled"
    assert first["interruptedBy"]
    await until_output(chat, "guide", "Chapter one is written.")


async def branched(chat: GatewayClient, person: Person, house: House) -> None:
    await person.types(
        chat,
        "/opencode fork --name guide-in-german guide Now in German.\n"
        "::bash cat chapter-1.md; echo Es beginnt. > chapter-1.md\n::say Es ist fertig.",
    )
    await person.until_told(chat, "Es ist fertig.")
    files = {path.parent.name: path.read_text() for path in house.workspaces.glob("*/chapter-1.md")}
    assert sorted(text.strip() for text in files.values()) == ["Es beginnt.", "It begins."]


async def over_its_budget(chat: GatewayClient, person: Person) -> None:
    await person.types(
        chat,
        "/opencode start --name dear --max-cost-usd 0.0000001 Think of everything.\n"
        "::say I begin.\n::bash echo more\n::say And on.\n::bash sleep 600",
    )
    await person.until_told(chat, "dear has")
    ended = await result_of(chat, "opencode.status", job_id="dear")
    assert (ended["status"], ended["cause"]) == ("failed", "budget")
    await until_output(chat, "dear", "I begin.")


async def on_a_server_elsewhere(chat: GatewayClient, person: Person, url: str, secret: Path) -> None:
    attached = await person.types(chat, f"/opencode attach far {url} --password-file {secret}")
    assert url in attached
    await person.types(
        chat,
        "/opencode start --session far --name nightly Look at the nightly build.\n::say The build is green.",
    )
    await person.until_told(chat, "nightly is completed", "The build is green.")
    assert f"on {url}" in await person.types(chat, "/opencode sessions")


async def gone_on_with(chat: GatewayClient, person: Person) -> None:
    await person.types(
        chat, "/opencode resume guide How did it begin?\n::bash cat chapter-1.md\n::say As it did yesterday."
    )
    await person.until_told(chat, "As it did yesterday.")
    statistics = await person.types(chat, "/opencode statistics 2")
    for words in ("9 jobs in 2 days", "7 completed, 1 failed, 1 cancelled", "8 jobs", "1 job"):
        assert words in statistics, statistics
