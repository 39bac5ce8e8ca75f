"""Bad inputs in one folder with good videos, through the whole stream: each its typed reason, the good ones untouched."""

import hashlib
import json
import os
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from curation.verify import verify
from pipelines import curate
from tests.curation.bad_media import encrypt, make_video, sound_only

ODD_NAMES = ["-n .mp4", "new\nline.mp4", "quote\"'.mp4", "%03d.mp4", "concat:a|b.mp4", "\U0001f3ac.mp4", "x" * 240 + ".mp4", "v1.5.final", "LOUD.MP4"]


@pytest.fixture(scope="module")
def mixed(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[bytes, str]]:
    """The folder, and for each bad file's name (bytes) the code that it should end with."""
    folder = tmp_path_factory.mktemp("mixed")
    shutil.copy(corpus / "a_two_shots.mp4", folder / "good.mp4")
    video = make_video(folder / "base.mp4")
    data = video.read_bytes()
    video.unlink()
    expected = {
        "empty.mp4": ("unsupported_container", b""),
        "page.mp4": ("unsupported_container", b"<html>404</html>" * 100),
        "list.mp4": ("unsupported_container", b"ffconcat version 1.0\nfile good.mp4\n"),
        "playlist.mp4": ("unsupported_container", b"#EXTM3U\n#EXTINF:4,\nhttp://127.0.0.1:9/a.ts\n"),
        "half.mp4": ("truncated", data[: len(data) // 2]),
    }
    for name, (_, content) in expected.items():
        (folder / name).write_bytes(content)
    codes = {name.encode(): code for name, (code, _) in expected.items()}
    sound_only(folder / "sound.mp4")
    shutil.copy(encrypt(make_video(folder / "tmp.mp4")), folder / "secret.mp4")
    for left in folder.glob("tmp*.mp4"):
        left.unlink()
    os.mkfifo(folder / "pipe.mp4")
    (folder / "folder.mp4").mkdir()
    (folder / "link.mp4").symlink_to(folder / "good.mp4")
    codes |= {b"sound.mp4": "no_video_stream", b"secret.mp4": "encrypted", b"pipe.mp4": "not_regular_file", b"folder.mp4": "not_regular_file"}
    codes |= {b"link.mp4": "not_regular_file"}
    return folder, codes


def rows(out: Path, name: str) -> list[dict[str, object]]:
    manifest = json.loads((out / "manifest.json").read_text())
    found: list[dict[str, object]] = pq.read_table(out / manifest["files"][name]["path"]).to_pylist()
    return found


def test_each_its_reason_and_the_good_untouched(mixed: tuple[Path, dict[bytes, str]], tmp_path: Path, ray_local: None) -> None:
    folder, codes = mixed
    assert curate.main([str(folder), "--out", str(tmp_path / "out")]) == 0
    ends = {os.fsencode(os.path.basename(str(v["video_uri"]))): v["error_code"] for v in rows(tmp_path / "out", "videos")}
    assert {name: ends[name] for name in codes} == codes
    assert {name for name, code in ends.items() if code is None} == {b"good.mp4"}

    alone = tmp_path / "alone"
    alone.mkdir()
    shutil.copy(folder / "good.mp4", alone / "good.mp4")
    assert curate.main([str(alone), "--out", str(tmp_path / "clean")]) == 0
    kept = [{(c["clip_id"], c["video_sha256"]) for c in rows(tmp_path / out, "clips") if c["kept"]} for out in ("out", "clean")]
    assert kept[0] == kept[1]
    assert len(kept[0]) == 2
    assert verify(tmp_path / "out").problems == []


def test_odd_names_reach_only_the_provenance(corpus: Path, tmp_path: Path, ray_local: None) -> None:
    folder = tmp_path / "odd"
    folder.mkdir()
    names = [os.fsencode(name) for name in ODD_NAMES] + [b"\xff\xfe.mp4"]
    for i, name in enumerate(names):
        path = os.path.join(os.fsencode(folder), name)
        shutil.copy(os.fsencode(corpus / "d_short.mp4"), path)
        with open(path, "ab") as file:  # a free box at the end: other bytes, another video
            file.write(b"\0\0\0\x0cfree" + i.to_bytes(4, "big"))
    assert curate.main([str(folder), "--out", str(tmp_path / "out")]) == 0
    videos = rows(tmp_path / "out", "videos")
    assert [v["status"] for v in videos] == ["ok"] * len(names)
    expected = {hashlib.sha256(Path(os.fsdecode(os.path.join(os.fsencode(folder), name))).read_bytes()).hexdigest()[:16] for name in names}
    assert {v["video_id"] for v in videos} == expected
