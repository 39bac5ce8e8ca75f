"""The table of what PAN's parts are worth, out of the committed results of `blockworld_runs.py`."""

import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from blockworld_runs import RESULTS, code_hash

#: Source of both: what the block world was made to show.
TARGET_FIRST, TARGET_TENTH = 0.95, 0.85
Run = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Measure:
    """One comparison: PAN's way against another, in one number of a run.

    Attributes:
        mine, other: (arm, what of its run): a path of keys, "*" for the mean over a list.
        higher: whether more is better.
    """

    name: str
    mine: tuple[str, str]
    other: tuple[str, str]
    higher: bool = True


_FIDELITY, _LAST = "horizon.fidelity.obeyed", "horizon.fidelity.obeyed_R.-1"
MEASURES = (
    Measure(name="fidelity: PAN - told nothing", mine=("pan", _FIDELITY), other=("pan", "told_nothing.fidelity.obeyed")),
    Measure(name="fidelity: PAN - no state stream", mine=("pan", _FIDELITY), other=("no_state", _FIDELITY)),
    Measure(name="fidelity at step 10: PAN - no state stream", mine=("pan", _LAST), other=("no_state", _LAST)),
    Measure(name="fidelity at step 10: Swin-DPM - last frame", mine=("no_state", _LAST), other=("last_frame", _LAST)),
    Measure(
        name="px off at step 10: Swin-DPM - last frame",
        mine=("no_state", "horizon.fidelity.error_px_R.-1"),
        other=("last_frame", "horizon.fidelity.error_px_R.-1"),
        higher=False,
    ),
    Measure(
        name="blocks lost at step 10: Swin-DPM - last frame",
        mine=("no_state", "horizon.fidelity.lost_R.-1"),
        other=("last_frame", "horizon.fidelity.lost_R.-1"),
        higher=False,
    ),
    Measure(
        name="dB at step 10: Swin-DPM - last frame", mine=("no_state", "horizon.quality_R.-1.psnr_db"), other=("last_frame", "horizon.quality_R.-1.psnr_db")
    ),
    Measure(name="fidelity at step 10: condition noise - none", mine=("no_state", _LAST), other=("no_cond_noise", _LAST)),
    Measure(
        name="blocks lost at step 10: condition noise - none",
        mine=("no_state", "horizon.fidelity.lost_R.-1"),
        other=("no_cond_noise", "horizon.fidelity.lost_R.-1"),
        higher=False,
    ),
    Measure(
        name="dB at step 10: condition noise - none", mine=("no_state", "horizon.quality_R.-1.psnr_db"), other=("no_cond_noise", "horizon.quality_R.-1.psnr_db")
    ),
    Measure(name="smoothness at joins: Swin-DPM - last frame", mine=("no_state", "horizon.joins"), other=("last_frame", "horizon.joins")),
    Measure(name="spread of states: generative - matching", mine=("pan", "states.spread.relative"), other=("latent_matching", "states.spread.relative")),
    Measure(name="directions of states: generative - matching", mine=("pan", "states.spread.rank"), other=("latent_matching", "states.spread.rank")),
    Measure(name="probe of places: generative - matching", mine=("pan", "states.probe.accuracy"), other=("latent_matching", "states.probe.accuracy")),
)


def results() -> dict[str, Any] | None:
    """What is committed; None if nothing is."""
    told: dict[str, Any] | None = json.loads(RESULTS.read_text("utf-8")) if RESULTS.is_file() else None
    return told


def is_fresh(made: Mapping[str, Any]) -> bool:
    """Whether every run was made by the code that is here."""
    return {run["code"] for run in made["runs"]} == {code_hash()}


def value(run: Run, path: str) -> float | None:
    """A number of a run; None where it was not measured."""
    at: Any = run
    for key in path.split("."):
        if at is None:
            return None
        at = at.get(key) if isinstance(at, Mapping) else at[int(key)]
    return None if at is None else float(at)


