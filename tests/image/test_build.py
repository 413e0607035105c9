from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest
import trio
from attrs import evolve

from opencode_actors.errors import EngineRefused, EngineUnavailable, ImageBuildFailed, ImageMissing
from opencode_actors.image import (
    BuildPhase,
    BuildProgress,
    ImageContext,
    Target,
    build_image,
    load_context,
    show_image,
)
from opencode_actors.image.context import OWN_BASE
from opencode_actors.ports import ImageInfo

from .fake_engine_api import FakeEngineApi, ndjson

REFERENCE = "localhost/opencode-actors-test-image:1"
CONTEXT = load_context()
WITH_BASE: dict[str, dict[str, str]] = {CONTEXT.base: {}}


def ignore(_: BuildProgress) -> None:
    pass


async def build(
    api: FakeEngineApi,
    *,
    context: ImageContext = CONTEXT,
    target: Target = Target.STANDARD,
    rebuild: bool = False,
) -> tuple[ImageInfo, list[BuildProgress]]:
    reported: list[BuildProgress] = []
    async with api.client() as client:
        image = await build_image(
            client,
            reference=REFERENCE,
            context=context,
            progress=reported.append,
            target=target,
            rebuild=rebuild,
        )
    return image, reported


def made_by(tmp_path: Path, script: str) -> ImageContext:
    """A context whose base is made by `script`."""
    path = tmp_path / "make-base"
    path.write_text(script)
    return evolve(CONTEXT, make_base=path)


async def test_an_image_that_stands_is_left_alone() -> None:
    api = FakeEngineApi(images=dict(WITH_BASE))
    await build(api)
    _, reported = await build(api)
    assert len(api.builds) == 1
    assert [p.phase for p in reported] == [BuildPhase.UP_TO_DATE]


async def test_an_image_of_other_files_or_of_another_target_is_built_again() -> None:
    api = FakeEngineApi(images=dict(WITH_BASE))
    await build(api)
    await build(api, target=Target.FULL)
    await build(api, target=Target.FULL)
    await build(api, context=evolve(CONTEXT, files={**CONTEXT.files, "config/more": b""}), target=Target.FULL)
    assert [b["target"] for b in api.builds] == ["standard", "full", "full"]


async def test_a_rebuild_is_done_though_the_image_stands() -> None:
    api = FakeEngineApi(images=dict(WITH_BASE))
    await build(api)
    await build(api, rebuild=True)
    assert len(api.builds) == 2


async def test_what_stands_is_told_from_what_would_be_built() -> None:
    api = FakeEngineApi(images=dict(WITH_BASE))
    await build(api)
    async with api.client() as client:
        state = await show_image(client, reference=REFERENCE, context=CONTEXT)
        assert state.current
        assert state.is_current(Target.STANDARD)
        assert not state.is_current(Target.FULL)
        other = evolve(CONTEXT, files={})
        assert not (await show_image(client, reference=REFERENCE, context=other)).current
        with pytest.raises(ImageMissing, match="no image localhost/none:1"):
            await show_image(client, reference="localhost/none:1", context=CONTEXT)


async def test_a_base_that_a_registry_has_is_pulled() -> None:
    api = FakeEngineApi(pull=ndjson([{"status": "Pulling"}]))
    _, reported = await build(api)
    assert not api.imported
    assert json.loads(api.builds[0]["buildargs"]) == {"BASE": CONTEXT.base}
    assert [p.phase for p in reported] == [BuildPhase.PULL_BASE, BuildPhase.BUILD, BuildPhase.DONE]


@pytest.mark.parametrize(
    "refusal",
    [
        ndjson([{"errorDetail": {"message": "no such host"}, "error": "no such host"}]),
        httpx.Response(500, json={"message": "Get https://registry: no such host"}),
    ],
    ids=["podman", "docker"],
)
async def test_a_base_that_no_registry_has_is_made_here_and_says_so(
    tmp_path: Path, refusal: httpx.Response
) -> None:
    api = FakeEngineApi(pull=refusal)
    context = made_by(tmp_path, "echo 'I: extracting' >&2; printf base; printf ' system'")
    _, reported = await build(api, context=context)
    assert api.imported == [b"base system"]
    assert ("repo", OWN_BASE) in api.import_params
    assert CONTEXT.base not in api.images, "Debian's name is not ours to give"
    assert json.loads(api.builds[0]["buildargs"]) == {"BASE": OWN_BASE}
    assert ("changes", "LABEL opencode-actors.base=made-here") in api.import_params
    made = [p.text for p in reported if p.phase is BuildPhase.MAKE_BASE]
    assert "no such host" in made[0]
    assert made[1:] == ["extracting"]


