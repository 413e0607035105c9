"""Errors out of the groups that nurseries raise them in."""

from __future__ import annotations

from typing import cast


def leaves(error: BaseException) -> list[BaseException]:
    """The errors in all the groups around them, in order."""
    if not isinstance(error, BaseExceptionGroup):
        return [error]
    group = cast(BaseExceptionGroup[BaseException], error)
    return [leaf for inner in group.exceptions for leaf in leaves(inner)]


def first_error(error: BaseException) -> BaseException:
    return leaves(error)[0]
