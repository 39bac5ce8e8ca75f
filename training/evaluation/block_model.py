"""The model of the block world: PAN in miniature that reads words, before anything but its autoencoder is taught."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from training.evaluation.block_pictures import film
from training.evaluation.block_words import NOTHING, WAYS
from training.evaluation.blockworld import COLOURS, Split, World, episodes
from training.model import text, tokens
from training.model.backbone import Backbone
from training.model.checkpoint import save_model
from training.model.decoder import Decoder
from training.model.dialogue import Dialogue, Round
from training.model.glp import GLP
from training.model.plain import must
from training.model.small_vae import SmallVae
from training.model.spec import SPECS, BackboneSpec, ChunkSpec, ModelSpec, SpecialIds, VaeSpec
from training.model.vision import see
from training.teach_backbone import Lesson

#: Length of an action in curated films: PAN's 40 frames at 16 a second.
ACTION_S = 2.5
#: The text encoder is random and frozen, the same in every arm: latents are encoded once.
TEXT_SEED = 0
#: Spread of the text encoder's position biases. A random encoder's own are so weak that each word hears all others alike, and "the red block left and the
#: blue block up" would hardly differ from its exchange; with strong ones each head listens to words at a distance of its own, as a taught encoder's does.
POSITION_STD = 8.0
#: Spread of the backbone's word and query embeddings: as large as what its first layers add to them.
EMBEDDING_STD = 0.5
#: Of the noise levels, towards much noise, where it is decided what the picture shows: 3 is what Wan has for 480p;
#: 1 spends most of the training on the grain of latents that look right already.
SHIFT = 3.0
_SPECIAL = ("</s>", *(tokens.NAMES[name] for name in ("start", "end", "vision_start", "vision_end", "vision", "image", "video")))
_WORDS = (
    "push",
    "the",
    "block",
    "and",
    "while",
    "camera",
    "pans",
    *NOTHING.split(),
    *COLOURS,
    *WAYS,
    *["it", "is", "other", "one"],
    *["system", "user", "assistant"],
)

History = Literal["swin", "last_frames"]


def vocabulary() -> dict[str, int]:
    """Every word that an action of the block world can have, with its id; 0 is padding, as umT5 and Qwen's template want it, and the last is any other word."""
    return {word: number for number, word in enumerate((tokens.NAMES["pad"], *_SPECIAL, *_WORDS, "<unk>"))}


