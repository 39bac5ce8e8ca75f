"""Parameters counted from the spec are those of the modules, built for real without memory, and those that are published."""

from dataclasses import replace

import pytest
import torch

from training.model import counts
from training.model.card import parts_of
from training.model.parts import build_part
from training.model.spec import SPECS, BackboneSpec, VaeSpec

STAGE_ONE = replace(SPECS["pan_14b"], name="pan_14b_stage_one", decoder=replace(SPECS["pan_14b"].decoder, state_dim=None))
SMALL = replace(SPECS["debug"], name="4x4x4", vae=replace(SPECS["debug"].vae, spatial=4, base_dim=24))
OPTIONS = [
    replace(SPECS[name], name=f"{name} {changes}", decoder=replace(SPECS[name].decoder, **changes))
    for name, changes in (
        ("debug", {"state_norm": "own"}),
        ("debug", {"state_projection": "each"}),
        ("pan_14b", {"state_norm": "own", "state_projection": "each"}),
    )
]
ALL = [*SPECS.values(), STAGE_ONE, SMALL, *OPTIONS]


@pytest.mark.parametrize("spec", ALL, ids=lambda spec: spec.name)
def test_counts_are_the_modules(spec: object) -> None:
    counted = counts.parameters(spec)  # type: ignore[arg-type]
    for part in parts_of(spec):  # type: ignore[arg-type]
        with torch.device("meta"):
            module = build_part(spec, part)  # type: ignore[arg-type]
        wanted = counted[part] + (counted["queries"] if part == "backbone" else 0)
        assert sum(parameter.numel() for parameter in module.parameters()) == wanted, part
    assert set(counted) - {"queries"} == set(parts_of(spec))  # type: ignore[arg-type]


def test_published_figures() -> None:
    assert counts.decoder(STAGE_ONE.decoder) == 14_288_491_584
    assert counts.decoder(SPECS["pan_14b"].decoder) / 1e9 == pytest.approx(19.55, abs=0.02)
    assert counts.decoder(replace(SPECS["pan_1_3b"].decoder, state_dim=None)) / 1e9 == pytest.approx(1.419, abs=0.0005)
    assert counts.decoder(SPECS["pan_1_3b"].decoder) / 1e9 == pytest.approx(1.419 + 0.36, abs=0.01)
    assert counts.text(SPECS["pan_14b"].text) / 1e9 == pytest.approx(5.681, abs=0.0005)
    assert counts.vae(VaeSpec()) / 1e6 == pytest.approx(126.9, abs=0.05)
    qwen = BackboneSpec(lm_head=True)
    assert counts.backbone(qwen) / 1e9 == pytest.approx(8.292, abs=0.0005)
    assert counts.vision_tower(qwen) / 1e9 == pytest.approx(0.677, abs=0.0005)
    assert counts.language_model(qwen) / 1e9 == pytest.approx(7.071, abs=0.0005)
    assert (counts.backbone(qwen) - counts.backbone(BackboneSpec())) / 1e9 == pytest.approx(0.545, abs=0.0005)


def test_what_the_options_of_the_states_stream_cost() -> None:
    plain = SPECS["pan_14b"].decoder
    assert counts.decoder(replace(plain, state_norm="own")) - counts.decoder(plain) == 40 * 2 * 5120
    assert counts.decoder(replace(plain, state_projection="each")) - counts.decoder(plain) == 39 * (3584 * 5120 + 5120)


def test_a_block_is_a_block() -> None:
    decoder = SPECS["pan_14b"].decoder
    assert counts.decoder(replace(decoder, layers=41)) - counts.decoder(decoder) == counts.decoder_block(decoder)
