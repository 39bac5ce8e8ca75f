"""The fitted numbers of shot detection: small logistic models over cheap and over dear evidence, and TransNetV2's say.

Got by `python benchmarks/shots_quality.py --fit`: candidates of hand-labelled videos and of edited programmes with known truth, ridge penalty 1,
edited candidates weighing 0.2 of a labelled one for cuts, 0.3 for other transitions; TransNetV2's weights from labelled videos alone. These numbers
are fitted on all of them; the benchmark's headline figures come from models that never saw the video.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from curation.evidence import CUT_FEATURES, GRADUAL_FEATURES
from curation.frames import F32
from curation.same_scene import CUT_SCENE, GRADUAL_SCENE

FEATURES: Mapping[str, tuple[str, ...]] = {
    "cut": (*CUT_FEATURES, *CUT_SCENE),
    "blend": (*GRADUAL_FEATURES, *GRADUAL_SCENE),
    "burst": (*GRADUAL_FEATURES, *GRADUAL_SCENE),
}
"""A candidate's features by kind: the cheap ones, then those of `curation.same_scene`."""

WEIGHED: Mapping[str, tuple[str, ...]] = {
    "cut": ("log_ratio", "ncc", "restored", *CUT_SCENE),
    "blend": ("ncc", "flat", "selects", *GRADUAL_SCENE),
    "burst": ("log_change", "hist", "log_ratio", "flat", "returns", "cut_inside", *GRADUAL_SCENE),
}
"""The features that decide together: what backward elimination left. The others speak in the screening only; here they fitted the training videos."""

PICKED: Mapping[str, list[int]] = {kind: [FEATURES[kind].index(name) for name in names] for kind, names in WEIGHED.items()}
"""Their places in `FEATURES`."""

MODELS: Mapping[str, tuple[float, ...]] = {
    "cut_screen": (-9.384, 2.835, 1.925, 1.689, -2.678, -0.4979, -0.8068, -8.155, -0.245),
    "cut": (-5.424, 1.579, 1.238, -6.205, -4.085, 1.007, 0.6379, -8.136, 1.917),
    "cut_net": (1.659, 0.8734, 1.014),
    "blend_screen": (-13.79, 0.422, 7.375, 1.69, 1.13, -6.861, -3.517, 0.217, -0.6585, -0.02395, 4.26, 26.49, 2.337, 0.3833),
    "blend": (-2.822, -1.239, -0.9574, 13.32, -4.824, -4.976, -9.869, 0.5386, 6.43, -3.438, 5.359, -2.831, -2.41, 2.085, -4.624, 2.555),
    "blend_net": (-0.4755, 1.709, 1.345),
    "burst_screen": (-20.04, 2.031, 5.83, 4.722, -0.1021, 1.828, -1.12, 0.5327, -1.099, 0.5019, 7.519, -1.391, 4.451, 5.919),
    "burst": (-10.24, 1.797, 3.942, 0.01627, -1.649, 3.298, 3.656, 8.175, -1.59, -10.66, 1.07, 4.521, -3.798, 3.832, 0.1475, 0.444, 1.088, -5.642, 2.895),
    "burst_net": (1.878, 0.1249, 1.111),
}
"""Intercept and one weight a feature: "*_screen" over the cheap features, "cut", "blend" and "burst" over those of `WEIGHED`, "*_net" over
(pixels' logit, TransNetV2's)."""


DRAWN = [FEATURES["burst"].index(name) for name in ("wiped", "slid")]
"""Where a burst's features say that one picture is drawn over the other."""

FLOWS = [FEATURES["burst"].index(name) for name in ("explained", "pattern_low")]
"""Where a transition's features say that flow leads from the picture before to the one within and on to the one behind."""

CLIP = 6.0
"""The pixels' log-odds are cut to this magnitude before they are weighed against the network's."""

LEAST_NET = -6.0
"""TransNetV2's logit below which a no is no firmer."""


def logit(weights: Sequence[float], features: F32) -> float:
    """Log-odds of a model: intercept and weights, as in `MODELS`."""
    return float(weights[0] + np.dot(features, np.asarray(weights[1:], np.float64)))
