"""The decoder's parameters by name: Wan's official names, which are ours, and diffusers' for the same; and the list of all of them with their shapes.

PAN's own (`state_proj`, `blocks.i.state_attn`, `blocks.i.state_out`; by option `blocks.i.state_norm`, `blocks.i.state_proj`) have no place in either: they keep
their names in both.
Source: Wan-Video/Wan2.1, wan/modules/model.py, and huggingface/diffusers, transformer_wan.py: the parameters' names there.
"""

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TypeVar

from training.model.spec import DecoderSpec

Value = TypeVar("Value")

# Whole modules outside the blocks, and modules of a block; `norm2` and `norm3` change places, and the official norm1 and norm2 have no weights.
_OUTSIDE = {
    "patch_embedding": "patch_embedding",
    "text_embedding.0": "condition_embedder.text_embedder.linear_1",
    "text_embedding.2": "condition_embedder.text_embedder.linear_2",
    "time_embedding.0": "condition_embedder.time_embedder.linear_1",
    "time_embedding.2": "condition_embedder.time_embedder.linear_2",
    "time_projection.1": "condition_embedder.time_proj",
    "head.head": "proj_out",
    "img_emb.proj.0": "condition_embedder.image_embedder.norm1",
    "img_emb.proj.1": "condition_embedder.image_embedder.ff.net.0.proj",
    "img_emb.proj.3": "condition_embedder.image_embedder.ff.net.2",
    "img_emb.proj.4": "condition_embedder.image_embedder.norm2",
    "state_proj": "state_proj",
}
_ATTENTION = {"q": "to_q", "k": "to_k", "v": "to_v", "o": "to_out.0", "norm_q": "norm_q", "norm_k": "norm_k"}
_IMAGE = {"k_img": "add_k_proj", "v_img": "add_v_proj", "norm_k_img": "norm_added_k"}
_STATE = (*(f"state_attn.{part}" for part in _ATTENTION), "state_out", "state_norm", "state_proj")
_INSIDE = {
    **{f"self_attn.{ours}": f"attn1.{theirs}" for ours, theirs in _ATTENTION.items()},
    **{f"cross_attn.{ours}": f"attn2.{theirs}" for ours, theirs in {**_ATTENTION, **_IMAGE}.items()},
    "norm3": "norm2",
    "ffn.0": "ffn.net.0.proj",
    "ffn.2": "ffn.net.2",
    **{name: name for name in _STATE},
}
_MODULATION = {"head.modulation": "scale_shift_table"}
_MODULATION_INSIDE = {"modulation": "scale_shift_table"}
_BLOCK = re.compile(r"blocks\.(\d+)\.(.+)")


def to_diffusers(key: str) -> str:
    """diffusers' name of the parameter that Wan, and we, call `key`.

    Raises:
        ValueError: Wan has no such parameter.
    """
    return _renamed(key, "Wan's", _OUTSIDE, _INSIDE, _MODULATION, _MODULATION_INSIDE)


def from_diffusers(key: str) -> str:
    """Wan's name, and ours, of the parameter that diffusers calls `key`.

    Raises:
        ValueError: diffusers' decoder has no such parameter.
    """
    return _renamed(key, "diffusers'", *(_inverse(table) for table in (_OUTSIDE, _INSIDE, _MODULATION, _MODULATION_INSIDE)))


def renamed(weights: Mapping[str, Value], name: Callable[[str], str]) -> dict[str, Value]:
    """The same values under other names.

    Raises:
        ValueError: a key without a name, or two keys with the same.
    """
    found = {name(key): value for key, value in weights.items()}
    if len(found) < len(weights):
        raise ValueError(f"{len(weights)} parameters would get {len(found)} names; two of them are the same under both layouts: remove one")
    return found


def _renamed(key: str, whose: str, outside: Mapping[str, str], inside: Mapping[str, str], whole: Mapping[str, str], whole_inside: Mapping[str, str]) -> str:
    block = _BLOCK.fullmatch(key)
    prefix, rest = (f"blocks.{block[1]}.", block[2]) if block else ("", key)
    if rest in (whole_inside if block else whole):
        return prefix + (whole_inside if block else whole)[rest]
    module, _, kind = rest.rpartition(".")
    theirs = (inside if block else outside).get(module)
    if theirs is None or kind not in ("weight", "bias"):
        raise ValueError(f"{key!r} is not one of {whose} parameters of a Wan 2.1 decoder, nor of PAN's; is it another model's checkpoint?")
    return f"{prefix}{theirs}.{kind}"


def _inverse(table: Mapping[str, str]) -> Mapping[str, str]:
    return MappingProxyType({theirs: ours for ours, theirs in table.items()})


def decoder_shapes(spec: DecoderSpec) -> dict[str, tuple[int, ...]]:
    """Every parameter of the decoder, by our name, with its shape: what a checkpoint must hold, and no more; made without torch."""
    dim, linear = spec.dim, _linear
    shapes: dict[str, tuple[int, ...]] = {
        "patch_embedding.weight": (dim, spec.in_channels, *spec.patch),
        "patch_embedding.bias": (dim,),
        **linear("text_embedding.0", spec.text_dim, dim),
        **linear("text_embedding.2", dim, dim),
        **linear("time_embedding.0", spec.freq_dim, dim),
        **linear("time_embedding.2", dim, dim),
        **linear("time_projection.1", dim, 6 * dim),
        **linear("head.head", dim, spec.out_channels * spec.patch[0] * spec.patch[1] * spec.patch[2]),
        "head.modulation": (1, 2, dim),
    }
    if spec.state_dim is not None and spec.state_projection == "shared":
        shapes |= linear("state_proj", spec.state_dim, dim)
    block = _block_shapes(spec)
    return shapes | {f"blocks.{index}.{name}": shape for index in range(spec.layers) for name, shape in block.items()}


def _block_shapes(spec: DecoderSpec) -> dict[str, tuple[int, ...]]:
    dim, streams = spec.dim, ["self_attn", "cross_attn"] + ["state_attn"] * (spec.state_dim is not None)
    shapes: dict[str, tuple[int, ...]] = {"modulation": (1, 6, dim), "norm3.weight": (dim,), "norm3.bias": (dim,)}
    for stream in streams:
        for part in "qkvo":
            shapes |= _linear(f"{stream}.{part}", dim, dim)
        shapes |= {f"{stream}.norm_q.weight": (dim,), f"{stream}.norm_k.weight": (dim,)}
    if spec.state_dim is not None:
        shapes |= _linear("state_out", dim, dim)
        if spec.state_norm == "own":
            shapes |= {"state_norm.weight": (dim,), "state_norm.bias": (dim,)}
        if spec.state_projection == "each":
            shapes |= _linear("state_proj", spec.state_dim, dim)
    return {**shapes, **_linear("ffn.0", dim, spec.ffn), **_linear("ffn.2", spec.ffn, dim)}


def _linear(name: str, into: int, out: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (out, into), f"{name}.bias": (out,)}
