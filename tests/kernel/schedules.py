from __future__ import annotations

import pytest


def schedules(count: int) -> pytest.MarkDecorator:
    """The test under so many orders in which tasks have their turns."""
    return pytest.mark.parametrize("schedule", range(count), indirect=True)
