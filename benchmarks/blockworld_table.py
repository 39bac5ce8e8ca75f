"""The table of what PAN's parts are worth, out of the committed results of `blockworld_runs.py`."""

import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from blockworld_runs import ARMS, CODE, RESULTS

#: Source of both: what the block world was made to show.
TARGET_FIRST, TARGET_TENTH = 0.95, 0.85
#: CPU-minutes: 25 and 8 of a run, which is one thread and so takes no less by the clock; three hours of two cores for all.
LONG_MINUTES, ARM_MINUTES, ALL_MINUTES = 25.0, 8.0, 360.0
#: What is to be known of the rows.
NOTES = (
    "long: three blocks that shove one another, all others: two that never touch; obeyed: within a third of a push, strict: within a quarter, what is",
    "to stay within a seventh, and every block seen in every frame; unseen: of rounds that begin in an arrangement of which the training's films show no frame",
    "(*_held_out), or with which none of them begins (all others)",
    "midway: blocks are half-way where chunks meet; *_named_once: a story's first words alone say which block is meant",
    "backbones are taught to caption at their queries first, and are frozen then but for these; generative, matching: learn along; swin, last_frame,",
    "no_state and midway rows ask none (texts alone), so that no state stream is compared where blocks are named once: elsewhere text and picture say all",
)
Run = Mapping[str, Any]


Number = Callable[[Run], float | None]


def at(path: str) -> Number:
    """The number at a path of keys of a run; "N:" at its end is the mean from the N-th on, ":N" of the first N. None where it was not measured."""

    def read(run: Run) -> float | None:
        found: Any = run
        for key in path.split("."):
            if found is None:
                return None
            if ":" in key:
                first, _, stop = key.partition(":")
                return statistics.mean(found[int(first or 0) : int(stop) if stop else None])
            found = found.get(key) if isinstance(found, Mapping) else found[int(key)]
        return None if found is None else float(found)

    return read


def roughness(run: Run) -> float | None:
    """How far the smoothness at joins is from the true films': a film that stands still is smooth too, and wrong."""
    joins, true = at("horizon.joins")(run), at("horizon.true_joins")(run)
    return None if joins is None or true is None else abs(joins - true)


@dataclass(frozen=True, kw_only=True)
class Measure:
    """One comparison: PAN's way against another, in one number of a run.

    Attributes:
        mine, other: (arm, its number).
        higher: whether more is better.
        claimed: whether PAN's paper would have it so; otherwise it is only shown.
        rounds: of a share of obeyed rounds: which rounds; both arms have been judged on the same stories then, which are drawn anew for an interval.
    """

    name: str
    mine: tuple[str, Number]
    other: tuple[str, Number]
    higher: bool = True
    claimed: bool = True
    rounds: slice | None = None


_FIDELITY, _EARLY, _LATE = at("horizon.fidelity.obeyed"), at("horizon.fidelity.obeyed_R.:10"), at("horizon.fidelity.obeyed_R.10:")
_ROUNDS = {"obeyed": slice(None), "obeyed, rounds 11 on": slice(10, None)}

#: (what blocks do where chunks meet, what is compared, PAN's way, the other).
_WINDOWS = (
    ("under way", "Swin-DPM - last frame", "swin_midway", "last_frame_midway"),
    ("under way", "condition noise - none", "swin_midway", "swin_no_noise_midway"),
    ("at rest", "Swin-DPM - last frame", "swin", "last_frame"),
    ("at rest", "condition noise - none", "swin", "swin_no_noise"),
)
_HORIZON = (
    ("obeyed", _FIDELITY, True),
    ("obeyed, rounds 11 on", _LATE, True),
    ("obeyed strictly", at("horizon.fidelity.strictly"), True),
    ("px off in round 10", at("horizon.fidelity.error_px_R.9"), False),
    ("blocks lost at the end", at("horizon.fidelity.lost_R.-1"), False),
    ("dB of round 10", at("horizon.quality_R.9.psnr_db"), True),
    ("SSIM of round 10", at("horizon.quality_R.9.ssim"), True),
    ("joins, off the truth", roughness, False),
)
_STATES = (
    ("relative spread of states", "spread.relative"),
    ("directions of states", "spread.rank"),
    ("places by a linear probe, R2", "probe.r2"),
    ("places by a linear probe, accuracy", "probe.accuracy"),
    ("places by a linear probe in bfloat16, R2", "probe_bfloat16.r2"),
)