def by_seed(runs: Sequence[Run], arm: str, path: str) -> dict[int, float]:
    """An arm's number, by seed."""
    found = {run["seed"]: value(run, path) for run in runs if run["arm"] == arm}
    return {seed: number for seed, number in found.items() if number is not None}


def margins(runs: Sequence[Run], measure: Measure) -> list[float]:
    """How much better PAN's way is, a seed each; negative where it is worse."""
    mine, other = by_seed(runs, *measure.mine), by_seed(runs, *measure.other)
    return [(mine[seed] - other[seed]) * (1 if measure.higher else -1) for seed in sorted(mine.keys() & other.keys())]


def lines(made: Mapping[str, Any]) -> list[str]:
    """The tables, for people."""
    runs, fresh = made["runs"], is_fresh(made)
    codes = ", ".join(sorted({run["code"] for run in runs}))
    told = [f"committed results, code {codes}: " + ("current" if fresh else f"STALE, the code is now {code_hash()}; run benchmarks/blockworld_runs.py")]
    told += [f"{made['settings']['films']} films, {made['settings']['blocks']} blocks; on {made['machine']['cpu']}, {made['machine']['cores']} cores", ""]
    names = ("CPU s", "obeyed 1", "step 10", "all", "px 10", "lost 10", "dB 10", "joins", "spread", "rank", "probe")
    told.append(f"{'arm, seed':<20}" + "".join(name.rjust(9) for name in names))
    paths = ("horizon.fidelity.obeyed_R.0", _LAST, _FIDELITY, "horizon.fidelity.error_px_R.-1", "horizon.fidelity.lost_R.-1", "horizon.quality_R.-1.psnr_db")
    paths += ("horizon.joins", "states.spread.relative", "states.spread.rank", "states.probe.accuracy")
    for run in sorted(runs, key=lambda run: (run["arm"], run["seed"])):
        cells = [f"{sum(run['cpu_s']):.0f}", *("-" if (v := value(run, path)) is None else f"{v:.2f}" for path in paths)]
        told.append(f"{run['arm'] + ' ' + str(run['seed']):<20}" + "".join(cell.rjust(9) for cell in cells))
    told += ["", f"{'how much better PAN is (mean; each seed)':<54}margin"]
    for measure in MEASURES:
        found = margins(runs, measure)
        shown = f"{statistics.mean(found):+.3f}   ({', '.join(f'{m:+.3f}' for m in found)})" if found else "not measured"
        told.append(f"{measure.name:<54}{shown}")
    return told


def figures(made: Mapping[str, Any] | None) -> dict[str, dict[str, Any]]:
    """For the JSON line: the long run's targets, each ordering (met: better in every seed), and whether the results are of this code."""
    runs = [] if made is None else made["runs"]
    long = next((run for run in runs if run["arm"] == "long"), {})

    def figure(number: float | None, target: float, met: Callable[[float], bool]) -> dict[str, Any]:
        return {"value": None if number is None else round(number, 4), "target": target, "met": None if number is None else met(number)}

    found = {
        "fidelity_step_1": figure(value(long, "horizon.fidelity.obeyed_R.0"), TARGET_FIRST, lambda v: v >= TARGET_FIRST),
        "fidelity_step_10": figure(value(long, "horizon.fidelity.obeyed_R.9"), TARGET_TENTH, lambda v: v >= TARGET_TENTH),
        "planning_model_less_random": _planning(long, figure),
        "results_are_of_this_code": figure(None if made is None else float(is_fresh(made)), 1.0, lambda v: v == 1.0),
    }
    for measure in MEASURES:
        each = margins(runs, measure)
        found[measure.name] = {"value": round(statistics.mean(each), 4) if each else None, "target": 0.0, "met": all(m > 0 for m in each) if each else None}
    return found


def _planning(long: Run, figure: Callable[..., dict[str, Any]]) -> dict[str, Any]:
    model, chance = value(long, "planning.model"), value(long, "planning.random")
    margin = None if model is None or chance is None else model - chance
    told: dict[str, Any] = figure(margin, 0.0, lambda v: v > 0)
    return told
