"""Latents of published clips: what they hold, how they are addressed, that they are committed whole, and that what is bad is said."""

import json
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from curation import storage
from curation.ledger import FrozenLedger
from curation.lock import hold
from curation.pack import manifest_files
from curation.shards import load_manifest, open_sample
from curation.sink import Ledger
from curation.storage import Storage
from pipelines import encode as command
from pipelines.encode import to_do, wanted
from pipelines.exits import Exit
from tests.curation.made_rows import die_at
from tests.curation.made_rows import published as files_of
from tests.training.data import made_clips
from tests.training.data.made_latents import EXACT, encode
from training.data.encode_clips import EncodeClips
from training.data.encoder import as_video
from training.data.grid import grid_of
from training.data.identity import EncodeSettings, identity
from training.data.index import Index, check_encoders
from training.data.latent_pack import null_of, publish
from training.data.latent_verify import verify
from training.data.pixels import pieces
from training.data.samples import read_encoded
from training.model.checkpoint import init_model, save_model
from training.model.glp import GLP
from training.model.spec import SPECS
from training.model.vision import see

SPEC = SPECS["debug"]


def test_a_sample_holds_what_the_models_own_parts_give(clips: Path, latents: Path, glp: GLP) -> None:
    index = Index.read(latents, SPEC)
    for usable in index.samples:
        document, encoded = read_encoded(index.store, usable.entry)
        sample = open_sample(clips, usable.entry.key)
        grid = grid_of(sample.document, SPEC.chunks)
        shown = list(pieces(sample.mp4, grid, SPEC.chunks, usable.size))
        assert torch.equal(encoded.latents_CFHW, glp.encode(as_video(np.concatenate(shown), "cpu"))[0])  # pieces equal the whole
        assert document["actions"] == list(grid.actions)
        assert document["chunks"] == usable.chunks == 5 * sample.document["chunks"]
        assert document["binding"] == sample.document["binding"]
        for action, text in encoded.texts.items():
            with torch.no_grad():
                assert torch.equal(text, glp.text.encode_unpadded([action])[0])
        assert len(encoded.looks) == usable.chunks
        for look, piece in zip(encoded.looks, shown, strict=False):
            sight = see(piece, SPEC.chunks.fps, SPEC.backbone.vision)
            assert torch.equal(look.sight(SPEC.backbone.vision).patches_NP, sight.patches_NP)
            assert look.seconds == sight.seconds
    assert len(index.samples) == 7


