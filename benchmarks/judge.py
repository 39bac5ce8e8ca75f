"""What the content filter's measured back end is worth on labelled videos: precision and recall a property, and the whole local recipe with it.

python benchmarks/judge.py [LABELS] [--folds 10] [--fit]
python benchmarks/judge.py --train

Every clip of the labelled videos is measured once (all filters, and the signs behind the content filter; kept in build/benchmarks), and so are vices of
known truth made for the purpose (made_content: screens, slides and pages drawn from a seed; good clips cut, edited, blurred, compressed). The logistic
models are fitted without each group of videos in turn (clips made of a video go with it), and the group is judged by them:
"left out". `--fit` fits on all and writes filters/measured_content.json. The thresholds are not fitted: a confidence above 0.9 rejects, since a good clip
lost weighs as nine bad ones found.
`--train` needs no labels: it shows in a minute or two that the asked back end can be trained (judge_train).
Last line: one JSON object {"figure": {"value", "target", "met"}}; bad_kept and good_shots are the labels' scorer's figures of the whole recipe,
where the thresholds of all other filters are left out, too.
"""

import argparse
import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(Path(__file__).resolve().parent)]

import cv2  # noqa: E402
import numpy as np  # noqa: E402
from content_clips import DRAWN_CLIPS, measure  # noqa: E402
from content_fit import PARTS, Clip, fit  # noqa: E402
from curation_quality import group_of, stands_for  # noqa: E402
from judge_train import learned  # noqa: E402
from quality_figures import Bool, Matched, read_lines  # noqa: E402
from quality_folds import Verdicts  # noqa: E402
from quality_scores import make_vices  # noqa: E402

from filters.content import CONSTANTS, PROPERTIES, Part, confidences, read_parts  # noqa: E402
from filters.signs import SIGNS  # noqa: E402
from pipelines.recipe import Recipe, load  # noqa: E402

LABELS = ROOT.parent / "shared" / "corpus" / "dev" / "labels.jsonl"
KEPT = ROOT / "build" / "benchmarks"
BAD_KEPT, GOOD_SHOTS, RIGHT = 0.12, 0.9, 0.9


# ---- judged -------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Labelled:
    """The labelled clips beside their labels, and what was made.

    Attributes:
        matched: the clips beside their shots.
        clips: aligned with `matched.clips`; those that the splitter rejected have no signs and an empty `keep`.
        made: made clips.
        group: each matched clip's group of videos.
    """

    matched: Matched
    clips: list[Clip]
    made: list[Clip]
    group: list[str]

    @classmethod
    def of(cls, labels: Sequence[Mapping[str, Any]], rows: Sequence[dict[str, Any]], made: list[Clip]) -> "Labelled":
        """From the rows of `measure`."""
        matched, groups = Matched(labels, rows), {label["id"]: group_of(label) for label in labels}
        clips = []
        for row, main in zip(matched.clips, matched.main, strict=True):
            shot = matched.shots[main]
            row["reject"] = ["video_failed"] if row["failed"] else row["reject"]  # type: ignore[index]
            known = {sign: row[f"signs_{sign}"] for sign in SIGNS}
            measured = not any(value is None for value in known.values())
            clips.append(Clip(frozenset({groups[row["id"]]}), shot.keep if measured else "", shot.vices, known))
        return cls(matched, clips, made, [groups[row["id"]] for row in matched.clips])

    def training(self, without: frozenset[str]) -> list[Clip]:
        """Clips that come from none of these groups."""
        return [clip for clip in (*self.clips, *self.made) if clip.keep and not clip.groups & without]


def said(clips: Sequence[Clip], parts: Mapping[str, Part], bounds: Mapping[str, float]) -> dict[str, Bool]:
    """bool [clips] a property: rejected for it."""
    found = [confidences(clip.signs, parts) if clip.keep else dict.fromkeys(PROPERTIES, 0.0) for clip in clips]
    return {prop: np.array([one[prop] > bounds[prop] for one in found], bool) for prop in PROPERTIES}


