"""pan recaption: captions of kept clips written again from their own MP4s by a server of the test's own; taken up after any kill; nothing else runs."""

import json
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from curation import storage
from curation.frames import Frames
from curation.ledger import FrozenLedger
from curation.plan import PlanMismatch
from curation.reopen import frames_of_mp4
from curation.shards import load_manifest, open_sample
from curation.shots import frames_of
from curation.sink import Ledger
from curation.sources import find, identify, video_table
from curation.stage import Resources, Stage
from curation.verify import verify
from curation.video import read_clip
from pipelines import cluster, judge, preflight, publish, recaption, recipe, run, stream
from tests.curation.made_rows import die_at
from tests.pipelines import conftest as made

Script = Callable[[], str]


class Server(ThreadingHTTPServer):
    """An OpenAI-compatible server that says what `script` says; `asked` are the requests' bodies."""

    script: Script
    asked: list[dict[str, Any]]


class Handler(BaseHTTPRequestHandler):
    """Answers chat completions."""

    server: Server

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append(body)
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": self.server.script()}}
        usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
        data = json.dumps({"id": "1", "object": "chat.completion", "model": "told", "choices": [choice], "usage": usage}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args: Any) -> None:
        """Silent."""


def good() -> str:
    chunks = [{"chunk": 0, "action": "A round thing swings across the picture and back."}]
    return json.dumps({"chunks": chunks, "caption": "A round thing swings across the picture on a curved path."})


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Handler) as found:
        found.script, found.asked = good, []
        thread = threading.Thread(target=found.serve_forever, daemon=True)
        thread.start()
        yield found
        found.shutdown()


def in_process(rows: pa.Table, todo: list[Stage], held: run.Run, resources: Resources) -> None:
    """`stream.run` without a cluster: a row at a time, so that a kill loses one."""
    for i in range(rows.num_rows):
        tables = [rows.slice(i, 1)]
        for stage in todo:
            passed = [stage.run(table) for table in tables]
            tables = [table for out in passed for table in ([out] if isinstance(out, pa.Table) else out)]
        Ledger(held.out, held.lock.fence).write(tables)


