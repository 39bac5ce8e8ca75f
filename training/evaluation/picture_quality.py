"""Picture quality against the true film: PSNR and SSIM, round after round of a long horizon."""

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from training.model.plain import must

Frames_THWC = npt.NDArray[np.uint8]

#: Equal pictures have no noise at all: their PSNR is told as this. Source: one gray level in one of 100 px gives 68 dB, and no encoder is nearer.
HIGHEST_DB = 100.0


@dataclass(frozen=True)
class Quality:
    """Means over a stretch of frames: psnr in dB, ssim 0 to 1."""

    psnr_db: float
    ssim: float


def psnr_db(picture: npt.NDArray[np.uint8], true: npt.NDArray[np.uint8]) -> float:
    """Peak signal-to-noise ratio of uint8 pictures of one shape, at most `HIGHEST_DB`."""
    error = np.mean((picture.astype(np.float64) - true.astype(np.float64)) ** 2)
    return HIGHEST_DB if error == 0 else float(min(HIGHEST_DB, 10 * np.log10(255**2 / error)))


def ssim(picture_HWC: npt.NDArray[np.uint8], true_HWC: npt.NDArray[np.uint8]) -> float:
    """Structural similarity of the lumas of two uint8 RGB pictures, averaged where the window lies within them.

    Source: Wang, Bovik, Sheikh, Simoncelli (2004): a Gaussian window of 11 px and deviation 1.5, K1 = 0.01, K2 = 0.03.
    """
    a, b = (cv2.cvtColor(p, cv2.COLOR_RGB2GRAY).astype(np.float64) for p in (picture_HWC, true_HWC))

    def mean(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        found: npt.NDArray[np.float64] = cv2.GaussianBlur(x, (11, 11), 1.5)[5:-5, 5:-5]
        return found

    mean_a, mean_b = mean(a), mean(b)
    var_a, var_b, both = mean(a * a) - mean_a**2, mean(b * b) - mean_b**2, mean(a * b) - mean_a * mean_b
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    return float(((2 * mean_a * mean_b + c1) * (2 * both + c2) / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))).mean())


def by_round(film_THWC: Frames_THWC, true_THWC: Frames_THWC, chunk_frames: int) -> list[Quality]:
    """Each round's quality, over the frames of its chunk; the first frame, which was given, is no round's.

    Raises:
        ValueError: the films differ in shape, are smaller than SSIM's window, or are not whole chunks.
    """
    must(film_THWC.shape == true_THWC.shape, f"picture quality: films of {list(film_THWC.shape)} and {list(true_THWC.shape)}; they must be of one shape")
    must(min(film_THWC.shape[1:3]) >= 11, f"picture quality: pictures of {film_THWC.shape[2]}x{film_THWC.shape[1]} px; SSIM's window is 11 px wide")
    rounds, rest = divmod(len(film_THWC) - 1, chunk_frames)
    must(rounds > 0 and rest == 0, f"picture quality: {len(film_THWC)} frames are not one and whole chunks of {chunk_frames}")
    found = []
    for k in range(rounds):
        frames = range(1 + k * chunk_frames, 1 + (k + 1) * chunk_frames)
        pairs = [(film_THWC[t], true_THWC[t]) for t in frames]
        found.append(Quality(float(np.mean([psnr_db(*pair) for pair in pairs])), float(np.mean([ssim(*pair) for pair in pairs]))))
    return found
