"""Planner: rules with their reasons, the best way first, and what would fit where nothing does."""

from dataclasses import replace

import pytest

from training.model.spec import SPECS
from training.parallel_sequence import shares
from training.planner import Wishes, in_phase, options, plan

PAN, SMALL = SPECS["pan_14b"], SPECS["pan_1_3b"]


def test_pan_on_eight_h200_fits_and_all_ways_that_are_shown_do() -> None:
    verdict = plan(PAN, Wishes(gpus=8, memory=141))
    assert verdict.fits
    assert verdict.learning == verdict.parameters["decoder"] + verdict.parameters["queries"]
    assert all(option.memory.total <= 141 for option in verdict.options)
    assert {option.spread.replicate * option.spread.shard for option in verdict.options} == {8}
    assert all(option.spread.shard % option.spread.sequence == 0 for option in verdict.options)
    every = list(options(PAN, Wishes(gpus=8, memory=141)))
    assert len([option for option in every if option.memory.total <= 141]) == len(verdict.options) < len(every)


def test_the_first_phase_on_h200_shares_windows_rather_than_compute_twice() -> None:
    best = plan(PAN, Wishes(gpus=8, memory=141, phase="decoder")).options[0]
    assert (best.spread.sequence, best.spread.checkpointing) == (4, False)
    assert not plan(SMALL, Wishes(gpus=8, memory=141, phase="decoder")).options[0].spread.checkpointing


def test_copies_without_cutting_do_not_fit_and_what_would_is_said() -> None:
    verdict = plan(PAN, Wishes(gpus=8, memory=141, replicate=8))
    assert not verdict.fits
    assert "of a GPU's 141 (replicate 8 x shard 1, sequence 1, checkpointing on): optimiser 234.6, gradients 78.2" in verdict.reason
    assert verdict.would_fit[0].startswith("the same GPUs with replicate 1 x shard 8, sequence 8, checkpointing off")
    assert len(verdict.options) == 1


def test_more_gpus_or_larger_ones_are_proposed_and_they_do_fit() -> None:
    verdict = plan(PAN, Wishes(gpus=4, memory=80))
    assert verdict.would_fit == (
        "8 GPUs of 80 GB with replicate 1 x shard 8, sequence 2, checkpointing on",
        "4 GPUs of 141 GB with replicate 1 x shard 4, sequence 2, checkpointing on",
    )
    assert plan(PAN, Wishes(gpus=8, memory=80, replicate=1, shard=8, sequence=2, checkpointing=True)).fits
    assert plan(PAN, Wishes(gpus=4, memory=141, replicate=1, shard=4, sequence=2, checkpointing=True)).fits


def test_fewer_windows_or_encoders_elsewhere_are_proposed() -> None:
    many = plan(PAN, Wishes(gpus=8, memory=80, windows=16))
    assert any(each.startswith("--windows 1 with ") for each in many.would_fit)
    tight = Wishes(gpus=8, memory=70, resident=True)
    assert plan(PAN, tight.model_copy(update={"resident": False})).fits
    assert any(each.startswith("encoders run beforehand, and no films while training, with ") for each in plan(PAN, tight).would_fit)


def test_nothing_is_promised_where_nothing_helps() -> None:
    verdict = plan(PAN, Wishes(gpus=1, memory=1))
    assert not verdict.fits
    assert verdict.would_fit == ()


