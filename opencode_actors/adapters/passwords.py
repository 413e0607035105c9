"""The password of a server that somebody else runs: read when it is needed, and written down nowhere."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import trio

from opencode_actors.agents_files import opened
from opencode_actors.errors import UsageError
from opencode_actors.machines.notices import Attachment
from opencode_actors.ports import DEFAULT_USER, Endpoint
from opencode_actors.settings import Settings

_LONGEST = 4096
_WITHIN = 10.0
_FIT = (
    "it must be a plain file of the user that runs the service, not a link, outside of sessionsDir and "
    "workspacesDir, and have the password alone in it"
)


async def endpoint_of(attachment: Attachment, settings: Settings) -> Endpoint:
    """Raises `UsageError` when the password is not where it should be."""
    password = ""
    if attachment.password_env:
        await trio.lowlevel.checkpoint()
        password = os.environ.get(attachment.password_env, "")
        if not password:
            raise UsageError(
                f"the environment variable {attachment.password_env} with the password for {attachment.url} is not set",
                hint="set it where the service is started, or attach with password_file",
            )
    elif attachment.password_file:
        password = await _read(attachment, (settings.sessions_dir, settings.workspaces_dir))
    return Endpoint(
        url=attachment.url,
        user=attachment.user or DEFAULT_USER,
        password=password,
        directory=attachment.directory,
    )


async def _read(attachment: Attachment, agents: tuple[Path, ...]) -> str:
    path = attachment.password_file
    why = f"the file {path} with the password for {attachment.url} cannot be read"
    try:
        with trio.fail_after(_WITHIN):
            content = await trio.to_thread.run_sync(_content, path, agents, abandon_on_cancel=True)
        password = content.decode().strip()
    except _Unfit as unfit:
        raise UsageError(f"{why}: {unfit}", hint=_FIT) from None
    except UnicodeDecodeError:
        raise UsageError(f"{why}: it is not text", hint=_FIT) from None
    except OSError as error:
        reason = "it is a link" if error.errno == errno.ELOOP else error.strerror
        raise UsageError(f"{why}: {reason}", hint=_FIT) from None
    except trio.TooSlowError:
        raise UsageError(f"{why}: its disk did not answer in {_WITHIN:g} s", hint=_FIT) from None
    if not password or len(password) > _LONGEST or not password.isprintable():
        raise UsageError(
            f"the file {path} has no password in it",
            hint="it must have the password alone in it, on one line",
        )
    return password


class _Unfit(Exception):
    """Its words say what the file is, and should not be."""


def _content(path: str, agents: tuple[Path, ...]) -> bytes:
    """Whoever names it, an agent among them, may have made it, too. Not to wait for the other end of a pipe."""
    with opened(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)) as file:
        about = os.fstat(file)
        if not stat.S_ISREG(about.st_mode):
            raise _Unfit("it is no plain file")
        if about.st_uid not in (0, os.geteuid()):
            raise _Unfit("it belongs to another user")
        # Where it is, whatever links the path to it went by.
        place = Path(f"/proc/self/fd/{file}").readlink()
        for folder in agents:
            if place.is_relative_to(folder.resolve()):
                raise _Unfit(f"it lies in {folder}, where agents write")
        return os.read(file, _LONGEST + 1)
