"""What of a host the containers are given to reach a model."""

from __future__ import annotations

import stat
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from opencode_actors.errors import SettingsError
from opencode_actors.git_identity import GitIdentity, parse_identity
from opencode_actors.model_access import open_model_access
from opencode_actors.settings import Settings


@pytest.fixture(autouse=True)
def no_git_identity(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))


async def test_without_credentials_the_demo_model_answers_and_says_so(tmp_path: Path) -> None:
    async with open_model_access(Settings(), {"HOME": str(tmp_path)}) as chosen:
        assert chosen.settings.model == "scripted/demo"
        assert chosen.remark.startswith("no provider credentials found (looked at ")
        socket = chosen.access.provider_socket
        assert socket is not None
        assert stat.S_ISSOCK(socket.stat().st_mode)
        assert stat.S_IMODE(socket.parent.parent.stat().st_mode) == 0o700
        assert stat.S_IMODE(socket.parent.stat().st_mode) == 0o755
    assert not socket.parent.parent.exists()


async def test_a_demo_model_that_lasts_is_found_again_in_the_state_directory_which_stays_ones_own(
    tmp_path: Path,
) -> None:
    places: list[Path | None] = []
    with TemporaryDirectory(dir="/tmp") as short:
        state = Path(short, "state")
        for _ in range(2):
            settings = Settings(sessions_dir=state)
            async with open_model_access(settings, {"HOME": str(tmp_path)}, lasting=True) as chosen:
                places.append(chosen.access.provider_socket)
        assert places == [state / "demo-model" / "provider" / "provider.sock"] * 2
        assert [stat.S_IMODE(f.stat().st_mode) for f in (state, state / "demo-model")] == [0o700, 0o700]


async def test_a_long_tmpdir_leaves_room_for_the_socket(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp_path / ("x" * 100)
    long.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(long))
    async with open_model_access(Settings(), {"HOME": str(tmp_path)}) as chosen:
        assert chosen.access.provider_socket is not None


async def test_a_chosen_model_is_never_replaced(tmp_path: Path) -> None:
    async with open_model_access(Settings(model="acme/large"), {"HOME": str(tmp_path)}) as chosen:
        assert chosen.settings.model == "acme/large"
        assert chosen.access.provider_socket is None
        assert chosen.remark == ""


async def test_the_demo_model_can_be_asked_for(tmp_path: Path) -> None:
    environment = {"HOME": str(tmp_path), "OPENAI_API_KEY": "sk-1"}
    async with open_model_access(Settings(model="scripted/demo"), environment) as chosen:
        assert chosen.access.provider_socket is not None
        assert chosen.access.environment == {}
        assert chosen.remark == ""


async def test_only_what_is_allowed_is_passed_on(tmp_path: Path) -> None:
    environment = {"HOME": str(tmp_path), "OPENAI_API_KEY": "sk-1", "AWS_SECRET_ACCESS_KEY": "no"}
    async with open_model_access(Settings(), environment) as chosen:
        assert chosen.access.environment == {"OPENAI_API_KEY": "sk-1"}
        assert chosen.access.auth_file is not None  # which need not be there
        assert "sk-1" not in repr(chosen)


async def test_the_hosts_git_identity_goes_along(tmp_path: Path) -> None:
    (tmp_path / "gitconfig").write_text("[user]\n\tname = A B\n\temail = a@example.com\n")
    async with open_model_access(Settings(model="acme/large"), {"HOME": str(tmp_path)}) as chosen:
        assert (chosen.access.git_name, chosen.access.git_email) == ("A B", "a@example.com")


def test_git_identities() -> None:
    assert parse_identity(b"") == GitIdentity()
    assert parse_identity(b"user.name\nA\0user.email\na@x\0user.name\nB\0") == GitIdentity(
        name="B", email="a@x"
    )
    assert parse_identity(b"user.name\n\xff\0").name


@pytest.mark.parametrize("file", [".config/opencode/opencode.json", ".local/share/opencode/auth.json"])
@pytest.mark.parametrize("model", ["", "acme/large"])
async def test_a_host_file_that_cannot_be_parsed_is_refused(tmp_path: Path, file: str, model: str) -> None:
    path = tmp_path / file
    path.parent.mkdir(parents=True)
    path.write_text("{ broken")
    with pytest.raises(SettingsError, match=f"{path} is not JSON5") as raised:
        async with open_model_access(Settings(model=model), {"HOME": str(tmp_path)}):
            pass
    assert raised.value.key == "opencodeConfig"
    assert "repair or remove the file" in raised.value.hint
    async with open_model_access(Settings(model="scripted/demo"), {"HOME": str(tmp_path)}) as chosen:
        assert chosen.access.config_file is None


async def test_the_containers_learn_which_providers_are_usable(tmp_path: Path) -> None:
    environment = {"HOME": str(tmp_path), "OPENAI_API_KEY": "sk-1"}
    async with open_model_access(Settings(), environment) as chosen:
        assert chosen.access.providers == ("openai",)
