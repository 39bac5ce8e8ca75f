"""Content: PAN's six properties of footage that teaches nothing about a world, each with a confidence; measured from the pixels, or asked of a model."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import ClassVar, Literal

from pydantic import Field

from curation.clips import ClipError
from curation.config import Config
from curation.frames import Frames
from curation.vlm import VlmConfig

#: The constants of `Measured`'s models, in this folder.
CONSTANTS = "measured_content.json"

#: Each property and what its confidence is of. Source: PAN, section 6.2.3.
PROPERTIES: Mapping[str, str] = {
    "lecture": "confidence in [0, 1] that someone talks to the camera, or slides are shown, and little else happens",
    "text_dominated": "confidence in [0, 1] that text is the main thing in the picture",
    "screen_recording": "confidence in [0, 1] that a computer's or a game's screen was recorded",
    "low_quality": "confidence in [0, 1] that the picture is blurred, badly compressed, or from a tiny source",
    "heavily_edited": "confidence in [0, 1] that it is put together: split screens, insets, frames, effects",
    "residual_cut": "confidence in [0, 1] that there is still a cut or a dissolve inside",
}


class ContentSettings(Config):
    """Who says what a clip shows."""

    backend: Literal["measured", "vlm"] = Field(
        "measured", description="measured: small models on what the pixels say, no network; vlm: the recipe's vision-language model is asked"
    )
    calibration: str = Field(
        "",
        description="for backend vlm: JSON file that turns its log-probabilities into confidences, written by pipelines/train_judge.py for one model; "
        "empty = the adapter's own calibration.json, or the log-probabilities as they are",
    )
    vlm: VlmConfig = Field(default_factory=VlmConfig, description="the model that is asked; in a recipe it is the shared [vlm]")


class Measured:
    """The six confidences from `signs` of the pixels, by logistic models of a few signs each.

    A property may have several parts (a lecture is a talking head or slides); its confidence is the highest of theirs. The models' constants lie in
    measured_content.json, fitted by benchmarks/judge.py on labelled clips and on vices made for the purpose.
    """

    scores: ClassVar[Mapping[str, str]] = PROPERTIES

    def __init__(self) -> None:
        from filters.signs import signs  # here, since reading the catalogue must not load OpenCV

        self._signs = signs
        self.parts = read_parts()

    def score(self, frames: Frames) -> dict[str, float]:
        """The confidences of one clip.

        Raises:
            ClipError: "too_short" if there are fewer than two samples.
        """
        if len(frames) < 2:
            raise ClipError("too_short", "one sample does not say what a clip is")
        return confidences(self._signs(frames), self.parts)


@dataclass(frozen=True)
class Part:
    """A logistic model of one way to have a property: confidence = 1 / (1 + exp(-(bias + sum of weight x sign)))."""

    property: str
    bias: float
    weights: Mapping[str, float]


def read_parts() -> dict[str, Part]:
    """The shipped models, by their names."""
    text = resources.files("filters").joinpath(CONSTANTS).read_text("utf-8")
    return {name: Part(**part) for name, part in json.loads(text)["parts"].items()}


def confidences(found: Mapping[str, float], parts: Mapping[str, Part]) -> dict[str, float]:
    """Each property's confidence from a clip's signs: the highest of its parts'."""
    highest = dict.fromkeys(PROPERTIES, 0.0)
    for part in parts.values():
        logit = part.bias + sum(weight * found[sign] for sign, weight in part.weights.items())
        highest[part.property] = max(highest[part.property], logistic(logit))
    return highest


def logistic(logit: float) -> float:
    """1 / (1 + e^-x) without overflow."""
    return 1 / (1 + math.exp(-logit)) if logit >= 0 else math.exp(logit) / (1 + math.exp(logit))
