"""The encoders' parameters by name: Wan's autoencoder and umT5 as Wan publishes them and as diffusers and transformers do; Qwen2.5-VL's files and memory.

Ours are diffusers' and transformers', since their modules are what we run. Names alone differ, in no case a shape or a value.
Source: Wan-Video/Wan2.1, wan/modules/{vae,t5}.py; diffusers, autoencoder_kl_wan.py; transformers, modeling_umt5.py and modeling_qwen2_5_vl.py.
"""

import re
from collections.abc import Mapping
from types import MappingProxyType

_LEAVES = frozenset({"weight", "bias", "gamma"})

# A residual block's parts; `resample` and `time_conv`, of the blocks that change the size, are called the same in both.
_RESIDUAL = {"residual.0": "norm1", "residual.2": "conv1", "residual.3": "norm2", "residual.6": "conv2", "shortcut": "conv_shortcut"}
_UNIT = {**_RESIDUAL, "resample.1": "resample.1", "time_conv": "time_conv"}
_ATTENTION = ("norm", "to_qkv", "proj")
_DOWN_UNITS, _UP_UNITS, _A_STAGE = 11, 15, 4  # an up stage: three residual blocks, and an upsampler behind all stages but the last


def _vae_modules() -> dict[str, str]:
    """Wan's name of each of the autoencoder's modules that has weights, to diffusers'."""
    names = {"conv1": "quant_conv", "conv2": "post_quant_conv"}
    for half in ("encoder", "decoder"):
        names |= {f"{half}.conv1": f"{half}.conv_in", f"{half}.head.0": f"{half}.norm_out", f"{half}.head.2": f"{half}.conv_out"}
        names |= {f"{half}.middle.1.{part}": f"{half}.mid_block.attentions.0.{part}" for part in _ATTENTION}
        for wan, block in ((0, 0), (2, 1)):
            names |= {f"{half}.middle.{wan}.{a}": f"{half}.mid_block.resnets.{block}.{b}" for a, b in _RESIDUAL.items()}
    for k in range(_DOWN_UNITS):
        names |= {f"encoder.downsamples.{k}.{a}": f"encoder.down_blocks.{k}.{b}" for a, b in _UNIT.items()}
    for k in range(_UP_UNITS):
        stage, place = divmod(k, _A_STAGE)
        unit = "upsamplers.0" if place == _A_STAGE - 1 else f"resnets.{place}"
        names |= {f"decoder.upsamples.{k}.{a}": f"decoder.up_blocks.{stage}.{unit}.{b}" for a, b in _UNIT.items()}
    return names


_VAE = MappingProxyType(_vae_modules())
_VAE_BACK = MappingProxyType({theirs: wan for wan, theirs in _VAE.items()})

_UMT5 = {"token_embedding": "shared", "norm": "encoder.final_layer_norm"}
_UMT5_BLOCK = {
    **{f"attn.{part}": f"layer.0.SelfAttention.{part}" for part in "qkvo"},
    "pos_embedding.embedding": "layer.0.SelfAttention.relative_attention_bias",
    "norm1": "layer.0.layer_norm",
    "norm2": "layer.1.layer_norm",
    "ffn.gate.0": "layer.1.DenseReluDense.wi_0",
    "ffn.fc1": "layer.1.DenseReluDense.wi_1",
    "ffn.fc2": "layer.1.DenseReluDense.wo",
}


def vae_from_wan(key: str) -> str:
    """diffusers' name, and ours, of the autoencoder's parameter that Wan calls `key`.

    Raises:
        ValueError: Wan's autoencoder has no such parameter.
    """
    return _module_renamed(key, _VAE, "Wan's autoencoder")


def vae_to_wan(key: str) -> str:
    """The inverse of `vae_from_wan`.

    Raises:
        ValueError: diffusers' autoencoder has no such parameter.
    """
    return _module_renamed(key, _VAE_BACK, "diffusers' autoencoder")


def umt5_from_wan(key: str) -> str:
    """transformers' name, and ours, of the umT5 encoder's parameter that Wan calls `key`.

    Raises:
        ValueError: Wan's text encoder has no such parameter.
    """
    block = re.fullmatch(r"blocks\.(\d+)\.(.+)", key)
    if block:
        return f"encoder.block.{block[1]}." + _module_renamed(block[2], _UMT5_BLOCK, "a block of Wan's umT5")
    return _module_renamed(key, _UMT5, "Wan's umT5")


def umt5_to_wan(key: str) -> str:
    """The inverse of `umt5_from_wan`; the embedding's second name, `encoder.embed_tokens`, is the first's alias.

    Raises:
        ValueError: transformers' encoder has no such parameter.
    """
    block = re.fullmatch(r"encoder\.block\.(\d+)\.(.+)", key)
    if block:
        return f"blocks.{block[1]}." + _module_renamed(block[2], _back(_UMT5_BLOCK), "a block of transformers' umT5")
    return _module_renamed(key, {**_back(_UMT5), "encoder.embed_tokens": "token_embedding"}, "transformers' umT5")


def qwen_from_hub(key: str) -> str:
    """The name in memory, and ours, of the parameter that Qwen2.5-VL's files call `key`; names in memory stay as they are.

    Raises:
        ValueError: neither has such a parameter.
    """
    if key.startswith(("model.visual.", "model.language_model.")) or key == "lm_head.weight":
        return key
    if key.startswith("visual."):
        return f"model.{key}"
    if re.match(r"model\.(layers\.\d+|embed_tokens|norm)\.", key):
        return "model.language_model." + key.removeprefix("model.")
    raise ValueError(f"{key!r} is not a parameter of Qwen2.5-VL")


def qwen_to_hub(key: str) -> str:
    """The inverse of `qwen_from_hub`: what the hub's files call a parameter.

    Raises:
        ValueError: Qwen2.5-VL has no such parameter.
    """
    if key.startswith("model.visual."):
        return key.removeprefix("model.")
    if key.startswith("model.language_model."):
        return "model." + key.removeprefix("model.language_model.")
    if key == "lm_head.weight":
        return key
    raise ValueError(f"{key!r} is not a parameter of Qwen2.5-VL in memory")


def _module_renamed(key: str, modules: Mapping[str, str], whose: str) -> str:
    """`key` with its module's other name.

    Raises:
        ValueError: the module is not in the table, or what it has is no weight.
    """
    module, _, leaf = key.rpartition(".")
    if module not in modules or leaf not in _LEAVES:
        raise ValueError(f"{key!r} is not a parameter of {whose}; is it another model's checkpoint?")
    return f"{modules[module]}.{leaf}"


def _back(table: Mapping[str, str]) -> dict[str, str]:
    """The table in the other direction."""
    return {theirs: ours for ours, theirs in table.items()}
