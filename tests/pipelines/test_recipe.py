"""The recipe: packaged ones load, the resolved text is a recipe again, the plan's settings leave out what does not decide."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from curation.config import Config
from pipelines import cli, recipe, strict_toml, train_recipe
from pipelines.recipe import Recipe
from pipelines.recipe_kinds import kind_of
from pipelines.strict_toml import SettingsError
from pipelines.train_recipe import TrainRecipe

Pan = Callable[..., tuple[int, str, str]]


@pytest.mark.parametrize("name", ["blockworld", "local", "pan"])
def test_packaged_recipes_load_and_survive_the_way_to_text_and_back(name: str, tmp_path: Path) -> None:
    loaded = recipe.load(name)
    again = tmp_path / "again.toml"
    again.write_text(loaded.to_toml())
    assert recipe.load(str(again)) == loaded


def test_names_are_the_packaged_recipes() -> None:
    assert recipe.names() == ["blockworld", "local", "pan"]


def test_pack_settings_do_not_enter_the_plan_but_the_pack_plan() -> None:
    small = recipe.load("local", ["pack.target_bytes=2048"])
    assert small.plan_settings() == recipe.load("local").plan_settings()
    plan = small.pack_plan("p" * 64)
    assert (plan.target_bytes, plan.plan_digest, plan.thresholds) == (2048, "p" * 64, small.thresholds())
    assert plan.recipe_digest != recipe.load("local").pack_plan("p" * 64).recipe_digest
    with pytest.raises(SettingsError, match=r"pack\.thresholds: unknown key"):
        recipe.load("local", ["pack.thresholds={}"])


def test_entries_of_one_stage() -> None:
    loaded = recipe.load("local")
    assert {entry.stage for entry in loaded.entries("rules")} == {"rules"}
    assert sum(len(loaded.entries(stage)) for stage in ("rules", "detectors", "content")) == len(loaded.entries())


def test_resources_do_not_enter_the_plan() -> None:
    wide = recipe.load("local", ["resources.split.num_cpus=4"])
    assert wide != recipe.load("local")
    assert wide.plan_settings() == recipe.load("local").plan_settings()


def test_thresholds_do_not_enter_the_plan_but_the_set_of_filters_does() -> None:
    plain = recipe.load("local")
    tighter = recipe.load("local", ["filters.motion.low=0.05"])
    assert tighter.plan_settings() == plain.plan_settings()
    assert tighter.thresholds() != plain.thresholds()
    assert tighter.thresholds()["motion"]["low"] == 0.05
    without = recipe.load("local", ["filters.color.enabled=false"])
    assert without.plan_settings()["filters"] == [name for name in plain.plan_settings()["filters"] if name != "color"]
    assert "color" not in without.thresholds()


def test_misspelt_and_contradictory_thresholds_are_refused_together() -> None:
    with pytest.raises(SettingsError) as caught:
        recipe.load("local", ["filters.motion.lo=0.02", "filters.motoin.low=0.02", "filters.camera.pan_high='a'"])
    assert caught.value.problems == [
        "filters.motion.lo: unknown key; did you mean filters.motion.low?",
        'filters.camera.pan_high: Input should be a valid number, got "a"',
        "filters.motoin: unknown key; did you mean filters.motion?",
    ]
    with pytest.raises(SettingsError, match=r"filters\.motion: no clip could pass: low = 9\.0"):
        recipe.load("local", ["filters.motion.low=9.0"])


def test_what_may_be_left_out_is_none_by_default() -> None:
    def check(model: type[Config], path: str) -> None:
        for name, field in model.model_fields.items():
            inner = strict_toml.table_of(field)
            if inner is not None:
                check(inner, f"{path}{name}.")
            elif type(None) in getattr(field.annotation, "__args__", ()):
                assert field.default is None, f"{path}{name}: None cannot be written in TOML"

    check(Recipe, "")


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


@pytest.fixture
def pan(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Pan:
    """`pan WORDS` in this process: exit code, what it printed, and its errors."""

    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["pan", *words])
        return cli._run(), *capsys.readouterr()

    return run


def test_every_key_of_a_training_is_shown_with_what_it_is_for(pan: Pan, tmp_path: Path) -> None:
    code, shown, _ = pan("recipe", "show", "train", "--set", "loop.windows=7")
    assert code == 0
    assert train_recipe.load(None, ["loop.windows=7"]) == strict_toml.build(TrainRecipe, strict_toml.parse(shown, "shown"), "shown")
    keys = [line for line in shown.splitlines() if line and not line.startswith("[")]
    assert len(keys) == len(list(strict_toml.known_keys(TrainRecipe))) - shown.count("\n[")
    assert [line for line in keys if "  # " not in line] == []
    again = tmp_path / "again.toml"
    again.write_text(shown)
    assert pan("recipe", "diff", "train", str(again))[:2] == (0, "loop.windows: 960 -> 7\n")


def test_a_recipe_that_a_training_wrote_is_checked_as_such(pan: Pan, tmp_path: Path) -> None:
    file = tmp_path / "recipe.toml"
    file.write_text(train_recipe.load(None).to_toml())
    assert pan("recipe", "check", str(file)) == (0, f"{file}: ok (a recipe of `pan train`)\n", "")
    assert json.loads(pan("recipe", "check", str(file), "--json")[1]) == {"recipe": str(file), "kind": "train", "ok": True, "problems": []}
    file.write_text("[loop]\nwindow = 3\n[workers]\nleast = 2\nmost = 1\n")
    code, _, told = pan("recipe", "check", str(file))
    assert (code, told) == (2, f"pan: recipe {file}: loop.window: unknown key; did you mean loop.windows?\n")
    code, told, _ = pan("recipe", "check", "local")
    assert told == f"local: ok (a recipe of `pan curate`, plan settings {recipe.digest_of(recipe.load().plan_settings())})\n"


def test_recipes_of_two_kinds_are_not_compared(pan: Pan) -> None:
    code, _, told = pan("recipe", "diff", "local", "train")
    assert code == 2
    assert told.startswith("pan: recipe diff: local is a recipe of `pan curate` and train of `pan train`")


def test_a_key_tells_whose_recipe_it_is() -> None:
    assert Recipe.model_fields.keys() & TrainRecipe.model_fields.keys() == set()
    assert [kind_of(strict_toml.parse(text, "here")) for text in ("", "[split]", "[lop]", "phase = 'joint'", "[loop]\n[optin]")] == [
        *["curate"] * 3,
        *["train"] * 2,
    ]