def folds_of(labels: Sequence[Mapping[str, Any]], folds: int) -> dict[str, int]:
    """group -> fold, dealt out by hash; as curation_quality deals them."""
    names = sorted({group_of(label) for label in labels}, key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    return {name: k % folds for k, name in enumerate(names)} | {f"seed {k}": k % folds for k in range(DRAWN_CLIPS)}


@dataclass
class Judged:
    """What each clip was rejected for: labelled ones, and made ones."""

    real: dict[str, Bool]
    made: dict[str, Bool]


def left_out(known: Labelled, bounds: Mapping[str, float], fold: Mapping[str, int]) -> Judged:
    """Every clip judged by models that had no part of its group."""
    result = Judged(*({prop: np.zeros(len(clips), bool) for prop in PROPERTIES} for clips in (known.clips, known.made)))
    for k in sorted(set(fold.values())):
        away = frozenset(group for group, f in fold.items() if f == k)
        parts = fit(known.training(away))
        for clips, where in ((known.clips, result.real), (known.made, result.made)):
            mine = np.array([bool(clip.groups & away) for clip in clips])
            for prop, found in said(clips, parts, bounds).items():
                where[prop] |= found & mine
    return result


def whole(known: Labelled, recipe: Recipe, labels: Sequence[Mapping[str, Any]], folder: Path, fold: Mapping[str, int]) -> tuple[Bool, Bool]:
    """Clips that the recipe's other filters keep: (with the shipped thresholds, with thresholds chosen without each clip's fold)."""
    others = [entry for entry in recipe.entries() if entry.stage != "content"]
    verdicts = Verdicts(known.matched, others, known.matched.clips, stands_for(recipe), make_vices(labels, folder, recipe))
    of_shot = np.array([fold[group] for group in _groups_of_shots(known, labels)])
    kept = np.zeros(len(known.clips), bool)
    for k in sorted(set(of_shot)):
        kept |= verdicts.judge(verdicts.choose(of_shot != k))[0] & (of_shot[known.matched.main] == k)
    return verdicts.judge(verdicts.bounds())[0], kept


def _groups_of_shots(known: Labelled, labels: Sequence[Mapping[str, Any]]) -> list[str]:
    groups = {label["id"]: group_of(label) for label in labels}
    return [groups[shot.video] for shot in known.matched.shots]


# ---- what is printed ----------------------------------------------------------------------------------------------------------------


def of_properties(known: Labelled, judged: Judged, still_there: Bool) -> dict[str, dict[str, Any]]:
    """Precision and recall a property.

    `right`: of the clips called so, the share whose shot is to be rejected; `agrees`: for a reason that has the property. `good_lost`: good clips called so.
    `recall`: of the videos with such a shot, the share called so (each video's clips weigh alike). `made`: of the made clips. `alone`: clips called
    so that no other filter rejects, and how many of them rightly.
    """
    rows, matched = dict[str, dict[str, Any]](), known.matched
    for prop in PROPERTIES:
        vices = frozenset[str]().union(*(v for p, v, _ in PARTS.values() if p == prop))
        called, keep = judged.real[prop], np.array([clip.keep for clip in known.clips])
        sure = called & ((keep == "yes") | (keep == "no"))
        has = np.array([clip.keep == "no" and bool(clip.vices & vices) for clip in known.clips])
        videos = {group: [called[i] for i in np.flatnonzero(has) if known.group[i] == group] for group in {known.group[i] for i in np.flatnonzero(has)}}
        made = np.array([PARTS[clip.part][0] == prop for clip in known.made])
        rows[prop] = {
            "called": int(sure.sum()),
            "right": _share((keep[sure] == "no").sum(), sure.sum()),
            "agrees": _share((has & sure).sum(), sure.sum()),
            "good_lost": len(set(matched.main[called & (keep == "yes")].tolist())),
            "recall": _share(sum(float(np.mean(v)) for v in videos.values()), len(videos)),
            "of": len(videos),
            "made": _share((judged.made[prop] & made).sum(), made.sum()),
            "made_false": _share((judged.made[prop] & ~made).sum(), (~made).sum()),
            "alone": int((sure & still_there).sum()),
            "alone_right": int((sure & still_there & (keep == "no")).sum()),
        }
    return rows


def _share(part: Any, of: Any) -> float | None:
    return round(float(part) / float(of), 3) if of else None


def bounds_of(recipe: Recipe) -> dict[str, float]:
    """The recipe's threshold of each property."""
    return {rule.key.removesuffix("_high"): float(rule.high or 0) for entry in recipe.entries("content") for rule in entry.rules}


def report(known: Labelled, recipe: Recipe, others: tuple[Bool, Bool], judged: Judged) -> dict[str, dict[str, Any]]:
    """Prints the tables; returns the last line's object."""
    shipped = Judged(*(said(clips, read_parts(), bounds_of(recipe)) for clips in (known.clips, known.made)))
    result: dict[str, dict[str, Any]] = {}
    for title, found in (("left out", judged), ("shipped (fitted on all of them)", shipped)):
        print(
            f"\n{title}\n{'property':18}"
            + "".join(f"{name:>12}" for name in ("called", "right", "agrees", "good_lost", "recall", "of", "made", "alone", "alone_right"))
        )
        for prop, row in of_properties(known, found, others[0]).items():
            print(
                f"{prop:18}"
                + "".join(
                    f"{'-' if row[n] is None else row[n]:>12}"
                    for n in ("called", "right", "agrees", "good_lost", "recall", "of", "made", "alone", "alone_right")
                )
            )
            if found is judged:
                result[f"precision_{prop}"] = {
                    "value": row["right"],
                    "target": RIGHT,
                    "met": None if row["right"] is None else row["right"] >= RIGHT,
                    "of": row["called"],
                }
                result[f"recall_{prop}"] = {"value": row["recall"], "target": None, "met": None, "of_videos": row["of"], "made": row["made"]}
    print(f"\n{'the whole recipe':44}{'bad_kept':>10}{'good_shots':>12}{'good_kept':>11}{'kept':>6}")
    cases = {
        "shipped, without content": others[0],
        "shipped": others[0] & ~_any(shipped.real),
        "shipped; content left out": others[0] & ~_any(judged.real),
        "all thresholds left out, without content": others[1],
        "all left out": others[1] & ~_any(judged.real),
    }
    for name, kept in cases.items():
        figures = known.matched.figures(kept, {}, {})
        print(f"{name:44}{figures['bad_kept']:10.3f}{figures['good_shots']:12.3f}{figures['good_kept']:11.3f}{figures['kept']:6d}")
        cases_json = {"all left out": "", "shipped": "_shipped", "shipped; content left out": "_content_left_out"}
        if name in cases_json:
            result[f"bad_kept{cases_json[name]}"] = {"value": figures["bad_kept"], "target": BAD_KEPT, "met": figures["bad_kept"] <= BAD_KEPT}
            result[f"good_shots{cases_json[name]}"] = {"value": figures["good_shots"], "target": GOOD_SHOTS, "met": figures["good_shots"] >= GOOD_SHOTS}
    return result


def _any(found: Mapping[str, Bool]) -> Bool:
    return np.any(list(found.values()), axis=0)


def write(known: Labelled) -> None:
    """Fits on all and writes the constants."""
    parts = fit(known.training(frozenset()))
    (ROOT / "filters" / CONSTANTS).write_text(json.dumps({"parts": {name: asdict(part) for name, part in parts.items()}}, indent=1) + "\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code: 0 even where a target is missed, 2 for wrong arguments."""
    cli = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    cli.add_argument("labels", nargs="?", type=Path, default=LABELS)
    cli.add_argument("--folds", type=int, default=10, help="groups of videos for the left-out figures")
    cli.add_argument("--fit", action="store_true", help=f"fit on all videos and write filters/{CONSTANTS}")
    cli.add_argument("--train", action="store_true", help="train a tiny model on made clips instead")
    args = cli.parse_args(arguments)
    if args.train:
        print(json.dumps(learned()))
        return 0
    if not args.labels.is_file():
        cli.error(f"no labels at {args.labels}: name a labels.jsonl whose `file` fields lie beside it")
    if args.folds < 2:
        cli.error(f"--folds must be at least 2, got {args.folds}")
    cv2.setNumThreads(1)
    labels, folder, recipe = read_lines(args.labels), args.labels.parent, load("local")
    known = Labelled.of(labels, *measure(labels, folder, recipe))
    if args.fit:
        write(known)
    fold = folds_of(labels, args.folds)
    print(json.dumps(report(known, recipe, whole(known, recipe, labels, folder, fold), left_out(known, bounds_of(recipe), fold))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
