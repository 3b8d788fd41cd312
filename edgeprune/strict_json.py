"""Decoded JSON as frozen dataclasses, read strictly by their type hints.

Every field must be present unless it has a default, none may be unknown, and every value must have the type of its
hint: a dataclass, dict[str, X], tuple[X, ...], tuple[X, Y], a union, a Literal or a plain JSON type.
"""

from __future__ import annotations

import functools
import math
import operator
import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, Literal, TypeVar

from edgeprune.errors import BundleError

_T = TypeVar("_T")


def require(condition: object, problem: str) -> None:
    """BundleError with `problem` unless `condition` holds."""
    if not condition:
        raise BundleError(problem)


def _read(kind: Any, value: object, where: str) -> Any:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if is_dataclass(kind) and isinstance(kind, type):
        return read_dataclass(kind, value, where)
    if origin is dict:
        _expect(isinstance(value, Mapping), where, "an object", value)
        items = typing.cast("Mapping[str, object]", value).items()
        return {key: _read(arguments[1], item, _join(where, key)) for key, item in items}
    if origin is tuple:
        return _read_tuple(arguments, value, where)
    if origin in (typing.Union, types.UnionType):
        return _read_union(arguments, value, where)
    if origin is Literal:
        _expect(any(value == choice and type(value) is type(choice) for choice in arguments), where,
                "one of " + ", ".join(map(str, arguments)), value)  # fmt: skip
        return value
    return _read_plain(kind, value, where)


def read_dataclass(kind: type[_T], value: object, where: str = "") -> _T:
    """`value`, which stands at the path `where`, as the dataclass `kind`.

    Raises:
        BundleError: the first field that is missing, unknown, of a wrong type or refused by its dataclass.
    """
    _expect(isinstance(value, Mapping), where, "an object", value)
    given = dict(typing.cast("Mapping[str, object]", value))
    hints = _hints(typing.cast(Any, kind))
    read = {}
    for field in fields(typing.cast(Any, kind)):
        if field.name in given:
            hint = _present(hints[field.name], field)
            read[field.name] = _read(hint, given.pop(field.name), _join(where, field.name))
        else:
            require(field.default is not MISSING, f"the field {_join(where, field.name)} is missing")
    require(not given, f"the field {_join(where, next(iter(given), ''))} is unknown")
    try:
        return kind(**read)
    except BundleError as error:
        raise BundleError(f"{where}: {error}" if where else str(error)) from None


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _present(hint: Any, field: Any) -> Any:
    """An optional field may be absent, but when it is there it must not be null."""
    if field.default is MISSING:
        return hint
    return functools.reduce(operator.or_, (part for part in typing.get_args(hint) if part is not type(None)))


def _read_tuple(arguments: tuple[Any, ...], value: object, where: str) -> tuple[Any, ...]:
    _expect(isinstance(value, (list, tuple)), where, "a list", value)
    items = typing.cast("list[object]", value)
    if arguments[-1] is Ellipsis:
        return tuple(_read(arguments[0], item, f"{where}[{place}]") for place, item in enumerate(items))
    _expect(len(items) == len(arguments), where, f"a list of {len(arguments)}", value)
    pairs = zip(arguments, items, strict=True)
    return tuple(_read(kind, item, f"{where}[{place}]") for place, (kind, item) in enumerate(pairs))


def _read_union(arguments: tuple[Any, ...], value: object, where: str) -> Any:
    if value is None and type(None) in arguments:
        return None
    kinds = [kind for kind in arguments if kind is not type(None)]
    plain = [kind for kind in kinds if type(value) is kind]
    return _read(plain[0] if plain else kinds[0], value, where)


def _read_plain(kind: Any, value: object, where: str) -> Any:
    if kind is Any:
        return value
    if kind is float:
        _expect(type(value) in (int, float) and math.isfinite(typing.cast(float, value)), where, "a number", value)
        return float(typing.cast(float, value))
    names = {str: "text", int: "an integer", bool: "true or false"}
    _expect(type(value) is kind, where, names[kind], value)
    return value


def _join(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name


def _expect(condition: object, where: str, meaning: str, value: object) -> None:
    shown = repr(value)
    require(condition, f"{where} must be {meaning}, not {shown if len(shown) < 60 else shown[:57] + '...'}")
