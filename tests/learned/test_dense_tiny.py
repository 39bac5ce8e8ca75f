"""Dense captions asked of a real engine with random weights: the schema compiles, the answer is bound and typed, and nothing of it is believed unchecked."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

from captioning import structure
from captioning.caption import CaptionClips, CaptionConfig
from captioning.checks import REASONS
from captioning.prompts import dense
from curation.clips import table_of
from curation.frames import SIGNALS, Frames
from curation.vlm import Question, Vlm, VlmConfig, frames_sha256, open_vlm, parsed, shown

SPANS = [(0.0, 2.5625), (2.5625, 5.0625)]


def frames(seed: int) -> Frames:
    rng = np.random.default_rng(seed)
    rgb = np.stack([np.roll(rng.integers(0, 256, (56, 84, 3), np.uint8), 3 * k, axis=1) for k in range(6)])
    times = np.arange(6) * 0.9
    return Frames(rgb, rgb[..., 1].copy(), times, np.full(6, 1 / 15, np.float32), 1.1, {name: times.astype(np.float32) for name in SIGNALS})


@pytest.fixture(scope="module")
def config(tiny: Path) -> VlmConfig:
    return VlmConfig(model=str(tiny), dtype="float32", max_model_len=8192, repairs=0)


@pytest.fixture(scope="module")
def vlm(config: VlmConfig) -> Vlm:
    return open_vlm(config)


def test_the_engine_keeps_to_the_schema(vlm: Vlm) -> None:
    """What random weights write is JSON of the asked form as far as it got: every token was allowed by the grammar."""
    (answer,) = vlm.answer([Question("a" * 16, frames(1), dense(SPANS), schema=structure.schema(2), max_tokens=400)])
    assert answer.reason in (None, "vlm_truncated")
    assert answer.text.lstrip().startswith("{")
    if answer.reason is None:
        jsonschema.validate(answer.value, structure.schema(2))
        assert parsed(answer.text, Question("a" * 16, frames(1), dense(SPANS), schema=structure.schema(2)))[1] is None


def test_clips_come_back_typed_and_bound(config: VlmConfig, vlm: Vlm, monkeypatch: pytest.MonkeyPatch) -> None:
    clips: list[dict[str, Any]] = [
        {"clip_id": f"{n:016x}", "video_id": "1" * 16, "video_uri": "a.mp4", "chunks": 2, "start_s": 0.0, "end_s": 5.0625, "frames": frames(n).to_bytes()}
        for n in (1, 2)
    ]
    stage = CaptionClips(CaptionConfig(backend="vlm"), config)
    assert stage.dense is not None
    assert stage.dense.vlm is vlm  # one engine a process and configuration
    out = stage(table_of([{**clip, "stages": ["split"]} for clip in clips])).to_pylist()
    for row, n in zip(out, (1, 2), strict=True):
        record = json.loads(row["answers"][0])
        assert (record["clip_id"], record["model"]) == (row["clip_id"], config.model)
        assert record["frames_sha256"] == frames_sha256(*shown(frames(n), config.max_pictures))
        assert row["frames"] is None
        assert row["status"] == "ok" or (row["error_code"] in {*REASONS, "vlm_truncated", "vlm_invalid"} and row["caption"] is None)
    assert json.loads(out[0]["answers"][0])["text"] != json.loads(out[1]["answers"][0])["text"]
