"""Machines decide and do nothing: no I/O, no clock, no die of their own."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import opencode_actors.machines

FOLDER = Path(opencode_actors.machines.__file__).parent
ALLOWED = {
    "__future__", "attrs", "base64", "collections", "difflib", "enum", "hashlib", "ipaddress", "re", "typing",
    "unicodedata", "opencode_actors",
}  # fmt: skip
PARTS = {"urllib.parse"}  # of what also acts
OWN = {"machines", "ports", "errors"}


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.py")), ids=lambda path: path.name)
def test_a_machine_imports_nothing_that_acts(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        for name in names:
            top, *rest = name.split(".")
            assert top in ALLOWED or name in PARTS, f"{path.name} imports {name}"
            assert top != "opencode_actors" or rest[0] in OWN, f"{path.name} imports {name}"
