"""TLS, with a certificate that was made for this test."""

from __future__ import annotations

import ssl
import subprocess
from pathlib import Path

import pytest
import trio

from opencode_actors.door.client import connect
from opencode_actors.door.files import Whereabouts
from opencode_actors.door.serving import Address, open_door
from opencode_actors.errors import NoService, SettingsError
from tests.door.room import PLENTY, TOKEN, FakeDesk, raw_stream


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both it and its key are in one file."""
    folder = tmp_path_factory.mktemp("tls")
    made = folder / "both.pem"
    request = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=door.example"
    subprocess.run(
        [*request.split(), "-keyout", str(folder / "key"), "-out", str(folder / "cert")],
        check=True,
        capture_output=True,
    )
    made.write_text((folder / "cert").read_text() + (folder / "key").read_text())
    return made


def nobody_reports(_: BaseException) -> str | None:
    raise AssertionError("a bug")


async def test_a_client_trusts_the_very_certificate_of_the_service(certificate: Path, tmp_path: Path) -> None:
    address = Address(host="127.0.0.1", port=0, certificate=certificate)
    with trio.fail_after(PLENTY):
        async with open_door(address, FakeDesk(), token=TOKEN, report=nobody_reports) as door:
            assert door.url.startswith("wss://127.0.0.1:")
            where = Whereabouts(
                url=door.url,
                token_file=tmp_path,
                pid=1,
                version="",
                started_at=0.0,
                certificate=certificate,
            )
            async with connect(where, TOKEN) as client:
                assert await client.call("ping") == {"did": "ping"}
            with pytest.raises(NoService, match="the token is not its own"):
                async with connect(where, "another token"):
                    pass


async def test_who_does_not_trust_it_or_speaks_no_tls_ends_alone(certificate: Path) -> None:
    address = Address(host="127.0.0.1", port=0, certificate=certificate)
    with trio.fail_after(PLENTY):
        async with open_door(address, FakeDesk(), token=TOKEN, report=nobody_reports) as door:
            async with await raw_stream(door) as plain:
                await plain.send_all(b"GET / HTTP/1.1\r\nHost: door\r\n\r\n")
                assert not (await plain.receive_some()).startswith(b"HTTP/1.1 101")
            async with await raw_stream(door) as transport:
                strict = trio.SSLStream(transport, ssl.create_default_context(), server_hostname="127.0.0.1")
                with pytest.raises(trio.BrokenResourceError):
                    await strict.do_handshake()
            assert door.statistics().connections == 0


async def test_a_certificate_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "cert.pem").write_text("none")
    for path in (tmp_path / "cert.pem", tmp_path / "missing.pem"):
        with pytest.raises(SettingsError, match="cannot be used") as refused:
            async with open_door(
                Address(host="127.0.0.1", port=0, certificate=path),
                FakeDesk(),
                token=TOKEN,
                report=nobody_reports,
            ):
                pass
        assert refused.value.key == "doorTlsCertificate"