def test_the_second_run_encodes_nothing_and_changes_no_byte(clips: Path, latents: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = files_of(latents)

    def never(*_: Any) -> Any:
        raise AssertionError("it was encoded already")

    monkeypatch.setattr(EncodeClips, "__call__", never)
    encode(clips, latents, model)
    assert files_of(latents) == before


def test_a_run_elsewhere_gives_the_same_bytes(clips: Path, latents: Path, model: Path, tmp_path: Path) -> None:
    encode(clips, tmp_path, model)
    assert files_of(tmp_path) == files_of(latents)


def test_only_what_is_new_is_encoded_and_what_is_gone_is_not_published(tmp_path: Path, model: Path) -> None:
    rows = [made_clips.clip(tmp_path, v, 1) for v in range(3)]
    made_clips.published(tmp_path / "clips", rows[:2])
    first = encode(tmp_path / "clips", tmp_path / "latents", model)
    made_clips.published(tmp_path / "other", [rows[1], rows[2]])
    source, told = Storage.at(tmp_path / "other"), identity(model, SPEC, EXACT)
    due = to_do(wanted(source, load_manifest(source), told), FrozenLedger.read(tmp_path / "latents"))
    assert due["key"].to_pylist() == [rows[2]["clip_id"]]
    second = encode(tmp_path / "other", tmp_path / "latents", model)
    assert first["totals"]["clips"] == second["totals"]["clips"] == 2
    assert {s.entry.key for s in Index.read(tmp_path / "latents", SPEC).samples} == {rows[1]["clip_id"], rows[2]["clip_id"]}


def test_another_caption_or_model_or_setting_is_another_address(tmp_path: Path, model: Path) -> None:
    row = made_clips.clip(tmp_path, 1, 1)
    other = {**row, "events": [{**row["events"][0], "text": "pull it"}]}
    del other["caption_sha256"]
    made_clips.published(tmp_path / "a", [row])
    made_clips.published(tmp_path / "b", [made_clips.clip(tmp_path, 1, 1, events=other["events"])])
    save_model(tmp_path / "model", init_model(SPEC, seed=4))
    found = set()
    for clips in ("a", "b"):
        for folder in (model, tmp_path / "model"):
            for settings in (EXACT, EncodeSettings()):
                source = Storage.at(tmp_path / clips)
                [one] = wanted(source, load_manifest(source), identity(folder, SPEC, settings))
                found.add(one.address)
    assert len(found) == 8


def test_bad_samples_become_rows_with_a_reason(tmp_path: Path, model: Path) -> None:
    cut = made_clips.mp4(tmp_path, made_clips.pictures(0, 30))
    rows = [
        made_clips.clip(tmp_path, 0, 1),
        made_clips.clip(tmp_path, 1, 1, height=48, width=48),
        made_clips.clip(tmp_path, 2, 1, video_fps=15.0),
        made_clips.clip(tmp_path, 3, 1, chunks=0),
        made_clips.clip(tmp_path, 4, 1, events=[{"start_s": 0.0, "end_s": 1.0, "text": "it begins"}]),
        made_clips.clip(tmp_path, 5, 1, data=cut),
        made_clips.clip(tmp_path, 6, 1, data=b"no video at all" * 99),
        made_clips.clip(tmp_path, 7, 1),
    ]
    manifest = made_clips.published(tmp_path / "clips", rows)
    damage(tmp_path / "clips", manifest, rows[7]["clip_id"])
    made = encode(tmp_path / "clips", tmp_path / "latents", model)
    listed = {row["key"]: row for row in pq.read_table(tmp_path / "latents/samples.parquet").to_pylist()}
    reasons = [listed[row["clip_id"]]["reason"] for row in rows]
    assert reasons == [None, "too_small_px", "off_grid", "too_short", "no_action", "cut_mismatch", "unsupported_container", "bad_sample"]
    assert made["totals"]["clips"] == 1
    assert made["failed"] == {reason: 1 for reason in reasons if reason}
    assert rows[7]["clip_id"] in listed[rows[7]["clip_id"]]["detail"]
    assert verify(tmp_path / "latents").ok


def test_damage_passes_and_is_tried_again(tmp_path: Path, model: Path) -> None:
    rows = [made_clips.clip(tmp_path, v, 1) for v in range(2)]
    manifest = made_clips.published(tmp_path / "clips", rows)
    shutil.copytree(tmp_path / "clips", tmp_path / "sound", symlinks=True)
    damage(tmp_path / "clips", manifest, rows[0]["clip_id"])
    assert encode(tmp_path / "clips", tmp_path / "latents", model)["failed"] == {"bad_sample": 1}
    made = encode(tmp_path / "sound", tmp_path / "latents", model)
    assert (made["failed"], made["totals"]["clips"]) == ({}, 2)


def damage(clips: Path, manifest: dict[str, Any], key: str) -> None:
    """Flips a byte in the MP4 of one sample."""
    for shard in manifest["shards"]:
        for row in pq.read_table(clips / shard["sidecar"]["path"]).to_pylist():
            if row["key"] == key:
                data = bytearray((clips / shard["path"]).read_bytes())
                data[row["mp4_offset"] + row["mp4_size"] // 2] ^= 1
                (clips / shard["path"]).write_bytes(data)


def test_killed_at_any_write_it_ends_with_the_same_bytes(clips: Path, model: Path, tmp_path: Path) -> None:
    source, told = Storage.at(clips), identity(model, SPEC, EXACT)
    listed = wanted(source, load_manifest(source), told)
    table = EncodeClips(source, str(model), EXACT, "cpu")(to_do(listed, FrozenLedger.read(tmp_path / "none")))

    def run(out: Path) -> None:
        with hold(out, lease_s=1000) as lock:
            due = set(to_do(listed, FrozenLedger.read(out))["clip_id"].to_pylist())
            mine = table.filter([address in due for address in table["clip_id"].to_pylist()])
            Ledger(out, lock.fence, flush_rows=2, ending="safetensors").write([mine.slice(i, 1) for i in range(mine.num_rows)])
            publish(FrozenLedger.read(out), listed, {"pack": "p"}, told, b"null", lock.fence)

    storage.kill_at, whole = 1 << 60, tmp_path / "whole"
    storage.reached.clear()
    try:
        run(whole)
    finally:
        storage.kill_at = 0
    points = len(storage.reached)
    assert points > 60
    for point in sorted(random.Random(5).sample(range(1, points), 12)):
        out = tmp_path / str(point)
        assert die_at(point, lambda out=out: run(out))  # type: ignore[misc]
        if (out / "manifest.json").exists():
            assert all((out / entry["path"]).stat().st_size == entry["bytes"] for entry in manifest_files(load_manifest(out)))
        run(out)
        assert files_of(out) == files_of(whole), point
        shutil.rmtree(out)


def test_verify_finds_every_kind_of_damage(latents: Path, tmp_path: Path) -> None:
    assert verify(latents).ok
    assert verify(latents).samples == 7
    manifest = load_manifest(latents)
    shard = manifest["shards"][0]
    for name, kind in ((shard["path"], "sha256"), (shard["sidecar"]["path"], "sha256"), (manifest["files"]["null"]["path"], "sha256")):
        out = tmp_path / Path(name).name
        shutil.copytree(latents, out, symlinks=True)
        data = bytearray((out / name).read_bytes())
        data[len(data) // 2] ^= 1
        (out / name).write_bytes(data)
        assert kind in {problem.kind for problem in verify(out).problems}
    segment = next((latents / "_run/segments").iterdir())
    out = tmp_path / "segment"
    shutil.copytree(latents, out, symlinks=True)
    data = bytearray(segment.read_bytes())
    data[len(data) // 4] ^= 1
    (out / "_run/segments" / segment.name).write_bytes(data)
    assert {problem.kind for problem in verify(out).problems} == {"damaged_segment"}


def test_a_damaged_empty_text_is_found_and_the_same_command_mends_it(clips: Path, latents: Path, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "latents"
    shutil.copytree(latents, out, symlinks=True)

    def again() -> str:
        assert command.encode(str(clips), str(out), str(model), command.Settings(encode=EXACT)) is Exit.COMPLETE
        return str(load_manifest(out)["pack"])

    pack, whole = again(), null_of(Storage.at(latents), load_manifest(latents))
    in_pack = load_manifest(out)["files"]["null"]["path"]
    for names in ([in_pack], [command.NULL], [in_pack, command.NULL]):
        for name in names:
            (out / name).write_bytes(whole[:-1] + bytes([whole[-1] ^ 0x40]))
        if in_pack in names:
            with pytest.raises(ValueError, match=r"null\.safetensors: its bytes are not those .*; run the same `pan encode` again"):
                null_of(Storage.at(out), load_manifest(out))
        assert again() == pack
        assert null_of(Storage.at(out), load_manifest(out)) == whole == (out / command.NULL).read_bytes()


def test_actions_that_the_text_encoder_cuts_are_warned_of_and_the_next_command_is_told(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    texts = [f"push the red block {way}" for way in ("left", "right")]
    rows = [made_clips.clip(tmp_path, video, 1, events=[{"start_s": 0.0, "end_s": 41 / 16, "text": text}], caption=text) for video, text in enumerate(texts)]
    made_clips.published(tmp_path / "clips", rows)
    encode(tmp_path / "clips", tmp_path / "out", model)
    assert command.main([str(tmp_path / "clips"), str(tmp_path / "out"), "--model", str(model), "--set", "encode.dtype=float32"]) == Exit.COMPLETE
    told = capsys.readouterr()
    assert told.err.count("pan: warning: 2 actions (2 different texts) have more than the 15 tokens that debug hears") == 1
    assert told.out.endswith(f"next: pan train RUN --shards {tmp_path / 'out'} --model {model} --phase decoder\n")
    counts = json.loads((tmp_path / "out/_run/exit.json").read_text())["counts"]
    assert {name: counts[name] for name in ("actions_cut", "texts_cut", "texts_alike", "encoded_now")} == {
        "actions_cut": 2,
        "texts_cut": 2,
        "texts_alike": 2,
        "encoded_now": 0,
    }


def test_latents_of_other_weights_or_another_model_are_refused(latents: Path, model: Path, tmp_path: Path) -> None:
    manifest = load_manifest(latents)
    check_encoders(manifest, model)
    save_model(tmp_path / "other", init_model(SPEC, seed=4))
    with pytest.raises(ValueError, match=r"other encoders than those of .*vae\.model\.safetensors"):
        check_encoders(manifest, tmp_path / "other")
    with pytest.raises(ValueError, match=r"another model than pan_14b: .*chunk_latents: 2 -> 10"):
        Index.read(latents, SPECS["pan_14b"])


def test_documents_are_json_that_any_reader_takes(latents: Path) -> None:
    index = Index.read(latents, SPEC)
    document, _ = read_encoded(index.store, index.samples[0].entry)
    assert json.loads(json.dumps(document)) == document
    assert all(value is not None for value in document.values())


def test_wans_own_autoencoder_encodes_chunk_by_chunk_what_it_encodes_whole(clips: Path) -> None:
    from dataclasses import replace

    from training.data.encoder import Encoder
    from training.model.spec import VaeSpec
    from training.model.text import TextEncoder
    from training.model.vae import WanVae

    spec = replace(SPEC, vae=VaeSpec(base_dim=8))
    torch.manual_seed(0)
    vae, index = WanVae(spec.vae), Index.read(clips, spec)
    sample = open_sample(clips, min(index.samples, key=lambda usable: usable.chunks).entry.key)
    encoded, document = Encoder(spec, vae, TextEncoder(spec.text), EXACT).encode(sample, "address")
    grid = grid_of(sample.document, spec.chunks)
    with torch.no_grad():
        whole = vae.encode(as_video(np.concatenate(list(pieces(sample.mp4, grid, spec.chunks, (64, 64)))), "cpu"))[0]
    assert encoded.latents_CFHW.shape == (16, 11, 8, 8)
    assert torch.equal(encoded.latents_CFHW, whole)
    assert json.loads(document)["latents"] == ["float32", 16, 11, 8, 8]
