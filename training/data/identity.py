"""Identity: what latents depend on: the encoders' very weights and widths, the clock, the sizes; its digest is in every address."""

import hashlib
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from curation.config import Config
from curation.sample import digest
from training.data.buckets import Size, buckets_of, checked
from training.model.card import read_card
from training.model.spec import ModelSpec
from training.model.tensor_files import stored

TOKENIZERS = ("tokenizer.json", "spiece.model")
#: What of the vision tower's spec decides which pixels it is shown.
SEEN = ("sample_fps", "min_frames", "max_frames", "rounding", "places", "image_pixels", "video_pixels", "patch", "temporal_patch", "merge")
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


def widths(spec: ModelSpec) -> dict[str, Any]:
    """What of a model's spec its latents depend on: they serve every model of which this is the same, whatever its decoder and its backbone."""
    chunks, vision = asdict(spec.chunks), asdict(spec.backbone.vision)
    del chunks["window_chunks"]  # how many chunks a window has is the reader's affair
    return {"chunks": chunks, "vae": asdict(spec.vae), "text": asdict(spec.text), "vision": {name: vision[name] for name in SEEN}}


def sizes_of(spec: ModelSpec, settings: EncodeSettings) -> tuple[Size, ...]:
    """The buckets, (height, width) in px.

    Raises:
        ValueError: the settings name one that the model's tokens do not divide.
    """
    return buckets_of(spec) if settings.buckets is None else checked(settings.buckets, spec)


def weights(folder: Path) -> dict[str, dict[str, str]]:
    """The sha256 of each file that holds weights or a tokenizer of the autoencoder and the text encoder, by part and file's name.

    Raises:
        ValueError: `folder` is no model, or a part's files are not there.
    """
    card, found = read_card(folder), {}
    for part in ("vae", "text"):
        told = getattr(card, part)
        files = {entry.file for entry in stored(folder / part if told.source is None else Path(told.source)).values()}
        files |= {folder / part / name for name in TOKENIZERS if told.tokenizer and (folder / part / name).is_file()}
        found[part] = {file.name: _sha256(file) for file in sorted(files)}
    return found


def identity(folder: Path, spec: ModelSpec, settings: EncodeSettings) -> dict[str, Any]:
    """Everything that latents depend on but the clip.

    Raises:
        ValueError: as `weights` and `sizes_of`.
    """
    return {
        **widths(spec),
        "buckets": [list(size) for size in sizes_of(spec, settings)],
        "settings": settings.model_dump(mode="json", exclude={"buckets"}),
        "weights": weights(folder),
    }


def address(encoder_digest: str, binding: str) -> str:
    """Where a clip's latents are kept: 32 hex digits of the encoder and of the clip's MP4 with its caption (`curation.binding`)."""
    return digest({"encoder": encoder_digest, "binding": binding})[:32]


def _sha256(file: Path) -> str:
    found = hashlib.sha256()
    with file.open("rb") as source:
        while block := source.read(_BLOCK):
            found.update(block)
    return found.hexdigest()