def _obeyed(arm: str, where: str) -> tuple[Measure, ...]:
    """PAN in a world, against what needs no other training."""
    others = (("copy of the first frame", "copy", True), ("told nothing", "told_nothing", True), ("no text, state alone", "no_text", False))
    return tuple(Measure(name=f"obeyed{where}: PAN - {name}", mine=(arm, _FIDELITY), other=(arm, at(f"{key}.obeyed")), claimed=c) for name, key, c in others)


MEASURES = (
    *_obeyed("pan", ""),
    *_obeyed("pan_named_once", ", named once"),
    Measure(
        name="obeyed, named once: PAN - no state stream, same compute but for the backbone's teaching",
        mine=("pan_named_once", _FIDELITY),
        other=("no_state_named_once", _FIDELITY),
        rounds=slice(10),
    ),
    *(
        Measure(name=f"obeyed, rounds 1 to 10: PAN - {name}, texts alone", mine=("pan", _EARLY), other=(arm, _EARLY), rounds=slice(10))
        for name, arm in (("no state stream, less compute", "swin"), ("last frame, less compute", "last_frame"))
    ),
    Measure(
        name="obeyed, trained longer: PAN - last frame, texts alone, same compute but for the backbone's teaching",
        mine=("long_held_out", _FIDELITY),
        other=("last_frame_held_out", _FIDELITY),
        rounds=slice(10),
    ),
    *(
        Measure(name=f"{what}, {where}: {name}", mine=(mine, number), other=(other, number), higher=higher, rounds=_ROUNDS.get(what))
        for where, name, mine, other in _WINDOWS
        for what, number, higher in _HORIZON
    ),
    *(
        Measure(name=f"{what}: generative - {name}", mine=("generative", at(f"states.{path}")), other=other, claimed=name == "matching")
        for what, path in _STATES
        for name, other in (("matching", ("matching", at(f"states.{path}"))), ("before", ("generative", at(f"states_before.{path}"))))
    ),
    Measure(name="goals reached: PAN - at random", mine=("pan", at("planning.model")), other=("pan", at("planning.random"))),
    Measure(name="goals reached: PAN - true simulator", mine=("pan", at("planning.model")), other=("pan", at("planning.simulator")), claimed=False),
)


def results() -> dict[str, Any] | None:
    """What is committed, without rows of arms that are no more; None if nothing is."""
    if not RESULTS.is_file():
        return None
    told: dict[str, Any] = json.loads(RESULTS.read_text("utf-8"))
    return told | {"runs": [run for run in told["runs"] if run["arm"] in ARMS]}


#: Of the table: name, number, digits behind the point.
COLUMNS: tuple[tuple[str, Number, int], ...] = (
    ("CPU min", lambda run: sum(run["cpu_s"]) / 60, 1),
    ("obeyed 1", at("horizon.fidelity.obeyed_R.0"), 2),
    ("step 10", at("horizon.fidelity.obeyed_R.9"), 2),
    ("last", at("horizon.fidelity.obeyed_R.-1"), 2),
    ("all", _FIDELITY, 2),
    ("strict", at("horizon.fidelity.strictly"), 2),
    ("unseen", at("begun.unseen.obeyed"), 2),
    ("copy", at("copy.obeyed"), 2),
    ("nothing", at("told_nothing.obeyed"), 2),
    ("no text", at("no_text.obeyed"), 2),
    ("px 10", at("horizon.fidelity.error_px_R.9"), 1),
    ("lost 10", at("horizon.fidelity.lost_R.9"), 2),
    ("dB 10", at("horizon.quality_R.9.psnr_db"), 1),
    ("joins", at("horizon.joins"), 3),
    ("true", at("horizon.true_joins"), 3),
    ("spread", at("states.spread.relative"), 3),
    ("rank", at("states.spread.rank"), 1),
    ("before", at("states_before.spread.relative"), 3),
    ("probe R2", at("states.probe.r2"), 2),
    ("bf16 R2", at("states.probe_bfloat16.r2"), 2),
    ("before", at("states_before.probe.r2"), 2),
    ("plans", at("planning.model"), 2),
)


