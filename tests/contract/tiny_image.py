"""A container image of a few megabytes, made of this machine's own tools: no network, no registry.

Everything in it is part of every Debian and Ubuntu (packages marked essential).
"""

from __future__ import annotations

import io
import re
import shutil
import subprocess
import tarfile
from functools import cache
from hashlib import sha256
from pathlib import Path

from opencode_actors.adapters.engine import DockerApiEngine, engine_http_client
from opencode_actors.errors import ImageMissing

REPOSITORY = "localhost/opencode-actors-test"
TOOLS = ("sh", "cat", "cp", "dd", "grep", "id", "perl", "setsid", "sleep", "touch")
DIRECTORIES = ("bin", "dev", "etc", "out", "proc", "run", "sys", "tmp", "usr", "usr/bin", "var", "var/tmp")


def _libraries(program: Path) -> set[Path]:
    listing = subprocess.run(["ldd", program], check=True, capture_output=True, text=True).stdout
    return {Path(path) for path in re.findall(r"(/\S+)(?= \(0x)", listing)}


@cache
def archive() -> bytes:
    """The root file system, the same bytes each time on the same machine."""
    programs: dict[str, Path] = {}
    for tool in TOOLS:
        found = shutil.which(tool)
        assert found is not None, f"{tool} is part of every Debian; this machine has none"
        programs[f"bin/{tool}"] = Path(found).resolve()
    libraries = {str(path).lstrip("/"): path.resolve() for p in programs.values() for path in _libraries(p)}
    files = programs | libraries
    folders = {str(parent) for name in files for parent in Path(name).parents if str(parent) != "."}
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name in sorted(folders.union(DIRECTORIES)):
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if name == "tmp" else 0o755
            tar.addfile(entry)
        for name, path in sorted(files.items()):
            content = path.read_bytes()
            entry = tarfile.TarInfo(name)
            entry.mode, entry.size = 0o755, len(content)
            tar.addfile(entry, io.BytesIO(content))
    return out.getvalue()


def reference() -> str:
    return f"{REPOSITORY}:{sha256(archive()).hexdigest()[:16]}"


async def ensure_tiny_image(engine: DockerApiEngine) -> str:
    """Imported once for each engine's store; a second run finds it there."""
    name = reference()
    try:
        await engine.image(name)
    except ImageMissing:
        async with engine_http_client(engine.socket) as client:
            imported = await client.post(
                "/images/create",
                params={"fromSrc": "-"},
                content=archive(),
                headers={"content-type": "application/x-tar"},
            )
            imported.raise_for_status()
            image = imported.json()["status"]
            tagged = await client.post(
                f"/images/{image}/tag", params={"repo": REPOSITORY, "tag": name.rpartition(":")[2]}
            )
            tagged.raise_for_status()
    return name
