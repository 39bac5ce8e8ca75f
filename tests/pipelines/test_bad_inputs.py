"""Bad inputs in one folder with a good video, through the whole stream in one run: each its typed reason, the good one untouched."""

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from curation.verify import verify
from pipelines import curate
from tests.pipelines.bad_inputs import Case, Rows, cases

ROOT = Path(__file__).parents[2]
LISTED = {"/dev/null": "not_regular_file", "nowhere.mp4": "io_error", "good.mp4/inside.mp4": "io_error"}  # rows 42 and 43: what no folder holds

#: Rows of the list of bad inputs that are no file among others, and the test that has them.
ELSEWHERE = {
    43: "tests/curation/test_opening.py::test_a_video_that_was_replaced_since_it_was_identified_is_not_split",
    58: "tests/curation/test_sources.py::test_all_faults_of_all_inputs_are_told_at_once_with_their_lines",
    59: "tests/pipelines/test_curate.py::test_an_empty_corpus_gives_an_empty_manifest",
    60: "tests/pipelines/test_curate.py::test_user_faults_end_with_2_before_any_work",
}
ASKED = {*range(1, 32), *range(33, 50), 58, 59, 60}
CASES = cases(Path("short.mp4"), Path("good.mp4"))

Ends = dict[bytes, tuple[dict[str, Any], Rows]]


@pytest.fixture(scope="module")
def folder(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All files, the good video among them."""
    made = tmp_path_factory.mktemp("mixed")
    shutil.copy(corpus / "a_two_shots.mp4", made / "good.mp4")
    for case in cases(corpus / "d_short.mp4", made / "good.mp4"):
        path = Path(os.fsdecode(os.path.join(os.fsencode(made), case.raw)))
        if case.raw.isascii() and case.raw.endswith((b".mp4", b".mkv", b".mov", b".ts", b".webm", b".m4a", b".h264")):
            case.make(path)
        else:  # libraries that make videos may not take such a name
            plain = made / "made"
            case.make(plain)
            os.replace(plain, path)
    return made


@pytest.fixture(scope="module")
def ran(folder: Path, tmp_path_factory: pytest.TempPathFactory, ray_local: None) -> Path:
    """The output of one run over the folder and over a list of what no folder holds."""
    place = tmp_path_factory.mktemp("run")
    (place / "list.csv").write_text("uri\n" + "".join(f"{folder / name}\n" for name in LISTED))
    assert curate.main([str(folder), str(place / "list.csv"), "--out", str(place / "out")]) == 0
    return place / "out"


@pytest.fixture(scope="module")
def ends(ran: Path) -> Ends:
    """How each file ended: its video's row and its clips, by its name."""
    clips: dict[str, Rows] = {}
    for clip in rows(ran, "clips"):
        clips.setdefault(clip["video_uri"], []).append(clip)
    return {name_of(v["video_uri"]): (v, sorted(clips.get(v["video_uri"], []), key=lambda c: c["start_s"])) for v in rows(ran, "videos")}


def name_of(uri: str) -> bytes:
    from curation.uris import local_path

    return os.path.basename(os.fsencode(local_path(uri) or ""))


def rows(out: Path, name: str) -> Rows:
    manifest = json.loads((out / "manifest.json").read_text())
    found: Rows = pq.read_table(out / manifest["files"][name]["path"]).to_pylist()
    return found


@pytest.mark.parametrize("case", CASES, ids=lambda case: ascii(case.name) if str(case.name)[:1].isdigit() else f"{case.row} {ascii(case.name)[:20]}")
def test_each_file_ends_as_it_should(case: Case, ends: Ends) -> None:
    video, clips = ends[case.raw]
    assert (video["error_code"], video["error_detail"] if case.code is None else "") == (case.code, None if case.code is None else "")
    assert video["status"] == {None: "ok", "duplicate": "duplicate"}.get(case.code, "failed")
    if case.code is not None:
        assert not any(clip["kept"] for clip in clips)
        assert video["error_detail"].isprintable()
    case.check(video, clips)


def test_what_no_folder_holds(ends: Ends) -> None:
    assert {name: ends[os.path.basename(name).encode()][0]["error_code"] for name in LISTED} == LISTED


def test_nothing_else_came_out(ends: Ends) -> None:
    assert ends.keys() == {case.raw for case in CASES} | {b"good.mp4"} | {os.path.basename(name).encode() for name in LISTED}


def test_the_good_one_has_the_bytes_of_a_run_without_the_others(folder: Path, ran: Path, tmp_path: Path) -> None:
    alone = tmp_path / "alone"
    alone.mkdir()
    shutil.copy(folder / "good.mp4", alone / "good.mp4")
    assert curate.main([str(alone), "--out", str(tmp_path / "out")]) == 0
    ids = {c["clip_id"]: c["video_sha256"] for c in rows(tmp_path / "out", "clips") if c["kept"]}
    assert len(ids) == 2
    assert {c["clip_id"]: c["video_sha256"] for c in rows(ran, "clips") if c["kept"] and c["video_uri"].endswith("/good.mp4")} == ids
    assert verify(ran).problems == []


def test_an_id_is_of_the_content_whatever_the_name(folder: Path, ends: Ends) -> None:
    for case in CASES:
        if case.row in (38, 39, 40):
            data = Path(os.fsdecode(os.path.join(os.fsencode(folder), case.raw))).read_bytes()
            assert ends[case.raw][0]["video_id"] == hashlib.sha256(data).hexdigest()[:16]


def test_what_a_file_says_of_itself_reaches_no_shard(ran: Path) -> None:
    published = b"".join(path.read_bytes() for path in sorted((ran / "packs").rglob("*")) if path.is_file())
    assert b"DROP TABLE" not in published
    assert b"x-msdownload" not in published


def test_every_row_of_the_list_has_a_test() -> None:
    assert {case.row for case in CASES} | ELSEWHERE.keys() >= ASKED
    for place in ELSEWHERE.values():
        path, name = place.split("::")
        assert f"def {name}(" in (ROOT / path).read_text()
