"""A model on disk: a folder with model.json, which says what the model is, and each part's safetensors; written whole or not at all.

    model.json     the spec, and of each part where its files are
    decoder/ vae/ text/ backbone/ connector/    model.safetensors, or shards with an index; tokenizers beside the parts that read

A part that is somebody else's and frozen may stay where it is: model.json then names that folder, and what PAN adds to it (the queries) lies here.
"""

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from training.model import text, tokens
from training.model.card import CARD, FORMAT, Card, Part, parts_of, read_card, read_spec
from training.model.glp import GLP
from training.model.parts import all_but, begin, build_part, changed, fill, own_names, weights_of
from training.model.plain import must
from training.model.spec import ModelSpec
from training.model.tensor_files import listed, save
from training.model.weights import empty_weights, load

__all__ = ["init_model", "open_model", "read_spec", "save_model", "start_model"]

TOKENIZERS = ("tokenizer.json", "spiece.model")


def init_model(spec: ModelSpec, seed: int = 0) -> GLP:
    """A model with random weights, the same for the same seed; the process's own random numbers are left alone."""
    with _seeded(seed):
        return GLP(spec, **{part: build_part(spec, part) for part in parts_of(spec)})


def start_model(spec: ModelSpec, sources: Mapping[str, Path], *, tokenizers: Mapping[str, Path], seed: int = 0, device: Any = "cpu", dtype: Any = None) -> GLP:
    """A model at the beginning of its training: every part from its makers' files, PAN's own parameters new.

    Args:
        sources: a folder for each part that the model has, such as {"decoder": Wan2.1-T2V-14B, "vae": ..., "text": ..., "backbone": Qwen2.5-VL-7B}; a
            decoder of PAN's own first phase is one too. A connector is new where none is given.
        tokenizers: a folder for each of "text" and "backbone" that does not read bytes.
        dtype: as `open_model`.

    Raises:
        ValueError: a part has no source, or its files are not of this model.
    """
    lacking = [part for part in parts_of(spec) if part not in sources and part != "connector"]
    must(not lacking, f"model {spec.name}: no files for {', '.join(lacking)}; give a folder for each")
    _must_read(spec, tokenizers)
    modules = {}
    for number, part in enumerate(parts_of(spec)):
        if part not in sources:
            with _seeded(seed):
                modules[part] = build_part(spec, part).to(device, dtype)
            continue
        with empty_weights():
            modules[part] = build_part(spec, part, tokenizers.get(part))
        left = fill(part, modules[part], sources[part], device=device, dtype=None if part == "vae" else dtype, fresh=True)
        begin(part, modules[part], left, seed + number)
    return GLP(spec, **modules)


