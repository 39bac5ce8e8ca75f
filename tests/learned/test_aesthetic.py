"""Aesthetic on random weights: the same embeddings as open_clip's own preprocessing, heads of both layouts, batches, and clear refusals."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from curation.frames import SIGNALS, U8, Frames
from curation.image_tower import spread
from filters.aesthetic import Aesthetic, AestheticSettings, read_head
from filters.catalog import AESTHETIC

SETTINGS = AestheticSettings(tower="ViT-S-32-alt", weights="random:3", head="random:1", device="cpu", batch=5)


@pytest.fixture(scope="module")
def aesthetic() -> Aesthetic:
    return Aesthetic(SETTINGS)


def picture(seed: int, height: int = 256, width: int = 454) -> U8:
    """Smooth noise of two scales."""
    rng = np.random.default_rng(seed)
    coarse, fine = (cv2.resize(rng.integers(0, 255, (n, 2 * n, 3), np.uint8), (width, height), interpolation=cv2.INTER_CUBIC) for n in (6, 40))
    return cv2.addWeighted(coarse, 0.7, fine, 0.3, 0)


def clip(pictures: list[U8]) -> Frames:
    rgb, count = np.stack(pictures), len(pictures)
    return Frames(rgb, rgb[..., 1].copy(), np.arange(count) / 4, np.zeros(count, np.float32), 4.0, {name: np.zeros(1, np.float32) for name in SIGNALS})


def test_embeddings_equal_open_clips_own(aesthetic: Aesthetic) -> None:
    import open_clip

    pictures = [picture(1), picture(2, 480, 256), picture(3, 224, 224), picture(4, 90, 160)]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = open_clip.create_model("ViT-S-32-alt").eval()
    look = open_clip.transform.PreprocessCfg(**open_clip.get_model_preprocess_cfg(model))
    prepare = open_clip.transform.image_transform_v2(look, is_train=False)
    with torch.inference_mode():
        wanted = torch.nn.functional.normalize(model.encode_image(torch.stack([prepare(Image.fromarray(p)) for p in pictures])), dim=-1).numpy()
    found = aesthetic.tower.embed(pictures)
    # PIL rounds between its two passes, torch does not: a gray level in 255 at most, which leaves a cosine of 0.9999.
    assert found.shape == wanted.shape == (4, aesthetic.tower.width)
    assert ((found * wanted).sum(1) > 0.9999).all()
    assert np.abs(found - wanted).max() < 2e-3


def test_a_clips_score_is_the_mean_over_spread_pictures(aesthetic: Aesthetic) -> None:
    pictures = [picture(seed) for seed in range(10)]
    found = aesthetic.score(clip(pictures))
    (weight, bias), *_ = read_head("random:1", aesthetic.tower.width)
    each = [float((torch.from_numpy(aesthetic.tower.embed([pictures[i]])) @ weight.T + bias)[0, 0]) for i in spread(10, SETTINGS.pictures)]
    assert found["mean"] == pytest.approx(np.mean(each), abs=1e-4)
    assert found["min"] == pytest.approx(min(each), abs=1e-4)
    assert set(found) == set(Aesthetic.scores) == set(AESTHETIC.scores)


def test_a_batch_of_clips_of_many_sizes_scores_as_each_alone(aesthetic: Aesthetic) -> None:
    clips = [clip([picture(seed, *size)] * count) for seed, size, count in ((1, (256, 454), 3), (2, (454, 256), 9), (3, (256, 454), 1))]
    together = aesthetic.score_many(clips)
    for one, both in zip(clips, together, strict=True):
        assert aesthetic.score(one) == pytest.approx(both, abs=1e-4)
    assert aesthetic.score_many([]) == []


def test_heads_of_both_layouts_are_read(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    linear = torch.nn.Linear(16, 1)
    torch.save(linear.state_dict(), tmp_path / "linear.pth")
    chain = torch.nn.Sequential(torch.nn.Linear(16, 8), torch.nn.Dropout(), *(torch.nn.Linear(8, 8) for _ in range(9)), torch.nn.Linear(8, 1))
    save_file({f"layers.{name}": value for name, value in chain.state_dict().items()}, tmp_path / "chain.safetensors")
    x = torch.randn(3, 16, generator=torch.Generator().manual_seed(0))
    for name, model in (("linear.pth", linear), ("chain.safetensors", chain.eval())):
        y = x
        for weight, bias in read_head(str(tmp_path / name), 16):
            y = y @ weight.T + bias
        assert torch.allclose(y, model(x), atol=1e-5)


def test_what_does_not_fit_is_refused_with_both_sizes(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(512, 1).state_dict(), tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"from 768 .*\(1, 512\)"):
        read_head(str(tmp_path / "other.pth"), 768)
    with pytest.raises(ValueError, match="there is no file"):
        read_head(str(tmp_path / "missing.pth"), 768)
    with pytest.raises(ValueError, match="head is empty"):
        Aesthetic(AestheticSettings())
    with pytest.raises(ValueError, match="name a local checkpoint"):
        Aesthetic(AestheticSettings(tower="ViT-S-32-alt", weights=str(tmp_path / "no.pt"), head="random:1"))


def test_few_pictures_are_all_looked_at_and_many_evenly() -> None:
    assert spread(3, 8) == [0, 1, 2]
    assert spread(16, 4) == [2, 6, 10, 14]
