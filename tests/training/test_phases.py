"""Phases: who learns in each, in which order they come, and what they begin with."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.training.made_world import DEBUG, PANDORA
from training.model.checkpoint import init_model
from training.phases import HISTORY, PHASES, after, begins, chosen, phase_named, prepare, read_history, write_history

STATE = ("decoder.state_proj.", "state_attn.", "state_out.")


def learning(phase: str, history: tuple[str, ...] = (), also: tuple[str, ...] = ()) -> set[str]:
    glp = init_model(PANDORA if phase in ("alignment", "tuning") else DEBUG)
    told = prepare(glp, PHASES[phase], history, also)
    assert told == [name for name, p in glp.named_parameters() if p.requires_grad]
    return set(told)


def test_decoder_phase_trains_the_decoder_without_its_state_stream() -> None:
    names = {f"decoder.{name}" for name, _ in init_model(DEBUG).decoder.named_parameters()}
    assert learning("decoder") == {name for name in names if not any(part in name for part in STATE)}


def test_decoder_phase_leaves_out_what_options_add_to_the_state_stream() -> None:
    spec = replace(DEBUG, decoder=replace(DEBUG.decoder, state_norm="own", state_projection="each"))
    glp = init_model(spec)
    assert set(prepare(glp, PHASES["decoder"], ())) == learning("decoder")
    assert any(name.endswith("state_norm.weight") for name, _ in glp.named_parameters())


def test_joint_phase_trains_the_queries_and_the_whole_decoder() -> None:
    names = {f"decoder.{name}" for name, _ in init_model(DEBUG).decoder.named_parameters()}
    assert learning("joint", ("decoder",)) == names | {"backbone.query_embed"}


def test_matching_trains_the_queries_alone_and_no_film() -> None:
    assert learning("matching", ("decoder",)) == {"backbone.query_embed"}
    with pytest.raises(ValueError, match="follows on phase decoder"):
        learning("matching")


def test_pandoras_phases() -> None:
    first = learning("alignment")
    assert "backbone.query_embed" in first
    assert {name.split(".")[0] for name in first} == {"backbone", "connector"}
    assert {name.split(".")[0] for name in learning("tuning", ("alignment",))} == {"backbone", "decoder"}


def test_more_may_learn_and_a_glob_that_matches_nothing_is_refused() -> None:
    assert "backbone.lm_head.weight" in learning("joint", ("decoder",), ("backbone.*",))
    with pytest.raises(ValueError, match=r"no parameter is named like 'backbon\.\*'"):
        learning("joint", ("decoder",), ("backbon.*",))
    assert chosen(["a.x", "a.y", "b.x"], ["a.*"], ["*.y"]) == {"a.x"}


@pytest.mark.parametrize(
    ("phase", "history", "begun"),
    [("decoder", (), True), ("decoder", ("decoder",), False), ("joint", ("decoder",), True), ("joint", ("decoder", "joint"), False)],
)
def test_orders_that_are_right(phase: str, history: tuple[str, ...], begun: bool) -> None:
    assert begins(PHASES[phase], history) is begun


@pytest.mark.parametrize(
    ("phase", "history", "text"),
    [
        ("joint", (), "follows on phase decoder, but this model has been through no phase"),
        ("decoder", ("decoder", "joint"), "is a model's first, but this model has been through decoder and joint"),
        ("joint", ("alignment",), "follows on phase decoder"),
        ("tuning", ("decoder",), "follows on phase alignment"),
    ],
)
def test_orders_that_are_wrong_are_refused_before_anything_changes(phase: str, history: tuple[str, ...], text: str) -> None:
    glp = init_model(PANDORA if phase == "tuning" else DEBUG)
    before = {name: p.requires_grad for name, p in glp.named_parameters()}
    with pytest.raises(ValueError, match=text):
        prepare(glp, PHASES[phase], history)
    assert {name: p.requires_grad for name, p in glp.named_parameters()} == before


def test_phases_of_another_model_are_refused() -> None:
    with pytest.raises(ValueError, match="it has decoder and joint"):
        phase_named("tuning", DEBUG)
    with pytest.raises(ValueError, match="it has alignment and tuning"):
        phase_named("joint", PANDORA)
    with pytest.raises(ValueError, match="there is no phase 'joined'"):
        phase_named("joined", DEBUG)
    with pytest.raises(ValueError, match="no state stream"):
        phase_named("joint", replace(DEBUG, decoder=replace(DEBUG.decoder, state_dim=None)))


def test_the_state_stream_begins_as_a_copy_of_the_texts_and_only_once() -> None:
    glp = init_model(DEBUG)
    block = glp.decoder.blocks[1]
    with torch.no_grad():
        block.cross_attn.q.weight.normal_()
        block.state_out.weight.normal_()
    assert not torch.equal(block.state_attn.q.weight, block.cross_attn.q.weight)
    prepare(glp, PHASES["joint"], ("decoder",))
    assert torch.equal(block.state_attn.q.weight, block.cross_attn.q.weight)
    assert not block.state_out.weight.any()
    with torch.no_grad():
        block.state_out.weight.fill_(0.5)
    prepare(glp, PHASES["joint"], ("decoder", "joint"))  # goes on: what was learnt stays
    assert torch.equal(block.state_out.weight, torch.full_like(block.state_out.weight, 0.5))


def test_what_learns_becomes_float32_and_the_rest_stays() -> None:
    glp = init_model(DEBUG).to(torch.bfloat16)
    prepare(glp, PHASES["joint"], ("decoder",))
    assert {p.dtype for p in glp.parameters() if p.requires_grad} == {torch.float32}
    assert {p.dtype for p in glp.parameters() if not p.requires_grad} == {torch.bfloat16}


def test_a_missing_part_is_refused() -> None:
    glp = init_model(DEBUG)
    glp.backbone = None
    with pytest.raises(ValueError, match="phase 'joint' needs a backbone"):
        prepare(glp, PHASES["joint"], ("decoder",))


def test_history_beside_the_model(tmp_path: Path) -> None:
    assert read_history(tmp_path) == ()
    write_history(tmp_path, after(PHASES["decoder"], ()))
    assert read_history(tmp_path) == ("decoder",)
    assert after(PHASES["decoder"], ("decoder",)) == ("decoder",)
    assert after(PHASES["joint"], ("decoder",)) == ("decoder", "joint")
    (tmp_path / HISTORY).write_text('{"phases": ["other"]}')
    with pytest.raises(ValueError, match="a list of decoder, joint, matching, alignment, tuning is expected"):
        read_history(tmp_path)
