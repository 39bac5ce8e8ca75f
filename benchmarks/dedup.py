"""Near duplicates: precision and recall on copies made of real clips: `python benchmarks/dedup.py [CORPUS] [--backend sscd_distilled|sscd]`.

A clip of each single-shot video of the corpus (made-up scenes without it), and of each the copies that occur in the wild: cropped to 80 %, encoded
again with loss, mirrored, 30 % brighter, with burnt-in text, at half size, begun half a second later; all through the stage's own embedding and grouping.
Recall: copies that share a group with their original. Precision: pairs within a group that have one original. Distinct videos that show the same footage
would count against precision. Last line: one JSON object.
"""

import argparse
import io
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pyarrow as pa

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(Path(__file__).resolve().parent)]

import speed_videos  # noqa: E402

from curation.clips import ClipError  # noqa: E402
from curation.dedup import DedupConfig, Member, find  # noqa: E402
from curation.embed import ENCODERS, content_sha256, pack_vectors  # noqa: E402
from curation.frames import SIGNALS, U8, Frames  # noqa: E402
from curation.image_tower import spread  # noqa: E402
from curation.video import Video  # noqa: E402

TARGETS = {"recall": 0.9, "precision": 0.99}
SAMPLES, STEP = 16, 8  # pictures a clip, and source frames between them


def pictures_of(frames: Iterator[U8]) -> list[U8]:
    """Every eighth frame, 18 at most: a clip, and half a second more for its shifted copy."""
    return list(islice(frames, 0, STEP * (SAMPLES + 2), STEP))


def originals(corpus: Path) -> Iterator[tuple[str, list[U8]]]:
    """(name, pictures) of the labelled single-shot videos; of made-up scenes where there are none."""
    labels = corpus / "dev/labels.jsonl"
    if not labels.exists():
        print(f"no labelled videos at {corpus}: made-up scenes take their place")
        for i, shot in enumerate(speed_videos.made_up(24, STEP * (SAMPLES + 3) / speed_videos.FPS)):
            yield f"made-{i}", [cv2.resize(p, (454, 256), interpolation=cv2.INTER_AREA) for p in pictures_of(shot)]
        return
    for label in map(json.loads, labels.read_text().splitlines()):
        if label["n_shots"] != 1:
            continue
        try:
            with Video(str(corpus / "dev" / label["file"])) as video:
                found = pictures_of(picture.rgb() for picture in video.pictures())
        except ClipError as fault:
            print(f"  left out {label['id']}: {fault.reason}")
            continue
        if len(found) == SAMPLES + 2:
            yield label["id"], found


def encoded(pictures: list[U8]) -> list[U8]:
    """Through x264 at CRF 38: visible blocks."""
    target = io.BytesIO()
    height, width = (side - side % 2 for side in pictures[0].shape[:2])
    with av.open(target, "w", format="mp4") as out:
        stream = out.add_stream("libx264", rate=4, options={"crf": "38", "preset": "fast"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for i, rgb in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb[:height, :width]), format="rgb24")
            frame.pts, frame.time_base = i, Fraction(1, 4)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    target.seek(0)
    with av.open(target) as back:
        return [frame.to_ndarray(format="rgb24") for frame in back.decode(video=0)]


