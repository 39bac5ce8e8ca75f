"""The parts of a model, as data: decoder, backbone, autoencoder, text encoder, connector, window; their defaults are the published 7B and 14B's.

Nothing imports torch. Source of the published numbers: Wan2.1's `wan/configs`, and the config.json of Qwen2.5-VL-7B-Instruct and of umT5-xxl.
"""

import math
from dataclasses import dataclass, field
from typing import Literal

from training.model.plain import must


def _above_0(what: str, spec: object, *names: str) -> None:
    """Raises ValueError where one of the numbers is not finite and above 0."""
    for name in names:
        number = getattr(spec, name)
        must(0 < number < math.inf, f"{what}: {name} {number}; it must be above 0")


@dataclass(frozen=True, kw_only=True)
class DecoderSpec:
    """g, the video decoder: Wan2.1's diffusion transformer, with a second cross-attention stream for the latent state.

    Raises:
        ValueError: a number that is not above 0, `dim` is no multiple of `heads`, or a head's width is odd or under 6 (the rotation has three axes).
    """

    dim: int
    ffn: int
    heads: int
    layers: int
    in_channels: int = 16
    out_channels: int = 16
    patch: tuple[int, int, int] = (1, 2, 2)
    """(latent frames, rows, columns) a token covers; the first must be 1, since a timestep belongs to a latent frame."""
    text_dim: int = 4096
    text_tokens: int = 512
    """Text is zero-padded to so many tokens, and the zeros are attended, as in Wan's training."""
    freq_dim: int = 256
    eps: float = 1e-6
    rope_theta: float = 10000.0
    state_dim: int | None = 3584
    """Width of a state's queries; None for a decoder without a state stream (PAN's first phase, Wan itself)."""
    queries: int = 256
    state_norm: Literal["shared", "own"] = "shared"
    """What the state's stream asks from: `norm3`, as the text's, or a norm of its own that begins as a copy of it. The paper does not say."""
    state_projection: Literal["shared", "each"] = "shared"
    """One linear map from states to the decoder's width for all blocks, or one for each block. The paper does not say."""

    def __post_init__(self) -> None:
        _above_0("decoder", self, "dim", "ffn", "heads", "layers", "text_tokens", "freq_dim", "queries")
        must(self.dim % self.heads == 0, f"decoder: dim {self.dim} is not divisible by heads {self.heads}; make dim a multiple of heads")
        must(self.head_dim % 2 == 0 and self.head_dim >= 6, f"decoder: a head is {self.head_dim} wide (dim/heads); it must be even and at least 6")
        must(self.patch[0] == 1, f"decoder: patch {self.patch} joins latent frames; its first number must be 1, since each frame has its own timestep")

    @property
    def head_dim(self) -> int:
        """A head's width, 128 in both of Wan's."""
        return self.dim // self.heads


@dataclass(frozen=True, kw_only=True)
class VisionSpec:
    """h, Qwen2.5-VL's vision tower; `config.json` of the hub leaves some of these to defaults that transformers has changed, so all are given."""

    depth: int = 32
    hidden: int = 1280
    intermediate: int = 3420
    heads: int = 16
    patch: int = 14
    """px."""
    temporal_patch: int = 2
    """Frames."""
    merge: int = 2
    """Patches a side of what becomes one token."""
    window: int = 112
    """px a side of an attention window."""
    full_attention_layers: tuple[int, ...] = (7, 15, 23, 31)
    tokens_per_second: int = 2
    """Temporal positions a second of video, in M-RoPE."""
    sample_fps: float = 2.0
    """Frames a second that are looked at."""
    min_frames: int = 4
    max_frames: int = 768
    rounding: Literal["ceil", "floor"] = "ceil"
    """To a multiple of `temporal_patch`: a chunk of 40 frames at 16 a second is 6 frames by "ceil" (PAN's 1530 tokens a state), 4 by "floor" (transformers)."""
    places: Literal["ends", "even"] = "ends"
    """ends: the first and the last frame and what lies evenly between, so that the newest is seen (Qwen's own); even: each share's first (transformers)."""
    image_pixels: tuple[int, int] = (56 * 56, 28 * 28 * 16384)
    """Fewest and most px of a picture after it has been resized. Source: preprocessor_config.json of Qwen2.5-VL-7B-Instruct."""
    video_pixels: tuple[int, int] = (128 * 28 * 28, 768 * 28 * 28)
    """The same for each frame of a video. Source: Qwen's vision_process.py."""


@dataclass(frozen=True, kw_only=True)
class SpecialIds:
    """The token ids that the dialogue's template is made of; the defaults are Qwen2.5-VL's."""

    pad: int = 151643
    start: int = 151644
    end: int = 151645
    vision_start: int = 151652
    vision_end: int = 151653
    vision: int = 151654
    image: int = 151655
    video: int = 151656


