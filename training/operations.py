"""Operations: tokens of a window and of its dialogue, and how many operations they are."""

from dataclasses import dataclass

from training.diffusion.swin import layout
from training.held import Held, assumed
from training.model import counts
from training.model.attention import Layout
from training.model.flops import forward_flops
from training.model.spec import ModelSpec

TEMPLATE = 13
"""Tokens of a round that are neither seen, said nor asked: who speaks, and where each turn and sight begins and ends."""


@dataclass(frozen=True, kw_only=True)
class Operations:
    """Of one window with its dialogue, forward and backward; a multiplication and an addition are two.

    Attributes:
        useful: what a model's utilisation is measured by; executed: with what checkpointing computes twice.
        longest: those of the executed ones that are done by the GPU that has most to do, of all that share the window.
    """

    useful: float
    executed: float
    longest: float


def share(ranks: int, *wholes: int) -> float:
    """The largest part of a whole that one of `ranks` has where each has as many entries as any other, or one less: 4 / 28 of 28 over 8."""
    return max(-(-whole // ranks) / whole for whole in wholes)


def operations(spec: ModelSpec, checkpointing: bool, action_tokens: int, sequence: int = 1, held: Held | None = None) -> Operations:
    """Of one window: the decoder learns (three times its forward), the backbone passes gradients on (twice) or learns too, its tower looks once.

    Args:
        sequence: GPUs that share a window: the tower's work is not shared.
    """
    held, tokens = held or assumed(spec, spec), tokens_per_frame(spec)
    decoder = forward_flops(spec.decoder, window(spec), tokens).total if "decoder" in held.runs else 0.0
    language, tower = backbone_flops(spec, action_tokens) if "backbone" in held.runs else (0.0, 0.0)
    times = {"decoder": 3, "language": 3 if held.hears else 2, "tower": 3 if held.sees else 1}
    useful = times["decoder"] * decoder + times["language"] * language + times["tower"] * tower
    if checkpointing:
        times = {name: count + (1 if count > 1 else 0) for name, count in times.items()}
    mine = share(sequence, tokens, spec.decoder.heads), share(sequence, dialogue_tokens(spec, action_tokens), spec.backbone.heads)
    return Operations(
        useful=useful,
        executed=times["decoder"] * decoder + times["language"] * language + times["tower"] * tower,
        longest=times["decoder"] * decoder * mine[0] + times["language"] * language * mine[1] + times["tower"] * tower,
    )


def window(spec: ModelSpec) -> Layout:
    """A full window: condition frames, then chunks, and what sees what by the model's plan."""
    return layout(spec.plan, spec.chunks)


def tokens_per_frame(spec: ModelSpec) -> int:
    """Tokens of one latent frame: 1560 at 480 x 832."""
    _, high, across = spec.decoder.patch
    return (spec.height // spec.vae.spatial // high) * (spec.width // spec.vae.spatial // across)


def sight_tokens(spec: ModelSpec) -> tuple[int, int]:
    """Tokens of the first round's picture, and of a later round's chunk: 510 and 1530 at 480 x 832."""
    from training.model.vision import fitted, sampled

    vision, chunks = spec.backbone.vision, spec.chunks
    unit = vision.patch * vision.merge
    picture, film = (fitted(spec.height, spec.width, unit, pixels) for pixels in (vision.image_pixels, vision.video_pixels))
    times = len(sampled(chunks.chunk_frames, chunks.fps, vision)) // vision.temporal_patch
    return picture[0] * picture[1] // unit**2, times * film[0] * film[1] // unit**2


def dialogue_tokens(spec: ModelSpec, action_tokens: int) -> int:
    """Tokens of a dialogue of as many rounds as the backbone remembers."""
    picture, film = sight_tokens(spec)
    rounds = spec.backbone.max_rounds
    return picture + (rounds - 1) * film + rounds * (spec.backbone.queries + action_tokens + TEMPLATE)


def backbone_flops(spec: ModelSpec, action_tokens: int) -> tuple[float, float]:
    """Operations of one forward of the language model and of the vision tower, over a whole dialogue."""
    b, tokens = spec.backbone, dialogue_tokens(spec, action_tokens)
    language = 2.0 * b.layers * tokens * (counts.language_layer(b) + tokens * b.hidden)  # causal: half of 4 * tokens^2 * hidden
    picture, film = sight_tokens(spec)
    patches = (picture + (b.max_rounds - 1) * film) * b.vision.merge**2
    near, far = (b.vision.window // b.vision.patch) ** 2, film * b.vision.merge**2 // max(1, film // picture)
    wide = len(b.vision.full_attention_layers)
    attention = 4.0 * patches * b.vision.hidden * ((b.vision.depth - wide) * near + wide * far)
    return language, 2.0 * patches * counts.vision_tower(b) + attention
