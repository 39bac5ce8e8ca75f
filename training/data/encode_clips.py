"""EncodeClips: the stage of `pan encode`: rows that say where a published clip lies become rows with its latents, or with the reason why not."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa

from curation.clips import ClipError, clip_schema, one_line
from curation.storage import Storage
from training.data.encoder import Encoder
from training.data.identity import EncodeSettings
from training.data.samples import BadSample, Entry, read_clip
from training.model.checkpoint import read_spec

STAGE = "encode"
#: Beside the ledger's own columns: the clip's id, where it lies (JSON), and of an encoded one its pan-latent/1 document, and how many of its bytes, the last,
#: are what the vision tower sees.
FIELDS = (pa.field("key", pa.string()), pa.field("entry", pa.string()), pa.field("document", pa.string()), pa.field("looks_bytes", pa.int64()))


def row_of(entry: Entry, address: str) -> dict[str, Any]:
    """A clip that is yet to be encoded. In the ledger of latents a row's identity is its address alone: it is its own video, at its own name."""
    return {
        "kind": "clip",
        "clip_id": address,
        "video_id": address,
        "video_uri": address,
        "clip_index": 0,
        "status": "ok",
        "reject": [],
        "stages": [],
        "key": entry.key,
        "entry": json.dumps(asdict(entry), sort_keys=True),
    }


def table_of(rows: list[dict[str, Any]]) -> pa.Table:
    """Rows as a table; a missing key is null."""
    return pa.Table.from_pylist(rows, schema=pa.schema([*clip_schema(), *FIELDS]))


class EncodeClips:
    """Encodes clips one by one.

    Args:
        shards: the output of `pan curate` that they lie in.
        model: the model's folder.
        settings: how.
        device: torch's name of where the encoders run.
    """

    def __init__(self, shards: Storage, model: str, settings: EncodeSettings, device: str) -> None:
        folder = Path(model)
        self._shards, self._encoder = shards, Encoder.open(folder, read_spec(folder), settings, device)

    def __call__(self, table: pa.Table) -> pa.Table:
        """The rows with `video` (both safetensors), `video_sha256` and `document`; a clip's own fault is its row's reason."""
        return table_of([row | self._done(row) for row in table.to_pylist()])

    def _done(self, row: Mapping[str, Any]) -> dict[str, Any]:
        told = json.loads(row["entry"])
        entry = Entry(**{**told, "places": tuple((offset, size) for offset, size in told["places"])})
        try:
            encoded, document = self._encoder.encode(read_clip(self._shards, entry), row["clip_id"])
        except BadSample as error:
            return _failed("bad_sample", str(error))
        except ClipError as error:
            return _failed(error.reason, error.detail)
        data = b"".join(parts := encoded.to_bytes())
        facts = {
            "video": data,
            "video_sha256": hashlib.sha256(data).hexdigest(),
            "document": document.decode(),
            "chunks": json.loads(document)["chunks"],
            "looks_bytes": len(parts[1]),
        }
        return {**facts, "stages": [STAGE]}


def _failed(reason: str, detail: str) -> dict[str, Any]:
    return {"status": "failed", "error_code": reason, "error_detail": one_line(detail), "stages": [STAGE]}
