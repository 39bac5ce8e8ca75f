"""Footprint: what one way to spread a model's training takes of a GPU's memory.

Source: PAN section 4 (HSDP, Ulysses, checkpointed blocks); ZeRO (arXiv 1910.02054) for what a parameter takes with AdamW in mixed precision.
"""

from dataclasses import dataclass, fields
from typing import Literal

from training.held import HALF, SINGLE, Held, assumed
from training.model import counts
from training.model.spec import BackboneSpec, ModelSpec
from training.operations import dialogue_tokens, share, sight_tokens, tokens_per_frame, window

GB = 1e9
#: Bytes that a parameter takes where it learns: a float32 gradient; float32 weights and both of AdamW's moments; a moving average of it; what a step of AdamW
#: makes of all parameters at once, the roots of the second moments (torch.optim, foreach).
GRADIENT, OPTIMISER, AVERAGE, STEP = 4, 12, 4, 4
#: Bytes that a decoder's block keeps for the backward pass, a token: for each unit of `dim`, without and with a state's stream, and of `ffn`.
#: Measured on our block in bfloat16 (its weights are, or autocast makes them so: what is kept is the same) and in float32, by what autograd saves;
#: tests/training/test_footprint.py measures again.
EAGER, COMPILED = (57.0, 67.3, 4.0), (38.7, 49.0, 4.0)
EAGER_WIDE, COMPILED_WIDE = (85.0, 105.3, 8.0), (77.0, 97.2, 8.0)
#: The same of a layer of the language model: for each unit of `hidden`, of `intermediate`, of the keys' width; frozen, and where it learns.
LANGUAGE, LANGUAGE_WIDE = (12.2, 6.0, 4.0), (16.4, 12.0, 8.0)
LANGUAGE_LEARNING, LANGUAGE_LEARNING_WIDE = (20.4, 8.0, 4.0), (32.4, 16.0, 8.0)
#: The same of a block of the vision tower, a patch: for each unit of `hidden` and of `intermediate`; only where it learns.
TOWER_LEARNING, TOWER_LEARNING_WIDE = (30.5, 8.0), (52.5, 16.0)
Precision = Literal["float32", "bfloat16"]


