"""The recipe: packaged ones load, the resolved text is a recipe again, the plan's settings leave out what does not decide."""

from pathlib import Path

import pytest

from pipelines import recipe
from pipelines.recipe import Recipe
from pipelines.strict_toml import SettingsError


@pytest.mark.parametrize("name", ["local", "pan"])
def test_packaged_recipes_load_and_survive_the_way_to_text_and_back(name: str, tmp_path: Path) -> None:
    loaded = recipe.load(name)
    again = tmp_path / "again.toml"
    again.write_text(loaded.to_toml())
    assert recipe.load(str(again)) == loaded


def test_names_are_the_packaged_recipes() -> None:
    assert recipe.names() == ["local", "pan"]


def test_resources_do_not_enter_the_plan() -> None:
    wide = recipe.load("local", ["resources.split.num_cpus=4"])
    assert wide != recipe.load("local")
    assert wide.plan_settings() == recipe.load("local").plan_settings()


def test_digest_depends_on_values_and_not_on_the_order_of_keys() -> None:
    assert recipe.digest_of({"a": 1, "b": 2.0}) == recipe.digest_of({"b": 2.0, "a": 1})
    assert recipe.digest_of({"a": 1}) != recipe.digest_of({"a": 2})
    assert len(Recipe().digest("resources")) == 16


def test_differences_are_named_by_their_full_keys() -> None:
    a, b = recipe.load("local"), recipe.load("local", ["resources.cut.num_cpus=0.5"])
    found = recipe.differences(a.model_dump(mode="json"), b.model_dump(mode="json"))
    assert found == {"resources.cut.num_cpus": (1.0, 0.5)}
    assert recipe.difference_text(found) == "resources.cut.num_cpus: 1.0 -> 0.5"


def test_a_recipe_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "r.toml"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(SettingsError, match="not UTF-8"):
        recipe.load(str(path))
