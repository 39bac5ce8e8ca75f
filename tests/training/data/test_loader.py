"""The loader: windows and dialogues of raw and encoded shards, the same to the bit; checked, ordered, resumed, decoded ahead."""

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch

from curation.shards import load_manifest
from curation.storage import Storage
from tests.training.data import made_clips
from tests.training.data.made_latents import encode
from training.data.identity import EncodeSettings
from training.data.index import Index
from training.data.loader import Loader, Waiting
from training.data.samples import BadSample, Entry, read_clip, read_encoded
from training.data.windows import Batch
from training.diffusion.plan import PLANS
from training.model.glp import GLP
from training.model.spec import SPECS

SPEC = SPECS["debug"]
L = SPEC.chunks.chunk_latents  # 2 latents, 8 frames a chunk; the clips have 5, 10 or 15 chunks


def loader(folder: Path, **options: Any) -> Loader:
    """In this process, unless told otherwise."""
    return Loader(folder, SPEC, **{"phase": "decoder", "batch": 2, "workers": 0, **options})


def alike(one: Batch, other: Batch) -> bool:
    """Whether two batches are the same to the bit."""
    names = ("latents_BCFHW", "text_BGND", "first_B", "null_ND", "real_B")
    same = all(torch.equal(getattr(one.window, name), getattr(other.window, name)) for name in names)
    rounds = [[r for dialogue in batch.dialogues or () for r in dialogue.rounds] for batch in (one, other)]
    seen = len(rounds[0]) == len(rounds[1]) and all(
        a.action == b.action and a.sight.seconds == b.sight.seconds and torch.equal(a.sight.patches_NP, b.sight.patches_NP)
        for a, b in zip(*rounds, strict=True)
    )
    return one.keys == other.keys and same and seen


def test_an_epoch_holds_every_clip_once_and_the_next_another_order(latents: Path) -> None:
    made = loader(latents)
    assert made.index.unfit == {}
    assert len(made) == 4
    epochs = [[batch.keys for batch in made] for _ in range(2)]
    assert made.epoch == 2
    for seen in epochs:
        assert Counter(key for keys in seen for key in keys if key) == Counter(sample.entry.key for sample in made.index.samples)
    assert epochs[0] != epochs[1]
    assert epochs[0] == [batch.keys for batch in loader(latents)]
    assert epochs[0] != [batch.keys for batch in loader(latents, seed=1)]


def test_raw_and_encoded_shards_give_the_same_windows_and_dialogues(clips: Path, latents: Path, glp: GLP) -> None:
    raw, made = loader(clips, phase="joint", encoder=glp), loader(latents, phase="joint")
    assert all(alike(*pair) for pair in zip(raw, made, strict=True))


def test_workers_decode_ahead_what_one_process_decodes(latents: Path) -> None:
    here, ahead = loader(latents, phase="joint"), loader(latents, phase="joint", workers=2)
    assert all(alike(*pair) for pair in zip(here, ahead, strict=True))
    second = [batch.keys for batch in ahead]  # the same workers, the next epoch
    assert second == [batch.keys for batch in here]
    assert ahead.waiting.batches == 8
    assert 0 <= ahead.waiting.share <= 1
    ahead.close()


def test_a_window_is_its_chunks_behind_the_latent_before_them(latents: Path) -> None:
    index = Index.read(latents, SPEC)
    whole = {sample.entry.key: read_encoded(index.store, sample.entry) for sample in index.samples}
    firsts = 0
    for seed in range(6):
        for batch in (made := loader(latents, phase="joint", seed=seed)):
            assert batch.dialogues is not None
            assert batch.rounds_BG is not None
            for at, key in enumerate(batch.keys):
                if not key:
                    continue
                document, encoded = whole[key]
                starts = [
                    i for i in range(document["chunks"] - 1) if torch.equal(batch.window.latents_BCFHW[at], encoded.latents_CFHW[:, i * L : i * L + 2 * L + 1])
                ]
                assert len(starts) == 1, "a window begins on the grid of chunks"
                i, rounds = starts[0], batch.dialogues[at].rounds
                assert bool(batch.window.first_B[at]) == (i == 0)
                firsts += i == 0
                assert [r.action for r in rounds] == document["actions"][max(0, i + 2 - 10) : i + 2]
                assert (rounds[0].sight.seconds is None) == (i + 2 <= 10)  # the image, or where the oldest rounds fell out a chunk
                assert batch.rounds_BG[at].tolist() == [len(rounds) - 2, len(rounds) - 1]
                for chunk in (0, 1):
                    text = encoded.texts[document["actions"][i + chunk]]
                    assert torch.equal(batch.window.text_BGND[at, chunk, : len(text)], text)
                    assert not batch.window.text_BGND[at, chunk, len(text) :].any()
        assert made.epoch == 1
    assert 0 < firsts < 42