@pytest.mark.parametrize(
    ("wishes", "told"),
    [
        ({"replicate": 3}, "replicate 3 x shard 2 is 6, and there are 8 GPUs"),
        ({"shard": 3}, "replicate 2 x shard 3 is 6, and there are 8 GPUs"),
        ({"replicate": 4, "shard": 4}, "replicate 4 x shard 4 is 16, and there are 8 GPUs"),
        (
            {"gpus": 32, "sequence": 32},
            "sequence 32: there are only 40 heads of the decoder, 1560 tokens of a latent frame, 28 heads of the backbone, 16 tokens",
        ),
        ({"sequence": 3}, "sequence 3 with shard 1, 2, 4, 8: those who share a window lie within a shard group"),
        ({"shard": 2, "sequence": 4}, "sequence 4 with shard 2: those who share a window lie within a shard group"),
    ],
)
def test_what_does_not_go_together_is_refused_with_the_rule(wishes: dict[str, int], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        plan(PAN, Wishes(**({"gpus": 8, "memory": 141} | wishes)))


def test_shares_need_not_be_even_as_in_the_trainer() -> None:
    """Eight have 4 or 3 of the backbone's 28 heads each: the one with most is what memory and time are of."""
    assert shares(28, 8)[0] == 4
    for phase in ("decoder", "joint"):
        given = Wishes(gpus=8, sequence=8, memory=141, phase=phase)  # type: ignore[arg-type]
        assert {option.spread.sequence for option in plan(PAN, given).options} == {8}
    eight, four = (next(options(PAN, Wishes(gpus=8, shard=8, sequence=n, checkpointing=False))) for n in (8, 4))
    assert eight.operations.longest > four.operations.longest / 2
    assert eight.memory.activations > four.memory.activations / 2
    assert plan(PAN, Wishes(gpus=12, shard=12, sequence=3, memory=141)).options[0].spread.sequence == 3
    assert plan(PAN, Wishes(gpus=16, gpus_per_node=2, sequence=4, memory=141)).fits  # over a slow link, but it goes


def test_the_search_prefers_even_shares() -> None:
    ways = [option.spread for option in plan(PAN, Wishes(gpus=8, memory=141)).options]
    assert {spread.sequence for spread in ways} == {1, 2, 4, 8}
    for checkpointing in (True, False):
        alike = [spread.sequence for spread in ways if spread.checkpointing is checkpointing]
        assert 8 not in alike or alike.index(8) == len(alike) - alike.count(8)
    assert [option.spread.sequence for option in plan(PAN, Wishes(gpus=8, shard=8, memory=141, checkpointing=True)).options] == [1, 2, 4, 8]
    assert max(option.spread.sequence for option in options(PAN, Wishes(gpus=64, gpus_per_node=32))) == 16


def test_what_a_run_keeps_beside_can_be_what_does_not_fit() -> None:
    tight = Wishes(gpus=8, memory=79, shard=8, sequence=2, checkpointing=True)
    assert plan(PAN, tight).fits
    for more in ({"average": True}, {"gather": "float32"}, {"resident": True}):
        assert not plan(PAN, tight.model_copy(update=more)).fits


def test_processes_without_a_gpu_are_held_to_their_own_memory_or_to_none() -> None:
    free = Wishes(gpus=2, device="cpu", memory=None)
    assert plan(PAN, free).fits
    tight = plan(PAN, free.model_copy(update={"memory": 16.0}))
    assert not tight.fits
    assert "GB of a worker's 16 (" in tight.reason
    assert tight.would_fit[-1].startswith("2 workers of ")
    assert not any("GPUs of" in each for each in tight.would_fit)


def test_a_connectors_decoder_has_no_phase_of_its_own() -> None:
    assert plan(SPECS["pandora_recipe"], Wishes(memory=80)).parameters.keys() == {"decoder", "vae", "text", "backbone", "queries", "connector"}
    with pytest.raises(ValueError, match="always reads the backbone, through its connector"):
        plan(SPECS["pandora_recipe"], Wishes(phase="decoder"))
    assert in_phase(PAN, "decoder") == replace(PAN, decoder=replace(PAN.decoder, state_dim=None))


def test_thousands_of_gpus_are_planned_too() -> None:
    verdict = plan(PAN, Wishes(gpus=960, memory=141))
    assert (120, 8) in {(option.spread.replicate, option.spread.shard) for option in verdict.options}  # PAN's own: cut within a node
