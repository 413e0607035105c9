from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from opencode_actors.errors import ImageBuildFailed
from opencode_actors.image import ImageContext, load_context


def copy_of(context: ImageContext, folder: Path) -> Path:
    for name, content in context.files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def test_the_files_of_the_checkout_are_found() -> None:
    context = load_context()
    assert {"Containerfile", "entrypoint", "config/opencode.json"} <= set(context.files)
    assert context.base == "docker.io/library/debian:bookworm-slim"
    assert context.make_base.is_file()


def test_every_file_that_the_containerfile_copies_is_sent() -> None:
    context = load_context()
    lines = context.files["Containerfile"].decode().splitlines()
    copied = [
        word
        for line in lines
        if line.startswith("COPY ") and "--from" not in line
        for word in line.split()[1:-1]
    ]
    assert copied
    assert set(copied) <= set(context.files)


def test_the_hash_is_the_same_wherever_the_files_are(tmp_path: Path) -> None:
    context = load_context()
    assert load_context(copy_of(context, tmp_path)).hash == context.hash


@pytest.mark.parametrize("name", ["Containerfile", "entrypoint", "config/opencode.json", "toolchains.sha256"])
def test_a_changed_file_changes_the_hash(tmp_path: Path, name: str) -> None:
    context = load_context()
    folder = copy_of(context, tmp_path)
    (folder / name).write_bytes(context.files[name] + b"\n")
    assert load_context(folder).hash != context.hash


def test_a_renamed_file_changes_the_hash(tmp_path: Path) -> None:
    context = load_context()
    folder = copy_of(context, tmp_path)
    (folder / "config/opencode.json").rename(folder / "config/opencode.jsonc")
    assert load_context(folder).hash != context.hash


def test_scripts_beside_the_image_are_no_part_of_it(tmp_path: Path) -> None:
    context = load_context()
    folder = copy_of(context, tmp_path)
    (folder / "quickstart").write_text("echo changed")
    assert load_context(folder).hash == context.hash


def test_the_archive_is_the_same_bytes_each_time_and_holds_every_file(tmp_path: Path) -> None:
    context = load_context()
    folder = copy_of(context, tmp_path)
    (folder / "entrypoint").chmod(0o700)
    archive = load_context(folder).archive()
    assert archive == context.archive()
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        assert tar.getnames() == sorted(context.files)


def test_a_containerfile_without_a_base_is_refused(tmp_path: Path) -> None:
    folder = copy_of(load_context(), tmp_path)
    (folder / "Containerfile").write_text("FROM scratch\n")
    with pytest.raises(ImageBuildFailed, match="names no base image"):
        load_context(folder)
