"""scene_text through PaddleOCR: with the same network it finds what RapidOCR finds, on either of its engines."""

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import rapidocr_onnxruntime

from curation.frames import SIGNALS, U8, Frames
from filters.scene_text import SceneText
from filters.text_detector import PaddleOcr, RapidOcr, SceneTextSettings

#: What PaddleOCR wants to know of an exported detector.
DESCRIPTION = """
Global: {model_name: PP-OCRv4_mobile_det}
PreProcess:
  transform_ops:
  - DecodeImage: {channel_first: false, img_mode: BGR}
  - DetResizeForTest: {limit_side_len: 32, limit_type: min}
  - NormalizeImage: {mean: [0.5, 0.5, 0.5], order: hwc, scale: 1./255., std: [0.5, 0.5, 0.5]}
  - ToCHWImage: null
  - KeepKeys: {keep_keys: [image, shape, polys, ignore_tags]}
PostProcess: {name: DBPostProcess, thresh: 0.3, box_thresh: 0.5, max_candidates: 1000, unclip_ratio: 1.6}
"""


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> SceneTextSettings:
    """The detector of the RapidOCR wheel, laid out as PaddleOCR wants it."""
    folder = tmp_path_factory.mktemp("detector")
    shutil.copy(Path(rapidocr_onnxruntime.__file__).parent / "models" / "ch_PP-OCRv4_det_infer.onnx", folder / "inference.onnx")
    (folder / "inference.yml").write_text(DESCRIPTION)
    return SceneTextSettings(backend="paddle", model_dir=str(folder), engine="onnxruntime", batch=4)


def picture(seed: int, *texts: str, size: tuple[int, int] = (256, 454)) -> U8:
    """Smooth noise with lines of text."""
    rng = np.random.default_rng(seed)
    out = cv2.resize(rng.integers(40, 160, (9, 16, 3), np.uint8), size[::-1], interpolation=cv2.INTER_CUBIC)
    for line, text in enumerate(texts):
        cv2.putText(out, text, (40, 60 + 60 * line), cv2.FONT_HERSHEY_SIMPLEX, 0.9, (255, 255, 255), 2, cv2.LINE_AA)
    return out


def covered(boxes: list[np.ndarray], size: tuple[int, int]) -> np.ndarray:
    mask = np.zeros(size, np.uint8)
    for box in boxes:
        cv2.fillPoly(mask, [box.reshape(-1, 1, 2)], 1)
    return mask > 0


def test_both_back_ends_find_the_same_lines(settings: SceneTextSettings) -> None:
    pictures = [picture(1, "What is this sport?"), picture(2), picture(3, "MORNING", "NEWS TODAY"), picture(4, "UP", size=(454, 256))]
    for ours, theirs, shown in zip(RapidOcr().detect_many(pictures), PaddleOcr(settings).detect_many(pictures), pictures, strict=True):
        a, b = covered(ours, shown.shape[:2]), covered(theirs, shown.shape[:2])
        assert len(ours) == len(theirs)
        assert (a & b).sum() >= 0.99 * (a | b).sum()


def test_a_clips_scores_agree(settings: SceneTextSettings) -> None:
    rgb = np.stack([picture(seed, "What is this sport?") for seed in range(6)])
    clip = Frames(rgb, rgb[..., 1].copy(), np.arange(6) / 4, np.zeros(6, np.float32), 4.0, {name: np.zeros(1, np.float32) for name in SIGNALS})
    ours, theirs = SceneText().score(clip), SceneText(settings).score(clip)
    assert theirs == pytest.approx(ours, rel=0.01, abs=1e-4)
    assert theirs["persistent_area"] > 0.02


def test_an_unknown_detector_is_the_users_fault(settings: SceneTextSettings) -> None:
    with pytest.raises(ValueError, match="could not load NO_SUCH_det"):
        PaddleOcr(settings.model_copy(update={"model": "NO_SUCH_det"}))
