"""From a call's params to what is asked for: strict, and what is wrong is said of the param that it is.

cattrs alone makes 'None' of a None that should be a text, and 1 of True.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

from cattrs import ClassValidationError, Converter, ForbiddenExtraKeysError
from cattrs.errors import AttributeValidationNote, BaseValidationError

from opencode_actors.door.commands import (
    LONGEST_WORD,
    METHODS,
    Answers,
    Asker,
    Command,
    Words,
    Wrong,
)
from opencode_actors.door.faults import Code, Fault, Refused


def command_of(method: str, params: Mapping[str, object]) -> Command:
    """Raises `Refused`."""
    kind = METHODS.get(method)
    if kind is None:
        raise Refused(
            Fault(
                Code.UNKNOWN_METHOD,
                f"there is no method {method!r}",
                f"there are {', '.join(sorted(METHODS))}",
            )
        )
    try:
        return _converter.structure(params, kind)
    except BaseValidationError as problem:
        where, what = _explained(problem)
        raise Refused(
            Fault(
                Code.INVALID_PARAMS,
                f"{where} {what}" if where else what,
                f"docs/protocol.md has the params of {method}",
                {"field": where},
            )
        ) from None


# ---- the kinds of values


def _text(value: object, _: object) -> str:
    if not isinstance(value, str):
        raise TypeError("must be a text")
    return value


def _integer(value: object, _: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError("must be a whole number")
    return value


def _number(value: object, _: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError("must be a number")
    return float(value)


def _flag(value: object, _: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError("must be true or false")
    return value


def _answers(value: object, _: object) -> Answers:
    """`"Blue"`, `["Blue"]` and `[["Blue"]]` all answer one question; a longer list has one answer for each."""
    parts = cast("list[object]", value) if isinstance(value, list) else [value]
    return tuple(_answer(part) for part in parts)


def _answer(value: object) -> tuple[str, ...]:
    labels = cast("list[object]", value) if isinstance(value, list) else [value]
    if not labels or not all(isinstance(label, str) for label in labels):
        raise TypeError("must be a text, a list of texts, or a list of such lists")
    return tuple(cast("list[str]", labels))


def _words(value: object, _: object) -> Words:
    words = cast("list[object]", value) if isinstance(value, list) else [value]
    if not all(isinstance(word, str) for word in words):
        raise TypeError("must be a text, or a list of texts")
    return tuple(cast("list[str]", words))


def _is_words(wanted: object) -> bool:
    return wanted == Words


def _is_answers(wanted: object) -> bool:
    return wanted == Answers


def _object(structure: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    def hook(value: object, wanted: Any) -> Any:
        if not isinstance(value, dict):
            raise TypeError("must be an object")
        return structure(value, wanted)

    return hook


def _make_converter() -> Converter:
    converter = Converter(forbid_extra_keys=True)
    converter.register_structure_hook(str, _text)
    converter.register_structure_hook(int, _integer)
    converter.register_structure_hook(float, _number)
    converter.register_structure_hook(bool, _flag)
    converter.register_structure_hook_func(_is_answers, _answers)
    converter.register_structure_hook_func(_is_words, _words)
    converter.register_structure_hook(Asker, _object(converter.get_structure_hook(Asker)))
    return converter


_converter = _make_converter()


def _explained(problem: BaseValidationError) -> tuple[str, str]:
    """The first param that is wrong, and the end of a sentence about it."""
    for error in problem.exceptions:
        if isinstance(error, ForbiddenExtraKeysError):
            return min(error.extra_fields)[:LONGEST_WORD], "is not a param of this method"
        name = next(
            (
                note.name
                for note in getattr(error, "__notes__", ())
                if isinstance(note, AttributeValidationNote)
            ),
            "",
        )
        if isinstance(error, Wrong):
            return ".".join(part for part in (name, error.field) if part), str(error)
        if isinstance(error, ClassValidationError):
            inner, what = _explained(error)
            return ".".join(part for part in (name, inner) if part), what
        if isinstance(error, KeyError):
            return name or str(error.args[0]), "is missing"
        return name, str(error)
    return "", "the params cannot be understood"
