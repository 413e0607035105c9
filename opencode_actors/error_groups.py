"""Errors out of the groups that nurseries raise them in."""

from __future__ import annotations

from typing import cast


def only_error(error: BaseException) -> BaseException | None:
    """The one error in all the groups around it; None when there are more."""
    while isinstance(error, BaseExceptionGroup):
        group = cast(BaseExceptionGroup[BaseException], error)
        if len(group.exceptions) != 1:
            return None
        error = group.exceptions[0]
    return error


def first_error(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = cast(BaseExceptionGroup[BaseException], error).exceptions[0]
    return error