def is_fresh(made: Mapping[str, Any]) -> bool:
    """Whether every run was made by the code that is here."""
    return not stale(made)


def stale(made: Mapping[str, Any]) -> list[str]:
    """The runs that other code or other settings have made."""
    return [f"{run['arm']} {run['seed']}" for run in made["runs"] if run["code"] != CODE.get(run["arm"])]


def by_seed(runs: Sequence[Run], arm: str, number: Number) -> dict[int, float]:
    """An arm's number, by seed."""
    found = {run["seed"]: number(run) for run in runs if run["arm"] == arm}
    return {seed: value for seed, value in found.items() if value is not None}


def margins(runs: Sequence[Run], measure: Measure) -> list[float]:
    """How much better PAN's way is, a seed each; negative where it is worse."""
    mine, other = by_seed(runs, *measure.mine), by_seed(runs, *measure.other)
    return [(mine[seed] - other[seed]) * (1 if measure.higher else -1) for seed in sorted(mine.keys() & other.keys())]


def interval(runs: Sequence[Run], measure: Measure, draws: int = 2000) -> tuple[float, float] | None:
    """From the 2.5th to the 97.5th percentile of the mean margin, had seeds, and stories of each, been drawn otherwise: a bootstrap of seeds, then of stories.

    None for a measure that is no share of obeyed rounds of the same stories, or where a seed's stories are not told.
    """
    if measure.rounds is None:
        return None
    pairs = []
    for seed in sorted(by_seed(runs, *measure.mine).keys() & by_seed(runs, *measure.other).keys()):
        both = [_by_story(runs, arm, seed, measure.rounds) for arm in (measure.mine[0], measure.other[0])]
        if any(each is None for each in both):
            return None
        pairs.append(np.subtract(*both))
    if not pairs:
        return None
    rng = np.random.default_rng(0)
    found = []
    for _ in range(draws):
        drawn = [pairs[k] for k in rng.integers(len(pairs), size=len(pairs))]
        found.append(np.mean([rng.choice(each, len(each)).mean() for each in drawn]))
    low, high = np.percentile(found, (2.5, 97.5))
    return float(low), float(high)


def _by_story(runs: Sequence[Run], arm: str, seed: int, rounds: slice) -> npt.NDArray[np.float64] | None:
    """The share of obeyed rounds of each story."""
    (run,) = (run for run in runs if (run["arm"], run["seed"]) == (arm, seed))
    told = run["horizon"]["fidelity"].get("rounds_S")
    return None if told is None else np.array([statistics.mean(map(int, story[rounds])) for story in told])


def sources(made: Mapping[str, Any]) -> str:
    """How many rows were trained by this code, and how many others were kept because one of their kind, trained anew, came out the same."""
    kept = sum("same_as_before" in run for run in made["runs"])
    return f"{len(made['runs']) - kept} rows trained by this code, {kept} kept because one of their kind that it trained anew came out the same"


def lines(made: Mapping[str, Any]) -> list[str]:
    """The tables, for people."""
    runs, old = made["runs"], stale(made)
    told = ["committed results, " + (f"STALE: {', '.join(old)}; run benchmarks/blockworld_runs.py" if old else "of this code")]
    told += [sources(made)] if not old else []
    told += [f"on {made['machine']['cpu']}, {made['machine']['cores']} cores", *NOTES, ""]
    told.append(f"{'arm, seed':<22}" + "".join(name.rjust(9) for name, _, _ in COLUMNS))
    for run in sorted(runs, key=lambda run: (run["arm"], run["seed"])):
        cells = ("-" if (value := number(run)) is None else f"{value:.{digits}f}" for _, number, digits in COLUMNS)
        told.append(f"{run['arm'] + ' ' + str(run['seed']):<22}" + "".join(cell.rjust(9) for cell in cells))
    for world, bound in made.get("autoencoded", {}).items():
        told.append(
            f"{world}: true films through the autoencoder and back: joins {bound['joins']:.3f}"
            + (f", elsewhere {bound['elsewhere']:.3f}" if "elsewhere" in bound else "")
        )
    for run in runs:
        if "planning" in run:
            told.append(f"{run['arm']}: goals reached in at most 5 actions: " + ", ".join(f"{who} {share:.2f}" for who, share in run["planning"].items()))
    told += ["", f"{'how much better PAN is (mean; each seed; of the mean, 95 % of a bootstrap of seeds and stories)':<98}margin"]
    for measure in MEASURES:
        found = margins(runs, measure)
        shown = f"{statistics.mean(found):+.3f}   ({', '.join(f'{m:+.3f}' for m in found)})" if found else "not measured"
        between = interval(runs, measure)
        told.append(f"{measure.name:<98}{shown}" + (f"   [{between[0]:+.3f}, {between[1]:+.3f}]" if between else ""))
    return told


