"""Pack: a pure function of ledger and verdict; every clip is in one shard or has a reason; sources never straddle splits."""

import json
import os
from pathlib import Path
from typing import Any

import pyarrow.fs
import pyarrow.parquet as pq
import pytest

from curation import pack as packing
from curation.ledger import FrozenLedger
from curation.pack import PackPlan, manifest_files, pack, split_of
from curation.shards import load_manifest, open_sample, read_table, sidecar
from curation.sink import Ledger
from curation.storage import Storage
from curation.verify import verify
from tests.curation import made_rows as made

ROWS = made.corpus(videos=8, clips=3)
PLAN = made.PLAN.model_copy(update={"val_share": 0.5})


def frozen(out: Path, rows: list[dict[str, Any]] = ROWS, **options: int) -> FrozenLedger:
    made.commit(out, rows, fence=0, **options)
    return FrozenLedger.read(out)


def shard_shas(manifest: dict[str, Any]) -> dict[str, tuple[str, str]]:
    return {shard["name"]: (shard["sha256"], shard["sidecar"]["sha256"]) for shard in manifest["shards"]}


def test_every_clip_is_in_one_shard_or_has_a_reason(tmp_path: Path) -> None:
    ledger = frozen(tmp_path)
    manifest = pack(ledger, made.kept_of(ledger), PLAN, summary={"funnel": {"rules": 24}})
    listed = read_table(tmp_path, manifest["files"]["clips"]["path"]).to_pylist()
    keys = {shard["name"]: sidecar(tmp_path, shard)["key"].to_pylist() for shard in manifest["shards"]}
    assert sorted(key for found in keys.values() for key in found) == sorted(made.kept_of(ledger))
    assert len(listed) == 24
    for row in listed:
        if row["kept"]:
            assert row["reasons"] == []
            assert row["clip_id"] in keys[f"{row['shard']}.tar"]
        else:
            assert (row["reasons"], row["shard"], row["split"]) == (["static"], None, None)
        assert row["motion_flow"] is not None
    assert manifest["totals"] == {
        "clips": 16,
        "videos": 8,
        "hours": round(16 * 32_800 / 12_800 / 3600, 6),
        "bytes": sum(s["bytes"] for s in manifest["shards"]),
    }
    assert manifest["summary"] == {"funnel": {"rules": 24}}
    assert manifest["plan"]["thresholds"] == {"motion": {"low": 0.02}}
    assert verify(tmp_path).ok


def test_every_video_is_listed_with_how_it_ended(tmp_path: Path) -> None:
    ledger = frozen(tmp_path)
    manifest = pack(ledger, made.kept_of(ledger), PLAN)
    rows = read_table(tmp_path, manifest["files"]["videos"]["path"]).to_pylist()
    ends = {row["video_uri"]: (row["status"], row["error_code"]) for row in rows}
    assert ends["/videos/100.mp4"] == ("failed", "truncated")
    assert ends["/videos/again.mp4"] == ("duplicate", "duplicate")
    assert len(ends) == 10
    assert all("cpu_s" not in (row["stats"] or "") for row in rows)


def test_a_small_file_with_other_bytes_of_the_same_length_is_written_again(tmp_path: Path) -> None:
    ledger = frozen(tmp_path)
    manifest = pack(ledger, made.kept_of(ledger), PLAN)
    place = tmp_path / manifest["files"]["clips"]["path"]
    whole = place.read_bytes()
    place.write_bytes(bytes([whole[0] ^ 1]) + whole[1:])
    assert packing.published(Storage.at(tmp_path), manifest["pack"]) is None
    assert pack(ledger, made.kept_of(ledger), PLAN) == manifest
    assert place.read_bytes() == whole


def test_no_source_straddles_the_splits(tmp_path: Path) -> None:
    ledger = frozen(tmp_path)
    pack(ledger, made.kept_of(ledger), PLAN)
    splits: dict[str, set[str]] = {}
    for shard in load_manifest(tmp_path)["shards"]:
        for video in sidecar(tmp_path, shard)["video_id"].to_pylist():
            splits.setdefault(video, set()).add(shard["split"])
    assert {tuple(found) for found in splits.values()} == {("train",), ("val",)}
    assert all(found == {split_of(video, 0.5)} for video, found in splits.items())


