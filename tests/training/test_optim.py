"""Optim: rates, decay, norms, averages, and which steps are bad."""

import math

import pytest
import torch
from torch import nn

from tests.training.made_run import model
from training.optim import Average, Guard, OptimSettings, TrainingDiverged, adamw, decays, gradients, rate, scale_, set_rate, total_norm


def test_the_rate_rises_for_a_twentieth_and_then_falls_as_a_cosine() -> None:
    settings = OptimSettings()
    shares = [rate(step, 200, settings) for step in range(200)]
    assert shares[:10] == pytest.approx([k / 10 for k in range(1, 11)])
    assert shares[10] == 1.0
    assert shares[105] == pytest.approx(0.5)  # half way through the fall
    assert shares[199] == pytest.approx(0.5 * (1 + math.cos(math.pi * 189 / 190)))
    assert shares[10:] == sorted(shares[10:], reverse=True)
    assert rate(500, 200, settings) == 0.0
    assert rate(500, 200, OptimSettings(min_lr=0.1)) == pytest.approx(0.1)
    assert rate(0, 1, OptimSettings(warmup=0)) == 1.0


def test_decay_is_for_matrices_alone_and_queries_have_a_rate_of_their_own() -> None:
    glp = model("joint")
    settings = OptimSettings(lr=1e-3, query_lr=7.0)
    optimiser = adamw(glp.named_parameters(), settings)
    names = {id(p): name for name, p in glp.named_parameters()}
    decayed = {names[id(p)] for group in optimiser.param_groups if group["weight_decay"] for p in group["params"]}
    every = {name for name, p in glp.named_parameters() if p.requires_grad}
    assert {name for name in every - decayed if "norm" not in name and not name.endswith("bias")} == {
        "backbone.query_embed",
        "decoder.head.modulation",
        "decoder.blocks.0.modulation",
        "decoder.blocks.1.modulation",
    }
    assert not any("norm" in name or name.endswith("bias") for name in decayed)
    assert "decoder.patch_embedding.weight" in decayed
    assert set_rate(optimiser, 0.5, settings) == 5e-4
    rates = {names[id(p)]: group["lr"] for group in optimiser.param_groups for p in group["params"]}
    assert rates.pop("backbone.query_embed") == pytest.approx(3.5e-3)
    assert set(rates.values()) == {5e-4}
    assert not decays("x.modulation", torch.zeros(1, 6, 4))


def test_master_weights_are_float32() -> None:
    with pytest.raises(ValueError, match=r"a is torch\.bfloat16; master weights are float32"):
        adamw([("a", nn.Parameter(torch.zeros(2, dtype=torch.bfloat16)))], OptimSettings())
    with pytest.raises(ValueError, match="no parameter learns"):
        adamw([], OptimSettings())


def test_the_norm_is_over_all_gradients_together() -> None:
    parameters = [nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(2, 2))]
    optimiser = torch.optim.SGD(parameters, lr=1.0)
    parameters[0].grad, parameters[1].grad = torch.tensor([3.0, 0.0]), torch.tensor([[0.0, 4.0], [0.0, 0.0]])
    assert total_norm(gradients(optimiser)).item() == 5.0
    scale_(list(gradients(optimiser)), 0.5)
    assert parameters[0].grad.tolist() == [1.5, 0.0]


def guard(**changes: float) -> Guard:
    return Guard(OptimSettings(**{"spike": 5.0, "window": 10, "most_bad": 3, **changes}))  # type: ignore[arg-type]


def test_no_number_is_bad_at_once_and_a_spike_once_there_is_a_usual_norm() -> None:
    watch = guard()
    assert not watch.good(math.nan, 1.0)
    assert not watch.good(1.0, math.inf)
    assert watch.good(1.0, 100.0)  # nothing is known yet
    assert watch.good(1.0, 1.0)
    assert watch.good(1.0, 1.0)
    assert watch.good(1.0, 4.9)
    assert not watch.good(1.0, 50.0)
    assert (watch.not_finite, watch.spikes, watch.skipped, watch.row) == (2, 1, 3, 1)
    assert watch.good(1.0, 1.0)
    assert watch.row == 0


def test_so_many_bad_steps_in_a_row_end_the_run() -> None:
    watch = guard()
    for _ in range(2):
        assert not watch.good(math.nan, 1.0)
    assert watch.good(1.0, 1.0)
    for _ in range(2):
        assert not watch.good(1.0, math.nan)
    with pytest.raises(TrainingDiverged, match="3 bad steps in a row"):
        watch.good(math.nan, 1.0)


def test_the_guard_remembers_over_a_stop() -> None:
    watch, again = guard(), guard()
    for norm in (1.0, 1.1, 0.9):
        watch.good(1.0, norm)
    watch.good(1.0, 90.0)
    again.load_state_dict(watch.state_dict())
    assert again.state_dict() == watch.state_dict()
    assert not again.good(1.0, 90.0)


def test_the_average_moves_by_one_minus_its_decay() -> None:
    weight, still = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(2), requires_grad=False)
    average = Average([("w", weight), ("s", still)], 0.9)
    with torch.no_grad():
        weight.fill_(1.0)
    average.update([("w", weight)])
    average.update([("w", weight)])
    assert average.shadow["w"].tolist() == pytest.approx([0.19, 0.19])
    assert set(average.shadow) == {"w"}


def test_parameters_are_their_average_for_a_while_and_then_what_they_were() -> None:
    weight, still = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.ones(2), requires_grad=False)
    named = [("w", weight), ("s", still)]
    average = Average(named, 0.5)
    with torch.no_grad():
        weight.fill_(1 / 3)
    average.update(named)
    with average.in_place(named):
        assert torch.equal(weight, average.shadow["w"])
        assert weight.tolist() == pytest.approx([1 / 6, 1 / 6])
        assert still.tolist() == [1.0, 1.0]
    assert torch.equal(weight, torch.full((2,), 1 / 3))
    with pytest.raises(RuntimeError, match="no film"), average.in_place(named):
        raise RuntimeError("no film")
    assert torch.equal(weight, torch.full((2,), 1 / 3))
    assert average.shadow["w"].tolist() == pytest.approx([1 / 6, 1 / 6])