@dataclass(frozen=True, kw_only=True)
class Memory:
    """GB of one GPU, by part; GB are 10^9 bytes."""

    optimiser: float
    """Float32 weights and both moments of all that learns, and its moving average, if one is kept."""
    gradients: float
    weights: float
    """Blocks that are whole while they are computed, and their gradients before they are cut up; what autocast makes of float32 weights, in bfloat16."""
    activations: float
    """What is kept for the backward pass; or what a step of AdamW makes when that is gone, if it is more."""
    frozen: float
    """What does not learn, the backbone first, cut up as the rest is; the autoencoder and the text encoder whole, if they are held."""
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
        resident: autoencoder and text encoder are held on every GPU, and all other parts, whatever is computed.
        action_tokens: of an action in the dialogue.
        average: a moving average of what learns is kept.
        gather: the precision in which what is cut up is put together for a while; a GPU alone computes with the weights as they are.
        compute: the precision of the decoder's matrix products, where its weights are float32.
    """

    windows: int
    compiled: bool
    resident: bool
    action_tokens: int
    average: bool = False
    gather: Precision = "bfloat16"
    compute: Precision = "bfloat16"


def memory(spec: ModelSpec, spread: Spread, work: Work, reserve: float, held: Held | None = None) -> Memory:
    """GB of a GPU by part, of the one that has most; `reserve` is passed through.

    Args:
        spec: the model as it is computed.
        held: as it lies there; by default as `spec` says.
    """
    held = held or assumed(spec, spec)
    learning = sum(held.learning.values()) / spread.shard
    kept = _decoder_activations(spec, spread, work) if "decoder" in held.runs else 0.0
    kept += _backbone_activations(spec, spread, work, held) if "backbone" in held.runs else 0.0
    return Memory(
        optimiser=(OPTIMISER + (AVERAGE if work.average else 0)) * learning / GB,
        gradients=GRADIENT * learning / GB,
        weights=_whole(spec, spread, work, held) / GB,
        activations=max(kept, STEP * learning) / GB,
        frozen=_frozen(spread, work, held) / GB,
        reserve=reserve,
    )


def _alone(spread: Spread) -> bool:
    """Whether there is but one GPU: then nothing is cut up, and nothing gathered."""
    return spread.replicate * spread.shard == 1


def _part(part: str) -> str:
    """The module that a part of `counts.parameters` lies in."""
    return "backbone" if part == "queries" else part


def _stored(part: str, held: Held) -> float:
    """Bytes of what does not learn of a part, whole."""
    return held.width[part] * (counts.parameters(held.spec)[part] - held.learning.get(part, 0))


def _frozen(spread: Spread, work: Work, held: Held) -> float:
    """Bytes of what does not learn. What is cut up comes to the GPUs even if it is not computed (fully_shard brings it there); one GPU alone leaves it out."""
    encoders = ("vae", "text")
    cut = [part for part in held.width if part not in encoders and (work.resident or not _alone(spread) or _part(part) in held.runs)]
    return sum(_stored(part, held) for part in cut) / spread.shard + (sum(_stored(part, held) for part in encoders) if work.resident else 0)


def _whole(spec: ModelSpec, spread: Spread, work: Work, held: Held) -> float:
    """Bytes of weights that are whole for a while.

    Gathered: a block and the next, the block's gradient, and that in float32 to be summed; what is outside blocks. Where float32 weights compute in
    bfloat16, autocast keeps the narrow copy of each until the forward has ended.
    """
    narrowed = sum(held.learning.get(part, 0) for part in ("decoder", "connector") if part in held.runs)
    copies = HALF * narrowed if work.compute == "bfloat16" and (_alone(spread) or work.gather == "float32") else 0
    if _alone(spread):
        return copies
    g = HALF if work.gather == "bfloat16" else SINGLE
    found = float(copies)
    if "decoder" in held.runs:
        block, there = (counts.decoder_block(of.decoder) for of in (spec, held.spec))
        outside, outside_there = (counts.decoder(of.decoder) - of.decoder.layers * each for of, each in ((spec, block), (held.spec, there)))
        found += (3 * g + SINGLE) * block + 2 * g * (there - block) + (2 * g + SINGLE) * outside + g * (outside_there - outside)
    if "backbone" in held.runs:
        b, layer = spec.backbone, counts.language_layer(spec.backbone)
        found += 2 * g * layer
        if held.hears or held.sees:
            found += (g + SINGLE) * layer + (2 * g + SINGLE) * (counts.backbone(b) - b.layers * layer)
    if "connector" in held.runs:
        found += (2 * g + SINGLE) * counts.parameters(spec)["connector"]
    return found


def _decoder_activations(spec: ModelSpec, spread: Spread, work: Work) -> float:
    """Bytes that the decoder keeps for its backward pass."""
    d, places = spec.decoder, tokens_per_frame(spec)
    tokens = window(spec).frames * places * work.windows * share(spread.sequence, places, d.heads)
    wide = work.compute == "float32" and (_alone(spread) or work.gather == "float32")
    eager, compiled = (EAGER_WIDE, COMPILED_WIDE) if wide else (EAGER, COMPILED)
    plain, stateful, ffn = compiled if work.compiled else eager
    inside = tokens * (d.dim * (plain if d.state_dim is None else stateful) + d.ffn * ffn)
    return d.layers * tokens * d.dim * (SINGLE if wide else HALF) + inside if spread.checkpointing else d.layers * inside


def _backbone_activations(spec: ModelSpec, spread: Spread, work: Work, held: Held) -> float:
    """Bytes that the language model keeps, which computes in its weights' precision; and the tower, where it looks with gradients.

    GPUs that share a dialogue repeat its keys and values to as many heads as the queries have.
    """
    b: BackboneSpec = spec.backbone
    learns = held.hears or held.sees
    wide = (learns or held.width["backbone"] > (HALF + SINGLE) / 2) if _alone(spread) else work.gather == "float32"
    length = dialogue_tokens(spec, work.action_tokens)
    tokens = length * work.windows * share(spread.sequence, length, b.heads)
    frozen, learning = (LANGUAGE_WIDE, LANGUAGE_LEARNING_WIDE) if wide else (LANGUAGE, LANGUAGE_LEARNING)
    hidden, intermediate, keys = learning if held.hears else frozen
    width = b.hidden if spread.sequence > 1 else b.hidden // b.heads * b.kv_heads
    inside = tokens * (b.hidden * hidden + b.intermediate * intermediate + width * keys)
    size = SINGLE if wide else HALF
    found = b.layers * tokens * b.hidden * size + inside if spread.checkpointing else b.layers * inside
    if held.sees:
        v, (hidden, intermediate) = b.vision, TOWER_LEARNING_WIDE if wide else TOWER_LEARNING
        picture, film = sight_tokens(spec)
        patches = (picture + (b.max_rounds - 1) * film) * v.merge**2 * work.windows
        inside = patches * (v.hidden * hidden + v.intermediate * intermediate)
        found += v.depth * patches * v.hidden * size + inside if spread.checkpointing else v.depth * inside
    return found