def test_where_windows_begin_follows_the_plan(latents: Path) -> None:
    from dataclasses import replace

    for share, wanted in ((0.0, False), (1.0, True)):
        plan = replace(PLANS["causal_swin"], first_share=share)
        firsts = torch.cat([batch.window.first_B[batch.real_B] for batch in loader(latents, plan=plan)])
        assert bool((firsts == wanted).all())
    one = loader(latents, plan=replace(PLANS["last_frame"], first_share=0.0), max_context=3)  # 3 latents: chunk 1 at the latest
    for batch in one:
        assert batch.window.latents_BCFHW.shape[2] == 1 + L
    assert {one._reader[(epoch, number, one._sizes[0])].place.chunk for epoch in range(5) for number in range(7)} == {1}


def test_clips_shorter_than_a_window_are_counted_not_dropped_in_silence(latents: Path) -> None:
    from dataclasses import replace

    offsets = tuple(k / 16 for k in range(7))  # a window of 7 chunks; clips of 5 have none
    made = loader(latents, plan=replace(PLANS["causal_swin"], offsets=offsets))
    assert made.index.unfit == {"shorter_than_a_window": 3}
    assert len(made.index.samples) == 4
    with pytest.raises(ValueError, match=r"no sample that model debug can use \(unfit: shorter_than_a_window 7\)"):
        loader(latents, plan=replace(PLANS["causal_swin"], offsets=tuple(k / 32 for k in range(20))))


