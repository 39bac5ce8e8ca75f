"""The small autoencoder learns its corpus: better pictures than it began with, latents that it measured, the same for the same seed."""

from functools import cache

import numpy as np
import pytest
import torch

from training.evaluation.block_model import plain_vae
from training.evaluation.block_pictures import film
from training.evaluation.blockworld import World, episodes
from training.model.small_vae import SmallVae
from training.teach_vae import TeachSettings, as_video, measured, teach

WORLD = World(blocks=2, chunk_frames=4, fps=1.6)
SHORT = TeachSettings(steps=25, batch=2)


def films(count: int, split: str = "train") -> list[np.ndarray]:
    """True films of two actions."""
    return [film(WORLD, story.positions_TN2, story.camera_T2) for story in episodes(WORLD, 2, 0, count, split)]  # type: ignore[arg-type]


def test_pictures_it_has_not_seen_come_back_better() -> None:
    shown = as_video(films(4, "unseen"))
    before, after = measured(SmallVae(plain_vae()), films(4)), teach_short()
    with torch.no_grad():
        errors = [float((vae.decode(vae.encode(shown)) - shown).square().mean()) for vae in (before, after)]
    assert errors[1] < 0.8 * errors[0]


@cache
def teach_short(again: int = 0) -> SmallVae:
    """Some steps; another number teaches once more."""
    return teach(plain_vae(), films(8), SHORT)


def test_latents_are_normalised_by_what_was_measured() -> None:
    vae = teach_short()
    with torch.no_grad():
        latents = torch.cat([vae.encode(as_video([each])) for each in films(8)])
    assert len(set(vae.spec.std)) == 1
    assert float(latents.mean()) == pytest.approx(0.0, abs=0.15)
    assert float(latents.var((0, 2, 3, 4)).mean()) == pytest.approx(1.0, rel=0.25)


def test_the_same_seed_gives_the_same_weights() -> None:
    one, other = teach_short(), teach_short(again=1)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_films_that_are_too_short_are_refused() -> None:
    with pytest.raises(ValueError, match="videos of 9 frames"):
        teach(plain_vae(), [films(1)[0][:8]], SHORT)
