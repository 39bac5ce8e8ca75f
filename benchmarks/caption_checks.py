"""What the checks of captioning.checks make of statements whose truth another measurement tells, on real videos: true ones refused, false ones found."""

import argparse
import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
from labelled_clips import pieces, read

from captioning import words
from captioning.checks import Check, Evidence, Unfit, supports
from captioning.measured import describe
from curation.frames import Frames
from curation.sampler import grid_s
from filters.camera import Camera

#: Of statements that the camera filter bears out, at most so many may be refused; of those that it contradicts, at least so many should be found.
TARGETS = {"true_refused": 0.05, "false_found": 0.8, "kept_captions_refused": 0.05, "human_captions_refused": 0.05}
WAYS = ("left", "right", "up", "down", "in", "out", "static")
MOST_CHUNKS = 4


def shortened(frames: Frames, chunks: int) -> Frames:
    """The clip's first `chunks` chunks."""
    n = int((frames.time_s < frames.time_s[0] + grid_s(chunks)).sum())
    inside = frames.signals["time_s"] < frames.time_s[0] + grid_s(chunks)
    cut = {name: getattr(frames, name)[:n] for name in ("rgb", "next_luma", "time_s", "dt_s")}
    return replace(frames, **cut, signals={name: values[inside] for name, values in frames.signals.items()})


def judged(frames: Frames, chunks: int) -> tuple[Counter[str], str]:
    """(statements about the camera by truth and verdict, what becomes of the measured caption) of one clip.

    The camera filter's whole-clip scores say what is true; the checks hold the same statement against the moments' camera, which another
    method measures on other pictures. What a filter cannot tell clearly is not counted.
    """
    scores = {f"camera_{name}": value for name, value in Camera().score(frames).items()}
    evidence = Evidence.of(frames, chunks, grid_s(chunks), {k: scores[k] for k in ("camera_translation", "camera_shake", "camera_zoom")})
    said = describe(frames, chunks, grid_s(chunks), {})
    answer = {"chunks": [{"chunk": i, "action": e.text} for i, e in enumerate(said.events)], "caption": said.text}
    try:
        Check(evidence)(answer)
        fate = "ok"
    except Unfit as fault:
        fate = fault.reason
    counts: Counter[str] = Counter()
    told = evidence.camera(0.0, evidence.end_s)
    if not told or scores["camera_tracked"] < 0.5:
        return Counter({"unmeasured": 1}), fate
    by_filter = (-scores["camera_translation_x"], scores["camera_translation_y"], scores["camera_zoom"])
    for way in WAYS:
        truth, verdict = supports(way, by_filter), supports(way, told[0], evidence.moved)
        if truth is not None:
            counts[f"{'true' if truth else 'false'}:{ {True: 'borne out', False: 'refused', None: 'let pass'}[verdict] }"] += 1
    return counts, fate


def human(labels: Sequence[Mapping[str, Any]]) -> tuple[int, int]:
    """(refused, all) of the labels' own captions of videos to keep, by what the words alone tell: static or unsafe.

    The verbs of captioning.verbs were once widened by what four of these captions lacked: it is no figure for captions nobody has looked at.
    """
    kept = [label["caption"] for label in labels if label.get("keep_video") == "yes"]
    return sum(bool(words.unsafe(text)) or not (words.says_motion(text) or words.says_still(text)) for text in kept), len(kept)


def figures(counts: Counter[str], kept: Counter[str], people: tuple[int, int]) -> dict[str, Any]:
    """The last line's object."""

    def share(part: int, whole: int) -> float | None:
        return round(part / whole, 3) if whole else None

    true, false = (sum(n for name, n in counts.items() if name.startswith(f"{side}:")) for side in ("true", "false"))
    values = {
        "true_refused": share(counts["true:refused"], true),
        "false_found": share(counts["false:refused"], false),
        "kept_captions_refused": share(sum(kept.values()) - kept["ok"], sum(kept.values())),
        "human_captions_refused": share(*people),
    }
    met = {name: None if value is None else value >= TARGETS[name] if name == "false_found" else value <= TARGETS[name] for name, value in values.items()}
    return {name: {"value": value, "target": TARGETS[name], "met": met[name]} for name, value in values.items()}


def main() -> None:
    """Prints the table and the object."""
    cli = argparse.ArgumentParser(description=__doc__)
    cli.add_argument("corpus", nargs="?", type=Path, default=Path(__file__).parents[2] / "shared/corpus")
    cli.add_argument("--videos", type=int, default=1000, help="at most so many labelled videos")
    args = cli.parse_args()
    cv2.setNumThreads(1)
    file = args.corpus / "dev/labels.jsonl"
    if not file.exists():
        print(f"no labelled videos at {args.corpus}: pass the corpus' folder")
        print(json.dumps({name: {"value": None, "target": target, "met": None} for name, target in TARGETS.items()}))
        return
    counts, kept, others = Counter[str](), Counter[str](), Counter[str]()
    began, clips = time.process_time(), 0
    labels = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
    for label in labels[: args.videos]:
        path = args.corpus / "dev" / label["file"]
        spans = [(shot, start, end) for shot, start, end, _ in pieces(label)][:2]
        if not path.exists() or not spans:
            continue
        for (shot, start, end), frames in zip(spans, read(path, [(a, b) for _, a, b in spans]), strict=False):
            chunks = min(MOST_CHUNKS, int(((end - start) * 16 + 0.5 - 1) // 40))
            found, fate = judged(shortened(frames, chunks), chunks)
            counts += found
            (kept if label["shots"][shot].get("keep") == "yes" else others)[fate] += 1
            clips += 1
    print(f"{clips} clips of at most {MOST_CHUNKS} chunks, {time.process_time() - began:.0f} CPU s with decoding")
    for name, n in sorted(counts.items()):
        print(f"  {name:<20} {n}")
    print(f"  measured captions of clips to keep: {dict(kept)}; of the others: {dict(others)}")
    print(f"  captions that people wrote of videos to keep: {human(labels)[0]} of {human(labels)[1]} refused")
    print(json.dumps(figures(counts, kept, human(labels))))


if __name__ == "__main__":
    main()
