"""Recipe: every setting of a run, from the parts' own Config models, out of a strict TOML file."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from captioning.caption import CaptionConfig
from captioning.given import check_sources as check_given
from curation.config import Config
from curation.cut import CutConfig
from curation.dedup import DedupConfig
from curation.limits import Limits
from curation.pack import PackPlan
from curation.shots import SplitConfig
from curation.sources import Source, SourcesConfig
from curation.stage import Resources
from curation.vlm import VlmConfig
from filters.base import Entry
from filters.catalog import CATALOG, thresholds_of
from pipelines import strict_toml, thresholds
from pipelines.budget import Budget
from pipelines.strict_toml import SettingsError

RECIPES = "pipelines.recipes"


if TYPE_CHECKING:
    FilterSettings = Config
    PackSettings = PackPlan
else:
    FilterSettings = thresholds.settings_model(CATALOG)
    PackSettings = strict_toml.part_of(PackPlan, "PackSettings", ("seed", "target_bytes", "val_share"))


class StageResources(Config):
    """What each stage takes of the cluster; no part of the plan: the clips and bytes do not depend on it."""

    split: Resources = Field(default_factory=Resources, description="SplitVideo: decodes, and finds the shots")
    rules: Resources = Field(default_factory=Resources, description="ScoreClips(rules): the cheap filters")
    embed: Resources = Field(default_factory=Resources, description="EmbedClips: vectors for finding duplicates")
    detectors: Resources = Field(default_factory=Resources, description="ScoreClips(detectors): the networks")
    content: Resources = Field(
        default_factory=Resources, description="ScoreClips(content): the vision-language model's questions, or what is measured in their place"
    )
    caption: Resources = Field(default_factory=Resources, description="CaptionClips")
    cut: Resources = Field(default_factory=Resources, description="CutClips: writes the kept clips' MP4")
    sink: Resources = Field(default_factory=Resources, description="Ledger: commits the rows")


class Recipe(Config):
    """The whole run's settings; a recipe file lists only what differs from these defaults."""

    sources: SourcesConfig = Field(default_factory=SourcesConfig, description="which files are taken for videos")
    limits: Limits = Field(default_factory=Limits, description="what a video may be")
    split: SplitConfig = Field(default_factory=SplitConfig, description="how a video becomes clips")
    filters: FilterSettings = Field(default_factory=FilterSettings, description="which filters run, and their thresholds")
    vlm: VlmConfig = Field(default_factory=VlmConfig, description="the vision-language model, where the content filter's or the captioner's backend is vlm")
    caption: CaptionConfig = Field(default_factory=CaptionConfig, description="how kept clips are described")
    dedup: DedupConfig = Field(default_factory=DedupConfig, description="whether and how near duplicates among the kept clips are found")
    cut: CutConfig = Field(default_factory=CutConfig, description="how kept clips become MP4")
    pack: PackSettings = Field(default_factory=PackSettings, description="how kept clips become shards")
    budget: Budget = Field(default_factory=Budget, description="how many videos may fail")
    resources: StageResources = Field(default_factory=StageResources, description="cluster resources a stage")

    def digest(self, part: str) -> str:
        """Sixteen hex digits of one part's settings, such as "split"; the same settings give the same digits."""
        return digest_of(getattr(self, part).model_dump(mode="json"))

    def plan_settings(self) -> dict[str, Any]:
        """What the plan's hash covers: everything that decides which rows the ledger gets and with which scores.

        Thresholds are left out (`pan rejudge` judges the ledger again), the set of enabled filters is in. Left out are also
        `pack`, which another pack of the same ledger may change, and `resources` and `budget`, on which neither clips nor bytes depend.
        """
        settings = self.model_dump(mode="json", exclude={"resources", "pack", "budget", "vlm", "dedup"})
        filters = [
            entry.name if entry.settings is None else {entry.name: entry.settings.model_dump(mode="json", exclude={thresholds.SHARED})}
            for entry in self.entries()
        ]
        asks = {"vlm": self.vlm.identity()} if self.asks_vlm() else {}
        embeds = {"embed": self.dedup.identity()} if self.dedup.enabled else {}
        return settings | asks | embeds | {"filters": filters}

    def asks_vlm(self) -> bool:
        """Whether any stage asks the vision-language model."""
        return self.caption.backend == "vlm" or any(getattr(entry.settings, "backend", None) == "vlm" for entry in self.entries())

    def check_sources(self, sources: Sequence[Source]) -> None:
        """Holds a run's sources to what its stages take from their lists.

        Raises:
            ValueError: captions are to be given, and the lists give none, or such as cannot be read.
        """
        if self.caption.backend == "given":
            check_given(sources)

    def entries(self, stage: str | None = None) -> tuple[Entry, ...]:
        """The enabled filters' catalogue entries with this recipe's thresholds, of one stage or of all."""
        chosen = thresholds.enabled_entries(CATALOG, self.filters, self.vlm)
        return tuple(entry for entry in chosen if stage in (None, entry.stage))

    def pack_plan(self, plan_digest: str) -> PackPlan:
        """How the kept clips are packed: the settings of `pack`, the thresholds that judged, and what they belong to."""
        whole = digest_of(self.model_dump(mode="json", exclude={"resources", "budget"}))
        return PackPlan(**self.pack.model_dump(), thresholds=self.thresholds(), plan_digest=plan_digest, recipe_digest=whole)

    def thresholds(self) -> dict[str, dict[str, float]]:
        """{filter: {key: threshold}} of the enabled filters: what judges, and what pack's verdict depends on."""
        return {entry.name: thresholds_of(entry) for entry in self.entries()}

    def to_toml(self, comments: bool = False) -> str:
        """The resolved recipe: every key with its value."""
        return strict_toml.dump(self, comments)


