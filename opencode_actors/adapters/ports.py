"""Stands for `opencode_actors.ports`."""

from opencode_actors.ports import *  # noqa: F403
