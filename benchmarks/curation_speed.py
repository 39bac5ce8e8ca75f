"""What the analysis pass costs: CPU-seconds against a bare decode and against Data-Juicer, peak memory, frames decoded per source frame.

python benchmarks/curation_speed.py [VIDEOS ...] [--repeats 3] [--minutes 1 20] [--no-peer] [--venv PATH] [--memory-gb 6]

Everything is measured in the same run, on one thread, in fresh processes, in CPU-seconds (user and system), which other work on the machine
disturbs less than time on the wall. Without VIDEOS it makes four 720p ones (see speed_videos.py) and keeps them in build/benchmarks.
Last line: one JSON object {"figure": {"value", "target", "met"}}.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(Path(__file__).resolve().parent)]

import juicer  # noqa: E402
import speed_videos  # noqa: E402

LABELS = ROOT.parent / "shared" / "corpus" / "dev" / "labels.jsonl"
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")

TARGETS = {"cpu_over_bare_decode": 2.0, "peak_mb": 400.0, "peak_growth": 1.1, "decoded_per_source_frame": 1.0, "juicer_like_for_like": 5.0}


# ---- in a fresh process -------------------------------------------------------------------------------------------------------------


def worker(mode: str, paths: Sequence[Path], repeats: int) -> dict[str, Any]:
    """Runs in a process of its own. "speed": CPU-seconds of bare decode and analysis, alternating; "memory": peak of one analysis."""
    import analysis
    import cv2

    cv2.setNumThreads(1)
    ours = analysis.Analysis()
    if mode == "memory":
        before, cpu = analysis.peak_mb(), analysis.seconds_of(ours(paths[0]))
        return {"imports_mb": before, "peak_mb": analysis.peak_mb(), "cpu_s": cpu}
    analysis.bare_decode(paths[0])
    last = [rows[-1] for rows in ([row for table in ours(path) for row in table.to_pylist()] for path in paths)]  # also warms up
    runs = [{str(p): (analysis.seconds_of(lambda p=p: analysis.bare_decode(p)), analysis.seconds_of(ours(p))) for p in paths} for _ in range(repeats)]
    return {str(path): _one(row, [run[str(path)] for run in runs]) for path, row in zip(paths, last, strict=True)}


def _one(video_row: dict[str, Any], runs: Sequence[tuple[float, float]]) -> dict[str, Any]:
    """One video's medians; `video_row` is the last row of its pass."""
    stats = json.loads(video_row["stats"])
    bare, ours = (statistics.median(run[i] for run in runs) for i in (0, 1))
    ratio = statistics.median(b / a for a, b in runs)
    named = {name: stats[name] for name in ("clips", "frames_decoded", "source_frames", "duration_s")}
    return {**named, "bare_s": bare, "ours_s": ours, "ratio": ratio, "status": video_row["status"], "error": video_row["error_code"]}