def digest_of(settings: object) -> str:
    """Sixteen hex digits of JSON-like settings, independent of the keys' order."""
    text = json.dumps(settings, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def names() -> list[str]:
    """The packaged recipes."""
    return sorted(entry.name.removesuffix(".toml") for entry in resources.files(RECIPES).iterdir() if entry.name.endswith(".toml"))


def load(name_or_file: str = "local", sets: Iterable[str] = ()) -> Recipe:
    """A packaged recipe by its name, or a TOML file by its path, with `sets` ("a.b=VALUE") on top.

    Raises:
        SettingsError: no such recipe, not TOML, an unknown key, a wrong type, a value out of bounds; all problems at once.
    """
    return loads(*read(name_or_file), sets)


def loads(text: str, where: str, sets: Iterable[str] = ()) -> Recipe:
    """A recipe from its TOML text, which errors name `where`; otherwise as `load`."""
    return strict_toml.build(Recipe, strict_toml.apply_sets(strict_toml.parse(text, where), sets), where)


def read(name_or_file: str) -> tuple[str, str]:
    """A recipe's text and how an error names it.

    Raises:
        SettingsError: no such recipe, or a file that is no text.
    """
    if name_or_file in names():
        return resources.files(RECIPES).joinpath(f"{name_or_file}.toml").read_text("utf-8"), f"recipe {name_or_file}"
    path = Path(name_or_file)
    if not path.is_file():
        raise SettingsError(f"recipe {name_or_file}", [f"neither a packaged recipe ({', '.join(names())}) nor a file"])
    try:
        return path.read_text("utf-8"), str(path)
    except UnicodeDecodeError as error:
        raise SettingsError(str(path), [f"not UTF-8: {error}"]) from error


def differences(left: Mapping[str, Any], right: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """{full key: (left, right)} where two dumped recipes differ; a key that one side lacks is None there."""
    a, b = strict_toml.flat(left), strict_toml.flat(right)
    return {key: (a.get(key), b.get(key)) for key in [*a, *(key for key in b if key not in a)] if a.get(key) != b.get(key)}


def difference_text(found: Mapping[str, tuple[Any, Any]]) -> str:
    """One line a differing key: "key: left -> right"."""
    if not found:
        return "no difference"
    return "\n".join(f"{key}: {_shown(a)} -> {_shown(b)}" for key, (a, b) in found.items())


def _shown(value: object) -> str:
    return "not set" if value is None else strict_toml.toml_or_repr(value)
