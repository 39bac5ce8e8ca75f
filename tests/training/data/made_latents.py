"""Latents as `pan encode` makes them, in this process and without Ray."""

from pathlib import Path
from typing import Any

from safetensors.torch import save

from curation.ledger import FrozenLedger
from curation.lock import hold
from curation.sample import digest
from curation.shards import load_manifest
from curation.sink import Ledger
from curation.storage import Storage
from pipelines.encode import to_do, wanted
from training.data.encode_clips import EncodeClips
from training.data.encoder import Encoder
from training.data.identity import EncodeSettings, identity
from training.data.latent_pack import publish
from training.model.card import read_spec

EXACT = EncodeSettings(dtype="float32")


def encode(clips: Path, out: Path, model: Path, settings: EncodeSettings = EXACT) -> dict[str, Any]:
    """Encodes and publishes what is missing; returns the manifest."""
    source, spec = Storage.at(clips), read_spec(model)
    manifest, encoder = load_manifest(source), identity(model, spec, settings)
    listed = wanted(source, manifest, encoder)
    with hold(out) as lock:
        rows = to_do(listed, FrozenLedger.read(out))
        if rows.num_rows:
            Ledger(out, lock.fence, ending="safetensors").write([EncodeClips(source, str(model), settings, "cpu")(rows)])
        null = bytes(save({"text": Encoder.open(model, spec, settings).text("")}))
        return publish(FrozenLedger.read(out), listed, {"pack": manifest["pack"]}, encoder, null, lock.fence)


def encoder_digest(model: Path, settings: EncodeSettings = EXACT) -> str:
    """The digest that addresses are made of."""
    return digest(identity(model, read_spec(model), settings))
