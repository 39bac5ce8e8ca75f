"""Small backbones with lively weights, and dialogues to show them."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from training.model.backbone import Backbone
from training.model.dialogue import Dialogue, Round
from training.model.spec import SPECS, BackboneSpec, SpecialIds
from training.model.tokens import NAMES
from training.model.vision import Frames_THWC, see

SPEC = SPECS["debug"].backbone
#: A chunk of so many frames at so many a second.
FRAMES, FPS = 8, 16.0


def lively(spec: BackboneSpec = SPEC, seed: int = 0, **options: Any) -> Backbone:
    """A backbone of random weights of variance 1 / fan-in, so that each input tells in the output; in evaluation mode."""
    torch.manual_seed(seed)
    backbone = Backbone(spec, **options).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in backbone.named_parameters():
            if weight.ndim > 1:
                spread = 1.0 if "embed" in name and weight.ndim == 2 else weight[0].numel() ** -0.5
                weight.copy_(torch.randn(weight.shape, generator=generator) * spread)
            elif name.endswith("bias"):
                weight.copy_(torch.randn(weight.shape, generator=generator) * 0.1)
    return backbone


def frames(seed: int, count: int = FRAMES, height: int = 64, width: int = 64) -> Frames_THWC:
    """Noise, uint8 [T, H, W, 3]."""
    return np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def shown(seed: int, rounds: int) -> list[tuple[Frames_THWC, float, str]]:
    """What a session is told: a picture first, then chunks of unlike sizes; each with words of unlike length."""
    sizes = [(64, 64), (64, 100), (120, 64)]
    first = (frames(seed, 1), FPS, f"go {seed}")
    return [first, *((frames(seed + r, FRAMES + 8 * (r % 2), *sizes[r % 3]), FPS, "on" + " and on" * (r % 3)) for r in range(1, rounds))]


def told(rounds: list[tuple[Frames_THWC, float, str]], spec: BackboneSpec = SPEC) -> Dialogue:
    """The dialogue of what a session is told."""
    return Dialogue(tuple(Round(see(seen, fps, spec.vision), action) for seen, fps, action in rounds))


def dialogue(seed: int, rounds: int, spec: BackboneSpec = SPEC) -> Dialogue:
    """A dialogue of so many rounds."""
    return told(shown(seed, rounds), spec)


def spec(**changes: Any) -> BackboneSpec:
    """The debug backbone's, changed."""
    return replace(SPEC, **changes)


def bpe(folder: Path) -> SpecialIds:
    """Trains a byte-level BPE, writes its tokenizer.json with Qwen's special tokens into `folder`, and returns their ids."""
    from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, trainers

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False)
    made.train_from_iterator(["system\nYou are a helpful assistant.", "user\nmove the cup", "assistant\n"] * 4, trainer)
    made.add_special_tokens([AddedToken(name, special=True) for name in NAMES.values()])
    made.save(str(folder / "tokenizer.json"))
    return SpecialIds(**{field: made.token_to_id(name) for field, name in NAMES.items()})
