"""The recipe's filter tables, made from the catalogue: one key a rule, whether the filter runs, and the way back to entries."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import Field, create_model, model_validator

from curation.config import Config
from filters.base import Entry, Rule
from filters.catalog import thresholds_of, with_thresholds


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


def enabled_entries(catalog: Iterable[Entry], settings: Config) -> tuple[Entry, ...]:
    """The enabled filters' entries, their rules with the thresholds of `settings`, in the catalogue's order."""
    tables = settings.model_dump()
    off = [name for name, table in tables.items() if not table["enabled"]]
    values = {name: {key: value for key, value in table.items() if key != "enabled"} for name, table in tables.items() if name not in off}
    return with_thresholds(tuple(catalog), values, off)


def _table_model(entry: Entry) -> type[Config]:
    """One filter's table class; an interval that no value lies in is refused."""
    keys = [rule.key for rule in entry.rules]
    if len(set(keys)) < len(keys) or "enabled" in keys:
        raise ValueError(f"filter {entry.name}: every rule needs a key of its own, got {keys}")
    defaults = thresholds_of(entry)
    units = {f"{entry.name}_{score}": unit for score, unit in entry.scores.items()}
    thresholds: Any = {rule.key: (float, Field(defaults[rule.key], description=_purpose(rule, units))) for rule in entry.rules}

    def ordered(self: Any) -> Any:
        for low, high in _intervals(entry.rules):
            least, most = getattr(self, low.key), getattr(self, high.key)
            if least > most:
                raise ValueError(f"no clip could pass: {low.key} = {least} is above {high.key} = {most}, both on {low.score}")
        return self

    validators: Any = {"ordered": model_validator(mode="after")(ordered)}
    return create_model(f"{entry.name.title().replace('_', '')}Table", __base__=FilterTable, __validators__=validators, **thresholds)


def _purpose(rule: Rule, units: Mapping[str, str]) -> str:
    """What a threshold does, in a recipe's comment."""
    unit = units.get(rule.score)
    side = "below" if rule.low is not None else "above"
    return f"rejects as {rule.reason} when {rule.score} is {side} it" + (f"; {unit}" if unit else "")


def _intervals(rules: Sequence[Rule]) -> Iterable[tuple[Rule, Rule]]:
    """The pairs of rules that bound one score from both sides."""
    return ((low, high) for low in rules if low.low is not None for high in rules if high.high is not None and high.score == low.score)
