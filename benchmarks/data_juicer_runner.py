"""Runs Data-Juicer's scene split and motion filter on one video, inside Data-Juicer's own environment, and prints what they cost.

python data_juicer_runner.py VIDEO FOLDER --mode like|default --memory-gb 6

It imports nothing of this project. Its last line is one JSON object: CPU-seconds an operator (user and system, of the process and its
children), scenes, motion score, peak resident memory, and `error` where an operator failed.
"""

import argparse
import json
import os
import resource
import sys
from collections.abc import Callable
from typing import Any


def cpu_s() -> float:
    """CPU-seconds that this process and its finished children have used."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in usages)


def peak_mb() -> float:
    """Peak resident memory of this process in MB (10^6 bytes)."""
    with open("/proc/self/status", encoding="ascii") as status:
        line = next(line for line in status if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024 / 1e6


def operators(mode: str, folder: str) -> list[tuple[str, Callable[[dict[str, Any]], dict[str, Any]]]]:
    """Its two operators: as shipped, or like for like (one thread, 256 px, 2 frames a second, and no clip files written).

    In mode "like" the call that cuts the clips with ffmpeg is replaced by nothing and the motion filter sees the whole video:
    our analysis pass writes no clips either, so their encoding must not count against the peer.
    """
    import cv2
    import scenedetect
    from data_juicer.ops.filter.video_motion_score_filter import VideoMotionScoreFilter
    from data_juicer.ops.mapper.video_split_by_scene_mapper import VideoSplitBySceneMapper

    if mode == "default":
        split, motion = VideoSplitBySceneMapper(save_dir=folder), VideoMotionScoreFilter()
        return [("split", split.process_single), ("motion", motion.compute_stats_single)]
    cv2.setNumThreads(1)
    scenedetect.split_video_ffmpeg = lambda **_: 0
    split, motion = VideoSplitBySceneMapper(save_dir=folder), VideoMotionScoreFilter(size=256, sampling_fps=2, relative=True)

    def split_only(sample: dict[str, Any]) -> dict[str, Any]:
        found = split.process_single(dict(sample))
        return {**sample, "scenes": len(found["videos"])}

    return [("split", split_only), ("motion", motion.compute_stats_single)]


def run(video: str, folder: str, mode: str) -> dict[str, Any]:
    """Both operators on one video; an operator that runs out of memory or fails ends the run with `error`."""
    if mode == "like":
        os.environ["OPENCV_FFMPEG_CAPTURE_OPTIONS"] = "threads;1"
    began = cpu_s()
    from data_juicer.utils.constant import Fields

    todo = operators(mode, folder)
    result: dict[str, Any] = {"import_cpu_s": cpu_s() - began, "imports_mb": peak_mb(), "cpu_s": {}}
    sample: dict[str, Any] = {"videos": [video], "text": "<__dj__video>", Fields.stats: {}, Fields.meta: {}}
    for name, operator in todo:
        began = cpu_s()
        try:
            sample = operator(sample)
        except Exception as error:  # noqa: BLE001 - whatever the peer raises is its result; the limit on memory shows as several types
            result["error"] = f"{name}: {type(error).__name__}: {error}"[:300]
            break
        finally:
            result["cpu_s"][name] = cpu_s() - began
    result["scenes"] = sample.get("scenes", len(sample["videos"]))
    result["motion"] = [float(x) for x in sample[Fields.stats].get("video_motion_score", [])]
    return {**result, "peak_mb": peak_mb()}


def main() -> None:
    """Parses the arguments, limits the memory, runs, prints."""
    cli = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    cli.add_argument("video")
    cli.add_argument("folder", help="where clips may be written")
    cli.add_argument("--mode", choices=["like", "default"], default="like")
    cli.add_argument("--memory-gb", type=float, default=6.0)
    args = cli.parse_args()
    limit = int(args.memory_gb * 1e9)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    print(json.dumps(run(args.video, args.folder, args.mode)))
    sys.stdout.flush()


if __name__ == "__main__":
    main()