@dataclass(frozen=True, kw_only=True)
class BackboneSpec:
    """f, Qwen2.5-VL's language model with learned query embeddings, and its vision tower h.

    Raises:
        ValueError: a number that is not above 0, the M-RoPE sections do not fill half a head, or query heads are no multiple of key/value heads.
    """

    hidden: int = 3584
    layers: int = 28
    heads: int = 28
    kv_heads: int = 4
    intermediate: int = 18944
    vocab: int = 152064
    mrope_section: tuple[int, int, int] = (16, 24, 24)
    rope_theta: float = 1e6
    eps: float = 1e-6
    max_positions: int = 128000
    vision: VisionSpec = field(default_factory=VisionSpec)
    ids: SpecialIds = field(default_factory=SpecialIds)
    queries: int = 256
    query_std: float = 0.02
    """Standard deviation of a new query's entries; not published."""
    max_rounds: int = 10
    feedback: Literal["queries", "hidden"] = "queries"
    """What later rounds find at an earlier round's queries: the queries themselves, or the state that was predicted there."""
    final_norm: bool = True
    """Are states the hidden states behind the language model's final norm, or those before it? The paper does not say."""
    system: str = "You are a helpful assistant."
    """Qwen's own system prompt."""
    lm_head: bool = False
    """Keep the layer from hidden states to words; only a model that learns to caption needs it (0.545 B parameters in the 7B model)."""

    def __post_init__(self) -> None:
        _above_0("backbone", self, "hidden", "layers", "heads", "kv_heads", "queries", "max_rounds", "max_positions")
        must(
            self.hidden % self.heads == 0 and self.heads % self.kv_heads == 0,
            f"backbone: hidden, heads, kv_heads are {self.hidden}, {self.heads}, {self.kv_heads}: each must divide the one before",
        )
        half = self.hidden // self.heads // 2
        must(sum(self.mrope_section) == half, f"backbone: mrope_section {self.mrope_section} adds up to {sum(self.mrope_section)}, not to half a head, {half}")


# Source: Wan-Video/Wan2.1, wan/modules/vae.py: the mean and standard deviation of each latent channel.
WAN_MEAN = (-0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508, 0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921)
WAN_STD = (2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743, 3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160)


@dataclass(frozen=True, kw_only=True)
class VaeSpec:
    """The video autoencoder: Wan's, or a small causal one of ours.

    Raises:
        ValueError: `mean` or `std` has not one entry a channel, or a deviation is not above 0.
    """

    kind: Literal["wan", "small"] = "wan"
    channels: int = 16
    temporal: int = 4
    """Pixel frames a latent frame, but for the first, which is one."""
    spatial: int = 8
    base_dim: int = 96
    mean: tuple[float, ...] = WAN_MEAN
    std: tuple[float, ...] = WAN_STD

    def __post_init__(self) -> None:
        must(
            len(self.mean) == len(self.std) == self.channels,
            f"vae: {len(self.mean)} means and {len(self.std)} deviations for {self.channels} channels; give one a channel",
        )
        must(all(0 < each < math.inf for each in self.std), f"vae: std {self.std}; each deviation must be above 0, since latents are divided by it")


@dataclass(frozen=True, kw_only=True)
class TextSpec:
    """The encoder of action texts, umT5-xxl by default."""

    vocab: int = 256384
    d_model: int = 4096
    d_kv: int = 64
    d_ff: int = 10240
    heads: int = 64
    layers: int = 24
    tokens: int = 512


@dataclass(frozen=True, kw_only=True)
class QFormerSpec:
    """Pandora's connector: learned queries that read the backbone's and speak the decoder's text space.

    Source: maitrix-org/Pandora: 77 queries, a `Blip2QFormerModel` of the hub's width.
    """

    queries: int = 77
    hidden: int = 768
    layers: int = 12
    heads: int = 12
    intermediate: int = 3072
    dropout: float = 0.0
    """Pandora's is the library's 0.1."""
    query_std: float = 0.02
    """Standard deviation of a new query's entries. Pandora's queries begin at 0, where the layer norm behind them magnifies the gradient a million times."""


@dataclass(frozen=True, kw_only=True)
class ChunkSpec:
    """The window that is denoised at once: condition frames, then chunks of equal length.

    Raises:
        ValueError: a number that is not above 0.

    Source: PAN section 3.3: 1 + 2 x 10 latent frames; Wan's 16 frames a second.
    """

    chunk_latents: int = 10
    cond_latents: int = 1
    window_chunks: int = 2
    fps: float = 16.0
    temporal: int = 4
    """Pixel frames a latent frame; the VAE's."""

    def __post_init__(self) -> None:
        _above_0("chunks", self, "chunk_latents", "cond_latents", "window_chunks", "fps", "temporal")

    @property
    def chunk_frames(self) -> int:
        """Pixel frames a chunk becomes: 40 in PAN."""
        return self.chunk_latents * self.temporal

    @property
    def window_latents(self) -> int:
        """Latent frames of a full window: 21 in PAN."""
        return self.cond_latents + self.window_chunks * self.chunk_latents