def test_the_share_of_val_is_about_what_is_asked() -> None:
    videos = [made.video_id(n) for n in range(4000)]
    for share in (0.0, 0.02, 0.5):
        assert sum(split_of(v, share) == "val" for v in videos) / 4000 == pytest.approx(share, abs=0.02)
    assert {split_of(v, 0.02) for v in videos if split_of(v, 0.01) == "val"} == {"val"}  # a larger share only adds


def test_shards_are_filled_to_their_target(tmp_path: Path) -> None:
    ledger = frozen(tmp_path)
    manifest = pack(ledger, made.kept_of(ledger), PLAN)
    assert len(manifest["shards"]) >= 4
    assert all(shard["bytes"] <= PLAN.target_bytes for shard in manifest["shards"])
    for split in ("train", "val"):
        names = [s["name"] for s in manifest["shards"] if s["split"] == split]
        assert names == [f"pan-{split}-{n:06d}.tar" for n in range(len(names))]
        assert manifest["splits"][split]["urls"].endswith(f"/{split}/pan-{split}-{{000000..{len(names) - 1:06d}}}.tar")
    whole = pack(ledger, made.kept_of(ledger), PLAN.model_copy(update={"target_bytes": 1 << 30}))
    assert [s["name"] for s in whole["shards"]] == ["pan-train-000000.tar", "pan-val-000000.tar"]


def test_the_seed_alone_changes_the_order(tmp_path: Path) -> None:
    ledger = frozen(tmp_path)
    one = [pack(ledger, made.kept_of(ledger), PLAN.model_copy(update={"seed": s, "target_bytes": 1 << 30})) for s in (1, 1, 2)]
    assert shard_shas(one[0]) == shard_shas(one[1]) != shard_shas(one[2])


def test_the_same_bytes_from_other_segments_fences_and_orders(tmp_path: Path) -> None:
    first = frozen(tmp_path / "a", flush_rows=2)
    made.commit(tmp_path / "b", list(reversed(ROWS)), fence=77, flush_rows=9)
    second = FrozenLedger.read(tmp_path / "b")
    for ledger in (first, second):
        pack(ledger, sorted(made.kept_of(ledger), reverse=ledger is second), PLAN)
    assert made.published(tmp_path / "a") == made.published(tmp_path / "b")


def test_links_for_people_point_at_the_published_pack(tmp_path: Path) -> None:
    ledger = frozen(tmp_path)
    manifest = pack(ledger, made.kept_of(ledger), PLAN)
    assert (tmp_path / "shards/train/pan-train-000000.tar").read_bytes() == (tmp_path / manifest["shards"][0]["path"]).read_bytes()
    assert pq.read_table(tmp_path / "clips.parquet").num_rows == 24
    assert not os.path.isabs(os.readlink(tmp_path / "shards"))


def test_a_tighter_verdict_makes_a_new_pack_and_takes_the_old_one_away(tmp_path: Path) -> None:
    ledger = frozen(tmp_path)
    kept = made.kept_of(ledger)
    before = pack(ledger, kept, PLAN)
    dropped = set(kept[:5])
    reasons = {row["clip_id"]: ["too_slow"] if row["clip_id"] in dropped else row["reject"] for row in ledger.clips().to_pylist()}
    tighter = PLAN.model_copy(update={"thresholds": {"motion": {"low": 0.9}}})
    after = pack(ledger, [c for c in kept if c not in dropped], tighter, reasons)
    assert after["pack"] != before["pack"]
    assert os.listdir(tmp_path / "packs") == [after["pack"]]
    assert after["totals"]["clips"] == before["totals"]["clips"] - 5
    listed = {row["clip_id"]: row["reasons"] for row in read_table(tmp_path, after["files"]["clips"]["path"]).to_pylist()}
    assert all(listed[clip] == ["too_slow"] for clip in dropped)
    assert verify(tmp_path).ok
    back = pack(ledger, kept, PLAN)
    assert back == before
    assert verify(tmp_path).ok


def test_zero_kept_clips_are_a_valid_empty_manifest(tmp_path: Path) -> None:
    ledger = frozen(tmp_path, [made.clip_row(0, 0, kept=False), made.video_row(0, 1)])
    manifest = pack(ledger, [], PLAN)
    assert (manifest["shards"], manifest["totals"]) == ([], {"clips": 0, "videos": 0, "hours": 0.0, "bytes": 0})
    assert manifest["splits"]["train"] == {"shards": 0, "samples": 0, "bytes": 0, "urls": None, "index": None}
    assert verify(tmp_path).ok
    nothing = frozen(tmp_path / "empty", [made.video_row(1, 0)])
    assert pack(nothing, [], PLAN)["files"]["clips"]["rows"] == 0
    assert verify(tmp_path / "empty").ok


