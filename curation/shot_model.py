"""The fitted numbers of shot detection: three small logistic models over `curation.evidence`'s features, and TransNetV2's say.

Got by `python benchmarks/shots_quality.py --fit`: candidates of hand-labelled videos and of edited programmes with known truth, ridge penalty 1,
edited candidates weighing 0.3 of a labelled one (0.1 in the network models). These numbers are fitted on all of them; the benchmark's headline
figures come from models that never saw the video.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from curation.frames import F32

MODELS: Mapping[str, tuple[float, ...]] = {
    "cut": (-11.52, 1.919, 1.803, 0.9887, -4.56, 1.689, -1.973, 0.272, 1.106, -7.842, -0.5824),
    "cut_net": (1.973, -0.1407, 1.394),
    "blend": (-15.06, 0.9019, 5.33, 5.019, -0.04141, -7.045, -4.923, 0.5376, -0.5571, -0.4004, 2.751, 29.21, 2.505, -1.535),
    "blend_net": (0.2617, 0.5332, 1.365),
    "burst": (-24.41, 3.014, 4.401, 6.24, -1.176, 1.18, -2.161, 0.3295, -1.032, 0.2267, 8.945, -0.7397, 4.339, 6.01),
    "burst_net": (1.628, 0.2223, 1.387),
}
"""Intercept and one weight a feature: "cut" over CUT_FEATURES, "blend" and "burst" over GRADUAL_FEATURES; "*_net" over (pixels' logit, TransNetV2's)."""


CLIP = 6.0
"""The pixels' log-odds are cut to this magnitude before they are weighed against the network's."""


def logit(weights: Sequence[float], features: F32) -> float:
    """Log-odds of a model: intercept and weights, as in `MODELS`."""
    return float(weights[0] + np.dot(features, np.asarray(weights[1:], np.float64)))
