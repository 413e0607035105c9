"""That each benchmark still runs, as small as it can be. What it measures is not looked at."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.benchmarks.__main__ import BENCHMARKS

_WITHIN = 240

LOCAL = {
    "history": "trio.run(history.main, (10, 20), 2)",
    "recovery": "recovery.main((10,), open_sizes=(2,), rounds=1)",
    "scale": "scale.main((2, 3), look_for=0.2)",
}
REAL = {
    name: f"trio.run({name}.main, 1)" for name in ("start", "warm", "calls", "streaming", "cancel", "death")
}


def test_each_of_them_is_tried() -> None:
    assert {*LOCAL, *REAL} == set(BENCHMARKS)


@pytest.mark.parametrize("name", LOCAL)
def test_it_runs(name: str) -> None:
    _run(name, LOCAL[name])


@pytest.mark.opencode
@pytest.mark.image
@pytest.mark.podman
@pytest.mark.parametrize("name", REAL)
def test_it_runs_beside_real_containers(name: str) -> None:
    _run(name, REAL[name])


def _run(name: str, call: str) -> None:
    script = f"import trio\nfrom tests.benchmarks import {name}\n{call}"
    done = subprocess.run(
        [sys.executable, "-c", script], check=False, capture_output=True, text=True, timeout=_WITHIN
    )
    assert done.returncode == 0, done.stderr[-3000:]
    columns, *rows = done.stdout.splitlines()
    assert columns.strip()
    assert rows