@pytest.mark.parametrize(("world", "sequence_ranks"), [(2, 1), (3, 1), (4, 2), (4, 4)])
def test_ranks_share_an_epoch_and_those_of_a_sequence_share_samples(latents: Path, world: int, sequence_ranks: int) -> None:
    ranks = [[batch.keys for batch in loader(latents, rank=r, world=world, sequence_ranks=sequence_ranks, batch=1)] for r in range(world)]
    assert len({len(keys) for keys in ranks}) == 1
    for r in range(world):
        assert ranks[r] == ranks[r // sequence_ranks * sequence_ranks]
    seen = Counter(key for keys in ranks[::sequence_ranks] for step in keys for key in step if key)
    assert seen == Counter(sample.entry.key for sample in Index.read(latents, SPEC).samples)
    with pytest.raises(ValueError, match="no multiple"):
        loader(latents, rank=0, world=world, sequence_ranks=5)


def test_it_resumes_exactly_and_in_another_world(latents: Path) -> None:
    whole = list(loader(latents))
    half = loader(latents)
    first = [batch for _, batch in zip(range(2), half, strict=False)]
    state = half.state_dict()
    assert (state["epoch"], state["position"]) == (0, 4)
    again = loader(latents)
    again.load_state_dict(state)
    assert len(again) == 2
    assert again.epoch_steps == len(whole) == 4
    assert again.position == 4
    assert all(alike(*pair) for pair in zip([*first, *again], whole, strict=True))
    seen = Counter(key for batch in first for key in batch.keys)
    for rank in range(3):
        other = loader(latents, rank=rank, world=3, batch=1)
        other.load_state_dict(state)
        seen.update(key for batch in other for key in batch.keys if key)
        assert other.state_dict() == {**state, "epoch": 1, "position": 0, "taken": []}
    assert seen == Counter(sample.entry.key for sample in half.index.samples)


def test_what_is_prepared_but_not_handed_over_is_not_counted(latents: Path) -> None:
    ahead = loader(latents, workers=1, ahead=4)
    first = next(iter(ahead))
    assert ahead.position == len([key for key in first.keys if key]) == 2
    resumed = loader(latents)
    resumed.load_state_dict(ahead.state_dict())
    assert all(alike(*pair) for pair in zip([first, *resumed], loader(latents), strict=True))
    ahead.close()


def test_a_state_of_other_samples_or_another_seed_is_refused(latents: Path) -> None:
    state = loader(latents).state_dict()
    with pytest.raises(ValueError, match="checkpoint's seed are 0, here they are 1"):
        loader(latents, seed=1).load_state_dict(state)
    with pytest.raises(ValueError, match="checkpoint's samples"):
        loader(latents).load_state_dict({**state, "samples": "another"})


def test_a_state_of_the_same_clips_with_other_captions_is_refused(model: Path, tmp_path: Path) -> None:
    """As `pan recaption` and `pan encode` into the same folder make of them; keys, lengths and sizes stay."""
    for way in ("left", "right"):
        events = [{"start_s": 0.0, "end_s": 41 / 16, "text": f"push {way}"}]
        made_clips.published(tmp_path / way, [made_clips.clip(tmp_path, video, 1, events=events, caption=f"push {way}") for video in range(3)])
        encode(tmp_path / way, tmp_path / f"{way} latents", model)
    one, other = (loader(tmp_path / f"{way} latents") for way in ("left", "right"))
    assert [s.entry.key for s in one.index.samples] == [s.entry.key for s in other.index.samples]
    with pytest.raises(ValueError, match="checkpoint's samples"):
        other.load_state_dict(one.state_dict())
    other.load_state_dict(other.state_dict())


def test_so_many_samples_are_the_same_in_every_world(latents: Path) -> None:
    def keys(**of: int) -> Counter[str]:
        return Counter(key for batch in loader(latents, most=3, **of) for key in batch.keys if key)

    alone = keys(batch=2)
    assert len(alone) == 3
    assert keys(batch=1) == alone == keys(batch=1, rank=0, world=2) + keys(batch=1, rank=1, world=2)
    assert loader(latents, most=3).epoch_steps <= 3


def damaged(latents: Path, out: Path) -> str:
    """A copy with one flipped bit in one sample's tensors; its key."""
    shutil.copytree(latents, out, symlinks=True)
    shard = load_manifest(out)["shards"][0]
    row = pq.read_table(out / shard["sidecar"]["path"]).to_pylist()[0]
    data = bytearray((out / shard["path"]).read_bytes())
    data[row["safetensors_offset"] + row["safetensors_size"] - 1] ^= 1
    (out / shard["path"]).write_bytes(data)
    return str(row["key"])


@pytest.mark.parametrize("workers", [0, 1])
def test_a_sample_that_fails_its_check_stops_or_is_left_out_and_counted(latents: Path, tmp_path: Path, workers: int) -> None:
    key = damaged(latents, tmp_path / "latents")
    with pytest.raises(BadSample, match=rf"pan-train-000000\.tar: sample {key}: the sha256 of its safetensors.*`--set data\.bad=skip`"):
        list(loader(tmp_path / "latents", workers=workers))
    made = loader(tmp_path / "latents", workers=workers, bad="skip")
    batches = list(made)
    assert list(made.skipped) == [key]
    real = [k for batch in batches for k, real in zip(batch.keys, batch.real_B.tolist(), strict=True) if real]
    assert Counter(real) == Counter(s.entry.key for s in made.index.samples if s.entry.key != key)
    at = next(batch for batch in batches if key in batch.keys)
    assert not at.window.latents_BCFHW[at.keys.index(key)].any()
    made.close()


def test_a_changed_sidecar_or_caption_is_found(clips: Path, latents: Path, tmp_path: Path, glp: GLP) -> None:
    shutil.copytree(clips, tmp_path / "clips", symlinks=True)
    shard = load_manifest(clips)["shards"][0]
    row = pq.read_table(tmp_path / "clips" / shard["sidecar"]["path"]).to_pylist()[0]
    data = (tmp_path / "clips" / shard["path"]).read_bytes()
    (tmp_path / "clips" / shard["path"]).write_bytes(data.replace(f"push {row['video_uri'][8]} 0".encode(), b"pull %s 0" % row["video_uri"][8].encode()))
    with pytest.raises(BadSample, match=row["key"]):
        list(loader(tmp_path / "clips", encoder=glp))
    beside = tmp_path / "clips" / shard["sidecar"]["path"]
    beside.write_bytes(beside.read_bytes()[:-1] + b"?")
    with pytest.raises(BadSample, match="not those that the manifest"):
        loader(tmp_path / "clips", encoder=glp)
    with pytest.raises(ValueError, match="give the model as `encoder`"):
        loader(clips)


@pytest.mark.parametrize(("was", "is_now"), [(b'"fps": 16.0, "frames"', b'"fps": 32.0, "frames"'), (b'"start_frame": 0', b'"start_frame": 1')])
def test_a_changed_document_is_found_and_older_sidecars_are_still_read(clips: Path, tmp_path: Path, was: bytes, is_now: bytes) -> None:
    shutil.copytree(clips, tmp_path / "clips", symlinks=True)
    shard = load_manifest(clips)["shards"][0]
    row = pq.read_table(tmp_path / "clips" / shard["sidecar"]["path"]).to_pylist()[0]
    data, end = (tmp_path / "clips" / shard["path"]).read_bytes(), row["json_offset"] + row["json_size"]
    made = data[row["json_offset"] : end].replace(was, is_now)
    (tmp_path / "clips" / shard["path"]).write_bytes(data[: row["json_offset"]] + made + data[end:])
    entry, older = (Entry.of({**row, **changes}, shard["path"], "clips") for changes in ({}, {"json_sha256": None}))
    with pytest.raises(BadSample, match=rf"sample {row['key']}: the sha256 of its json is "):
        read_clip(Storage.at(tmp_path / "clips"), entry)
    assert read_clip(Storage.at(clips), entry) == read_clip(Storage.at(clips), older)
    assert entry.seals == older.seals  # what a checkpoint knows its samples by


def test_the_model_learns_from_batches_and_never_from_blanks(latents: Path, glp: GLP) -> None:
    for batch in loader(latents, phase="joint", batch=4):
        assert batch.dialogues is not None
        with torch.no_grad():
            states_BRQS = glp.predict_states(batch.dialogues)
            window = batch.with_states(states_BRQS)
            assert window.state_BGQS is not None
            for at, dialogue in enumerate(batch.dialogues):
                assert torch.equal(window.state_BGQS[at], states_BRQS[at, len(dialogue.rounds) - 2 : len(dialogue.rounds)])
            loss = glp.window_loss(window, torch.Generator().manual_seed(0), dropped=0.0)
        assert torch.isfinite(loss.loss)
        assert not loss.levels.loss_BF[~batch.real_B].any()
    assert batch.real_B.tolist() == [True, True, True, False]  # 7 clips in steps of 4
    with pytest.raises(ValueError, match="decoder phase"):
        next(iter(loader(latents))).with_states(states_BRQS)


def test_a_rank_of_blanks_alone_has_no_loss_but_a_graph(latents: Path, glp: GLP) -> None:
    *_, batch = loader(latents, batch=4, world=2, rank=1)
    *_, blanks = loader(latents, batch=1, world=4, rank=3)
    assert batch.real_B.tolist() == [True, True, True, False]
    assert blanks.real_B.tolist() == [False]
    loss = glp.window_loss(blanks.window, torch.Generator().manual_seed(0), dropped=0.0)
    assert loss.loss.item() == 0
    assert loss.loss.requires_grad


def test_waiting_is_told_without_the_workers_start() -> None:
    assert Waiting(first_s=9.0, waited_s=1.0, elapsed_s=50.0, batches=11).share == pytest.approx(0.02)
    assert Waiting(first_s=9.0, batches=1).share == 0


def test_batches_move_to_a_dtype(latents: Path) -> None:
    batch = next(iter(loader(latents))).to("cpu", torch.bfloat16)
    assert {batch.window.latents_BCFHW.dtype, batch.window.text_BGND.dtype} == {torch.bfloat16}
    assert batch.real_B.dtype == torch.bool


def test_a_batch_holds_one_shape_and_latents_without_looks_serve_the_decoder_alone(clips: Path, model: Path, tmp_path: Path) -> None:
    made = encode(clips, tmp_path, model, EncodeSettings(buckets=((64, 64), (64, 96)), vision=False))
    assert "looks" not in json.dumps(made["encoder"])
    wide = loader(tmp_path, batch=3)
    shapes = [(tuple(batch.window.latents_BCFHW.shape), sum(batch.real_B.tolist())) for batch in wide]
    assert {size: sum(n for shape, n in shapes if shape == (3, 16, 5, *size)) for size in ((8, 8), (8, 12))} == {(8, 8): 3, (8, 12): 4}
    assert len(shapes) == 3  # 3 and 4 clips in steps of 3
    with pytest.raises(ValueError, match=r"encode\.vision=true"):
        loader(tmp_path, phase="joint")
