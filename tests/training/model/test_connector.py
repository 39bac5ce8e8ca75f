"""Pandora's connector: states to tokens of the text's kind, and its first phase, in which connector and queries learn and the language model does not."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from tests.training.model.worlds import dialogue, lively
from training.model.connector import QFormer
from training.model.objectives import alignment
from training.model.spec import SPECS

SPEC = SPECS["pandora_debug"]
assert SPEC.qformer is not None
QFORMER = SPEC.qformer


def connector(**changes: Any) -> QFormer:
    torch.manual_seed(0)
    return QFormer(replace(QFORMER, **changes), SPEC.backbone.hidden, SPEC.text.d_model)


def test_tokens_are_of_the_texts_kind_each_state_on_its_own() -> None:
    made = connector().eval()
    states = torch.randn(3, SPEC.backbone.queries, SPEC.backbone.hidden, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        tokens = made(states)
        assert tokens.shape == (3, QFORMER.queries, SPEC.text.d_model)
        for one in range(3):
            torch.testing.assert_close(made(states[one : one + 1])[0], tokens[one], atol=1e-6, rtol=0)
        for one in (made(states[None]), made(states[:, None])):  # rounds of a dialogue, chunks of a window
            torch.testing.assert_close(one.reshape(tokens.shape), tokens, atol=1e-6, rtol=0)
        assert made(states[0]).shape == tokens[0].shape
        assert made(states[None]).shape == (1, *tokens.shape)
        assert (made(states[[1, 0, 2]])[0] - tokens[0]).abs().max() > 1e-3


def test_the_order_of_a_states_queries_is_nothing_to_it() -> None:
    """Cross-attention without positions: what a query says counts, not where it stands."""
    made = connector().eval()
    states = torch.randn(1, 8, SPEC.backbone.hidden, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(made(states.flip(1)), made(states), atol=1e-6, rtol=0)


def test_alignment_teaches_connector_and_queries_and_nothing_else() -> None:
    backbone, made = lively(SPEC.backbone), connector()
    said = [dialogue(seed, 1, SPEC.backbone) for seed in (1, 2)]
    wanted = torch.randn(2, SPEC.text.tokens, SPEC.text.d_model, generator=torch.Generator().manual_seed(2))
    frozen = {name: parameter.clone() for name, parameter in backbone.named_parameters() if name != "query_embed"}
    queries = backbone.query_embed.detach().clone()
    optimizer = torch.optim.AdamW([backbone.query_embed, *made.parameters()], lr=3e-3)
    losses = []
    for _ in range(25):
        loss = alignment(made(backbone(said)[:, 0]), wanted)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    without = {name for name, parameter in made.named_parameters() if parameter.grad is None or not parameter.grad.abs().any()}
    assert {name for name in without if "key.bias" not in name} == set()  # a bias of all keys shifts no attention
    assert backbone.query_embed.grad is not None
    assert (backbone.query_embed - queries).abs().max() > 1e-3
    assert all(torch.equal(parameter, frozen[name]) for name, parameter in backbone.named_parameters() if name != "query_embed")
    assert all(parameter.grad is None for name, parameter in backbone.named_parameters() if name != "query_embed")
    assert losses[-1] < 0.7 * losses[0]


def test_pandoras_zero_queries_are_alike_and_magnify_the_gradient() -> None:
    """Why ours begin at N(0, 0.02): at 0 all tokens are one, and the norm behind them multiplies each gradient by 1 / sqrt(its epsilon)."""
    states = torch.randn(2, 8, SPEC.backbone.hidden, generator=torch.Generator().manual_seed(1))
    gradients = {}
    for spread in (0.0, 0.02):
        made = connector(query_std=spread)
        tokens = made(states)
        assert (tokens.std(dim=1).max() < 1e-5) == (spread == 0.0)
        tokens.square().mean().backward()
        gradients[spread] = made.query_tokens.grad.norm().item()
    assert gradients[0.0] > 1e4 * gradients[0.02]


@pytest.mark.parametrize("training", [True, False])
def test_dropout_is_of_training_alone(training: bool) -> None:
    made = connector(dropout=0.1).train(training)
    states = torch.randn(1, 8, SPEC.backbone.hidden)
    assert torch.equal(made(states), made(states)) != training


def test_pandoras_own_size() -> None:
    spec = SPECS["pandora_recipe"]
    assert spec.qformer is not None
    with torch.device("meta"):
        made = QFormer(spec.qformer, spec.backbone.hidden, spec.text.d_model)
        assert made(torch.zeros(1, 64, 3584, device="meta")).shape == (1, 77, 4096)
