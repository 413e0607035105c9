"""How a command ends, for the shell that called it. Imports nothing, so that --help is fast."""

from __future__ import annotations

from enum import IntEnum


class Status(IntEnum):
    OK = 0
    FAILED = 1  # the job failed; doctor found a problem
    USAGE = 2  # arguments or settings, as argparse has it
    ENVIRONMENT = 3  # engine, image, state directory: the host has to be mended first
    BUG = 70
    CANCELLED = 130  # as shells report Ctrl-C


TABLE = """\
exit status:
  0    completed
  1    the job failed (doctor: a problem was found)
  2    wrong arguments or settings
  3    the host is not ready: engine, image, directories
  130  cancelled"""
