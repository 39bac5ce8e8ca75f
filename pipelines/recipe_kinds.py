"""Recipe kinds: a recipe is of `pan curate` or of `pan train`, and its keys tell which; what `pan recipe` shows, checks and compares."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pipelines import recipe, strict_toml
from pipelines.strict_toml import SettingsError

if TYPE_CHECKING:
    from pipelines.recipe import Recipe
    from pipelines.train_recipe import TrainRecipe

Kind = Literal["curate", "train"]
#: What `pan recipe` calls the defaults of `pan train`; there are no packaged recipes of that kind.
DEFAULTS = "train"


@dataclass(frozen=True)
class Loaded:
    """A recipe, and the command that it is for."""

    kind: Kind
    settings: "Recipe | TrainRecipe"

    def checked(self) -> dict[str, Any]:
        """What `pan recipe check` tells of a sound one; a curation's plan has a digest, with which other recipes share its measurements."""
        told: dict[str, Any] = {"kind": self.kind, "ok": True, "problems": []}
        return told | ({"plan_digest": recipe.digest_of(self.settings.plan_settings())} if isinstance(self.settings, recipe.Recipe) else {})


def load(name_or_file: str, sets: Iterable[str] = ()) -> Loaded:
    """A packaged recipe by its name, the defaults of `pan train` as "train", or a TOML file of either kind, with `sets` ("a.b=VALUE") on top.

    Raises:
        SettingsError: as `recipe.load` and `train_recipe.load`.
    """
    sets = list(sets)
    text, where = ("", "train recipe") if name_or_file == DEFAULTS else recipe.read(name_or_file)
    if name_or_file != DEFAULTS and (name_or_file in recipe.names() or kind_of(strict_toml.parse(text, where)) == "curate"):
        return Loaded("curate", recipe.loads(text, where, sets))
    from pipelines import train_recipe

    return Loaded("train", train_recipe.load(None if name_or_file == DEFAULTS else name_or_file, sets))


def kind_of(settings: Mapping[str, Any]) -> Kind:
    """Whose recipe has more of these keys: no key of one is a key of the other; a curation's, where neither has (an empty file)."""
    curates = len(settings.keys() & recipe.Recipe.model_fields.keys())
    if curates == len(settings):
        return "curate"
    from pipelines.train_recipe import TrainRecipe  # imports torch: not for a curation's recipe

    return "train" if len(settings.keys() & TrainRecipe.model_fields.keys()) > curates else "curate"


def differences(left: str, right: str) -> dict[str, tuple[Any, Any]]:
    """{full key: (left, right)} where two recipes of one kind differ.

    Raises:
        SettingsError: they are of two kinds; or as `load`.
    """
    a, b = load(left), load(right)
    if a.kind != b.kind:
        problem = f"{left} is a recipe of `pan {a.kind}` and {right} of `pan {b.kind}`, which have no key in common; give two of one kind"
        raise SettingsError("recipe diff", [problem])
    return recipe.differences(a.settings.model_dump(mode="json"), b.settings.model_dump(mode="json"))
