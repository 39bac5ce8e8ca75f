"""Strict TOML to Config models and back: every problem at once, each with its full key and the nearest known one."""

import difflib
import json
import tomllib
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeVar

from pydantic import ValidationError, create_model
from pydantic.fields import FieldInfo

from curation.config import Config

C = TypeVar("C", bound=Config)


class SettingsError(ValueError):
    """The user's fault: one line a problem in `problems`, all of them."""

    def __init__(self, where: str, problems: Iterable[str]) -> None:
        self.problems = list(problems)
        super().__init__("\n".join(f"{where}: {problem}" for problem in self.problems))


def parse(text: str, where: str) -> dict[str, Any]:
    """TOML as a dict.

    Raises:
        SettingsError: not TOML.
    """
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(where, [f"not TOML: {error}"]) from error


def apply_sets(settings: dict[str, Any], sets: Iterable[str]) -> dict[str, Any]:
    """`settings` with every "a.b.c=VALUE" put in its place; VALUE in TOML syntax, else taken as a plain string.

    Raises:
        SettingsError: an entry that is not KEY=VALUE, or whose key leads through a value.
    """
    result: dict[str, Any] = _copied(settings)
    problems = []
    for entry in sets:
        key, equals, text = entry.partition("=")
        path = [part.strip() for part in key.split(".")]
        if not equals or not all(path):
            problems.append(f"{entry!r}: must be KEY=VALUE, such as filters.motion.low=0.02")
            continue
        table = result
        for depth, part in enumerate(path[:-1]):
            table = table.setdefault(part, {})
            if not isinstance(table, dict):
                problems.append(f"{key.strip()}: {'.'.join(path[: depth + 1])} is a value, not a table")
                break
        else:
            table[path[-1]] = _value(text.strip())
    if problems:
        raise SettingsError("--set", problems)
    return result


def build(model: type[C], settings: Mapping[str, Any], where: str) -> C:
    """`settings` as a `model`: strict types (a string is no number, a float no integer), no unknown key.

    Raises:
        SettingsError: every problem, each with its full key.
    """
    try:
        return model.model_validate_json(json.dumps(settings, default=str), strict=True)
    except ValidationError as error:
        raise SettingsError(where, _problems(model, error)) from error


def known_keys(model: type[Config], prefix: str = "") -> Iterator[str]:
    """Every key that can be set, tables and values alike, as full paths in the order of the fields."""
    for name, field in model.model_fields.items():
        yield prefix + name
        inner = table_of(field)
        if inner is not None:
            yield from known_keys(inner, f"{prefix}{name}.")


def table_of(field: FieldInfo) -> type[Config] | None:
    """The Config class of a field that is a table, else None."""
    kinds = [field.annotation]
    if typing.get_origin(field.annotation) in (typing.Union, types.UnionType):
        kinds = list(typing.get_args(field.annotation))
    return next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Config)), None)


def part_of(model: type[Config], name: str, keys: Iterable[str]) -> type[Config]:
    """A Config class with the fields `keys` of `model`: their types, bounds and defaults still live there alone."""
    fields: Any = {key: (model.model_fields[key].annotation, model.model_fields[key]) for key in keys}
    return create_model(name, __base__=Config, __doc__=model.__doc__, **fields)


def dump(settings: Config, comments: bool = False) -> str:
    """`settings` as TOML with every key, in the order of the fields; the same settings give the same text.

    A value that is None has no TOML: its line is a comment, and leaving the key out means None again.
    """
    return "\n".join(_table(settings, "", comments)).strip() + "\n"


def flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested tables as {"a.b.c": value}."""
    result: dict[str, Any] = {}
    for key, value in settings.items():
        result |= flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value}
    return result


def _table(settings: Config, path: str, comments: bool) -> Iterator[str]:
    """The lines of one table: its own values first, then its tables."""
    values = settings.model_dump(mode="json")
    tables = {}
    if path:
        yield f"\n[{path}]"
    for name, field in type(settings).model_fields.items():
        value = getattr(settings, name)
        if isinstance(value, Config):
            tables[name] = value
            continue
        note = f"  # {' '.join((field.description or '').split())}" if comments and field.description else ""
        yield f"# {name} is not set{note}" if value is None else f"{name} = {toml_value(values[name])}{note}"
    for name, table in tables.items():
        yield from _table(table, f"{path}.{name}" if path else name, comments)


def toml_value(value: object) -> str:
    """A value of JSON's kinds in TOML syntax."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{json.dumps(str(k))} = {toml_value(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(toml_value(item) for item in value) + "]"
    raise TypeError(f"no TOML for {type(value).__name__}: {value!r}")


def _problems(model: type[Config], error: ValidationError) -> Iterator[str]:
    """One line a key: what is wrong, and for an unknown key the nearest known one."""
    known, found = set(known_keys(model)), dict[str, list[str]]()
    for item in error.errors():
        parts, message = [str(part) for part in item["loc"]], item["msg"].removeprefix("Value error, ")
        if item["type"] == "extra_forbidden":
            found[".".join(parts)] = [f"unknown key{_nearest(model, '.'.join(parts))}"]
            continue
        while len(parts) > 1 and ".".join(parts) not in known:
            parts.pop()  # the place within a list, or which of several allowed types it is not
        of_table = item["type"] == "value_error" and isinstance(item["input"], dict)
        text = message if of_table else f"{message}, got {toml_or_repr(item['input'])}"
        found.setdefault(".".join(parts), []).append(text)
    for key, texts in found.items():
        yield f"{key}: {' or '.join(texts)}" if key else " or ".join(texts)


def _nearest(model: type[Config], key: str) -> str:
    """ "; did you mean …?", from the same table first, then from everywhere."""
    table, _, name = key.rpartition(".")
    known = list(known_keys(model))
    beside = {path.rpartition(".")[2]: path for path in known if path.rpartition(".")[0] == table}
    by_name = {path.rpartition(".")[2]: path for path in reversed(known)}
    for names, cutoff in ((beside, 0.6), (by_name, 0.85)):
        found = difflib.get_close_matches(name, names, n=1, cutoff=cutoff)
        if found:
            return f"; did you mean {names[found[0]]}?"
    return f"; known here: {', '.join(beside)}" if beside else ""


def toml_or_repr(value: object) -> str:
    """How the value would stand in the file, cut to 80 characters."""
    try:
        return toml_value(value)[:80]
    except TypeError:
        return repr(value)[:80]


def _value(text: str) -> object:
    """TOML's value of `text`, or the text itself."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _copied(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _copied(value) if isinstance(value, Mapping) else value for key, value in settings.items()}
