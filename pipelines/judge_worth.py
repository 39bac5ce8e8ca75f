"""Judge worth: a calibration from a trained judge's answers on labelled clips, and precision and recall with their intervals."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from filters.content import PROPERTIES
from filters.content_vlm import Line, confidence, fit_line

#: Draws of the bootstrap.
DRAWS = 1000


def calibrated(answers: Sequence[Mapping[str, Any]]) -> dict[str, Line]:
    """A line for each property that has been labelled both ways."""
    found = {}
    for name in PROPERTIES:
        known = [(a["margins"][name], a["labels"][name]) for a in answers if name in a["labels"]]
        if len({truth for _, truth in known}) == 2:
            found[name] = fit_line(*map(list, zip(*known, strict=True)))  # type: ignore[arg-type]
    return found


def evaluated(answers: Sequence[Mapping[str, Any]], lines: Mapping[str, Line], seed: int = 0) -> dict[str, dict[str, Any]]:
    """Precision, recall and accuracy at confidence 0.5 a property, each with the 95 % interval of a bootstrap over sources; null where undefined."""
    found = {}
    for name in PROPERTIES:
        known = [(a["group"], confidence(a["margins"][name], lines.get(name, Line())) > 0.5, a["labels"][name]) for a in answers if name in a["labels"]]
        if not known:
            continue
        groups = sorted({group for group, _, _ in known})
        counts = np.zeros((len(groups), 4), int)  # right yes, wrong yes, missed, right no
        for group, said, truth in known:
            counts[groups.index(group), {(True, True): 0, (True, False): 1, (False, True): 2, (False, False): 3}[said, truth]] += 1
        draws = counts[np.random.default_rng(seed).integers(0, len(groups), (DRAWS, len(groups)))].sum(axis=1)
        found[name] = {"clips": len(known), "sources": len(groups), **_figures(counts.sum(axis=0), draws)}
    return found


def _figures(counts: Any, draws: Any) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for name, part, whole in (("precision", [0], [0, 1]), ("recall", [0], [0, 2]), ("accuracy", [0, 3], [0, 1, 2, 3])):
        known = draws[draws[:, whole].sum(axis=1) > 0]
        shares = known[:, part].sum(axis=1) / known[:, whole].sum(axis=1) if len(known) else np.zeros(0)
        result[name] = round(float(counts[part].sum() / counts[whole].sum()), 4) if counts[whole].sum() else None
        result[f"{name}_95"] = [round(float(v), 4) for v in np.percentile(shares, [2.5, 97.5])] if len(shares) else None
    return result


def text(found: Mapping[str, Any]) -> str:
    """The figures as a table."""
    lines = [f"{'property':18}{'clips':>7}{'precision':>11}{'95 %':>16}{'recall':>9}{'95 %':>16}{'accuracy':>10}"]
    for name, row in found["properties"].items():
        cells = [
            ("-" if row[k] is None else f"{row[k]:.3f}", "" if row[f"{k}_95"] is None else "{:.2f} to {:.2f}".format(*row[f"{k}_95"]))
            for k in ("precision", "recall", "accuracy")
        ]
        lines.append(f"{name:18}{row['clips']:7d}{cells[0][0]:>11}{cells[0][1]:>16}{cells[1][0]:>9}{cells[1][1]:>16}{cells[2][0]:>10}")
    return "\n".join([*lines, f"loss by epoch: {', '.join(f'{loss:.3f}' for loss in found['loss'])}; {len(found['skipped'])} clips could not be read"])