def figures(made: Mapping[str, Any] | None) -> dict[str, dict[str, Any]]:
    """For the JSON line: the long runs' targets (means over seeds), each ordering (met: better in every seed, and the interval, where there is one, is too),
    and whether the results are of this code."""
    runs = [] if made is None else made["runs"]

    def mean(arm: str, path: str) -> float | None:
        """Over an arm's seeds."""
        found = by_seed(runs, arm, at(path)).values()
        return statistics.mean(found) if found else None

    def figure(number: float | None, target: float, met: Callable[[float], bool]) -> dict[str, Any]:
        return {"value": None if number is None else round(number, 4), "target": target, "met": None if number is None else met(number)}

    def minutes(of: Run) -> float:
        """CPU-minutes; what autoencoder and backbone were taught is every arm's."""
        assert made is not None
        return float(sum(of["cpu_s"]) + made["taught_cpu_s"][made["worlds"][of["arm"]]]) / 60

    def in_all() -> float:
        """CPU-minutes of all runs and their measures; a first phase that arms share counts once."""
        assert made is not None
        firsts = {(ARMS[run["arm"]].base, run["seed"]): run["cpu_s"][0] for run in runs}
        return float(sum(firsts.values()) + sum(sum(run["cpu_s"][1:]) + run["measured_cpu_s"] for run in runs) + sum(made["taught_cpu_s"].values())) / 60

    def most(arm: str) -> float | None:
        """CPU-minutes of the seed that took most."""
        return max((minutes(run) for run in runs if run["arm"] == arm), default=None)

    first, tenth = "horizon.fidelity.obeyed_R.0", "horizon.fidelity.obeyed_R.9"
    model, chance = mean("long_held_out", "planning.model"), mean("long_held_out", "planning.random")
    arms = [minutes(run) for run in runs if not ARMS[run["arm"]].halves]
    found = {
        "fidelity_step_1": figure(mean("long_held_out", first), TARGET_FIRST, lambda v: v >= TARGET_FIRST),
        "fidelity_step_10": figure(mean("long_held_out", tenth), TARGET_TENTH, lambda v: v >= TARGET_TENTH),
        "contact_fidelity_step_1": figure(mean("long", first), TARGET_FIRST, lambda v: v >= TARGET_FIRST),
        "contact_fidelity_step_10": figure(mean("long", tenth), TARGET_TENTH, lambda v: v >= TARGET_TENTH),
        "long_run_cpu_minutes": figure(most("long_held_out"), LONG_MINUTES, lambda v: v <= LONG_MINUTES),
        "contact_run_cpu_minutes": figure(most("long"), LONG_MINUTES, lambda v: v <= LONG_MINUTES),
        "all_runs_cpu_minutes": figure(in_all() if runs else None, ALL_MINUTES, lambda v: v <= ALL_MINUTES),
        "longest_arm_cpu_minutes": figure(max(arms) if arms else None, ARM_MINUTES, lambda v: v <= ARM_MINUTES),
        "planning_model_less_random": figure(None if model is None or chance is None else model - chance, 0.0, lambda v: v > 0),
        "results_are_of_this_code": figure(None if made is None else float(is_fresh(made)), 1.0, lambda v: v == 1.0),
    }
    for measure in MEASURES:
        each, between = margins(runs, measure), interval(runs, measure)
        met = None if not each else all(margin > 0 for margin in each) and (between is None or between[0] > 0)
        value = round(statistics.mean(each), 4) if each else None
        found[measure.name] = {"value": value, "target": 0.0 if measure.claimed else None, "met": met if measure.claimed else None}
    return found