async def test_a_base_that_was_made_here_is_used_again() -> None:
    api = FakeEngineApi(images={OWN_BASE: {}})
    _, reported = await build(api)
    assert [p.phase for p in reported] == [BuildPhase.BUILD, BuildPhase.DONE]
    assert json.loads(api.builds[0]["buildargs"]) == {"BASE": OWN_BASE}


async def test_half_a_base_is_never_imported(tmp_path: Path) -> None:
    api = FakeEngineApi()
    context = made_by(tmp_path, "printf half; echo 'E: No space left on device' >&2; exit 25")
    with pytest.raises(ImageBuildFailed) as failure:
        await build(api, context=context)
    assert not api.imported
    assert "exit code 25" in failure.value.message
    assert "E: No space left on device" in failure.value.message
    assert "the disk is full" in failure.value.hint


async def test_without_a_tool_to_make_a_base_the_package_to_install_is_named(tmp_path: Path) -> None:
    context = made_by(tmp_path, "echo 'neither mmdebstrap nor debootstrap is installed' >&2; exit 69")
    with pytest.raises(ImageBuildFailed, match="can neither be pulled nor made") as failure:
        await build(FakeEngineApi(), context=context)
    assert failure.value.hint.startswith("apt-get install")
    assert "mmdebstrap" in failure.value.hint


async def test_the_engines_refusal_of_a_base_made_here_is_told(tmp_path: Path) -> None:
    api = FakeEngineApi(import_refusal="no space left on device")
    with pytest.raises(EngineRefused, match="no space left on device"):
        await build(api, context=made_by(tmp_path, "printf base"))


async def test_a_cancelled_build_leaves_no_process_behind(tmp_path: Path) -> None:
    context = made_by(tmp_path, "echo I: $$ >&2; exec sleep 1000")
    script_pid: list[int] = []

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery, FakeEngineApi().client() as client:

            def cancel_once_it_runs(progress: BuildProgress) -> None:
                if progress.phase is BuildPhase.MAKE_BASE and progress.text.isdigit():
                    script_pid.append(int(progress.text))
                    nursery.cancel_scope.cancel()

            await build_image(client, reference=REFERENCE, context=context, progress=cancel_once_it_runs)
    assert not await trio.Path(f"/proc/{script_pid[0]}").exists()


@pytest.mark.parametrize(
    ("printed", "error", "hint"),
    [
        ("x", "write /var/tmp/x: no space left on device", "the disk is full"),
        ("npm ERR! self-signed certificate in certificate chain", "exit status 1", "certificate authority"),
        ("E: Failed to fetch x  Temporary failure resolving 'x'", "exit status 100", "has no network"),
        ("cannot fetch x: the target 'full' needs it, the target 'standard' does not", "1", "`standard`"),
        ("something else", "exit status 3", ""),
    ],
)
async def test_a_failed_build_says_what_to_do_where_that_is_known(
    printed: str, error: str, hint: str
) -> None:
    lines = ({"stream": "STEP 2/2: RUN x\n"}, {"stream": f"{printed}\n"}, {"error": error})
    api = FakeEngineApi(images=dict(WITH_BASE), build=lines)
    with pytest.raises(ImageBuildFailed) as failure:
        await build(api)
    assert error in failure.value.message
    assert printed in failure.value.message
    assert hint in failure.value.hint
    assert bool(hint) == bool(failure.value.hint)


async def test_a_build_that_ends_without_an_image_has_failed() -> None:
    api = FakeEngineApi(images=dict(WITH_BASE), build=({"stream": "STEP 1/2: FROM x\n"},))
    with pytest.raises(ImageBuildFailed, match="ended its answer before"):
        await build(api)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (httpx.ConnectError("x"), "no container engine answers"),
        (httpx.ReadTimeout("x"), "said nothing more"),
        (httpx.RemoteProtocolError("x"), "broke off"),
    ],
)
async def test_an_engine_that_is_away_is_named_as_such(error: httpx.TransportError, words: str) -> None:
    def fail(_: httpx.Request) -> httpx.Response:
        raise error

    async with httpx.AsyncClient(transport=httpx.MockTransport(fail), base_url="http://engine") as client:
        with pytest.raises(EngineUnavailable, match=words):
            await build_image(client, reference=REFERENCE, context=CONTEXT, progress=ignore)
