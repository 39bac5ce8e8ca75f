"""Strict TOML: types, nearest keys, all problems at once, and the way back to text."""

import tomllib
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from curation.config import Config
from pipelines import strict_toml
from pipelines.strict_toml import SettingsError


class Inner(Config):
    low: float = Field(0.02, ge=0, description="lowest value\nthat is kept")
    high: float = 1.5
    enabled: bool = True


class Outer(Config):
    name: str = "a"
    sizes: tuple[int, ...] = (1, 2)
    limit: int | None = None
    fps: float | Literal["source"] = 16.0
    motion: Inner = Inner()
    camera: Inner = Inner()


def problems(settings: dict[str, object]) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        strict_toml.build(Outer, settings, "here")
    return caught.value.problems


def test_defaults_and_values() -> None:
    built = strict_toml.build(Outer, strict_toml.parse("sizes = [3]\nlimit = 4\n[motion]\nlow = 1\n", "here"), "here")
    assert built == Outer(sizes=(3,), limit=4, motion=Inner(low=1.0))


def test_unknown_key_names_the_nearest_in_its_own_table() -> None:
    assert problems({"motion": {"lo": 1.0}}) == ["motion.lo: unknown key; did you mean motion.low?"]
    assert problems({"motoin": {"low": 1.0}}) == ["motoin: unknown key; did you mean motion?"]


def test_unknown_key_in_the_wrong_table_names_the_right_one() -> None:
    assert problems({"enabled": True}) == ["enabled: unknown key; did you mean motion.enabled?"]


def test_unknown_key_near_nothing_lists_what_is_known_there() -> None:
    assert problems({"camera": {"zzz": 1}}) == ["camera.zzz: unknown key; known here: low, high, enabled"]


@pytest.mark.parametrize("value", ["0.02", True, None, [0.02], float("inf"), float("nan")])
def test_a_number_is_nothing_but_a_number(value: object) -> None:
    (problem,) = problems({"motion": {"low": value}})
    assert problem.startswith("motion.low: ")


def test_an_integer_is_no_float_and_no_bool() -> None:
    assert len(problems({"limit": 4.0})) == 1
    assert len(problems({"limit": True})) == 1


def test_a_value_of_two_kinds_is_one_problem_under_its_own_key() -> None:
    (problem,) = problems({"fps": "sauce"})
    assert problem.startswith("fps: ")
    assert " or " in problem
    assert strict_toml.build(Outer, {"fps": "source"}, "here").fps == "source"


def test_a_fault_within_a_list_names_the_list() -> None:
    (problem,) = problems({"sizes": [1, "a"]})
    assert problem.startswith("sizes: ")


def test_all_problems_at_once_with_the_place_before_each() -> None:
    with pytest.raises(SettingsError) as caught:
        strict_toml.build(Outer, {"motion": {"low": -1.0, "lo": 1}, "name": 3}, "my.toml")
    lines = str(caught.value).splitlines()
    assert len(lines) == 3
    assert all(line.startswith("my.toml: ") for line in lines)


def test_sets_come_on_top_and_leave_the_settings_alone() -> None:
    settings = {"motion": {"low": 1.0}}
    changed = strict_toml.apply_sets(settings, ["motion.low=0.5", "motion.enabled=false", "name = plain text", "sizes=[1, 2]", 'camera.x="q=1"'])
    assert changed == {"motion": {"low": 0.5, "enabled": False}, "name": "plain text", "sizes": [1, 2], "camera": {"x": "q=1"}}
    assert settings == {"motion": {"low": 1.0}}


@pytest.mark.parametrize("entry", ["motion.low", "=3", "motion..low=3", "name.low=3"])
def test_a_set_that_is_none_is_refused(entry: str) -> None:
    with pytest.raises(SettingsError, match="--set"):
        strict_toml.apply_sets({"name": "a"}, [entry])


def test_no_toml_is_the_users_fault() -> None:
    with pytest.raises(SettingsError, match=r"my\.toml: not TOML.*line 1"):
        strict_toml.parse("a = = 1", "my.toml")


def test_dump_is_readable_by_load_and_stable() -> None:
    settings = Outer(name='quote " and\nline', motion=Inner(low=1e-7))
    text = strict_toml.dump(settings)
    assert strict_toml.dump(settings) == text
    assert strict_toml.build(Outer, tomllib.loads(text), "here") == settings
    assert tomllib.loads(strict_toml.dump(settings, comments=True)) == tomllib.loads(text)
    assert "low = 1e-07  # lowest value that is kept" in strict_toml.dump(settings, comments=True)
    assert "# limit is not set" in text


@given(st.text(), st.floats(0, allow_nan=False, allow_infinity=False), st.lists(st.integers(-(2**63), 2**63 - 1)), st.booleans())
def test_every_value_survives_the_way_there_and_back(name: str, low: float, sizes: list[int], enabled: bool) -> None:
    settings = Outer(name=name.encode("utf-8", "ignore").decode(), sizes=tuple(sizes), motion=Inner(low=low, enabled=enabled))
    assert strict_toml.build(Outer, tomllib.loads(strict_toml.dump(settings)), "here") == settings
