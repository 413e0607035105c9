"""Errors out of the groups that nurseries raise them in."""

from __future__ import annotations

from typing import cast


def only_error(error: BaseException, *, inside: BaseException | None = None) -> BaseException | None:
    """The one error in all the groups around it; None when there are more. `inside` is not looked into."""
    if error is inside or not isinstance(error, BaseExceptionGroup):
        return error
    group = cast(BaseExceptionGroup[BaseException], error)
    return only_error(group.exceptions[0], inside=inside) if len(group.exceptions) == 1 else None


def first_error(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = cast(BaseExceptionGroup[BaseException], error).exceptions[0]
    return error