def cropped(p: U8) -> U8:
    """The middle 80 % of both sides."""
    height, width = p.shape[:2]
    return np.ascontiguousarray(p[height // 10 : height - height // 10, width // 10 : width - width // 10])


def lettered(p: U8) -> U8:
    """A subtitle of two lines."""
    out = p.copy()
    width = out.shape[1]
    for line, text in enumerate(("Subscribe to my channel", "for more of this")):
        cv2.putText(out, text, (width // 12, out.shape[0] * (6 + line) // 8), cv2.FONT_HERSHEY_SIMPLEX, width / 500, (255, 255, 255), 2, cv2.LINE_AA)
    return out


COPIES: Mapping[str, Callable[[list[U8]], list[U8]]] = {
    "crop": lambda ps: [cropped(p) for p in ps[:SAMPLES]],
    "encode": lambda ps: encoded(ps[:SAMPLES]),
    "flip": lambda ps: [np.ascontiguousarray(p[:, ::-1]) for p in ps[:SAMPLES]],
    "brightness": lambda ps: [cv2.convertScaleAbs(p, alpha=1.3) for p in ps[:SAMPLES]],
    "text": lambda ps: [lettered(p) for p in ps[:SAMPLES]],
    "half": lambda ps: [cv2.resize(p, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA) for p in ps[:SAMPLES]],
    "shift": lambda ps: ps[2 : SAMPLES + 2],
}


def row_of(name: str, pictures: list[U8], encoder: Any, config: DedupConfig) -> dict[str, Any]:
    """A clip's row as the stage would fill it."""
    rgb, count = np.stack(pictures), len(pictures)
    times = np.arange(count) / 4
    clip = Frames(rgb, rgb[..., 0].copy(), times, np.zeros(count, np.float32), 4.0, {s: np.zeros(1, np.float32) for s in SIGNALS})
    vectors = encoder.embed([rgb[i] for i in spread(count, config.pictures)])
    size = {"width": rgb.shape[2], "height": rgb.shape[1], "quality_brisque": None}
    return {"clip_id": name, "video_id": name, **size, "embedding": pack_vectors(vectors), "content_sha256": content_sha256(clip)}


def report(members: list[Member], names: list[str]) -> tuple[dict[str, float], float, list[tuple[str, str]]]:
    """(recall by kind of copy, precision of the pairs within groups, wrong pairs of originals)."""
    group, source = {m.clip_id: m.group for m in members}, lambda clip: clip.split("/")[0]
    recall = {kind: float(np.mean([group.get(f"{n}/{kind}", "-") == group.get(f"{n}/original") for n in names])) for kind in COPIES}
    inside: dict[str, list[str]] = {}
    for member in members:
        inside.setdefault(member.group, []).append(member.clip_id)
    pairs = [(a, b) for clips in inside.values() for i, a in enumerate(clips) for b in clips[i + 1 :]]
    wrong = sorted({(source(a), source(b)) for a, b in pairs if source(a) != source(b)})
    right = sum(source(a) == source(b) for a, b in pairs)
    return recall, right / max(1, len(pairs)), wrong


def main() -> int:
    cli = argparse.ArgumentParser(description=__doc__)
    cli.add_argument("corpus", nargs="?", type=Path, default=Path("../shared/corpus"))
    cli.add_argument("--backend", choices=["sscd_distilled", "sscd"], default="sscd_distilled")
    cli.add_argument("--similarity", type=float, default=DedupConfig().similarity)
    args = cli.parse_args()
    cv2.setNumThreads(1)
    config = DedupConfig(backend=args.backend, similarity=args.similarity)
    try:
        encoder = ENCODERS[config.backend](config)
    except ValueError as fault:
        print(f"not measured: {fault}")
        print(json.dumps({name: {"value": None, "target": target, "met": None} for name, target in TARGETS.items()}))
        return 0
    rows, names, embed_s = list[dict[str, Any]](), list[str](), 0.0
    for name, pictures in originals(args.corpus):
        names.append(name)
        for kind, made in [("original", pictures[:SAMPLES]), *((kind, make(pictures)) for kind, make in COPIES.items())]:
            began = time.process_time()
            rows.append(row_of(f"{name}/{kind}", made, encoder, config))
            embed_s += time.process_time() - began
    recall, precision, wrong = report(find(pa.Table.from_pylist(rows), config), names)
    print(
        f"{len(names)} clips, {len(rows)} with their copies; {config.backend}, cosine from {config.similarity}; {1000 * embed_s / len(rows):.0f} CPU-ms a clip"
    )
    for kind, value in recall.items():
        print(f"  recall {kind:<11} {value:.3f}")
    print(f"  precision of pairs {precision:.4f}; originals taken for one another: {wrong or 'none'}")
    mean = float(np.mean(list(recall.values())))
    out = {name: {"value": round(v, 4), "target": TARGETS[name], "met": v >= TARGETS[name]} for name, v in (("recall", mean), ("precision", precision))}
    print(json.dumps(out | {f"recall_{kind}": {"value": round(v, 4), "target": None, "met": None} for kind, v in recall.items()}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
