"""How many numbers each part of a model holds, from its spec alone: nothing is built, and no torch is needed."""

import math
from functools import lru_cache
from itertools import pairwise

from training.model.card import parts_of
from training.model.keymaps import decoder_shapes
from training.model.spec import BackboneSpec, DecoderSpec, ModelSpec, QFormerSpec, TextSpec, VaeSpec

_BUCKETS = 32  # of umT5's relative positions


def parameters(spec: ModelSpec) -> dict[str, int]:
    """Parameters of each part that a model of `spec` has; "backbone" is what is frozen there, "queries" what PAN learns."""
    found = {"decoder": decoder(spec.decoder), "vae": vae(spec.vae), "text": text(spec.text)}
    if "backbone" in parts_of(spec):
        found |= {"backbone": backbone(spec.backbone), "queries": spec.backbone.queries * spec.backbone.hidden}
    if spec.qformer is not None:
        found["connector"] = qformer(spec.qformer, spec.backbone.hidden, spec.text.d_model)
    return found


@lru_cache(64)
def decoder(spec: DecoderSpec) -> int:
    """The diffusion transformer, with its state stream if it has one."""
    return sum(math.prod(shape) for shape in decoder_shapes(spec).values())


@lru_cache(64)
def decoder_block(spec: DecoderSpec) -> int:
    """One block of it."""
    return sum(math.prod(shape) for name, shape in decoder_shapes(spec).items() if name.startswith("blocks.0."))


def text(spec: TextSpec) -> int:
    """The umT5 encoder: its embedding, and in each layer attention without biases, relative positions, a gated feed-forward and two norms."""
    attention = 4 * spec.d_model * spec.heads * spec.d_kv + spec.heads * _BUCKETS
    return spec.vocab * spec.d_model + spec.layers * (attention + 3 * spec.d_model * spec.d_ff + 2 * spec.d_model) + spec.d_model


def backbone(spec: BackboneSpec) -> int:
    """Qwen2.5-VL without the queries: vision tower, language model, and the layer to words if it is kept."""
    return vision_tower(spec) + language_model(spec) + (spec.vocab * spec.hidden if spec.lm_head else 0)


def vision_tower(spec: BackboneSpec) -> int:
    """Patch embedding, blocks, and the merger into the language model's width."""
    v = spec.vision
    attention = _linear(v.hidden, 3 * v.hidden) + _linear(v.hidden, v.hidden)
    block = 2 * v.hidden + attention + 2 * _linear(v.hidden, v.intermediate) + _linear(v.intermediate, v.hidden)
    merged = v.hidden * v.merge**2
    merger = v.hidden + _linear(merged, merged) + _linear(merged, spec.hidden)
    return 3 * v.temporal_patch * v.patch**2 * v.hidden + v.depth * block + merger


def language_model(spec: BackboneSpec) -> int:
    """Embedding, layers, final norm."""
    return spec.vocab * spec.hidden + spec.layers * language_layer(spec) + spec.hidden


def language_layer(spec: BackboneSpec) -> int:
    """Attention with biases at queries, keys and values, a gated feed-forward, two norms."""
    keys = spec.hidden // spec.heads * spec.kv_heads
    return _linear(spec.hidden, spec.hidden) + 2 * _linear(spec.hidden, keys) + spec.hidden**2 + 3 * spec.hidden * spec.intermediate + 2 * spec.hidden


def vae(spec: VaeSpec) -> int:
    """The autoencoder."""
    if spec.kind == "small":
        return _small_vae(spec)
    widths = [spec.base_dim * times for times in (1, 1, 2, 4, 4)]  # Wan's multipliers, with the entry's own width in front
    encoder = _conv(3, widths[0], 27) + _middle(widths[-1]) + widths[-1] + _conv(widths[-1], 2 * spec.channels, 27)
    for stage, (into, out) in enumerate(pairwise(widths)):
        encoder += _residual(into, out) + _residual(out, out)
        if stage < 3:
            encoder += _conv(out, out, 9) + (_conv(out, out, 3) if stage > 0 else 0)  # half the size; half the frames but in the first stage
    reverse = widths[:0:-1]
    decoder_ = _conv(spec.channels, reverse[0], 27) + _middle(reverse[0]) + reverse[-1] + _conv(reverse[-1], 3, 27)
    into = reverse[0]
    for stage, out in enumerate(reverse):
        decoder_ += _residual(into, out) + 2 * _residual(out, out)
        if stage < 3:
            decoder_ += _conv(out, out // 2, 9) + (_conv(out, 2 * out, 3) if stage < 2 else 0)
        into = out // 2
    return encoder + decoder_ + _conv(2 * spec.channels, 2 * spec.channels, 1) + _conv(spec.channels, spec.channels, 1)


def qformer(spec: QFormerSpec, state_dim: int, text_dim: int) -> int:
    """Pandora's connector: its queries, a way in and out, and layers of which every second also attends to the states."""
    norm, attention = 2 * spec.hidden, 4 * _linear(spec.hidden, spec.hidden)
    layer = attention + norm + _linear(spec.hidden, spec.intermediate) + _linear(spec.intermediate, spec.hidden) + norm
    crossing = (spec.layers + 1) // 2 * (attention + norm)
    ends = _linear(state_dim, spec.hidden) + _linear(spec.hidden, text_dim) + spec.queries * spec.hidden
    return ends + norm + spec.layers * layer + crossing


def _small_vae(spec: VaeSpec) -> int:
    """Of `SmallVae`."""
    from training.model.small_vae import stage_widths

    widths, folded = stage_widths(spec), 3 * spec.temporal * 4
    blocks = sum(2 * n + _conv(n, n, 9) + _conv(n, n, 27) for n in widths)
    pixels, first, last = 3 * spec.temporal * spec.spatial**2, widths[0], widths[-1]
    down, up = (sum(count(a, b) for a, b in pairwise(order)) for count, order in ((_down, widths), (_up, widths[::-1])))
    encoder = _conv(folded, first, 27) + blocks + down + last + _conv(last, 2 * spec.channels, 1) + _conv(pixels, 2 * spec.channels, 1)
    return encoder + _conv(spec.channels, last, 27) + blocks + up + first + _conv(first, folded, 9) + _conv(spec.channels, pixels, 1)


def _down(into: int, out: int) -> int:
    return _conv(into, out, 4)


def _up(into: int, out: int) -> int:
    return _conv(into, 4 * out, 1)


def _residual(into: int, out: int) -> int:
    """Two norms, two convolutions, and a shortcut where the width changes."""
    return into + _conv(into, out, 27) + out + _conv(out, out, 27) + (_conv(into, out, 1) if into != out else 0)


def _middle(width: int) -> int:
    """Two residual blocks, and attention within a frame between them."""
    return 2 * _residual(width, width) + width + _conv(width, 3 * width, 1) + _conv(width, width, 1)


def _conv(into: int, out: int, taps: int) -> int:
    """A convolution with a bias."""
    return into * out * taps + out


def _linear(into: int, out: int) -> int:
    """A linear map with a bias."""
    return into * out + out
