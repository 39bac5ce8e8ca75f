"""High dynamic range to SDR: PQ or HLG in BT.2020 becomes 8-bit BT.709, simply and the same everywhere."""

import functools

import numpy as np
import numpy.typing as npt

from curation.frames import F32, U8

PQ, HLG = 16, 18  # transfer characteristics as coded in the streams (ITU-T H.273)

WHITE_NITS = 203.0  # Source: ITU-R BT.2408, table 1: HDR reference white
KNEE = 0.7  # of SDR white: below it light passes as it is, above it rolls off towards white

#: Linear BT.2020 to linear BT.709 primaries. Source: ITU-R BT.2087, section 4.
_TO_709: F32 = np.array([[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]], np.float32)


@functools.cache
def _light(transfer: int) -> F32:
    """Relative light (1 = SDR white) of each of 4096 code values of a channel; float32 [4096]."""
    code = np.linspace(0.0, 1.0, 4096)
    if transfer == PQ:  # Source: SMPTE ST 2084, EOTF
        root = code ** (1 / 78.84375)
        nits = 10_000 * (np.maximum(root - 0.8359375, 0) / (18.8515625 - 18.6875 * root)) ** (1 / 0.1593017578125)
    else:  # Source: ARIB STD-B67, inverse OETF; ITU-R BT.2100 OOTF with gamma 1.2 at 1000 nits, taken by channel
        scene = np.where(code <= 0.5, code**2 / 3, (np.exp((code - 0.55991073) / 0.17883277) + 0.28466892) / 12)
        nits = 1000 * scene**1.2
    return (nits / WHITE_NITS).astype(np.float32)


def tone_map(rgb: npt.NDArray[np.uint16], transfer: int) -> U8:
    """uint16 [H, W, 3] R'G'B' of BT.2020 with PQ or HLG to uint8 [H, W, 3] R'G'B' of BT.709 (gamma 2.4).

    A simple global curve: nothing below 0.7 of SDR white changes its light, highlights roll off; colours out of gamut are clipped.
    """
    light = _light(transfer)[rgb >> 4] @ _TO_709.T
    peak = light.max(axis=2, keepdims=True)
    over = np.maximum(peak - KNEE, 0) / (1 - KNEE)
    rolled = KNEE + (1 - KNEE) * over / (1 + over)
    light *= np.where(peak > KNEE, rolled / np.maximum(peak, 1e-6), 1.0)
    mapped: U8 = np.rint(255 * np.clip(light, 0, 1) ** (1 / 2.4)).astype(np.uint8)
    return mapped
