"""The loader: windows and dialogues of raw and encoded shards, the same to the bit; checked, ordered, resumed, decoded ahead."""

from collections import Counter
from pathlib import Path

import torch

from training.data.loader import Loader
from training.model.glp import GLP
from training.model.spec import SPECS

SPEC = SPECS["debug"]
L = SPEC.chunks.chunk_latents  # 2 latents, 8 frames a chunk


def test_an_epoch_holds_every_clip_once_and_the_next_another_order(latents: Path) -> None:
    loader = Loader(latents, SPEC, phase="decoder", batch=2, workers=0)
    assert loader.index.unfit == {}
    epochs = [[batch.keys for batch in loader] for _ in range(2)]
    assert loader.epoch == 2
    for seen in epochs:
        assert Counter(k for keys in seen for k in keys if k) == Counter(sample.entry.key for sample in loader.index.samples)
    assert epochs[0] != epochs[1]


def test_raw_and_encoded_shards_give_the_same_windows_and_dialogues(clips: Path, latents: Path, glp: GLP) -> None:
    raw = Loader(clips, SPEC, phase="joint", batch=2, workers=0, encoder=glp)
    made = Loader(latents, SPEC, phase="joint", batch=2, workers=0)
    compared = 0
    for one, other in zip(raw, made, strict=True):
        assert one.keys == other.keys
        for name in ("latents_BCFHW", "text_BGND", "first_B", "null_ND", "real_B"):
            assert torch.equal(getattr(one.window, name), getattr(other.window, name)), name
        assert one.dialogues is not None
        assert other.dialogues is not None
        for left, right in zip(one.dialogues, other.dialogues, strict=True):
            assert [r.action for r in left.rounds] == [r.action for r in right.rounds]
            assert all(
                torch.equal(a.sight.patches_NP, b.sight.patches_NP) and a.sight.seconds == b.sight.seconds
                for a, b in zip(left.rounds, right.rounds, strict=True)
            )
            compared += len(left.rounds)
    assert compared > 14
