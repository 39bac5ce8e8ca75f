"""The recipe's filter tables, made from the catalogue: one key a rule, the filter's own settings, whether it runs, and the way back to entries."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from pydantic import Field, create_model, model_validator

from curation.config import Config
from filters.base import Entry, Rule
from filters.catalog import thresholds_of, with_thresholds

#: A filter setting of this name is the recipe's own `[vlm]`, which the captioner shares.
SHARED = "vlm"


class FilterTable(Config):
    """One filter's table: `enabled` and its thresholds."""

    enabled: bool = Field(True, description="off: neither measured nor judged")


def settings_model(catalog: Iterable[Entry]) -> type[Config]:
    """A Config class with one table a filter of `catalog`, whose defaults are the catalogue's thresholds.

    Raises:
        ValueError: two filters of one name, or two rules of one filter with one key.
    """
    tables: dict[str, Any] = {}
    for entry in catalog:
        if entry.name in tables:
            raise ValueError(f"the catalogue has two filters named {entry.name}")
        table = _table_model(entry)
        tables[entry.name] = (table, Field(default_factory=table, description=f"filter of stage {entry.stage}"))
    return create_model("FilterSettings", __base__=Config, __doc__="Which filters run, and the thresholds of their rules.", **tables)


def enabled_entries(catalog: Iterable[Entry], settings: Config, vlm: Config | None = None) -> tuple[Entry, ...]:
    """The enabled filters' entries, with the thresholds and settings of `settings`, in the catalogue's order; `vlm` goes to those that ask a model."""
    catalog, tables = tuple(catalog), settings.model_dump()
    off = [name for name, table in tables.items() if not table["enabled"]]
    values = {entry.name: {rule.key: tables[entry.name][rule.key] for rule in entry.rules} for entry in catalog if entry.name not in off}
    return tuple(_settled(entry, tables[entry.name], vlm) for entry in with_thresholds(catalog, values, off))


def _settled(entry: Entry, table: Mapping[str, Any], vlm: Config | None) -> Entry:
    """The entry with its own settings from its table."""
    if entry.settings is None:
        return replace(entry, enabled=True)
    own = {name: table[name] for name in type(entry.settings).model_fields if name != SHARED}
    shared = {SHARED: vlm.model_dump()} if vlm is not None and SHARED in type(entry.settings).model_fields else {}
    return replace(entry, enabled=True, settings=type(entry.settings).model_validate(own | shared))


def _table_model(entry: Entry) -> type[Config]:
    """One filter's table class; an interval that no value lies in is refused."""
    own = {name: field for name, field in type(entry.settings).model_fields.items() if name != SHARED} if entry.settings is not None else {}
    keys = [*(rule.key for rule in entry.rules), *own]
    if len(set(keys)) < len(keys) or "enabled" in keys:
        raise ValueError(f"filter {entry.name}: every rule and setting needs a key of its own, got {keys}")
    defaults = thresholds_of(entry)
    units = {f"{entry.name}_{score}": unit for score, unit in entry.scores.items()}
    settings: Any = {name: (field.annotation, field) for name, field in own.items()}
    runs: Any = {"enabled": (bool, Field(entry.enabled, description="off: neither measured nor judged"))}
    thresholds: Any = {rule.key: (float, Field(defaults[rule.key], description=_purpose(rule, units))) for rule in entry.rules}

    def ordered(self: Any) -> Any:
        for low, high in _intervals(entry.rules):
            least, most = getattr(self, low.key), getattr(self, high.key)
            if least > most:
                raise ValueError(f"no clip could pass: {low.key} = {least} is above {high.key} = {most}, both on {low.score}")
        return self

    validators: Any = {"ordered": model_validator(mode="after")(ordered)}
    return create_model(f"{entry.name.title().replace('_', '')}Table", __base__=FilterTable, __validators__=validators, **runs, **settings, **thresholds)


def _purpose(rule: Rule, units: Mapping[str, str]) -> str:
    """What a threshold does, in a recipe's comment."""
    unit = units.get(rule.score)
    side = "below" if rule.low is not None else "above"
    return f"rejects as {rule.reason} when {rule.score} is {side} it" + (f"; {unit}" if unit else "")


def _intervals(rules: Sequence[Rule]) -> Iterable[tuple[Rule, Rule]]:
    """The pairs of rules that bound one score from both sides."""
    return ((low, high) for low in rules if low.low is not None for high in rules if high.high is not None and high.score == low.score)
