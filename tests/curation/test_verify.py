"""Verify: a sound output has no problems; each kind of damage is found and named."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from curation.pack import manifest_files
from curation.sample import binding_of, seal_of, to_json
from curation.shards import TarWriter, load_manifest, parquet_bytes, read_shard, read_table
from curation.storage import Storage
from curation.verify import Report, verify
from tests.curation import made_rows as made

PLAN = made.PLAN.model_copy(update={"val_share": 0.5})


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("good") / "out"
    made.curate(out, made.corpus(), PLAN)
    return out


@pytest.fixture
def out(good: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(good, tmp_path / "out", symlinks=True))


def kinds(report: Report) -> set[str]:
    return {problem.kind for problem in report.problems}


def shards(out: Path, split: str = "train") -> list[dict[str, Any]]:
    return [shard for shard in load_manifest(out)["shards"] if shard["split"] == split]


def reseal(out: Path, path: str) -> None:
    """Makes the manifest agree with a changed file, as a forger or a broken writer would."""
    manifest = json.loads((out / "manifest.json").read_text())
    entry = next(e for e in manifest_files(manifest) if e["path"] == path)
    entry["sha256"], entry["bytes"] = Storage(out).sha256(path), (out / path).stat().st_size
    (out / "manifest.json").write_text(json.dumps(manifest))


def rewrite(out: Path, shard: dict[str, Any], change: Callable[[dict[str, Any]], None]) -> None:
    """Writes a shard again with each document changed."""
    with (out / shard["path"]).open("rb") as source:
        samples = [sample for sample, _ in read_shard(source)]
    with (out / shard["path"]).open("wb") as sink:
        tar = TarWriter(sink)
        for sample in samples:
            change(sample.document)
            tar.add(f"{sample.key}.json", to_json(sample.document).encode())
            tar.add(f"{sample.key}.mp4", sample.mp4)
            tar.add(f"{sample.key}.txt", sample.text.encode())
        tar.close()
    reseal(out, shard["path"])


@pytest.mark.parametrize("fast", [False, True])
def test_a_sound_output_has_no_problem(good: Path, fast: bool) -> None:
    report = verify(good, fast)
    assert report.to_dict()["problems"] == []
    assert report.ok
    manifest = load_manifest(good)
    assert len(manifest["shards"]) > 3
    assert {shard["split"] for shard in manifest["shards"]} == {"train", "val"}
    assert report.files == 2 * len(manifest["shards"]) + 3 + 2
    assert report.samples == (0 if fast else manifest["totals"]["clips"])
    json.dumps(report.to_dict(), allow_nan=False)


def test_nothing_published(tmp_path: Path) -> None:
    assert kinds(verify(tmp_path)) == {"no_manifest"}
    (tmp_path / "manifest.json").write_text("{}")
    assert kinds(verify(tmp_path)) == {"no_manifest"}
    (tmp_path / "manifest.json").write_text("{")
    assert kinds(verify(tmp_path)) == {"no_manifest"}


def test_a_missing_and_a_cut_shard_are_found_by_size_alone(out: Path) -> None:
    first, second = shards(out)[:2]
    (out / first["path"]).unlink()
    data = (out / second["path"]).read_bytes()
    (out / second["path"]).write_bytes(data[:-1024])
    report = verify(out, fast=True)
    assert [(p.kind, p.where) for p in report.problems] == [("missing", first["path"]), ("size", second["path"])]


def test_one_flipped_bit_is_found(out: Path) -> None:
    path = shards(out)[0]["path"]
    data = bytearray((out / path).read_bytes())
    data[4000] ^= 1
    (out / path).write_bytes(data)
    assert verify(out, fast=True).ok
    report = verify(out)
    assert ("sha256", path) in {(p.kind, p.where) for p in report.problems}
    assert kinds(report) == {"sha256", "ledger"}  # its clips are kept, but in no sound sample


def test_a_tar_cut_at_a_sample_is_found_even_if_the_manifest_agrees(out: Path) -> None:
    shard = shards(out)[0]
    with (out / shard["path"]).open("rb") as source:
        places = [members for _, members in read_shard(source)]
    data = (out / shard["path"]).read_bytes()
    (out / shard["path"]).write_bytes(data[: places[1]["json"].offset - 512])
    reseal(out, shard["path"])
    assert {"bad_shard", "sidecar", "ledger"} <= kinds(verify(out))


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda doc: doc.pop("rounds"), "'rounds' is a required property"),
        (lambda doc: doc.update(extra=1), "unexpected"),
        (lambda doc: doc.update(chunks="1"), "chunks"),
        (lambda doc: doc["provenance"].update(year=2020), "provenance/year"),
        (lambda doc: doc.update(caption="another"), "the caption is not the .txt member"),
        (lambda doc: doc["mp4"].update(sha256="0" * 64), "sha256"),
        (lambda doc: doc.update(clip_id="0123456789abcdef"), "about clip 0123456789abcdef"),
    ],
)
def test_a_document_that_is_not_the_schemas(out: Path, change: Callable[[dict[str, Any]], None], word: str) -> None:
    rewrite(out, shards(out)[0], change)
    report = verify(out)
    assert any(word in p.what for p in report.problems if p.kind == "bad_sample"), report.problems


def test_a_clip_in_two_shards(out: Path) -> None:
    first, second = shards(out)[:2]
    shutil.copy(out / first["path"], out / second["path"])
    reseal(out, second["path"])
    twice = [p for p in verify(out).problems if p.kind == "duplicate_key"]
    assert len(twice) == first["samples"]
    assert twice[0].what == f"it is in {first['path']} and in {second['path']}"


def test_a_split_leak_is_named(out: Path) -> None:
    train, val = shards(out)[0], shards(out, "val")[0]
    with (out / train["path"]).open("rb") as source:
        video = next(sample.document["video_id"] for sample, _ in read_shard(source))

    def moved(doc: dict[str, Any]) -> None:
        """The document as if its clip had always been of that video."""
        events = [(c["t0"], c["t1"], c["text"]) for c in doc["captions"]]
        sealed = seal_of(doc["clip_id"], video, doc["frames_sha256"], events, doc["caption"], doc["structure"])
        doc.update(video_id=video, caption_sha256=sealed, binding=binding_of(sealed, doc["mp4"]["sha256"]))

    rewrite(out, val, moved)
    leaks = [p for p in verify(out).problems if p.kind == "split_leak"]
    assert [(p.where, p.what) for p in leaks] == [(video, "clips in train and val")]


def test_a_sidecar_that_points_elsewhere(out: Path) -> None:
    path = shards(out)[0]["sidecar"]["path"]
    table = read_table(out, path)
    at = table.column_names.index("mp4_offset")
    moved = table.set_column(at, "mp4_offset", pa.array([o + 512 for o in table["mp4_offset"].to_pylist()], pa.int64()))
    (out / path).write_bytes(parquet_bytes(moved))
    reseal(out, path)
    report = verify(out)
    assert kinds(report) == {"sidecar"}
    assert ".mp4 is said to lie at" in report.problems[0].what


def test_the_ledger_and_the_manifest_disagree(out: Path) -> None:
    made.commit(out, [made.clip_row(50, 0), made.video_row(50, 1)], fence=9)
    assert verify(out).ok  # committed after the pack: no part of it
    for path in sorted((out / "_run/ledger").iterdir()):
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 4
        path.write_bytes(data)
    assert kinds(verify(out)) == {"damaged_segment"}
    shutil.rmtree(out / "_run/ledger")
    assert kinds(verify(out)) == {"damaged_segment"}
    (out / "_run/pack_plan.json").unlink()
    assert kinds(verify(out)) == {"ledger"}


def test_damaged_clip_bytes_in_a_segment(out: Path) -> None:
    path = max((out / "_run/segments").iterdir(), key=lambda p: p.stat().st_size)
    data = bytearray(path.read_bytes())
    data[600] ^= 1
    path.write_bytes(data)
    report = verify(out)
    assert kinds(report) == {"damaged_segment"}
    assert path.stem in report.problems[0].where


def test_a_file_that_nobody_lists(out: Path) -> None:
    folder = out / Path(shards(out)[0]["path"]).parent
    (folder / "pan-train-000099.tar").write_bytes(bytes(1024))
    assert [(p.kind, Path(p.where).name) for p in verify(out, fast=True).problems] == [("unlisted", "pan-train-000099.tar")]
