"""Near duplicates through a whole run: a smaller copy of a clip falls, its group is recorded, and a policy or a threshold brings it back without a decode."""

import json
from pathlib import Path

import cv2
import pyarrow.parquet as pq
import pytest

from pipelines import curate, rejudge
from tests.pipelines.conftest import acting, write

SETS = ["--set", "dedup.enabled=true", "--set", "filters.scene_text.enabled=false", "--set", "filters.content.enabled=false", "--set", "pack.val_share=0.5"]


def clips(out: Path) -> dict[str, list[dict[str, object]]]:
    """Rows of the published clip table by the video's name."""
    found: dict[str, list[dict[str, object]]] = {}
    for row in pq.read_table(out / "clips.parquet").to_pylist():
        if "remainder" not in row["reasons"]:
            found.setdefault(Path(row["video_uri"]).name, []).append(row)
    return found


@pytest.mark.ray
def test_the_best_copy_stays_and_groups_never_straddle(tmp_path: Path, ray_local: object) -> None:
    videos, out = tmp_path / "videos", tmp_path / "out"
    write(videos / "large.mp4", acting(1, 2.7))
    write(videos / "small.mp4", (cv2.resize(p, (240, 180), interpolation=cv2.INTER_AREA) for p in acting(1, 2.7)))
    write(videos / "other.mp4", acting(50, 2.7))
    assert curate.main([str(videos), "--out", str(out), *SETS]) == 0
    found = clips(out)
    assert [row["reasons"] for name in ("large.mp4", "small.mp4", "other.mp4") for row in found[name]] == [[], ["near_duplicate"], []]
    groups = pq.read_table(out / "shards" / "duplicates.parquet").to_pylist()
    assert [(row["best"], row["kind"]) for row in sorted(groups, key=lambda row: not row["best"])] == [(True, "near"), (False, "near")]
    assert {row["clip_id"] for row in groups} == {found[name][0]["clip_id"] for name in ("large.mp4", "small.mp4")}
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["summary"]["reasons"]["near_duplicate"] == 1
    assert "embedding" not in pq.read_schema(out / "clips.parquet").names

    assert rejudge.main([str(out), "--set", "dedup.policy=keep"]) == 0
    again = clips(out)
    assert all(row["kept"] for rows in again.values() for row in rows)
    assert again["large.mp4"][0]["split"] == again["small.mp4"][0]["split"]
    stats = [json.loads(text)["frames_decoded"] for text in pq.read_table(out / "videos.parquet")["stats"].to_pylist()]
    assert rejudge.main([str(out), "--set", "dedup.policy=keep", "--set", "dedup.similarity=0.999"]) == 0
    assert pq.read_table(out / "shards" / "duplicates.parquet").num_rows == 0
    assert [json.loads(text)["frames_decoded"] for text in pq.read_table(out / "videos.parquet")["stats"].to_pylist()] == stats
