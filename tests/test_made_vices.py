"""Made vices bear the vice that they are named after, and nothing of the clip that they were made from is lost."""

import importlib
import sys
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest

from curation.frames import Frames
from filters.catalog import CATALOG

BENCHMARKS = str(Path(__file__).resolve().parent.parent / "benchmarks")
RULES = [entry for entry in CATALOG if entry.stage == "rules"]


@pytest.fixture(scope="module")
def vices() -> ModuleType:
    """The benchmark's file."""
    sys.path.append(BENCHMARKS)
    return importlib.import_module("made_vices")


@pytest.fixture(scope="module")
def clip() -> Frames:
    """2.5 s of a textured scene with a patch that crosses it."""
    rng, height, width = np.random.default_rng(5), 180, 320
    ground = cv2.GaussianBlur(rng.integers(0, 256, (height, width, 3), np.uint8).astype(np.float32), (0, 0), 2)
    ground = np.clip(128 + (ground - ground.mean()) * 6, 0, 255).astype(np.uint8)
    patch = np.roll(ground[:80, :80], 40, 1)[::-1]

    def picture(at_s: float) -> np.ndarray:  # type: ignore[type-arg]
        seen, left = ground.copy(), 20 + int(60 * at_s)
        seen[50:130, left : left + 80] = patch
        return seen

    times, source = np.arange(10) / 4, np.arange(75, dtype=np.float32) / 30
    signals = {"time_s": source, "luma": np.full(75, 128, np.float32), "luma_diff": np.zeros(75, np.float32), "edge_diff": np.zeros(75, np.float32)}
    later = np.stack([cv2.cvtColor(picture(t + 1 / 15), cv2.COLOR_RGB2GRAY) for t in times])
    return Frames(np.stack([picture(t) for t in times]), later, times, np.full(10, 1 / 15, np.float32), 4.0, signals)


def judged(clip: Frames) -> set[str]:
    """The reasons that the rule filters' default thresholds give."""
    scores = {f"{entry.name}_{name}": value for entry in RULES for name, value in entry.build().score(clip).items()}
    return {reason for entry in RULES for rule in entry.rules if (reason := rule.judge(scores[rule.score]))}


def test_the_clip_itself_is_kept(clip: Frames) -> None:
    assert judged(clip) == set()


@pytest.mark.parametrize(
    "kind",
    [
        "frozen picture",
        "two slides",
        "pan over a picture",
        "zoom over a picture",
        "flashing",
        "blank head",
        "blank tail",
        "blank middle",
        "out of focus",
        "too dark",
        "too bright",
    ],
)
def test_each_is_rejected_for_its_reason(vices: ModuleType, clip: Frames, kind: str) -> None:
    reason, make = vices.KINDS[kind]
    made = make(clip, np.random.default_rng(2))
    assert made.rgb.shape == clip.rgb.shape
    assert (made.time_s == clip.time_s).all()
    assert reason in judged(made)


def test_a_whip_moves_everything_fast(vices: ModuleType, clip: Frames) -> None:
    made = vices.KINDS["whip after whip"][1](clip, np.random.default_rng(2))
    entry = next(entry for entry in RULES if entry.name == "motion")
    assert entry.build().score(made)["flow"] > 3 * entry.build().score(clip)["flow"]


def test_letters_stay_where_they_are(vices: ModuleType, clip: Frames) -> None:
    made = vices.KINDS["subtitles"][1](clip, np.random.default_rng(2))
    changed = (made.rgb != clip.rgb).any(axis=(0, 3))
    assert not changed[:126].any()
    assert 0.01 < changed[126:].mean() < 0.6
    assert (made.next_luma[:, :126] == clip.next_luma[:, :126]).mean() > 0.99


def test_moved_over_mirror_images_comes_back(vices: ModuleType, clip: Frames) -> None:
    picture = clip.rgb[0]
    assert (vices.moved(picture, np.array([640.0, 360.0])) == picture).all()
    assert (vices.moved(picture, np.array([320.0, 0.0])) == picture[:, ::-1]).all()
