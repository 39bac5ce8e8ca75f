"""Frozen dataclasses from plain values, such as JSON's, strictly: no key and no type is guessed."""

import difflib
import typing
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, Literal, TypeVar

Spec = TypeVar("Spec")


def must(holds: bool, otherwise: str) -> None:
    """Nothing, if it holds.

    Raises:
        ValueError: it does not; the text is `otherwise`.
    """
    if not holds:
        raise ValueError(otherwise)


def built(kind: type[Spec], data: Mapping[str, Any], where: str) -> Spec:
    """The dataclass `kind` from plain values, nested ones too; `where` names it in errors.

    Raises:
        ValueError: a key is unknown or missing, or a value is of another kind.
    """
    must(isinstance(data, Mapping), f"{where}: expected a table of keys, got {data!r}")
    known = {f.name: f for f in fields(kind)}  # type: ignore[arg-type]
    for key in data:
        near = difflib.get_close_matches(key, known, 1)
        must(key in known, f"{where}: unknown key {key!r}; " + (f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}"))
    lacking = [name for name, f in known.items() if name not in data and f.default is MISSING and f.default_factory is MISSING]
    must(not lacking, f"{where}: {', '.join(lacking)} must be given")
    hints = typing.get_type_hints(kind)
    return kind(**{key: _value(hints[key], value, f"{where}.{key}") for key, value in data.items()})


def _value(hint: Any, value: Any, where: str) -> Any:
    """`value` as the type `hint`, of which the specs use few: numbers, texts, choices, tuples, other specs and None."""
    kinds = typing.get_args(hint)
    if is_dataclass(hint) and isinstance(hint, type):
        return built(hint, value, where)
    if type(None) in kinds:
        return None if value is None else _value(next(k for k in kinds if k is not type(None)), value, where)
    if typing.get_origin(hint) is Literal:
        must(value in kinds, f"{where}: {value!r} is not one of {', '.join(map(repr, kinds))}")
        return value
    if typing.get_origin(hint) is tuple:
        must(isinstance(value, list | tuple), f"{where}: expected a list, got {value!r}")
        each = [kinds[0]] * len(value) if kinds[-1] is Ellipsis else list(kinds)
        must(len(each) == len(value), f"{where}: expected {len(each)} values, got {len(value)}")
        return tuple(_value(kind, item, where) for kind, item in zip(each, value, strict=True))
    fits = isinstance(value, bool) == (hint is bool) and (isinstance(value, hint) or (hint is float and isinstance(value, int)))
    must(fits, f"{where}: expected {hint.__name__}, got {value!r}")
    return hint(value)
