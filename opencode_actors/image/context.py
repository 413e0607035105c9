"""What the image is made of: the files of `container/` that the Containerfile reads, and their hash."""

from __future__ import annotations

import hashlib
import io
import re
import tarfile
from collections.abc import Mapping
from enum import Enum
from pathlib import Path

from attrs import field, frozen

from opencode_actors.errors import ImageBuildFailed

CONTAINERFILE = "Containerfile"
# Only what the image is made of: an edit to a script that stands beside it must not rebuild the image.
ENTRIES = (CONTAINERFILE, "config", "entrypoint", "fetch-toolchain", "toolchains.sha256")

LABEL_CONTEXT = "opencode-actors.context"
LABEL_OPENCODE = "opencode-actors.opencode"
LABEL_TARGET = "opencode-actors.target"
LABEL_BASE = "opencode-actors.base"
BASE_MADE_HERE = "made-here"
# Not the name of the one it stands for: that belongs to Debian, also in this user's store.
OWN_BASE = "localhost/opencode-actors-base:bookworm"


class Target(Enum):
    STANDARD = "standard"
    FULL = "full"  # and Go and TinyGo


@frozen(kw_only=True)
class ImageContext:
    """The files that are sent to the engine, by their path in the context."""

    files: Mapping[str, bytes] = field(repr=False)
    base: str  # the reference that the Containerfile starts from
    make_base: Path  # the script that makes such a base where it cannot be pulled

    @property
    def hash(self) -> str:
        """The same for the same image, wherever and whenever it is computed."""
        digest = hashlib.sha256()
        for path, content in sorted(self.files.items()):
            digest.update(f"{path}\0{len(content)}\0".encode())
            digest.update(content)
        return digest.hexdigest()[:32]

    def archive(self) -> bytes:
        """A tar of the files. Times, owners and modes are fixed: the engine's layer cache counts them."""
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            for path, content in sorted(self.files.items()):
                entry = tarfile.TarInfo(path)
                entry.size = len(content)
                entry.mode = 0o644
                tar.addfile(entry, io.BytesIO(content))
        return buffer.getvalue()


def load_context(root: Path | None = None) -> ImageContext:
    """Reads `container/` of the checkout, or the copy of it that an installed package carries."""
    folder = root or _find_folder()
    files = {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for entry in ENTRIES
        for path in sorted(_files_below(folder / entry))
    }
    return ImageContext(
        files=files,
        base=_base_of(files.get(CONTAINERFILE, b"").decode()),
        make_base=folder / "make-base",
    )


def _files_below(path: Path) -> list[Path]:
    return [path] if path.is_file() else [child for child in path.rglob("*") if child.is_file()]


def _find_folder() -> Path:
    package = Path(__file__).resolve().parents[1]
    # the package's own copy first: beside an installed package anything may stand
    for folder in (package / "container", package.parent / "container"):
        if (folder / CONTAINERFILE).is_file():
            return folder
    raise ImageBuildFailed(
        f"the files that the image is made of are missing: neither {package / 'container'} nor "
        f"{package.parent / 'container'} has a {CONTAINERFILE}",
        hint="install the package again: pip install --force-reinstall opencode-actors",
    )


def _base_of(containerfile: str) -> str:
    found = re.search(r"^ARG BASE=(\S+)$", containerfile, re.MULTILINE)
    if found is None:
        raise ImageBuildFailed(f"the {CONTAINERFILE} names no base image (ARG BASE=...)")
    return found.group(1)
