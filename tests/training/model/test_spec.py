"""The specs: published numbers, parts that fit one another, a strict way to plain values and back."""

import json
from dataclasses import replace

import pytest

from training.model.spec import SPECS, BackboneSpec, ChunkSpec, DecoderSpec, ModelSpec, VaeSpec


def test_the_published_windows_and_widths() -> None:
    pan = SPECS["pan_14b"]
    assert (pan.chunks.chunk_frames, pan.chunks.window_latents) == (40, 21)
    assert (pan.decoder.head_dim, SPECS["pan_1_3b"].decoder.head_dim) == (128, 128)
    assert (pan.decoder.state_dim, pan.backbone.hidden, pan.decoder.queries) == (3584, 3584, 256)
    assert {spec.name for spec in SPECS.values()} == set(SPECS) >= {"debug", "pan_1_3b", "pan_14b", "pandora_recipe", "pandora_debug"}


def test_pandora_has_no_state_stream_and_sixteen_frames_a_round() -> None:
    pandora = SPECS["pandora_recipe"]
    assert pandora.decoder.state_dim is None
    assert (pandora.chunks.chunk_frames, pandora.chunks.window_latents, pandora.backbone.queries) == (16, 5, 64)


@pytest.mark.parametrize("name", SPECS)
def test_through_json_and_back(name: str) -> None:
    assert ModelSpec.from_dict(json.loads(json.dumps(SPECS[name].to_dict()))) == SPECS[name]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"heigth": 3}, "did you mean 'height'"),
        ({"history": "swim"}, "'swin', 'last_frames'"),
        ({"height": "480"}, r"model.height: expected int, got '480'"),
        ({"height": True}, "expected int, got True"),
        ({"decoder": {"dim": 64}}, "model.decoder: ffn, heads, layers must be given"),
        ({"decoder": 3}, "model.decoder: expected a table"),
        ({"backbone": {"mrope_section": [1, 2]}}, "expected 3 values, got 2"),
    ],
)
def test_a_foreign_dictionary_is_refused(change: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        ModelSpec.from_dict({**SPECS["debug"].to_dict(), **change})


def test_parts_that_do_not_fit_are_refused() -> None:
    debug = SPECS["debug"]
    with pytest.raises(ValueError, match=r"decoder.queries and backbone.queries are 9 and 8"):
        replace(debug, decoder=replace(debug.decoder, queries=9))
    with pytest.raises(ValueError, match=r"chunks.temporal and vae.temporal are 8 and 4"):
        replace(debug, chunks=ChunkSpec(temporal=8))
    with pytest.raises(ValueError, match="give `qformer` with"):
        replace(debug, connector="qformer", decoder=replace(debug.decoder, state_dim=None))
    with pytest.raises(ValueError, match="they must be equal"):
        replace(SPECS["pandora_debug"], decoder=replace(debug.decoder, state_dim=64))
    with pytest.raises(ValueError, match="not divisible by heads"):
        DecoderSpec(dim=65, ffn=1, heads=4, layers=1)
    with pytest.raises(ValueError, match="joins latent frames"):
        DecoderSpec(dim=64, ffn=1, heads=4, layers=1, patch=(2, 2, 2))
    with pytest.raises(ValueError, match="adds up to 8, not to half a head, 64"):
        BackboneSpec(mrope_section=(2, 3, 3))
    with pytest.raises(ValueError, match="16 means"):
        VaeSpec(channels=4)


@pytest.mark.parametrize(
    ("part", "change", "said"),
    [
        ("decoder", {"heads": 0}, "decoder: heads 0; it must be above 0"),
        ("backbone", {"kv_heads": 0}, "backbone: kv_heads 0"),
        ("backbone", {"max_rounds": 0}, "backbone: max_rounds 0"),
        ("chunks", {"fps": 0.0}, r"chunks: fps 0\.0"),
        ("chunks", {"cond_latents": -1}, "chunks: cond_latents -1"),
        ("vae", {"std": (0.0,) * 16}, "each deviation must be above 0"),
    ],
)
def test_numbers_that_nothing_can_be_made_of_are_refused(part: str, change: dict[str, object], said: str) -> None:
    data = SPECS["debug"].to_dict()
    with pytest.raises(ValueError, match=said):
        ModelSpec.from_dict(data | {part: data[part] | change})
