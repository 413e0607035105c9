"""Which model the containers of this host can reach: the host's own providers, or the built-in demo."""

from __future__ import annotations

import socket
import tempfile
from collections.abc import AsyncGenerator, Generator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from attrs import evolve, frozen

from opencode_actors.containers import PROVIDER_URL_INSIDE, ModelAccess
from opencode_actors.credentials import Credentials, find_credentials
from opencode_actors.errors import SettingsError, StoreError
from opencode_actors.git_identity import host_git_identity
from opencode_actors.settings import Settings
from opencode_actors.testing.provider import MODEL as DEMO_MODEL
from opencode_actors.testing.provider import open_provider, provider_config


@frozen(kw_only=True)
class ChosenModel:
    """`settings` name the model; `remark` says what was chosen when nobody asked for it."""

    settings: Settings
    access: ModelAccess
    remark: str = ""


@asynccontextmanager
async def open_model_access(
    settings: Settings, environment: Mapping[str, str], *, lasting: bool = False
) -> AsyncGenerator[ChosenModel, None]:
    """The demo model answers when it is asked for, and when there is neither a model nor credentials. When it
    is `lasting`, containers that outlive this process find it again in the next one.

    Raises `SettingsError` when one of the host's files is there and cannot be parsed.
    """
    credentials = find_credentials(settings, environment)
    if settings.model != DEMO_MODEL:
        _refuse_broken_files(credentials)
    identity = await host_git_identity()
    if settings.model != DEMO_MODEL and (settings.model or credentials.found):
        access = _of_host(credentials, environment)
        yield ChosenModel(
            settings=settings,
            access=evolve(access, git_name=identity.name, git_email=identity.email),
        )
        return
    with _lasting_socket(settings) if lasting else _guarded_socket() as place:
        async with open_provider(unix_socket=place):
            yield ChosenModel(
                settings=evolve(settings, model=DEMO_MODEL),
                access=ModelAccess(
                    provider_socket=place,
                    config={"provider": provider_config(PROVIDER_URL_INSIDE)},
                    git_name=identity.name,
                    git_email=identity.email,
                ),
                remark="" if settings.model else _demo_remark(credentials),
            )


# A unix socket's path may have 107 characters, and a TMPDIR may be anywhere.
_LONGEST_FOLDER = 60
_DEMO = "demo-model"


@contextmanager
def _guarded_socket() -> Generator[Path, None, None]:
    """The outer folder (0700) keeps other users out; the inner one is what the containers see, as a user of
    their own."""
    parent = tempfile.gettempdir()
    if len(parent) > _LONGEST_FOLDER:
        parent = "/tmp"  # noqa: S108 - a private folder is made in it
    with tempfile.TemporaryDirectory(prefix="opencode-actors-demo-", dir=parent) as guarded:
        folder = Path(guarded, "provider")
        folder.mkdir()
        folder.chmod(0o755)  # whatever the umask is
        yield folder / "provider.sock"


@contextmanager
def _lasting_socket(settings: Settings) -> Generator[Path, None, None]:
    """In the state directory, which is as well guarded. Another service that has it keeps it, as it keeps its
    state directory."""
    folder = settings.sessions_dir.expanduser() / _DEMO
    place = folder / "provider" / "provider.sock"
    if len(str(folder)) > _LONGEST_FOLDER or _is_served(place):
        with _guarded_socket() as other:
            yield other
        return
    try:
        # Before the journal is opened: what makes the state directory makes it nobody else's.
        folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
        place.parent.mkdir(exist_ok=True)
        place.parent.chmod(0o755)
    except OSError as error:
        raise StoreError(
            f"the state directory {folder.parent} cannot be used: {error}",
            hint="check that it exists, is yours and has room, or choose another sessionsDir",
        ) from error
    yield place


def _is_served(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(1.0)
        try:
            client.connect(str(path))
        except OSError:
            return False
    return True


def _refuse_broken_files(credentials: Credentials) -> None:
    """With a config that it cannot parse, OpenCode's server ends before it says a word."""
    if credentials.problems:
        raise SettingsError(
            "opencodeConfig",
            f"the host's OpenCode files cannot be used: {'; '.join(credentials.problems)}",
            hint="repair or remove the file, or name another one with opencodeConfig or opencodeAuth",
        )


def _of_host(credentials: Credentials, environment: Mapping[str, str]) -> ModelAccess:
    return ModelAccess(
        environment={name: environment[name] for name in credentials.variables},
        auth_file=credentials.auth_file,  # also where it is gone: sessions may have a copy of it
        config_file=credentials.config_file,
        providers=credentials.providers,
    )


def _demo_remark(credentials: Credentials) -> str:
    return (
        f"no provider credentials found (looked at {', '.join(credentials.looked_at)}): using the built-in demo "
        f"model; `opencode auth login` or a provider's key in the environment gives you a real one"
    )