def write_tokenizer(folder: Path) -> Path:
    """A `tokenizer.json` of whole words, which text encoder and backbone share; returns the folder."""
    known = vocabulary()
    added = [
        {"id": known[word], "content": word, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
        for word in (tokens.NAMES["pad"], *_SPECIAL)
    ]
    model = {"type": "WordLevel", "vocab": known, "unk_token": "<unk>"}
    told = {"version": "1.0", "added_tokens": added, "normalizer": None, "pre_tokenizer": {"type": "Whitespace"}, "post_processor": None, "decoder": None}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(json.dumps({**told, "truncation": None, "padding": None, "model": model}, indent=1), "utf-8")
    return folder


def plain_vae() -> VaeSpec:
    """The autoencoder's widths, before it is taught: 16 channels at an eighth of the picture's side."""
    return VaeSpec(kind="small", base_dim=16, mean=(0.0,) * 16, std=(1.0,) * 16)


def block_spec(world: World, vae: VaeSpec, *, history: History = "swin", cond_noise: float = 0.055, chunk_latents: int = 1) -> ModelSpec:
    """The miniature for a world's curated films: a chunk of `chunk_latents` latent frames is one action of 2.5 s.

    Args:
        vae: of the autoencoder, with its latents' mean and deviation as measured.
        history: "swin" is PAN's two chunks in flight; "last_frames" denoises each chunk by itself behind the frame before it.
        cond_noise: of that frame; PAN's is 0.055.
    """
    base, known = SPECS["blockworld"], vocabulary()
    ids = SpecialIds(**{name: known[tokens.NAMES[name]] for name in tokens.NAMES})
    encoder = replace(base.text, vocab=len(known), d_model=64, d_kv=16, d_ff=128, heads=4, layers=2, tokens=16)
    decoder = replace(base.decoder, dim=128, ffn=512, heads=4, layers=4, text_dim=encoder.d_model, text_tokens=encoder.tokens, freq_dim=64)
    frames = chunk_latents * vae.temporal
    chunks = ChunkSpec(chunk_latents=chunk_latents, fps=frames / ACTION_S, window_chunks=2 if history == "swin" else 1, temporal=vae.temporal)
    spec = replace(
        base,
        name=f"blockworld_{history}",
        decoder=decoder,
        backbone=replace(base.backbone, vocab=len(known), ids=ids, system="", max_positions=2048),
        vae=vae,
        text=encoder,
        chunks=chunks,
        history=history,
        shift=SHIFT,
        height=world.size,
        width=world.size,
    )
    return replace(spec, window=replace(spec.plan, cond_noise=cond_noise))


def fresh_backbone(spec: BackboneSpec, words: Path) -> Backbone:
    """A backbone that nobody has taught, random by torch's seed, with weights large enough that its states depend on what is seen and said.

    Args:
        words: a folder that `write_tokenizer` wrote.
    """
    backbone = Backbone(spec, tokens.FileTokenizer(words, spec.ids))
    _awaken(backbone)
    return backbone


def lessons(world: World, spec: ModelSpec, count: int, seed: int, split: Split = "train", rounds: int = 10, *, apart: bool = False) -> list[Lesson]:
    """Stories on the model's clock, each as the dialogue that the joint phase would make of it, with what comes of each action.

    Args:
        world: on the model's clock.
        seed: of the stories; those of a corpus with another seed are others.
        apart: no frame of them shows an arrangement of the other split.
    """
    found = []
    for story in episodes(world, rounds, seed, count, split, apart=apart):
        frames = film(world, story.positions_TN2, story.camera_T2)
        shown = [frames[:1], *(frames[1 + world.chunk_frames * k : 1 + world.chunk_frames * (k + 1)] for k in range(rounds - 1))]
        sights = [see(each, spec.chunks.fps, spec.backbone.vision) for each in shown]
        found.append(Lesson(Dialogue(tuple(Round(sight, text) for sight, text in zip(sights, story.words, strict=True))), story.captions))
    return found


def write_model(folder: Path, spec: ModelSpec, vae: SmallVae, seed: int, taught: Mapping[str, Tensor] | None = None) -> None:
    """A model at the beginning of its training: autoencoder as taught, text encoder random with strong positions, everything else random by `seed`.

    Args:
        taught: the backbone's parameters after it was taught; None: nobody has taught it.

    Raises:
        ValueError: the autoencoder is not the spec's, or the folder holds something.
    """
    must(vae.spec == spec.vae, f"model {spec.name}: its autoencoder is to be {spec.vae}, the one given is {vae.spec}")
    words = write_tokenizer(folder.parent / f".{folder.name}.words")
    with torch.random.fork_rng():
        torch.manual_seed(TEXT_SEED)
        listener = text.TextEncoder(spec.text, text.open_tokenizer(words)).eval()
        with torch.no_grad():
            for name, parameter in listener.named_parameters():
                if "relative_attention_bias" in name:
                    parameter.normal_(0.0, POSITION_STD)
        torch.manual_seed(seed)
        decoder = Decoder(spec.decoder)
        backbone = fresh_backbone(spec.backbone, words)
        if taught is not None:
            backbone.load_state_dict(taught)
    save_model(folder, GLP(spec, decoder=decoder, vae=vae, text=listener, backbone=backbone))


def _awaken(backbone: Backbone) -> None:
    """Random weights whose outputs are as large as their inputs.

    transformers draws all of them with a deviation of 0.02, which suits a width of thousands: at 64 a query's hidden state is then its own embedding to within
    some thousandths, whatever is seen and said, and a state that does not depend on its round has nothing to teach anyone.
    """
    with torch.no_grad():
        for name, parameter in backbone.named_parameters():
            if parameter.ndim > 1:
                parameter.normal_(0.0, EMBEDDING_STD if name.endswith(("query_embed", "embed_tokens.weight")) else parameter[0].numel() ** -0.5)
