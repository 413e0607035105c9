"""The password of a server that somebody else runs: read when it is needed, and written down nowhere."""

from __future__ import annotations

import os

import trio

from opencode_actors.errors import UsageError
from opencode_actors.machines.notices import Attachment
from opencode_actors.ports import Endpoint

_LONGEST = 4096


async def endpoint_of(attachment: Attachment) -> Endpoint:
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
        password = await _read(attachment)
    return Endpoint(url=attachment.url, password=password, directory=attachment.directory)


async def _read(attachment: Attachment) -> str:
    path = attachment.password_file
    try:
        async with await trio.open_file(path) as file:
            password = (await file.read(_LONGEST + 1)).strip()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not text"
        raise UsageError(
            f"the file {path} with the password for {attachment.url} cannot be read: {why}",
            hint="it must be readable for the user that runs the service, and have the password alone in it",
        ) from None
    if not password or len(password) > _LONGEST or not password.isprintable():
        raise UsageError(
            f"the file {path} has no password in it",
            hint="it must have the password alone in it, on one line",
        )
    return password