def fresh(mode: str, paths: Sequence[Path], repeats: int = 1) -> dict[str, Any]:
    """`worker` in a new Python.

    Raises:
        RuntimeError: it failed; with the last lines of what it said.
    """
    command = [sys.executable, str(Path(__file__).resolve()), "--worker", mode, "--repeats", str(repeats), *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **ONE_THREAD}, check=False)
    if done.returncode:
        raise RuntimeError(f"the {mode} worker ended with {done.returncode}:\n{done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


# ---- the three measurements ---------------------------------------------------------------------------------------------------------


def speed(paths: Sequence[Path], repeats: int) -> dict[str, dict[str, Any]]:
    """Prints and returns the speed worker's table."""
    found = fresh("speed", paths, repeats)
    print(f"\n{'video':32} {'s':>6} {'clips':>5} {'bare':>8} {'ours':>8} {'ratio':>6} {'decoded/source':>14}   CPU-s per video-s, median of {repeats}")
    for name, row in found.items():
        seconds = max(row["duration_s"], 1e-9)
        shares = f"{row['bare_s'] / seconds:8.4f} {row['ours_s'] / seconds:8.4f} {row['ratio']:6.2f} {_decoded(row):14.3f}"
        print(f"{Path(name).name[:32]:32} {row['duration_s']:6.1f} {row['clips']:5} {shares}   {row['error'] or ''}")
    return found


def _decoded(row: dict[str, Any]) -> float:
    return float(row["frames_decoded"] / max(row["source_frames"], 1))


def memory(source: Path, folder: Path, minutes: Sequence[float]) -> dict[float, dict[str, Any]]:
    """Peak memory of a fresh worker for one video of each length, all looped from the same packets."""
    found = {}
    print(f"\n{'minutes':>8} {'peak MB':>8} {'of it imports':>14} {'CPU-s per video-s':>18}")
    for length in minutes:
        path = folder / f"looped-{length:g}min.mp4"
        seconds = speed_videos.loop(source, path, length * 60)
        found[length] = row = fresh("memory", [path])
        path.unlink()
        print(f"{length:8g} {row['peak_mb']:8.0f} {row['imports_mb']:14.0f} {row['cpu_s'] / seconds:18.4f}")
    return found


def peer(ours: dict[str, dict[str, Any]], venv: Path, memory_gb: float) -> dict[str, float]:
    """Data-Juicer on the same videos: how many times our CPU-seconds it takes, like for like and with its defaults."""
    python, times = juicer.environment(venv), {}
    heads = f"{'mode':8} {'split':>7} {'motion':>7} {'ours':>7} {'times':>6} {'scenes':>6} {'peak MB':>8}"
    print(f"\n{'Data-Juicer 1.6.1':32} {heads}   CPU-s, limit {memory_gb:g} GB")
    for mode in ("like", "default"):
        runs = {name: juicer.run(python, Path(name), mode, memory_gb) for name in ours}
        for name, run in runs.items():
            split, motion = run.by_operator.get("split", 0.0), run.by_operator.get("motion", 0.0)
            cost = f"{split:7.2f} {motion:7.2f} {ours[name]['ours_s']:7.2f} {run.cpu_s / ours[name]['ours_s']:6.1f}"
            print(f"{Path(name).name[:32]:32} {mode:8} {cost} {run.scenes:6} {run.peak_mb or 0:8.0f}   {run.error or ''}")
        done = [name for name, run in runs.items() if run.error is None]
        if done:
            times[mode] = sum(runs[name].cpu_s for name in done) / sum(ours[name]["ours_s"] for name in done)
    return times


# ---- the figures --------------------------------------------------------------------------------------------------------------------


def figures(found: dict[str, dict[str, Any]], peaks: dict[float, dict[str, Any]], times: dict[str, float]) -> dict[str, dict[str, Any]]:
    """The last line's object. `met` is null where nothing was measured."""
    bare, ours, seconds = (sum(row[name] for row in found.values()) for name in ("bare_s", "ours_s", "duration_s"))
    lengths = sorted(peaks)
    growth = peaks[lengths[-1]]["peak_mb"] / peaks[lengths[0]]["peak_mb"] if len(lengths) > 1 else None
    return {
        "cpu_over_bare_decode": _figure("cpu_over_bare_decode", ours / bare),
        "cpu_s_per_video_s": {"value": round(ours / seconds, 4), "target": None, "met": None},
        "bare_cpu_s_per_video_s": {"value": round(bare / seconds, 4), "target": None, "met": None},
        "decoded_per_source_frame": _figure("decoded_per_source_frame", max(_decoded(row) for row in found.values())),
        **{f"peak_mb_{length:g}min": _figure("peak_mb", peaks[length]["peak_mb"]) for length in lengths},
        "peak_growth": _figure("peak_growth", growth),
        "juicer_like_for_like": _figure("juicer_like_for_like", times.get("like"), at_least=True),
        "juicer_defaults": {"value": round(times["default"], 2) if "default" in times else None, "target": None, "met": None},
    }


def _figure(name: str, value: float | None, at_least: bool = False) -> dict[str, Any]:
    target = TARGETS[name]
    met = None if value is None else value >= target if at_least else value <= target
    return {"value": None if value is None else round(value, 3), "target": target, "met": met}


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code: 0 even where a target is missed, 2 for wrong arguments."""
    cli = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    cli.add_argument("videos", nargs="*", type=Path, help="default: 720p videos made for the purpose")
    cli.add_argument("--repeats", type=int, default=3)
    cli.add_argument("--minutes", type=float, nargs="*", default=[1, 20], help="lengths for the memory figure; none to leave it out")
    cli.add_argument("--no-peer", action="store_true", help="leave Data-Juicer out (its environment takes 0.7 GB)")
    cli.add_argument("--venv", type=Path, default=juicer.DEFAULT_VENV, help="Data-Juicer's environment, made if it is not there")
    cli.add_argument("--memory-gb", type=float, default=6.0, help="limit for Data-Juicer's processes")
    cli.add_argument("--labels", type=Path, default=LABELS, help="footage for the made videos; without it they are procedural")
    cli.add_argument("--folder", type=Path, default=ROOT / "build" / "benchmarks", help="where made videos are kept")
    cli.add_argument("--worker", choices=["speed", "memory"], help=argparse.SUPPRESS)
    args = cli.parse_args(arguments)
    if missing := [str(path) for path in args.videos if not path.is_file()]:
        cli.error(f"no such file: {', '.join(missing)}")
    if args.repeats < 1:
        cli.error(f"--repeats must be at least 1, got {args.repeats}")
    if args.worker:
        print(json.dumps(worker(args.worker, args.videos, args.repeats)))
        return 0
    args.folder.mkdir(parents=True, exist_ok=True)
    paths, said = (args.videos, f"{len(args.videos)} given videos") if args.videos else speed_videos.prepare(args.folder, args.labels)
    print(said)
    found = speed(paths, args.repeats)
    peaks = memory(paths[0], args.folder, args.minutes) if args.minutes else {}
    times = {} if args.no_peer else peer(found, args.venv, args.memory_gb)
    print(json.dumps(figures(found, peaks, times)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
