"""Index: every sample of a published split that a model can use, raw clips or latents, and how many it cannot and why."""

import os
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from curation.clips import ClipError
from curation.pack import MANIFEST_VERSION
from curation.plan import differences
from curation.shards import load_manifest
from curation.storage import Storage
from training.data.buckets import Size, bucket_for, buckets_of
from training.data.grid import grid_of
from training.data.identity import EncodeSettings, weights, widths
from training.data.latents import MANIFEST_VERSION as LATENTS_VERSION
from training.data.latents import plain
from training.data.samples import Entry, Kind, sidecar_rows
from training.model.plain import must
from training.model.spec import ModelSpec

Fits: TypeAlias = Callable[[Mapping[str, Any]], tuple[int, Size]]
"""From a sidecar's row: how many chunks on the model's grid, and the size that the clip has or is to be brought to."""


@dataclass(frozen=True)
class Usable:
    """A sample that a model can use: where it lies, how many chunks it has on the model's grid, its (height, width) in px."""

    entry: Entry
    chunks: int
    size: Size


@dataclass(frozen=True)
class Index:
    """The samples of one split of a published folder.

    Attributes:
        kind: "clips" (of `pan curate`) or "latents" (of `pan encode`).
        samples: those that the model can use, by key.
        unfit: of those that it cannot, such as clips shorter than a window: reason, and how many.
    """

    store: Storage
    kind: Kind
    manifest: Mapping[str, Any]
    samples: tuple[Usable, ...]
    unfit: Mapping[str, int]

    @classmethod
    def read(cls, folder: str | os.PathLike[str] | Storage, spec: ModelSpec, split: str = "train", window: int = 1) -> "Index":
        """What is published in `folder`; sidecars are held to the manifest's hashes.

        Args:
            window: chunks that a sample must have.

        Raises:
            ValueError: nothing is published there, or in a version or for a model that is not this one; or no sample is left.
            BadSample: a sidecar's bytes are not those that were published, or a key comes twice.
        """
        store = Storage.at(folder)
        manifest = load_manifest(store)
        kind = kind_of(manifest, store)
        if kind == "latents":
            _check_model(manifest, spec, store)
        fits = _fits_clip(spec) if kind == "clips" else _fits_latents
        found: dict[str, Usable] = {}
        unfit: Counter[str] = Counter()
        for shard in manifest["shards"]:
            for row in sidecar_rows(store, shard) if shard["split"] == split else ():
                entry = Entry.of(row, shard["path"], kind)
                try:
                    chunks, size = fits(row)
                except ClipError as error:
                    unfit[error.reason] += 1
                    continue
                if chunks < window:
                    unfit["shorter_than_a_window"] += 1
                    continue
                if entry.key in found:
                    raise entry.bad(f"the same key lies in {found[entry.key].entry.shard}")
                found[entry.key] = Usable(entry, chunks, size)
        because = ", ".join(f"{reason} {n}" for reason, n in sorted(unfit.items()))
        must(bool(found), f"{store.root}: split {split!r} has no sample that model {spec.name} can use" + (f" (unfit: {because})" if because else ""))
        return cls(store, kind, manifest, tuple(found[key] for key in sorted(found)), dict(unfit))


def kind_of(manifest: Mapping[str, Any], store: Storage) -> Kind:
    """What a folder holds, by its manifest.

    Raises:
        ValueError: neither clips nor latents, in the version that we read.
    """
    kinds: dict[str, Kind] = {MANIFEST_VERSION: "clips", LATENTS_VERSION: "latents"}
    told = str(manifest.get("schema"))
    must(told in kinds, f"{store.root}: the manifest's schema is {told}; this version reads {' and '.join(kinds)}")
    return kinds[told]


def check_encoders(manifest: Mapping[str, Any], model: Path) -> None:
    """Holds latents to the very weights of a model: a decoder must not learn one autoencoder's latents and be sampled through another.

    Args:
        manifest: of latents; of clips, nothing is to be checked.
        model: the model's folder.

    Raises:
        ValueError: they were made with other weights, or another tokenizer.
    """
    if "encoder" in manifest and (found := differences(manifest["encoder"]["weights"], weights(model))):
        raise ValueError(f"the latents were made with other encoders than those of {model}: {'; '.join(found[:4])}; encode the clips again with `pan encode`")


def _check_model(manifest: Mapping[str, Any], spec: ModelSpec, store: Storage) -> None:
    """Latents serve every model with encoders of the same widths, and windows of the same kind."""
    mine = plain(widths(spec))
    found = differences({part: manifest["encoder"].get(part) for part in mine}, mine)
    must(not found, f"{store.root} was encoded for another model than {spec.name}: {'; '.join(found[:6])}; encode the clips for this one with `pan encode`")


def _fits_clip(spec: ModelSpec) -> Fits:
    sizes, most = buckets_of(spec), EncodeSettings().most_enlarged

    def fits(row: Mapping[str, Any]) -> tuple[int, Size]:
        mp4 = {"fps": row["video_fps"], "frames": row["video_frames"], "start_frame": row["video_start_frame"] or 0}
        captions = [{"t0": e["start_s"], "t1": e["end_s"], "text": e["text"]} for e in row["events"] or []]
        chunks = grid_of({"mp4": mp4, "chunks": row["chunks"], "captions": captions}, spec.chunks).chunks
        return chunks, bucket_for(row["video_height"], row["video_width"], sizes, most)

    return fits


def _fits_latents(row: Mapping[str, Any]) -> tuple[int, Size]:
    return row["chunks"], (row["height"], row["width"])
