"""The long horizon in the block world: one film a story, and everything that is measured of it: obedience, drift, picture quality, smooth joins."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from training.evaluation.block_fidelity import Fidelity, Predictor, steps, summary
from training.evaluation.block_pictures import film, picture
from training.evaluation.blockworld import Episode
from training.evaluation.picture_quality import Quality, by_round
from training.evaluation.smoothness import Smoothness, SmoothnessSettings, smoothness
from training.model.plain import must


@dataclass(frozen=True)
class Horizon:
    """What a predictor's films came to, means over the stories.

    Attributes:
        fidelity: of the actions, and how far off the blocks are, by round.
        quality_R: against the true film, by round.
        joins, elsewhere: smoothness at the joins of chunks and elsewhere; None for stories of one round (or too few frames elsewhere).
        speed: px a frame on a picture of 512 px: a film that stands still is smooth too.
        true_joins, true_elsewhere, true_speed: the same of the true films: what is to be reached.
    """

    fidelity: Fidelity
    quality_R: tuple[Quality, ...]
    joins: float | None
    elsewhere: float | None
    speed: float
    true_joins: float | None
    true_elsewhere: float | None
    true_speed: float

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for a table or a JSON file."""
        return asdict(self)


def horizon(predict: Predictor, stories: Iterable[Episode], settings: SmoothnessSettings | None = None) -> Horizon:
    """Lets a predictor film each story from its first frame and its actions, and measures the films.

    Raises:
        ValueError: there is no story, they have different numbers of rounds, or a film is not as long as its story.
    """
    judged, qualities, smooth, true_smooth = [], [], [], []
    for story in stories:
        world, true = story.world, film(story.world, story.positions_TN2, story.camera_T2)
        made = predict(picture(world, story.positions_TN2[0], story.camera_T2[0]), story.words)
        must(made.shape == true.shape, f"block world: a film of {list(made.shape)}, the story's is {list(true.shape)}")
        joins = range(1 + world.chunk_frames, len(true), world.chunk_frames)
        judged.append(steps(made, story))
        qualities.append(by_round(made, true, world.chunk_frames))
        smooth.append(smoothness(made, joins, settings))
        true_smooth.append(smoothness(true, joins, settings))
    found = summary(judged)
    rounds = (Quality(float(np.mean([q.psnr_db for q in column])), float(np.mean([q.ssim for q in column]))) for column in zip(*qualities, strict=True))
    return Horizon(found, tuple(rounds), *_means(smooth), *_means(true_smooth))


def _means(found: list[Smoothness]) -> tuple[float | None, float | None, float]:
    """(joins, elsewhere, speed)."""

    def mean(values: list[float | None]) -> float | None:
        return float(np.mean([v for v in values if v is not None])) if None not in values else None

    return mean([s.joins for s in found]), mean([s.elsewhere for s in found]), float(np.mean([s.speed for s in found]))
