"""The JSON of OpenCode's API, as far as it is read: shapes, and the check that an answer has them.

Unknown fields are ignored, because each release adds some. A field that is read and is missing or of
another type is an error that names the place: guessing there would be a lie further on.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from types import GenericAlias
from typing import Any, TypeGuard, TypeVar, cast, get_args, get_origin

import attrs
import cattrs
from attrs import field, frozen
from cattrs.v import format_exception

from opencode_actors.errors import ServerUnintelligible

T = TypeVar("T")

_HINT = "This package is made for OpenCode 1.18; see `opencode-actors doctor` for the image's version."
_NAMED = 3  # places that an error names; one wrong field is often wrong a thousand times


@frozen(kw_only=True)
class WireHealth:
    healthy: bool
    version: str


@frozen(kw_only=True)
class WireTime:
    """Epoch milliseconds."""

    start: float | None = None
    end: float | None = None
    created: float | None = None
    completed: float | None = None


@frozen(kw_only=True)
class WireUpdated:
    updated: float | None = None


@frozen(kw_only=True)
class WireSession:
    id: str
    title: str
    directory: str
    parent_id: str | None = field(default=None, alias="parentID")
    time: WireUpdated = WireUpdated()


@frozen(kw_only=True)
class WireCache:
    read: int = 0
    write: int = 0


@frozen(kw_only=True)
class WireTokens:
    input: int = 0
    output: int = 0
    reasoning: int = 0
    cache: WireCache = WireCache()


@frozen(kw_only=True)
class WireErrorData:
    message: str = ""
    status_code: int | None = field(default=None, alias="statusCode")
    is_retryable: bool = field(default=False, alias="isRetryable")


@frozen(kw_only=True)
class WireError:
    name: str
    data: WireErrorData = WireErrorData()


@frozen(kw_only=True)
class WireModel:
    provider_id: str = field(alias="providerID")
    model_id: str = field(alias="modelID")


@frozen(kw_only=True)
class WireInfo:
    """A user's message has `model`, an assistant's `provider_id` and `model_id`.

    `summary` is true on the message of a compaction, and an object with diffs on a user's message.
    """

    id: str
    session_id: str = field(alias="sessionID")
    role: str
    time: WireTime
    parent_id: str | None = field(default=None, alias="parentID")
    finish: str | None = None
    error: WireError | None = None
    summary: Any = None
    cost: float = 0.0
    tokens: WireTokens = WireTokens()
    provider_id: str = field(default="", alias="providerID")
    model_id: str = field(default="", alias="modelID")
    model: WireModel | None = None
    agent: str = ""


@frozen(kw_only=True)
class WireToolState:
    status: str
    input: dict[str, Any] = field(factory=dict[str, Any])
    metadata: dict[str, Any] = field(factory=dict[str, Any])
    title: str | None = None
    error: str | None = None
    time: WireTime = WireTime()


@frozen(kw_only=True)
class WirePart:
    """All kinds of part in one: which fields there are depends on `type`."""

    id: str
    message_id: str = field(alias="messageID")
    session_id: str = field(alias="sessionID")
    type: str
    text: str = ""
    synthetic: bool = False
    time: WireTime = WireTime()
    tool: str = ""
    state: WireToolState | None = None


@frozen(kw_only=True)
class WireMessage:
    info: WireInfo
    parts: tuple[WirePart, ...]


@frozen(kw_only=True)
class WireTodo:
    content: str
    status: str
    priority: str = ""


@frozen(kw_only=True)
class WireStatus:
    type: str
    attempt: int = 0
    message: str = ""
    next: float = 0.0


@frozen(kw_only=True)
class WireAgent:
    """OpenCode writes null for what the config of an agent does not say."""

    name: str
    mode: str
    description: str | None = None
    hidden: bool | None = None


@frozen(kw_only=True)
class WirePrices:
    input: float = 0.0
    output: float = 0.0


@frozen(kw_only=True)
class WireOffered:
    name: str = ""
    cost: WirePrices = WirePrices()


@frozen(kw_only=True)
class WireProvider:
    id: str
    models: Mapping[str, WireOffered] = {}


@frozen(kw_only=True)
class WireProviders:
    providers: tuple[WireProvider, ...]


@frozen(kw_only=True)
class WireOption:
    label: str


@frozen(kw_only=True)
class WireQuestionItem:
    question: str
    options: tuple[WireOption, ...] = ()


@frozen(kw_only=True)
class WireToolCall:
    message_id: str = field(alias="messageID")


@frozen(kw_only=True)
class WireQuestion:
    id: str
    session_id: str = field(alias="sessionID")
    questions: tuple[WireQuestionItem, ...]
    tool: WireToolCall | None = None


@frozen(kw_only=True)
class WirePermission:
    id: str
    session_id: str = field(alias="sessionID")
    permission: str
    patterns: tuple[str, ...] = ()
    metadata: dict[str, Any] = field(factory=dict[str, Any])
    tool: WireToolCall | None = None


@frozen(kw_only=True)
class WireSessionCreated:
    info: WireSession


@frozen(kw_only=True)
class WireMessageUpdated:
    info: WireInfo


@frozen(kw_only=True)
class WirePartUpdated:
    part: WirePart


@frozen(kw_only=True)
class WireSessionStatus:
    session_id: str = field(alias="sessionID")
    status: WireStatus


@frozen(kw_only=True)
class WireSessionError:
    error: WireError
    session_id: str | None = field(default=None, alias="sessionID")


@frozen(kw_only=True)
class WireTodoUpdated:
    session_id: str = field(alias="sessionID")
    todos: tuple[WireTodo, ...]


@frozen(kw_only=True)
class WireRequestAnswered:
    session_id: str = field(alias="sessionID")
    request_id: str = field(alias="requestID")


def load(raw: bytes, *, what: str) -> Any:
    """The JSON in `raw`, with every text fit to be encoded again."""
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError) as wrong:
        raise ServerUnintelligible(f"{what} is not JSON: {wrong}", hint=_HINT) from wrong
    return mended(value) if has_lone_surrogates(raw) else value


def structure(kind: type[T], value: object, *, what: str) -> T:
    """`value` as a `kind`; `what` names it in the error."""
    try:
        return _converter.structure(value, kind)
    except (cattrs.BaseValidationError, TypeError) as wrong:
        places = cattrs.transform_error(wrong, format_exception=_describe)
        more = f" (and {len(places) - _NAMED} more)" if len(places) > _NAMED else ""
        text = f"{what} has another shape than expected: {'; '.join(places[:_NAMED])}{more}"
        raise ServerUnintelligible(text, hint=_HINT) from wrong


def has_lone_surrogates(raw: bytes) -> bool:
    """JSON.stringify escapes half a character, and nothing else of that range."""
    return b"\\ud" in raw or b"\\uD" in raw


def mended(value: Any) -> Any:
    """The same with half characters joined where they meet, and replaced where they stand alone.

    Models stream bytes, and a piece may end in the middle of an emoji. Python keeps the half, and the
    first file or socket that it is written to refuses it.
    """
    if isinstance(value, str):
        return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    if _is_list(value):
        return [mended(item) for item in value]
    if _is_object(value):
        return {mended(name): mended(item) for name, item in value.items()}
    return value


def _is_object(value: object) -> TypeGuard[dict[str, Any]]:
    return isinstance(value, dict)


def _is_list(value: object) -> TypeGuard[list[Any]]:
    return isinstance(value, list)


# ---- the converter


def _describe(wrong: BaseException, kind: type | None) -> str:
    """The hooks below say what was there; for what is missing cattrs has the words."""
    return str(wrong) if isinstance(wrong, TypeError) else format_exception(wrong, kind)


def _text(value: object, _: type) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{_kind(value)} instead of a text")
    return value


def _flag(value: object, _: type) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{_kind(value)} instead of true or false")
    return value


def _number(value: object, _: type) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{_kind(value)} instead of a number")
    return float(value)


def _whole_number(value: object, kind: type) -> int:
    number = _number(value, kind)
    if not number.is_integer():
        raise TypeError(f"{number} instead of a whole number")
    return int(number)


def _kind(value: object) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "a truth value"
        case int() | float():
            return "a number"
        case str():
            return "a text"
        case list():
            return "a list"
        case _:
            return "an object"


def _class_hook(kind: type) -> Any:
    read = cast("Callable[[dict[str, Any], type], object]", _converter.gen_structure_attrs_fromdict(kind))

    def hook(value: object, _: type) -> object:
        if not _is_object(value):
            raise TypeError(f"{_kind(value)} instead of an object")
        return read(value, kind)

    return hook


def _tuple_hook(kind: Any) -> Any:
    items: Any = GenericAlias(list, (get_args(kind)[0],))

    def hook(value: object, _: type) -> Any:
        if not _is_list(value):
            raise TypeError(f"{_kind(value)} instead of a list")
        return tuple(_converter.structure(value, items))

    return hook


def _is_tuple(kind: Any) -> bool:
    return get_origin(kind) is tuple


def _object(value: object, _: type) -> dict[str, Any]:
    if _is_object(value):
        return value
    raise TypeError(f"{_kind(value)} instead of an object")


_converter = cattrs.Converter(use_alias=True)
# cattrs would make 'None' of None and '5' of 5
_converter.register_structure_hook(str, _text)
_converter.register_structure_hook(bool, _flag)
_converter.register_structure_hook(float, _number)
_converter.register_structure_hook(int, _whole_number)
_converter.register_structure_hook_func(lambda kind: kind == dict[str, Any], _object)
_converter.register_structure_hook_factory(attrs.has, _class_hook)
_converter.register_structure_hook_factory(_is_tuple, _tuple_hook)
