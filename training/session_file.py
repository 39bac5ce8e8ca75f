"""A rollout's session as a file: which model it belongs to, its chunks as named tensors, and what a damaged one lacks."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from training.diffusion.chunks import Chunk, Context, Past
from training.diffusion.sampler import Progress
from training.model.glp import GLP
from training.model.plain import must

_SAMPLE = 1 << 16  # numbers of a parameter
_CONTEXT = ("text_ND", "null_text_ND", "state_QS", "null_state_QS")


def identity(model: GLP) -> dict[str, Any]:
    """What must be the same for a session to go on: the spec, whether states are predicted, and each part's weights and their precision, by a sample.

    A part's first parameter: the patches' embedding of the decoder, the queries of backbone and connector.
    """
    digest = hashlib.sha256()
    for part in (model.decoder, model.vae, model.text, model.backbone, model.connector):
        if part is not None:
            digest.update(next(part.parameters()).detach().flatten()[:_SAMPLE].cpu().view(torch.uint8).numpy().tobytes())
    return {"spec": model.spec.to_dict(), "states": model.predicts_states, "weights": digest.hexdigest()}


def opened(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What a session's file tells, and its tensors; ValueError where it is none, or not whole."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt", device="cpu") as file:
            told = json.loads((file.metadata() or {}).get("pan", "null"))
            held = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - a file, not a dict
    except (OSError, SafetensorError, json.JSONDecodeError) as error:
        raise ValueError(f"{path}: no session can be read there ({error}); give a file that a session has saved") from error
    whole = isinstance(told, dict) and {"model", "sampling", "actions", "chunks"} <= told.keys() and isinstance(told["model"], dict)
    must(whole, f"{path}: a safetensors file, but not a session's; give a file that a session has saved")
    chunks = [f"chunk.{number}.{part}" for number in told["chunks"] for part in ("progress.latents", "progress.step", "condition")]
    lacking = [name for name in ("seen", *chunks) if name not in held]
    must(bool(chunks) and not lacking, f"{path}: a session without {', '.join(lacking) or 'chunks'}; it was not copied whole")
    return told, held


def tensors_of(past: Past) -> dict[str, Tensor]:
    """The chunks of `past`, by name."""
    held: dict[str, Tensor] = {}
    for chunk in past:
        name = f"chunk.{chunk.number}."
        assert chunk.condition_BCFHW is not None
        held |= {f"{name}progress.{key}": tensor for key, tensor in chunk.progress.tensors().items()} | {f"{name}condition": chunk.condition_BCFHW}
        held |= {f"{name}seen.{k}": tensor for k, tensor in enumerate(chunk.seen)}
        held |= {f"{name}context.{key}": getattr(chunk.context, key) for key in _CONTEXT if getattr(chunk.context, key, None) is not None}
    return held


def chunk_of(number: int, held: Mapping[str, Tensor], device: torch.device) -> Chunk:
    """The inverse of `tensors_of` for one chunk."""
    held = {name: tensor.to(device) for name, tensor in held.items()}
    seen = tuple(held[f"seen.{k}"] for k in range(sum(name.startswith("seen.") for name in held)))
    known: dict[str, Any] = within(held, "context.")
    return Chunk(number, Context(**known) if known else None, Progress.of(within(held, "progress.")), seen, held["condition"])


def within(held: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin with `prefix`, without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in held.items() if name.startswith(prefix)}