@pytest.mark.parametrize(
    ("rows", "kept", "word"),
    [
        ([], ["0123456789abcdef"], "does not know it"),
        ([made.clip_row(0, 1)], [0, 0], "comes twice"),
        ([made.clip_row(0, 1, kept=False), made.video_row(0, 1)], [0], "has no MP4"),
        ([made.clip_row(0, 1, status="failed", error_code="decode_error"), made.video_row(0, 1)], [0], r"is failed \(decode_error\)"),
        ([made.clip_row(0, 1), made.video_row(0, 1, "failed", error_code="truncated")], [0], "judge its clips as video_failed"),
        ([made.clip_row(0, 1)], [0], "not done or failed"),
        ([made.clip_row(0, 1), made.video_row(0, 1)], [], "nothing says why"),
    ],
)
def test_what_may_not_be_published_is_refused(tmp_path: Path, rows: list[dict[str, Any]], kept: list[Any], word: str) -> None:
    ledger = frozen(tmp_path, rows)
    with pytest.raises(ValueError, match=word):
        pack(ledger, [rows[k]["clip_id"] if isinstance(k, int) else k for k in kept], PLAN)
    assert not (tmp_path / "manifest.json").exists()


def test_a_failed_clips_reason_is_its_error(tmp_path: Path) -> None:
    ledger = frozen(tmp_path, [made.clip_row(0, 0, status="failed", error_code="encode_failed", video=None), made.video_row(0, 1)])
    manifest = pack(ledger, [], PLAN)
    assert read_table(tmp_path, manifest["files"]["clips"]["path"])["reasons"].to_pylist() == [["encode_failed"]]


def test_a_finished_pack_is_recognised_and_a_lost_file_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = frozen(tmp_path)
    manifest = pack(ledger, made.kept_of(ledger), PLAN)
    before = made.published(tmp_path)
    for entry in manifest_files(manifest)[:: len(manifest["shards"])]:
        (tmp_path / entry["path"]).unlink()
        assert pack(ledger, made.kept_of(ledger), PLAN) == manifest
        assert made.published(tmp_path) == before
    monkeypatch.setattr(packing, "Build", None)  # nothing is built for what is there in full
    assert pack(ledger, made.kept_of(ledger), PLAN) == manifest


def test_new_videos_join_a_pack_of_the_same_kept_clips(tmp_path: Path) -> None:
    """A frozen list of segments binds only a pack that is asked about the same clips and videos."""
    ledger = frozen(tmp_path)
    pack(ledger, made.kept_of(ledger), PLAN)
    made.commit(tmp_path, [made.clip_row(30, 0, kept=False), made.video_row(30, 1)])
    ledger = FrozenLedger.read(tmp_path)
    manifest = pack(ledger, made.kept_of(ledger), PLAN)
    assert manifest["files"]["clips"]["rows"] == 25
    assert manifest["files"]["videos"]["rows"] == 11


def test_in_an_object_store(tmp_path: Path) -> None:
    local = frozen(tmp_path / "local")
    wanted = pack(local, made.kept_of(local), PLAN)
    out = Storage(tmp_path / "bucket", pyarrow.fs.LocalFileSystem())
    Ledger(out, 1).write([made.table(ROWS)])
    ledger = FrozenLedger.read(out)
    assert pack(ledger, made.kept_of(ledger), PLAN) == wanted
    assert verify(out).ok
    assert open_sample(out, made.kept_of(ledger)[0]).key == made.kept_of(ledger)[0]


def test_a_manifest_names_no_time_host_or_segment(tmp_path: Path) -> None:
    ledger = frozen(tmp_path)
    text = json.dumps(pack(ledger, made.kept_of(ledger), PLAN))
    assert not any(segment.id in text for segment in ledger.segments)
    assert str(tmp_path) not in text


def test_defaults() -> None:
    plan = PackPlan()
    assert (plan.target_bytes, plan.val_share, plan.seed) == (1 << 30, 0.02, 0)
