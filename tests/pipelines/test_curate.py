"""Whole runs on Ray: what becomes of each video, resumption, other worker counts, rejudge, and the same bytes from all of them."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from curation.verify import verify
from pipelines import curate, rejudge

ROOT = Path(__file__).parents[2]
Tree = Callable[[Path], dict[str, bytes]]


@pytest.fixture(scope="module")
def finished(corpus: Path, tmp_path_factory: pytest.TempPathFactory, ray_local: None) -> Path:
    """One finished run, in this process."""
    out = tmp_path_factory.mktemp("run") / "out"
    assert curate.main([str(corpus), "--out", str(out)]) == 0
    return out


def clips_of(out: Path) -> list[dict[str, object]]:
    manifest = json.loads((out / "manifest.json").read_text())
    rows: list[dict[str, object]] = pq.read_table(out / manifest["files"]["clips"]["path"]).to_pylist()
    return rows


def separate(arguments: list[str], **options: object) -> subprocess.CompletedProcess[str]:
    """The script in a process of its own, with a Ray of its own."""
    command = [sys.executable, str(ROOT / "pipelines" / "curate.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, **options)  # type: ignore[call-overload,no-any-return]


def test_every_video_and_clip_ends_in_one_state(finished: Path) -> None:
    manifest = json.loads((finished / "manifest.json").read_text())
    videos = pq.read_table(finished / manifest["files"]["videos"]["path"]).to_pylist()
    ends = {Path(v["video_uri"]).name: (v["status"], v["error_code"]) for v in videos}
    assert ends == {
        "a_two_shots.mp4": ("ok", None),
        "b_still.mp4": ("ok", None),
        "c_same.mp4": ("duplicate", "duplicate"),
        "d_short.mp4": ("ok", None),
        "e_page.mp4": ("failed", "unsupported_container"),
    }
    found = [(Path(str(c["video_uri"])).name, c["kept"], c["reasons"], round(float(c["start_s"]), 2)) for c in clips_of(finished)]  # type: ignore[arg-type]
    assert [f for f in found if f[1]] == [("a_two_shots.mp4", True, [], 0.0), ("a_two_shots.mp4", True, [], 3.0)]
    still = next(f for f in found if f[0] == "b_still.mp4" and f[3] == 0.0)
    assert "static" in still[2]
    assert ("d_short.mp4", False, ["too_short"], 0.0) in found
    assert all(reasons for _, kept, reasons, _ in found if not kept)


def test_frames_are_decoded_once(finished: Path) -> None:
    manifest = json.loads((finished / "manifest.json").read_text())
    videos = pq.read_table(finished / manifest["files"]["videos"]["path"]).to_pylist()
    counts = {Path(v["video_uri"]).name: json.loads(v["stats"]) for v in videos if v["status"] == "ok"}
    assert counts["a_two_shots.mp4"]["source_frames"] == 136
    assert all(s["frames_decoded"] == s["source_frames"] for s in counts.values())


def test_exit_json_and_resolved_recipe(finished: Path) -> None:
    record = json.loads((finished / "_run" / "exit.json").read_text())
    assert (record["code"], record["reason"], record["resume_command"]) == (0, "complete", None)
    assert record["counts"]["videos"] == {"duplicate": 1, "failed": 1, "ok": 3}
    assert "[filters.motion]" in (finished / "_run" / "config.resolved.toml").read_text()


def test_a_second_run_does_nothing(finished: Path, corpus: Path, published: Tree) -> None:
    before = {p: p.stat().st_mtime_ns for p in finished.rglob("*") if p.is_file() and ("ledger" in p.parts or "packs" in p.parts)}
    tree = published(finished)
    assert curate.main([str(corpus), "--out", str(finished)]) == 0
    assert {p: p.stat().st_mtime_ns for p in before} == before
    assert published(finished) == tree


def test_a_changed_file_is_named_and_replaced_on_demand(
    tmp_path: Path, corpus: Path, published: Tree, ray_local: None, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = tmp_path / "videos", tmp_path / "out"
    folder.mkdir()
    shutil.copy(corpus / "a_two_shots.mp4", folder / "a.mp4")
    shutil.copy(corpus / "d_short.mp4", folder / "b.mp4")
    assert curate.main([str(folder), "--out", str(out)]) == 0
    tree = published(out)
    shutil.copy(corpus / "b_still.mp4", folder / "a.mp4")
    capsys.readouterr()
    assert curate.main([str(folder), "--out", str(out)]) == 3
    assert "--changed replace" in capsys.readouterr().err
    record = json.loads((out / "_run" / "exit.json").read_text())
    assert list(record["counts"]["changed_sources"]) == [str(folder / "a.mp4")]
    assert published(out) == tree
    assert curate.main([str(folder), "--out", str(out), "--changed", "replace"]) == 0
    clips = clips_of(out)
    assert not [c for c in clips if c["kept"]]
    assert sorted({str(c["reasons"]) for c in clips if c["start_s"] == 3.0}) == ["['source_changed']"]
    assert len({c["clip_id"] for c in clips}) == len(clips)
    assert verify(out).problems == []


def test_a_changed_recipe_is_refused_with_the_difference(finished: Path, corpus: Path, published: Tree, capsys: pytest.CaptureFixture[str]) -> None:
    tree = published(finished)
    assert curate.main([str(corpus), "--out", str(finished), "--set", "split.sample_fps=2"]) == 2
    said = capsys.readouterr().err
    assert "settings.split.sample_fps: 4.0 -> 2.0" in said
    assert "pan rejudge" in said
    assert published(finished) == tree


def test_user_faults_end_with_2_before_any_work(tmp_path: Path, corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert curate.main([str(corpus), "--out", str(out), "--set", "filters.motion.lo=1"]) == 2
    assert "did you mean" in capsys.readouterr().err
    assert curate.main([str(tmp_path / "nothing"), "--out", str(out)]) == 2
    assert curate.main([str(corpus), "--out", str(corpus / "out")]) == 2
    assert "inside the input" in capsys.readouterr().err
    assert not out.exists()


def test_an_empty_corpus_gives_an_empty_manifest(tmp_path: Path, ray_local: None) -> None:
    empty = tmp_path / "videos"
    empty.mkdir()
    (empty / "page.mp4").write_text("no video")
    assert curate.main([str(empty), "--out", str(tmp_path / "out")]) == 0
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["totals"]["clips"] == 0
    assert manifest["summary"]["video_errors"] == {"unsupported_container": 1}


@pytest.mark.parametrize("cpus", [1, 4])
def test_other_worker_counts_give_the_same_bytes(finished: Path, corpus: Path, published: Tree, tmp_path: Path, cpus: int) -> None:
    done = separate([str(corpus), "--out", str(tmp_path / "out"), "--cpus", str(cpus)], timeout=280)
    assert done.returncode == 0, done.stderr[-3000:]
    assert published(tmp_path / "out") == published(finished)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_an_ended_run_is_taken_up_to_the_same_bytes(finished: Path, corpus: Path, published: Tree, tmp_path: Path, number: int) -> None:
    out = tmp_path / "out"
    command = [sys.executable, str(ROOT / "pipelines" / "curate.py"), str(corpus), "--out", str(out), "--cpus", "1"]
    with subprocess.Popen(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, stderr=subprocess.DEVNULL, start_new_session=True) as driver:
        ledger = out / "_run" / "ledger"
        while driver.poll() is None and not (ledger.exists() and any(ledger.glob("*.parquet"))):
            time.sleep(0.05)
        driver.send_signal(number)
        ended = driver.wait()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(driver.pid, signal.SIGKILL)  # what its Ray has left
    assert not (out / "manifest.json").exists()
    if number == signal.SIGTERM:
        record = json.loads((out / "_run" / "exit.json").read_text())
        assert (ended, record["code"]) == (75, 75)
        assert record["resume_command"].startswith("pan curate")
    assert curate.main([str(corpus), "--out", str(out)]) == 0
    assert published(out) == published(finished)


def test_rejudge_tighter_then_back(finished: Path, corpus: Path, published: Tree, tmp_path: Path, ray_local: None) -> None:
    """A tighter threshold repacks; the old one again gives the old bytes, and neither decodes a frame."""
    out = tmp_path / "out"
    subprocess.run(["cp", "-r", str(finished), str(out)], check=True)
    segments = sorted(p.name for p in (out / "_run" / "ledger").iterdir())
    assert rejudge.main([str(out), "--set", "filters.motion.low=0.9", "--set", "filters.motion.high=2.0"]) == 0
    assert [c for c in clips_of(out) if c["kept"]] == []
    assert rejudge.main([str(out), "--set", "filters.motion.low=0.9", "--set", "filters.motion.high=2.0", "--dry-run"]) == 0
    assert rejudge.main([str(out), "--recipe", "local"]) == 0
    assert published(out) == published(finished)
    assert sorted(p.name for p in (out / "_run" / "ledger").iterdir()) == segments


def test_rejudge_looser_completes_only_what_is_newly_kept(finished: Path, corpus: Path, published: Tree, tmp_path: Path, ray_local: None) -> None:
    """A run under loose rules, and a strict run rejudged by the loose rules, publish the same shards."""
    strict, loose = tmp_path / "strict", tmp_path / "loose"
    loosened = ["--set", "filters.motion.low=0.0001"]
    tight = ["--set", "filters.motion.low=0.9", "--set", "filters.motion.high=2.0"]
    assert curate.main([str(corpus), "--out", str(strict), *tight]) == 0
    assert [c for c in clips_of(strict) if c["kept"]] == []
    assert rejudge.main([str(strict), "--recipe", "local", *loosened]) == 0
    assert curate.main([str(corpus), "--out", str(loose), *loosened]) == 0
    shards = [{k: v for k, v in published(out).items() if k.endswith((".tar", ".parquet")) and "/pan-" in k} for out in (strict, loose)]
    assert [Path(k).name for k in shards[0] if k.endswith(".tar")] == ["pan-train-000000.tar"]
    assert {Path(k).name: v for k, v in shards[0].items()} == {Path(k).name: v for k, v in shards[1].items()}
    rows = {str(c["clip_id"]): c["stages"] for c in clips_of(strict) if c["kept"]}
    assert all(sorted(set(s)) == sorted(s) for s in rows.values()), "no stage ran twice on a clip"  # type: ignore[arg-type,type-var]
