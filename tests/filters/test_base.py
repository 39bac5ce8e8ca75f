"""Rule, Entry and verdict: intervals with reasons, and a missing score fails closed."""

import math

import pytest

from filters.base import Entry, Rule, verdict

LOW = Rule("low", "motion_flow", "static", low=0.1)
HIGH = Rule("high", "motion_flow", "extreme_motion", high=1.0)


@pytest.mark.parametrize(
    ("value", "reasons"),
    [(0.1, []), (1.0, []), (0.5, []), (0.0999, ["static"]), (1.001, ["extreme_motion"])],
)
def test_bounds_belong_to_what_is_kept(value: float, reasons: list[str]) -> None:
    assert verdict({"motion_flow": value}, [LOW, HIGH]) == reasons


@pytest.mark.parametrize("scores", [{}, {"motion_flow": None}, {"motion_flow": math.nan}, {"motion_flow": math.inf}])
def test_what_was_not_measured_is_rejected_once(scores: dict[str, float | None]) -> None:
    assert verdict(scores, [LOW, HIGH]) == ["not_measured:motion_flow"]


def test_reasons_come_once_and_in_the_rules_order() -> None:
    rules = [Rule("b", "x_b", "two", high=0), Rule("a", "x_a", "one", high=0), Rule("c", "x_c", "two", high=0)]
    assert verdict({"x_a": 1, "x_b": 1, "x_c": 1}, rules) == ["two", "one"]


@pytest.mark.parametrize("bounds", [{}, {"low": 0.0, "high": 1.0}])
def test_a_rule_sets_exactly_one_bound(bounds: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="exactly one of low and high"):
        Rule("k", "x_y", "r", **bounds)


def test_columns_carry_the_filters_name() -> None:
    entry = Entry("motion", "rules", lambda: pytest.fail("reading the columns builds no filter"), {"flow": "", "flicker": ""}, ())
    assert entry.columns() == ["motion_flow", "motion_flicker"]
