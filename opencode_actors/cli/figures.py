"""Figures as they are typed. Imports nothing of this package, so that --help is fast."""

from __future__ import annotations

import argparse
import math

_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}


def dollars(text: str) -> float:
    return _finite(text, "a number of dollars")


def seconds(text: str) -> float:
    return _finite(text, "a number of seconds")


def age(text: str) -> float:
    """In seconds, or with a unit: 90, 15m, 36h, 7d."""
    number, unit = (text[:-1], text[-1:]) if text[-1:] in _SECONDS else (text, "s")
    return _finite(number, "a number of seconds, or one with m, h or d, as 7d", given=text) * _SECONDS[unit]


def whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a whole number, not {text[:80]!r}") from None


def _finite(text: str, what: str, *, given: str = "") -> float:
    """Python takes "nan" and "inf" for numbers, and no bound that is one of them ever holds."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise argparse.ArgumentTypeError(f"must be {what}, not {(given or text)[:80]!r}")
    return number
