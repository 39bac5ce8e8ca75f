"""A model's parts by name: how each is built, and how each is filled from our files or from those of its makers."""

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import torch
from torch import nn

from training.model.card import parts_of
from training.model.decoder import Decoder
from training.model.keymaps import from_diffusers
from training.model.keymaps_encoders import qwen_from_hub, umt5_from_wan, vae_from_wan
from training.model.plain import must
from training.model.spec import ModelSpec
from training.model.tensor_files import stored
from training.model.text import TextEncoder, open_tokenizer
from training.model.tokens import FileTokenizer
from training.model.vae import build_vae
from training.model.weights import KeyMap, differing, load

QUERIES = "query_embed"
BESIDE = "pan"
"""Folder in an exported decoder, whose own files are as Wan's: PAN's parameters, for which Wan has no place."""


def build_part(spec: ModelSpec, part: str, tokenizer: Path | None = None) -> nn.Module:
    """A part with random weights; inside `empty_weights`, with none.

    Args:
        tokenizer: folder of the tokenizer of `text` or `backbone`; None for bytes.

    Raises:
        ValueError: no such part, or a tokenizer that does not fit.
    """
    if part == "decoder":
        return Decoder(spec.decoder)
    if part == "vae":
        return build_vae(spec.vae)
    if part == "text":
        return TextEncoder(spec.text, None if tokenizer is None else open_tokenizer(tokenizer)).eval()
    if part == "backbone":
        from training.model.backbone import Backbone

        return Backbone(spec.backbone, None if tokenizer is None else FileTokenizer(tokenizer, spec.backbone.ids))
    if part == "connector" and spec.qformer is not None:
        from training.model.connector import QFormer

        return QFormer(spec.qformer, spec.backbone.hidden, spec.text.d_model)
    raise ValueError(f"model {spec.name} has no part {part!r}; there are {', '.join(parts_of(spec))}")


def weights_of(part: nn.Module) -> nn.Module:
    """The module whose parameters' names are those in files: the network behind an adapter, or the part itself."""
    network = getattr(part, "network", part)
    assert isinstance(network, nn.Module)
    return network


def makers(wan: Path, qwen: Path | None = None) -> tuple[dict[str, Path], dict[str, Path]]:
    """The folders of each part's weights, and of the tokenizers, in Wan2.1's folder for diffusers and Qwen2.5-VL's: what `start_model` takes.

    Raises:
        ValueError: a folder is not there, or `wan` is laid out otherwise.
    """
    must(wan.is_dir() and (qwen is None or qwen.is_dir()), f"{wan if not wan.is_dir() else qwen}: no such folder")
    sources = {part: wan / name for part, name in (("decoder", "transformer"), ("vae", "vae"), ("text", "text_encoder"))}
    tokenizers = {"text": wan / "tokenizer"}
    lacking = [path.name for path in (*sources.values(), *tokenizers.values()) if not path.is_dir()]
    pickles = sorted(path.name for path in wan.glob("*.pth"))
    why = f": its autoencoder and text encoder are pickles ({', '.join(pickles)}), which are not opened" if pickles else ""
    must(not lacking, f"{wan}: no {', '.join(lacking)} there{why}; give Wan2.1's folder for diffusers (its decoder alone may be any layout's: see fill)")
    return (sources, tokenizers) if qwen is None else (sources | {"backbone": qwen}, tokenizers | {"backbone": qwen})


def fill(part: str, module: nn.Module, source: Path, *, device: Any = "cpu", dtype: Any = None, fresh: bool = False) -> list[str]:
    """Loads a part from `source`, in our layout or in its makers': Wan's, diffusers', transformers', the hub's; which, its names tell.

    A decoder that `pan export` wrote in one of Wan's layouts has PAN's parameters in a folder beside, and they are loaded too.

    Args:
        fresh: PAN's own parameters, which its makers' files lack, may all be absent: the state's stream and the queries.

    Returns:
        The names of those that were: they have memory, but no values yet.

    Raises:
        ValueError: see `weights.load`.
    """
    keys = stored(source).keys()
    ours = own_names(part)
    lacking, beside = not any(ours(key) for key in keys), source / BESIDE
    absent = ours if lacking and (fresh or beside.is_dir()) else _nothing
    network = weights_of(module)
    left = load(network, source, device=device, dtype=dtype, keymap=keymap_for(part, keys), absent=absent, unused=_unused(part, module))
    if not (lacking and beside.is_dir()):
        return left
    return load(network, beside, device=device, dtype=dtype, absent=lambda name: not ours(name))


def changed(part: str, module: nn.Module, source: Path) -> list[str]:
    """Names of a part's parameters, PAN's own left out, that are not as `source` has them; all are compared."""
    keymap = keymap_for(part, stored(source).keys())
    return differing(weights_of(module), source, keymap=keymap, but=own_names(part), unused=_unused(part, module))


def all_but(names: Collection[str]) -> Callable[[str], bool]:
    """Every name but these."""
    return lambda name: name not in names


def own_names(part: str) -> Callable[[str], bool]:
    """Which of a part's parameters are PAN's, and in nobody else's files."""
    if part == "decoder":
        return lambda name: name.startswith("state_proj.") or any(f".{own}." in name for own in ("state_attn", "state_out", "state_norm", "state_proj"))
    return (lambda name: name == QUERIES) if part == "backbone" else _nothing


def keymap_for(part: str, keys: Collection[str]) -> KeyMap | None:
    """How the names `keys` become ours."""
    if part == "decoder":
        return from_diffusers if any(key.startswith("condition_embedder.") for key in keys) else None
    if part == "vae":
        return vae_from_wan if any(key.startswith("encoder.downsamples.") for key in keys) else None
    if part == "text":
        return umt5_from_wan if "token_embedding.weight" in keys else None
    return _qwen if part == "backbone" else None


def begin(part: str, module: nn.Module, left: Collection[str], seed: int) -> None:
    """Values for what `fill` left without: queries at random, a state's stream that copies the text's and adds nothing at first.

    Source: PAN section 3.3.2 and figure 2; the queries' spread is `BackboneSpec.query_std`.
    """
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        if part == "backbone" and QUERIES in left:
            queries: Any = module.get_parameter(QUERIES)
            spec: Any = module.spec
            queries.copy_(torch.randn(queries.shape, generator=random) * spec.query_std)
        if part == "decoder" and left:
            assert isinstance(module, Decoder)
            for projection in module.state_projections():
                weight = projection.weight
                bound = (6 / sum(weight.shape)) ** 0.5  # Xavier's, as all of the decoder's linear maps
                weight.copy_((torch.rand(weight.shape, generator=random) * 2 - 1) * bound)
                projection.bias.zero_()
            module.start_state_stream()


def _qwen(key: str) -> str:
    return key if key == QUERIES else qwen_from_hub(key)


def _unused(part: str, module: nn.Module) -> Callable[[str], bool]:
    """What the makers' files hold that a part does without: umT5's decoder, and Qwen's layer from hidden states to words where it is not kept."""
    if part == "text":
        return lambda key: key.startswith(("decoder.block.", "decoder.embed_tokens.", "decoder.final_layer_norm.", "lm_head."))
    return (lambda key: key.startswith("lm_head.")) if part == "backbone" and getattr(module, "lm_head", None) is None else _nothing


def _nothing(name: str) -> bool:
    return False
