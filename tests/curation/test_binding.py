"""Binding: a caption that is not its clip's is found, wherever on the way from the model's answer to the sample it was exchanged."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from curation.binding import Unbound, check, faults, seal
from curation.ledger import FrozenLedger
from curation.pack import manifest_files, pack
from curation.sample import to_json
from curation.segments import DamagedSegment
from curation.shards import Sample, TarWriter, load_manifest, open_sample, parquet_bytes, read_shard, read_table
from curation.storage import Storage
from curation.verify import verify
from tests.curation import made_rows as made

CAPTION = ("events", "caption", "caption_backend", "prompt_version", "structure", "frames_sha256")
KEPT = [(0, 1), (1, 0), (1, 1), (2, 0)]


def answered(video: int, index: int) -> dict[str, Any]:
    """A kept clip whose caption a model wrote."""
    row = made.clip_row(video, index)
    row["events"] = [{"start_s": 0.0, "end_s": 2.5, "text": f"it moves {video} {index}"}]
    record = {"clip_id": row["clip_id"], "frames_sha256": row["frames_sha256"], "prompt_version": "captions/1", "text": row["caption"]}
    row |= {"caption_backend": "a model", "prompt_version": "captions/1", "structure": to_json({"caption": row["caption"]}), "answers": [json.dumps(record)]}
    return row | {"caption_sha256": seal(row)}


def rows() -> list[dict[str, Any]]:
    return [*(answered(v, i) for v, i in KEPT), made.video_row(0, 2), made.video_row(1, 2), made.video_row(2, 1), made.clip_row(0, 0, kept=False)]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    made.curate(tmp_path / "out", rows(), made.PLAN.model_copy(update={"target_bytes": 1 << 20, "val_share": 0.0}))
    return tmp_path / "out"


def samples(out: Path) -> list[Sample]:
    (shard,) = load_manifest(out)["shards"]
    with (out / shard["path"]).open("rb") as source:
        return [sample for sample, _ in read_shard(source)]


def put_back(out: Path, changed: list[Sample]) -> None:
    """Writes the shard and its sidecar again with these samples, and makes every checksum agree, as a writer would that mixed them up."""
    manifest = load_manifest(out)
    (shard,) = manifest["shards"]
    with (out / shard["path"]).open("wb") as sink:
        tar = TarWriter(sink)
        for sample in changed:
            for ending, data in (("json", to_json(sample.document).encode()), ("mp4", sample.mp4), ("txt", sample.text.encode())):
                tar.add(f"{sample.key}.{ending}", data)
        tar.close()
    places = {m.name: m for m in tar.members}
    table = read_table(out, shard["sidecar"]["path"])
    listed = {row["key"]: row for row in table.to_pylist()}
    for sample in changed:
        row = listed[sample.key]
        row |= {name: sample.document[name] for name in ("caption", "caption_sha256", "binding")}
        for ending in ("json", "mp4", "txt"):
            row |= {f"{ending}_offset": places[f"{sample.key}.{ending}"].offset, f"{ending}_size": places[f"{sample.key}.{ending}"].size}
    (out / shard["sidecar"]["path"]).write_bytes(parquet_bytes(type(table).from_pylist(list(listed.values()), schema=table.schema)))
    for entry in manifest_files(manifest):
        entry["sha256"], entry["bytes"] = Storage(out).sha256(entry["path"]), (out / entry["path"]).stat().st_size
    shard["md5"] = tar.md5.hexdigest()
    index = manifest["splits"]["train"]["index"]
    if index:
        wids = json.loads((out / index["path"]).read_text())
        wids["shardlist"] = [{"url": shard["name"], "md5sum": shard["md5"], "nsamples": shard["samples"], "filesize": shard["bytes"]}]
        (out / index["path"]).write_text(json.dumps(wids))
        index["sha256"], index["bytes"] = Storage(out).sha256(index["path"]), (out / index["path"]).stat().st_size
    (out / "manifest.json").write_text(json.dumps(manifest))


def swapped(found: list[Sample], keys: tuple[str, ...], text: bool = True) -> list[Sample]:
    """The first two samples with these keys of their documents exchanged, and their .txt too."""
    one, two, *rest = found
    documents = [{**a.document, **{k: b.document[k] for k in keys}} for a, b in ((one, two), (two, one))]
    texts = (two.text, one.text) if text else (one.text, two.text)
    return [replace(one, document=documents[0], text=texts[0]), replace(two, document=documents[1], text=texts[1]), *rest]


def test_a_sound_output_is_bound_from_end_to_end(out: Path) -> None:
    assert verify(out).problems == []
    ledger = {row["clip_id"]: row for row in FrozenLedger.read(out).clips().to_pylist()}
    (shard,) = load_manifest(out)["shards"]
    sidecar = {row["key"]: row for row in read_table(out, shard["sidecar"]["path"]).to_pylist()}
    for sample in samples(out):
        check(sample)
        check(open_sample(out, sample.key))
        doc, row = sample.document, ledger[sample.key]
        assert faults(row) == []
        assert doc["frames_sha256"] == row["frames_sha256"] == json.loads(row["answers"][0])["frames_sha256"]
        assert doc["caption_sha256"] == row["caption_sha256"] == sidecar[sample.key]["caption_sha256"]
        assert doc["structure"] == row["structure"]
        assert doc["binding"] == sidecar[sample.key]["binding"]


WHOLE = ("caption", "captions", "rounds", "structure", "frames_sha256", "caption_backend", "prompt_version")


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        (("caption", "captions", "rounds"), True),
        (WHOLE, True),
        ((*WHOLE, "caption_sha256"), True),
        ((*WHOLE, "caption_sha256", "binding"), True),
        (("captions", "rounds"), False),
        (("rounds",), False),
        (("structure",), False),
        (("frames_sha256",), False),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, tuple) else str(value),
)
def test_captions_exchanged_in_a_shard_are_found_though_every_checksum_agrees(out: Path, keys: tuple[str, ...], text: bool) -> None:
    changed = swapped(samples(out), keys, text)
    put_back(out, changed)
    report = verify(out)
    named = {p.where.rpartition(":")[2] for p in report.problems if p.kind == "unbound"}
    assert named == {changed[0].key, changed[1].key}
    assert {p.kind for p in report.problems} <= {"unbound", "ledger"}  # no checksum has noticed; the ledger misses two sound samples
    for sample in samples(out)[:2]:
        with pytest.raises(Unbound, match=sample.key):
            check(sample)
    for sample in samples(out)[2:]:
        check(sample)


def test_samples_whose_mp4_or_key_was_exchanged_are_found(out: Path) -> None:
    one, two = samples(out)[:2]
    with pytest.raises(Unbound, match="MP4"):
        check(replace(one, mp4=two.mp4))
    with pytest.raises(Unbound, match="about clip"):
        check(replace(one, key=two.key))
    with pytest.raises(Unbound, match=r"\.txt"):
        check(replace(one, text=two.text))
    with pytest.raises(Unbound, match="bound together"):
        check(replace(one, mp4=two.mp4, document={**one.document, "mp4": two.document["mp4"]}))
    with pytest.raises(Unbound, match="lacks 'binding'"):
        check(replace(one, document={k: v for k, v in one.document.items() if k != "binding"}))


def exchange(names: tuple[str, ...]) -> Callable[[list[dict[str, Any]]], None]:
    """Exchanges columns of the first two rows."""

    def change(found: list[dict[str, Any]]) -> None:
        one, two = found[:2]
        for name in names:
            one[name], two[name] = two[name], one[name]

    return change


@pytest.mark.parametrize(
    "names",
    [
        ("caption",),
        ("events",),
        ("structure",),
        ("events", "caption"),
        CAPTION,
        (*CAPTION, "answers"),
        (*CAPTION, "caption_sha256"),
        (*CAPTION, "caption_sha256", "answers"),
    ],
    ids="-".join,
)
def test_captions_exchanged_in_the_ledger_are_never_packed(tmp_path: Path, names: tuple[str, ...]) -> None:
    """As a batch that came back in another order would: the segment is taken out, and its clips are done again."""
    wrong = rows()
    exchange(names)(wrong)
    segments = made.commit(tmp_path, wrong, flush_rows=100)
    ledger = FrozenLedger.read(tmp_path)
    with pytest.raises(DamagedSegment, match="caption"):
        pack(ledger, made.kept_of(ledger), made.PLAN)
    assert not (tmp_path / "manifest.json").exists()
    assert not (tmp_path / f"_run/ledger/{segments[0]}.parquet").exists()
    assert made.curate(tmp_path, rows())["totals"]["clips"] == len(KEPT)


def test_answers_exchanged_alone_are_found_too(tmp_path: Path) -> None:
    wrong = rows()
    exchange(("answers",))(wrong)
    made.commit(tmp_path, wrong, flush_rows=100)
    ledger = FrozenLedger.read(tmp_path)
    with pytest.raises(DamagedSegment, match="no model's answer"):
        pack(ledger, made.kept_of(ledger), made.PLAN)


def test_an_answer_about_another_clip_with_the_same_pictures() -> None:
    row = answered(0, 1)
    record = json.loads(row["answers"][0]) | {"clip_id": "f" * 16}
    assert faults(row | {"answers": [json.dumps(record)]}) == [f"the answer that its caption was made of is about clip {'f' * 16}"]


def test_a_caption_without_a_seal_is_refused(tmp_path: Path) -> None:
    made.commit(tmp_path, [made.clip_row(0, 1, caption_sha256=None), made.video_row(0, 1)])
    ledger = FrozenLedger.read(tmp_path)
    with pytest.raises(ValueError, match="pan recaption"):
        pack(ledger, made.kept_of(ledger), made.PLAN)


def test_the_seal_covers_every_part() -> None:
    row = answered(0, 1)
    other = answered(1, 0)
    assert len({seal(row), *(seal({**row, name: other[name]}) for name in ("clip_id", "video_id", "frames_sha256", "events", "caption", "structure"))}) == 7
