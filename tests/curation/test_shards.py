"""Shards: the same bytes for the same samples, nothing unsafe is read, and every loader that people use reads them offline."""

import io
import json
import tarfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from curation import sample
from curation.pack import Manifest
from curation.shards import TarWriter, UnsafeShard, load_manifest, open_sample, read_members, read_shard, sidecar
from tests.curation import made_rows as made

PLAN = made.PLAN.model_copy(update={"target_bytes": 1 << 20, "val_share": 0.3})


def rows() -> list[dict[str, Any]]:
    """Ten videos of two kept clips; what only the later samples of a shard have is what trips loaders."""
    found: list[dict[str, Any]] = []
    for v in range(10):
        found += [made.clip_row(v, i) for i in range(2)] + [made.video_row(v, 2)]
    return found


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shards")
    made.curate(folder / "order", rows(), PLAN)
    last = keys(folder / "order", "train")[-1]
    odd = [
        {**row, "notes": ["hdr", "rotated_90"], "provenance": json.dumps({"collection": "late", "n": 1.5}), "quality_brisque": None, "start_s": 0.0}
        if row.get("clip_id") == last
        else row
        for row in rows()
    ]
    made.curate(folder / "out", odd, PLAN)
    assert keys(folder / "out", "train")[-1] == last
    return folder / "out"


def keys(out: Path, split: str) -> list[str]:
    """The keys of a split in the shards' order."""
    return [key for shard in load_manifest(out)["shards"] if shard["split"] == split for key in sidecar(out, shard)["key"].to_pylist()]


@pytest.fixture(scope="module")
def manifest(out: Path) -> Manifest:
    return load_manifest(out)


def test_webdataset_reads_every_sample(out: Path, manifest: Manifest) -> None:
    import webdataset

    for split in ("train", "val"):
        samples = list(webdataset.WebDataset(str(out / manifest["splits"][split]["urls"]), shardshuffle=False).decode())
        assert [s["__key__"] for s in samples] == keys(out, split)
        assert all(s["json"]["schema"] == "pan-clip/1" and s["json"]["caption"] == s["txt"] and len(s["mp4"]) == s["json"]["mp4"]["bytes"] for s in samples)


def test_wids_reads_every_sample_by_its_number(out: Path, manifest: Manifest, tmp_path: Path) -> None:
    import wids

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = wids.ShardListDataset(str(out / manifest["splits"]["train"]["index"]["path"]), cache_dir=str(tmp_path))
        assert [data[i][".json"]["clip_id"] for i in range(len(data))] == keys(out, "train")


@pytest.mark.parametrize("streaming", [False, True])
def test_hugging_face_datasets_reads_every_sample(out: Path, streaming: bool, tmp_path: Path) -> None:
    import datasets

    files = {split: str(out / "shards" / split / "*.tar") for split in ("train", "val")}
    data = datasets.load_dataset("webdataset", data_files=files, streaming=streaming, cache_dir=str(tmp_path))
    train = list(data["train"].cast_column("mp4", datasets.Video(decode=False)))
    assert [s["__key__"] for s in train] == keys(out, "train")
    assert train[-1]["json"]["notes"] == "hdr rotated_90"
    assert train[-1]["json"]["provenance"] == {
        "uri": train[-1]["json"]["source"]["uri"],
        "author": "",
        "licence": "",
        "year": "",
        "collection": "late",
        "n": "1.5",
    }
    assert list(train[0]["json"]["scores"]) == ["motion_flow"]
    assert len(list(data["val"].cast_column("mp4", datasets.Video(decode=False)))) == len(keys(out, "val"))


@pytest.mark.ray
def test_ray_data_reads_every_sample(out: Path, ray_local: None) -> None:
    import ray

    paths = [str(out / s["path"]) for s in load_manifest(out)["shards"] if s["split"] == "train"]
    found = ray.data.read_webdataset(paths, override_num_blocks=1).take_all()
    assert sorted(s["__key__"] for s in found) == sorted(keys(out, "train"))
    assert found[0]["json"]["schema"] == "pan-clip/1"


def test_every_document_follows_the_shipped_schema(out: Path) -> None:
    validator = jsonschema.Draft202012Validator(sample.schema())
    validator.check_schema(sample.schema())
    for key in keys(out, "train"):
        validator.validate(open_sample(out, key).document)


def test_a_document_says_what_the_row_says(out: Path) -> None:
    row = made.clip_row(3, 1)
    found = open_sample(out, row["clip_id"])
    doc = found.document
    assert (found.mp4, found.text) == (made.mp4_of(3, 1), "clip 1 of video 3")
    assert doc["provenance"] == {"uri": "/videos/3.mp4", "licence": "CC0", "year": "2023", "author": "", "collection": "", "n": ""}
    assert doc["rounds"] == [{"index": 0, "first_frame": 1, "last_frame": 40, "t0": 0.0625, "t1": 2.5625, "action": "it moves 1"}]
    assert doc["captions"] == [{"kind": "event", "t0": 0.0, "t1": 2.5, "text": "it moves 1"}]
    assert (doc["start_pts"], doc["end_pts"], doc["time_base"], doc["start_s"]) == (40_000, 72_800, "1/12800", 3.125)
    assert doc["decision"] == {"kept": True, "stages": ["rules", "detectors", "caption", "cut"], "thresholds_sha256": sample.digest(PLAN.thresholds)}