@pytest.fixture(autouse=True)
def without_a_cluster(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    if "ray_local" not in request.fixturenames:
        monkeypatch.setattr(stream, "run", in_process)
        monkeypatch.setattr(cluster, "connect", lambda cpus: None)
        monkeypatch.setattr(preflight, "check", lambda out, stages: None)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A curated output of two kept clips and a still one; the source videos are gone."""
    home = tmp_path_factory.mktemp("recaption")
    for name, frames in (("a", made.acting(1, 2.6)), ("b", made.acting(50, 2.6)), ("c", made.still(3, 2.6))):
        made.write(home / "videos" / f"{name}.mp4", frames)
    told = {name: {"events": [{"start_s": 0.0, "end_s": 2.5625, "text": f"swing {name}"}]} for name in "ab"}
    (home / "list.jsonl").write_text("".join(json.dumps({"uri": f"videos/{name}.mp4", **told.get(name, {})}) + "\n" for name in "abc"))
    local = recipe.load("local", ["filters.scene_text.enabled=false"])
    rows = identify(video_table(find([str(home / "list.jsonl")], local.sources), local.sources))
    with run.begin(str(home / "out"), local, run.plan_of(local, [str(home / "videos")])) as held:
        in_process(rows, stream.stages(local), held, Resources())
        publish.publish(held, local, {})
    shutil.move(home / "videos", home / "moved")
    return home / "out"


@pytest.fixture
def out(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "out", symlinks=True))


def sets(server: Server, **more: str) -> list[str]:
    chosen = {"caption.backend": "vlm", "vlm.backend": "openai", "vlm.model": "told", "vlm.url": f"http://127.0.0.1:{server.server_port}/v1", **more}
    return [word for key, value in chosen.items() for word in ("--set", f"{key}={value}")]


def captions(out: Path) -> dict[str, tuple[str, str]]:
    """clip -> (caption, who wrote it) of the published samples."""
    found = {}
    for row in FrozenLedger.read(out).clips().to_pylist():
        try:
            doc = open_sample(out, row["clip_id"]).document
        except KeyError:
            continue
        found[row["clip_id"]] = (doc["caption"], doc["caption_backend"])
    return found


def test_captions_are_renewed_from_the_clips_mp4s_alone(out: Path, server: Server) -> None:
    before = captions(out)
    assert {who for _, who in before.values()} == {"measured"}
    bytes_before = sum(p.stat().st_size for p in (out / "_run/segments").iterdir())
    assert recaption.main([str(out), *sets(server)]) == 0
    after = captions(out)
    assert after.keys() == before.keys()
    assert set(after.values()) == {("A round thing swings across the picture on a curved path.", "told")}
    assert len(server.asked) == len(before) == 2
    assert verify(out).problems == []
    assert sum(p.stat().st_size for p in (out / "_run/segments").iterdir()) == bytes_before  # no MP4 was copied
    for clip in after:
        doc = open_sample(out, clip).document
        assert doc["decision"]["stages"][-2:] == ["cut", "recaption"]
        assert json.loads(doc["structure"])["schema"] == "pan-structure/1"
        assert doc["rounds"][0]["action"] == "A round thing swings across the picture and back."


def test_a_second_run_does_nothing(out: Path, server: Server) -> None:
    assert recaption.main([str(out), *sets(server)]) == 0
    tree = {p: p.read_bytes() for p in out.rglob("*") if p.is_file() and ("ledger" in p.parts or "packs" in p.parts or p.name == "manifest.json")}
    assert recaption.main([str(out)]) == 0  # the settings are now the output's own
    assert recaption.main([str(out), *sets(server)]) == 0
    assert {p: p.read_bytes() for p in tree} == tree
    assert len(server.asked) == 2


def test_dry_run_changes_nothing(out: Path, server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    tree = {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}
    assert recaption.main([str(out), "--dry-run", *sets(server)]) == 0
    assert capsys.readouterr().out.startswith("2 captions would be renewed")
    assert {p: p.read_bytes() for p in out.rglob("*") if p.is_file()} == tree


def test_back_and_forth_the_latest_captions_count(out: Path, server: Server) -> None:
    assert recaption.main([str(out), *sets(server)]) == 0
    assert recaption.main([str(out), "--set", "caption.backend=measured"]) == 0
    assert {who for _, who in captions(out).values()} == {"measured"}
    assert recaption.main([str(out), *sets(server)]) == 0
    assert {who for _, who in captions(out).values()} == {"told"}
    assert verify(out).problems == []


def test_captions_that_the_list_gave_take_the_place_of_measured_ones(out: Path) -> None:
    assert recaption.main([str(out), "--set", "caption.backend=given"]) == 0
    assert sorted(captions(out).values()) == [("swing a", "given"), ("swing b", "given")]
    for clip in captions(out):
        doc = open_sample(out, clip).document
        assert [r["action"] for r in doc["rounds"]] == [doc["caption"]]
    assert verify(out).problems == []
    assert recaption.main([str(out)]) == 0
    assert recaption.main([str(out), "--set", "caption.backend=measured"]) == 0
    assert {who for _, who in captions(out).values()} == {"measured"}


def test_given_captions_of_videos_that_came_with_none_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    local = recipe.load("local", ["filters.scene_text.enabled=false"])
    made.write(tmp_path / "videos" / "a.mp4", made.acting(1, 2.6))
    rows = identify(video_table(find([str(tmp_path / "videos")], local.sources), local.sources))
    with run.begin(str(tmp_path / "out"), local, run.plan_of(local, [str(tmp_path / "videos")])) as held:
        in_process(rows, stream.stages(local), held, Resources())
        publish.publish(held, local, {})
    before = (tmp_path / "out/_run/plan.json").read_bytes()
    assert recaption.main([str(tmp_path / "out"), "--set", "caption.backend=given"]) == 2
    assert "none of the 1 videos has it" in capsys.readouterr().err
    assert (tmp_path / "out/_run/plan.json").read_bytes() == before
    assert {who for _, who in captions(tmp_path / "out").values()} == {"measured"}


def test_a_caption_that_fails_takes_its_clip_out_with_the_reason(out: Path, server: Server) -> None:
    server.script = lambda: json.dumps({"chunks": [{"chunk": 0, "action": "A wooden table."}], "caption": "A wooden table with a vase."})
    assert recaption.main([str(out), *sets(server)]) == 0
    manifest = load_manifest(out)
    assert manifest["totals"]["clips"] == 0
    assert manifest["summary"]["reasons"]["caption_static"] == 2
    assert {s["stage"]: s["failed"] for s in manifest["summary"]["stages"]}["caption"] == 2
    assert len(server.asked) == 6  # two tries to mend each
    assert recaption.main([str(out)]) == 0
    assert len(server.asked) == 6
    server.script = good
    assert recaption.main([str(out), *sets(server, **{"vlm.model": "other"})]) == 0
    assert load_manifest(out)["totals"]["clips"] == 2
    assert verify(out).problems == []


def test_where_a_clip_falls_its_duplicate_is_captioned_too(out: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the two clips only the first that is sound may stay, as among near duplicates; its new caption fails, so the other takes its place."""
    true = judge.judge_ledger

    def only_one(*args: Any) -> judge.Verdicts:
        found = true(*args)
        first = min(found.kept(), default=None)
        reasons = [["near_duplicate"] if clip != first and not why else why for clip, why in zip(found.clip_ids, found.reasons, strict=True)]
        return replace(found, reasons=reasons)

    monkeypatch.setattr(judge, "judge_ledger", only_one)
    monkeypatch.setattr(publish, "judge_ledger", only_one)
    bad = json.dumps({"chunks": [{"chunk": 0, "action": "A wooden table."}], "caption": "A wooden table with a vase."})
    server.script = lambda: bad if len(server.asked) <= 3 else good()
    assert recaption.main([str(out), *sets(server)]) == 0
    assert [who for _, who in captions(out).values()] == ["told"]
    assert load_manifest(out)["summary"]["reasons"]["caption_static"] == 1
    assert len(server.asked) == 4
    assert recaption.main([str(out)]) == 0
    assert len(server.asked) == 4


def test_a_server_that_does_not_answer_is_asked_again_by_the_next_run(out: Path, server: Server) -> None:
    dead = {"vlm.url": "http://127.0.0.1:9/v1", "vlm.tries": "1", "vlm.timeout_s": "1"}
    assert recaption.main([str(out), *sets(server, **dead)]) == 0
    assert load_manifest(out)["summary"]["reasons"]["vlm_unreachable"] == 2
    assert recaption.main([str(out), *sets(server)]) == 0
    assert {who for _, who in captions(out).values()} == {"told"}
    assert "vlm_unreachable" not in load_manifest(out)["summary"]["reasons"]


def test_only_captions_may_change(out: Path, server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    for wrong, said in (("split.sample_fps=2", "settings.split.sample_fps"), ("filters.motion.low=0.001", "pan rejudge")):
        assert recaption.main([str(out), *sets(server), "--set", wrong]) == 2
        assert said in capsys.readouterr().err
    assert server.asked == []
    told = recipe.load("local", ["filters.scene_text.enabled=false", *sets(server)[1::2]])
    with pytest.raises(PlanMismatch, match=r"settings\.caption"), run.begin(str(out), told, {**run.plan_of(told, []), "inputs": {}}):
        pass
    assert recaption.renewable(told) == ["settings.caption", "settings.vlm"]


def test_a_half_renewed_dataset_is_not_published(out: Path, server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    """What `pan rejudge` would do between a kill and the resumption."""
    manifest = (out / "manifest.json").read_bytes()
    told = publish.recipe_of(out, None, sets(server)[1::2])
    plan = json.loads((out / "_run/plan.json").read_text())
    with run.begin(str(out), told, {**plan, "settings": told.plan_settings()}, renews=recaption.renewable(told)) as held:
        rows = recaption.stale(FrozenLedger.read(out), told)
        in_process(rows.slice(0, 1), stream.recaption_stages(told, held.out), held, Resources())
        with pytest.raises(ValueError, match="pan recaption"):
            publish.publish(held, told, {})
    assert (out / "manifest.json").read_bytes() == manifest
    assert recaption.main([str(out)]) == 0
    assert {who for _, who in captions(out).values()} == {"told"}
    assert len(server.asked) == 2


def test_killed_at_write_points_and_taken_up(finished: Path, server: Server, tmp_path: Path) -> None:
    def copy(name: str) -> Path:
        return Path(shutil.copytree(finished, tmp_path / name, symlinks=True))

    def renew(out: Path) -> None:
        assert recaption.recaption(str(out), publish.recipe_of(out, None, sets(server)[1::2])) == 0

    def published(out: Path) -> dict[str, bytes]:
        return {str(p.relative_to(out)): p.read_bytes() for p in sorted((out / "packs").rglob("*")) if p.is_file()} | {
            "m": (out / "manifest.json").read_bytes()
        }

    whole = copy("whole")
    storage.kill_at = 1 << 60
    storage.reached.clear()
    try:
        renew(whole)
    finally:
        storage.kill_at = 0
    points, wanted = len(storage.reached), published(whole)
    assert points > 20
    for point in range(1, points + 1, 7):
        out = copy(f"killed_{point}")
        assert die_at(point, lambda out=out: renew(out))  # type: ignore[misc]
        renew(out)
        assert published(out) == wanted, storage.reached[:1]
        shutil.rmtree(out)


def test_lost_bytes_are_not_hidden_by_the_renewed_row(out: Path, server: Server) -> None:
    """A segment that is discarded takes its clips' MP4s with it: the renewed rows do not count without them."""
    assert recaption.main([str(out), *sets(server)]) == 0
    ledger = FrozenLedger.read(out)
    row = next(row for row in ledger.clips().to_pylist() if row["stages"][-1] == "recaption")
    assert row["segment"] != row["video_segment"]
    assert len(ledger.read_clip_bytes(row)) == row["length"]
    (out / f"_run/ledger/{row['video_segment']}.parquet").unlink()
    again = FrozenLedger.read(out)
    assert row["clip_id"] not in again.clips()["clip_id"].to_pylist()


def test_frames_from_the_mp4_are_sampled_as_the_first_pass_samples(finished: Path) -> None:
    local = publish.recipe_of(finished)
    ledger = FrozenLedger.read(finished)
    row = next(row for row in ledger.clips().to_pylist() if row["length"] is not None)
    source = finished.parent / "moved" / Path(row["video_uri"]).name
    first: Frames = frames_of(read_clip(str(source), row["start_pts"], row["end_pts"], local.limits, local.split.size), row, local.split)
    again = frames_of_mp4(ledger.read_clip_bytes(row), row, local.split, local.limits)
    assert again.rgb.shape[0] == first.rgb.shape[0]
    assert np.abs((again.time_s - again.time_s[0]) - (first.time_s - first.time_s[0])).max() <= 1 / 16
    assert again.dt_s[:-1].min() > 0
    assert len(again.signals["luma"]) == 41
    same = again.rgb[:, :: again.rgb.shape[1] // 8, :: again.rgb.shape[2] // 8][:, :8, :8].astype(int)
    assert np.abs(same - first.rgb[:, :: first.rgb.shape[1] // 8, :: first.rgb.shape[2] // 8][:, :8, :8]).mean() < 12


def test_on_ray(finished: Path, server: Server, tmp_path: Path, ray_local: None) -> None:
    """The real stream: the same command through Ray Data, and the same bytes as without it."""
    out = Path(shutil.copytree(finished, tmp_path / "out", symlinks=True))
    assert recaption.main([str(out), *sets(server)]) == 0
    assert set(captions(out).values()) == {("A round thing swings across the picture on a curved path.", "told")}
    assert verify(out).problems == []
