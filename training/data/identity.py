"""Identity: what latents depend on: the encoders' very weights and widths, the clock, the sizes; its digest is in every address."""

import hashlib
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from curation.config import Config
from curation.sample import digest
from training.data.buckets import buckets_of, checked
from training.model.card import read_card
from training.model.spec import ModelSpec
from training.model.tensor_files import stored

TOKENIZERS = ("tokenizer.json", "spiece.model")
_BLOCK = 1 << 20


class EncodeSettings(Config):
    """How clips become latents."""

    dtype: Literal["float32", "bfloat16", "float16"] = Field(
        "bfloat16", description="of stored latents and texts: PAN trains in bfloat16, and it halves the bytes"
    )
    compute: Literal["float32", "bfloat16"] = Field("float32", description="of the text encoder; the autoencoder runs as its weights are stored")
    buckets: tuple[tuple[int, int], ...] | None = Field(None, description="(height, width) px that clips are brought to; none = the model's own, 4:3 and 1:1")
    most_enlarged: float = Field(1.1, ge=1, le=8, description="a clip that would be enlarged more is refused: blur is no detail to learn")
    vision: bool = Field(True, description="store what the vision tower sees; the joint phase needs it, it is three quarters of the bytes")


def facts(spec: ModelSpec, settings: EncodeSettings) -> dict[str, Any]:
    """What a model's latents depend on but its weights; those of two models can serve both where these are equal."""
    sizes = buckets_of(spec) if settings.buckets is None else checked(settings.buckets, spec)
    parts = {"chunks": asdict(spec.chunks), "vae": asdict(spec.vae), "text": asdict(spec.text), "vision": asdict(spec.backbone.vision)}
    del parts["chunks"]["window_chunks"]  # how many chunks a window has is the reader's affair
    if not settings.vision:
        del parts["vision"]
    return {**parts, "buckets": [list(size) for size in sizes], "settings": settings.model_dump(mode="json", exclude={"buckets"})}


def identity(folder: Path, spec: ModelSpec, settings: EncodeSettings) -> dict[str, Any]:
    """`facts`, with the sha256 of each file that holds weights or a tokenizer of the autoencoder and the text encoder: {file's name: sha256}.

    Raises:
        ValueError: `folder` is no model, or a part's files are not there.
    """
    card, weights = read_card(folder), {}
    for part in ("vae", "text"):
        told = getattr(card, part)
        files = {entry.file for entry in stored(folder / part if told.source is None else Path(told.source)).values()}
        files |= {folder / part / name for name in TOKENIZERS if told.tokenizer and (folder / part / name).is_file()}
        weights[part] = {file.name: _sha256(file) for file in sorted(files)}
    return {**facts(spec, settings), "weights": weights}


def address(encoder_digest: str, binding: str) -> str:
    """Where a clip's latents are kept: 32 hex digits of the encoder and of the clip's MP4 with its caption (`curation.binding`)."""
    return digest({"encoder": encoder_digest, "binding": binding})[:32]


def _sha256(file: Path) -> str:
    found = hashlib.sha256()
    with file.open("rb") as source:
        while block := source.read(_BLOCK):
            found.update(block)
    return found.hexdigest()