def save_model(folder: Path, glp: GLP, *, sources: Mapping[str, Path] | None = None, dtype: Any = None) -> None:
    """Writes a model; `folder` appears when all is written.

    Args:
        folder: must not exist, or be empty.
        sources: parts that are, but for PAN's own parameters, still as in these folders: they are named, not copied. All values are compared first.
        dtype: of floating-point tensors in the files; None: as they are.

    Raises:
        ValueError: the folder holds something, a source does not exist, or the part is no longer what is there.
    """
    must(not folder.exists() or (folder.is_dir() and not any(folder.iterdir())), f"{folder}: there is something already; give a new folder")
    pointers = {part: path.resolve() for part, path in (sources or {}).items()}
    for part, path in pointers.items():
        must(part in parts_of(glp.spec), f"model {glp.spec.name} has no part {part!r} to take from {path}")
        trained = changed(part, getattr(glp, part), path)
        must(not trained, f"{path} is not what {part} is now, so it cannot stand for it: {listed(trained)} differ; save the part itself")
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = folder.parent / f".{folder.name}.{os.getpid()}.partial"
    try:
        cards = {part: _save_part(partial / part, part, getattr(glp, part), pointers.get(part), dtype) for part in parts_of(glp.spec)}
        card = Card(format=FORMAT, model=glp.spec, **cards)
        (partial / CARD).write_text(json.dumps(asdict(card), indent=2) + "\n", "utf-8")
        _flush(partial)
        os.replace(partial, folder)
        _sync(folder.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def open_model(folder: Path, device: Any = "cpu", dtype: Any = None) -> GLP:
    """Reads a model that `save_model` wrote; no weight is held twice while it is read.

    Args:
        device: where the weights go as they are read.
        dtype: of the weights; None: as stored. The autoencoder stays as stored: Wan's is published, and run, in float32. What the decoder computes in
            float32 anyway (norms, modulation, time) is not rounded to a narrower one, as in diffusers.

    Raises:
        ValueError: model.json is missing, has an unknown key or does not fit the files.
    """
    card = read_card(folder)
    modules = {part: open_part(folder, part, device, None if part == "vae" else dtype) for part in parts_of(card.model)}
    return GLP(card.model, **modules)


def open_part(folder: Path, part: str, device: Any = "cpu", dtype: Any = None) -> nn.Module:
    """One part of the model in `folder`, as `open_model` reads it.

    Raises:
        ValueError: as `open_model`, or the model has no such part.
    """
    card = read_card(folder)
    must(part in parts_of(card.model), f"{folder}: model {card.model.name} has no {part}; it has {', '.join(parts_of(card.model))}")
    told: Part = getattr(card, part)
    with empty_weights():
        module = build_part(card.model, part, folder / part if told.tokenizer else None)
    if part == "decoder" and dtype is not None and dtype.itemsize < 4:
        dtype = partial(_kept_wide, dtype)
    if told.source is None:
        fill(part, module, folder / part, device=device, dtype=dtype)
        return module
    left = fill(part, module, Path(told.source), device=device, dtype=dtype, fresh=True)
    if left:
        load(weights_of(module), folder / part, device=device, dtype=dtype, absent=all_but(left))
    return module


def _kept_wide(dtype: Any, name: str) -> Any:
    """The dtype of a decoder's parameter in a model of a narrow `dtype`. Source: huggingface/diffusers, transformer_wan.py: what stays float32
    there; here also the norms of queries and keys.
    """
    return torch.float32 if any(kind in name for kind in ("norm", "modulation", "time_embedding")) else dtype


def _save_part(folder: Path, part: str, module: nn.Module, source: Path | None, dtype: Any) -> Part:
    """A part's files, and what model.json says of them."""
    folder.mkdir(parents=True)
    own = own_names(part)
    tensors = {name: tensor for name, tensor in weights_of(module).state_dict().items() if source is None or own(name)}
    if tensors:
        save(tensors, folder, dtype=dtype)
    tokenizer = _tokenizer_file(module)
    if tokenizer is not None:
        shutil.copyfile(tokenizer, folder / next(name for name in TOKENIZERS if tokenizer.suffix == Path(name).suffix))
    return Part(source=None if source is None else str(source), tokenizer=tokenizer is not None)


def _tokenizer_file(module: nn.Module) -> Path | None:
    """The file of the tokenizer that a part reads with; None for bytes."""
    file: Path | None = getattr(getattr(module, "_tokenizer", None), "file", None)
    return file


def _must_read(spec: ModelSpec, tokenizers: Mapping[str, Path]) -> None:
    """Raises ValueError where a part has neither a tokenizer nor a vocabulary of bytes, before anything is loaded."""
    if "text" not in tokenizers:
        text.default_tokenizer(spec.text)
    if "backbone" not in tokenizers and "backbone" in parts_of(spec):
        tokens.default_tokenizer(spec.backbone.ids)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """The process's random numbers from `seed` on, and afterwards as they were."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def _flush(folder: Path) -> None:
    """Every file and folder below `folder` to the disk, so that what is renamed into place is whole after a power cut too."""
    for path in (*folder.rglob("*"), folder):
        _sync(path)


def _sync(path: Path) -> None:
    """A file, or a folder's list of names, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
