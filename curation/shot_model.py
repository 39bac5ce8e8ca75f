"""The fitted numbers of shot detection: three small logistic models over `curation.evidence`'s features, and TransNetV2's say.

Got by `python benchmarks/shots_quality.py --fit`: candidates of hand-labelled videos and of edited programmes with known truth, ridge penalty 1,
edited candidates weighing 0.3 of a labelled one; the numbers below are fitted on all of them, the benchmark's figures on left-out videos.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from curation.frames import F32

MODELS: Mapping[str, tuple[float, ...]] = {
    "cut": (-10.78, 1.74, 1.445, -1.336, -3.645, 1.901, -2.905, 1.569, -1.042, -3.0, -0.6113),
    "blend": (-13.47, 0.6234, 8.255, 3.893, 0.5705, -3.649, -5.314, 0.06923, -0.4392, -0.5088, 3.419, 26.19, 0.1115, -2.484),
    "burst": (-19.81, 2.75, 4.953, 5.31, -1.317, 1.121, -2.28, 0.2592, -1.444, -0.1788, 9.315, 0.6558, 1.932, 3.173),
    "cut_net": (0.05, 0.5, 1),
    "blend_net": (1, 0.7, 0.8),
    "burst_net": (-1, 0.5, 1),
}
"""Intercept and one weight a feature: "cut" over CUT_FEATURES, "blend" and "burst" over GRADUAL_FEATURES; "*_net" over (pixels' logit, TransNetV2's)."""


CLIP = 6.0
"""The pixels' log-odds are cut to this magnitude before they are weighed against the network's."""


def logit(weights: Sequence[float], features: F32) -> float:
    """Log-odds of a model: intercept and weights, as in `MODELS`."""
    return float(weights[0] + np.dot(features, np.asarray(weights[1:], np.float64)))