def test_a_clip_that_is_not_published_is_a_key_error(out: Path) -> None:
    with pytest.raises(KeyError, match="no published shard"):
        open_sample(out, "0123456789abcdef")


def test_nothing_published_is_the_users_fault(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no manifest\.json"):
        load_manifest(tmp_path)


def test_a_tar_is_reproducible_and_plain() -> None:
    def made_tar() -> bytes:
        sink = io.BytesIO()
        tar = TarWriter(sink)
        tar.add("a.json", b"{}")
        tar.add("a.mp4", bytes(700))
        tar.close()
        assert tar.size == len(sink.getvalue())
        return sink.getvalue()

    data = made_tar()
    assert data == made_tar()
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        facts = [(m.name, m.size, m.mtime, m.uid, m.gid, m.uname, m.gname, m.mode) for m in tar]
    assert facts == [("a.json", 2, 0, 0, 0, "", "", 0o444), ("a.mp4", 700, 0, 0, 0, "", "", 0o444)]
    assert [(m.name, m.offset, m.size) for m in read_members(io.BytesIO(data))] == [("a.json", 512, 2), ("a.mp4", 1536, 700)]


def hostile(*members: tuple[str, bytes, bytes], mode: str = "w") -> io.BytesIO:
    """A tar of (name, type, data)."""
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode=mode) as tar:  # type: ignore[call-overload]
        for name, kind, data in members:
            info = tarfile.TarInfo(name)
            info.type, info.size, info.linkname = kind, len(data), "/etc/passwd" if kind != tarfile.REGTYPE else ""
            tar.addfile(info, io.BytesIO(data))
    sink.seek(0)
    return sink


FILE = tarfile.REGTYPE
TRIPLE = (("a.json", FILE, b"{}"), ("a.mp4", FILE, b"x"), ("a.txt", FILE, b"t"))


@pytest.mark.parametrize(
    ("source", "word"),
    [
        (lambda: hostile(("../x.json", FILE, b"{}")), "leads out"),
        (lambda: hostile(("/x.json", FILE, b"{}")), "leads out"),
        (lambda: hostile(("x\\y.json", FILE, b"{}")), "leads out"),
        (lambda: hostile(("x\n.json", FILE, b"{}")), "control characters"),
        (lambda: hostile(("x.json", tarfile.SYMTYPE, b"")), "plain files"),
        (lambda: hostile(("x.json", tarfile.LNKTYPE, b"")), "plain files"),
        (lambda: hostile(("x.json", tarfile.CHRTYPE, b"")), "plain files"),
        (lambda: hostile(("x", tarfile.DIRTYPE, b"")), "plain files"),
        (lambda: hostile(("x.pkl", FILE, b"")), "pickles"),
        (lambda: hostile(("x.weights.PT", FILE, b"")), "pickles"),
        (lambda: hostile(("x.json", FILE, bytes(2000))), "limit of 1000"),
        (lambda: hostile(*TRIPLE, mode="w:gz"), "not a sound tar"),
        (lambda: io.BytesIO(b"<html>404</html>" * 100), "not a sound tar"),
        (lambda: io.BytesIO(hostile(*TRIPLE).getvalue()[:2048]), "ends too early"),
        (lambda: io.BytesIO(hostile(*TRIPLE).getvalue()[:1800]), "unexpected end of data"),
        (lambda: hostile(*TRIPLE[:2]), "not json, mp4, txt"),
        (lambda: hostile(*TRIPLE, *TRIPLE), "comes twice"),
        (lambda: hostile(TRIPLE[0], ("b.mp4", FILE, b""), TRIPLE[2]), "not json, mp4, txt"),
        (lambda: hostile(("a.json", FILE, b"[]"), *TRIPLE[1:]), "not a JSON object"),
        (lambda: hostile(("a.json", FILE, b"{"), *TRIPLE[1:]), "sample 'a'"),
        (lambda: hostile(*TRIPLE[:2], ("a.txt", FILE, b"\xff")), "sample 'a'"),
    ],
)
def test_a_foreign_tar_is_refused_with_the_members_name(source: Callable[[], io.BytesIO], word: str) -> None:
    with pytest.raises(UnsafeShard, match=word):
        list(read_shard(source(), limit_bytes=1000))


def test_an_empty_tar_holds_no_samples() -> None:
    assert list(read_shard(hostile())) == []
