"""Footprint: what one way to spread a model's training takes of a GPU's memory, and how many operations a window is.

Source: PAN section 4 (HSDP, Ulysses, checkpointed blocks); ZeRO (arXiv 1910.02054) for what a parameter takes with AdamW in mixed precision.
"""

from dataclasses import dataclass, fields

from training.diffusion.swin import layout
from training.model import counts
from training.model.attention import Layout
from training.model.flops import forward_flops
from training.model.spec import BackboneSpec, ModelSpec

GB = 1e9
HALF, SINGLE = 2, 4  # bytes of bfloat16 and float32
#: Bytes that a parameter takes where it learns: a float32 gradient; float32 weights and both of AdamW's moments.
GRADIENT, OPTIMISER = 4, 12
#: Bytes a parameter of what is whole for a moment: a block and the next in bfloat16, its gradient, and that in float32 to be summed; what is outside blocks.
GATHERED, GATHERED_OUTSIDE = 2 * HALF + HALF + SINGLE, HALF + HALF + SINGLE
#: Bytes that a decoder's block keeps for the backward pass, a token: for each unit of `dim`, without and with a state's stream, and of `ffn`.
#: Measured on our block in bfloat16, by what autograd saves; tests/training/test_footprint.py measures again.
EAGER, COMPILED = (57.0, 67.3, 4.0), (38.7, 49.0, 4.0)
#: The same of a layer of the frozen language model: for each unit of `hidden`, of `intermediate`, of the keys' width.
LANGUAGE = (12.2, 6.0, 4.0)
TEMPLATE = 13
"""Tokens of a round that are neither seen, said nor asked: who speaks, and where each turn and sight begins and ends."""


@dataclass(frozen=True, kw_only=True)
class Memory:
    """GB of one GPU, by part; GB are 10^9 bytes."""

    optimiser: float
    """Float32 weights and both moments of all that learns."""
    gradients: float
    weights: float
    """Blocks that are whole while they are computed, in bfloat16, and their gradients before they are cut up."""
    activations: float
    frozen: float
    """The backbone, cut up as the rest is; the autoencoder and the text encoder, if they are held."""
    reserve: float

    @property
    def total(self) -> float:
        """All of it."""
        return float(sum(getattr(self, each.name) for each in fields(self)))


@dataclass(frozen=True, kw_only=True)
class Spread:
    """How a training is spread over GPUs.

    Attributes:
        replicate, shard: copies of the model's state, and the GPUs that each is cut over.
        sequence: neighbours within a shard group that share one window, cut along its tokens.
        checkpointing: only what lies between blocks is kept, and each block's inside is computed twice.
    """

    replicate: int
    shard: int
    sequence: int
    checkpointing: bool

    def __str__(self) -> str:
        return f"replicate {self.replicate} x shard {self.shard}, sequence {self.sequence}, checkpointing {'on' if self.checkpointing else 'off'}"


@dataclass(frozen=True, kw_only=True)
class Work:
    """What is computed at a time in each group of `sequence` GPUs.

    Attributes:
        windows: so many, with one dialogue each where there is a backbone.
        compiled: fewer intermediate results are kept than by eager execution.
        resident: autoencoder and text encoder are held on every GPU.
        action_tokens: of an action in the dialogue.
    """

    windows: int
    compiled: bool
    resident: bool
    action_tokens: int


@dataclass(frozen=True, kw_only=True)
class Operations:
    """Of one window with its dialogue, forward and backward; a multiplication and an addition are two.

    Attributes:
        useful: what a model's utilisation is measured by; executed: with what checkpointing computes twice.
    """

    useful: float
    executed: float


def memory(spec: ModelSpec, spread: Spread, work: Work, reserve: float) -> Memory:
    """GB of a GPU by part; `reserve` is passed through."""
    sizes = counts.parameters(spec)
    learning = sum(sizes.get(part, 0) for part in ("decoder", "queries", "connector"))
    block, frozen = counts.decoder_block(spec.decoder), sizes.get("backbone", 0)
    whole = GATHERED * block + GATHERED_OUTSIDE * (sizes["decoder"] - spec.decoder.layers * block)
    whole += 2 * HALF * counts.language_layer(spec.backbone) if frozen else 0
    held = SINGLE * sizes["vae"] + HALF * sizes["text"] if work.resident else 0
    return Memory(
        optimiser=OPTIMISER * learning / spread.shard / GB,
        gradients=GRADIENT * learning / spread.shard / GB,
        weights=whole / GB,
        activations=(_decoder_activations(spec, spread, work) + (_backbone_activations(spec, spread, work) if frozen else 0)) / GB,
        frozen=(HALF * frozen / spread.shard + held) / GB,
        reserve=reserve,
    )


def operations(spec: ModelSpec, checkpointing: bool, action_tokens: int) -> Operations:
    """Of one window: the decoder learns (three times its forward), the backbone passes gradients on (twice), its tower looks once."""
    decoder = forward_flops(spec.decoder, window(spec), tokens_per_frame(spec)).total
    language, tower = backbone_flops(spec, action_tokens) if "backbone" in counts.parameters(spec) else (0.0, 0.0)
    useful = 3 * decoder + 2 * language + tower
    return Operations(useful=useful, executed=useful + (decoder + language if checkpointing else 0))


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


def _decoder_activations(spec: ModelSpec, spread: Spread, work: Work) -> float:
    """Bytes that the decoder keeps for its backward pass."""
    d = spec.decoder
    tokens = window(spec).frames * tokens_per_frame(spec) * work.windows / spread.sequence
    plain, stateful, ffn = COMPILED if work.compiled else EAGER
    inside = tokens * (d.dim * (plain if d.state_dim is None else stateful) + d.ffn * ffn)
    return d.layers * tokens * d.dim * HALF + inside if spread.checkpointing else d.layers * inside


def _backbone_activations(spec: ModelSpec, spread: Spread, work: Work) -> float:
    """Bytes that the language model keeps; the tower looks without gradients."""
    b: BackboneSpec = spec.backbone
    tokens = dialogue_tokens(spec, work.action_tokens) * work.windows / spread.sequence
    hidden, intermediate, keys = LANGUAGE
    inside = tokens * (b.hidden * hidden + b.intermediate * intermediate + b.hidden // b.heads * b.kv_heads * keys)
    return b.layers * tokens * b.hidden * HALF + inside if spread.checkpointing else b.layers * inside
