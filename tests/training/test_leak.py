"""Leak: the debug model passes, and a decoder that attends to everything is found out."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tests.training.made_run import model
from training.leak import check_causal


def test_a_causal_decoder_passes_and_learns_on_in_its_mode() -> None:
    glp = model().train()
    check_causal(glp)
    assert glp.training


def test_a_bidirectional_one_is_found_out() -> None:
    glp = model()
    for block in glp.decoder.blocks:
        plain: Callable[..., Any] = block.self_attn.attend
        block.self_attn.attend = lambda q, k, v, layout, *rest, plain=plain: plain(q, k, v, replace(layout, causal=False), *rest)
    with pytest.raises(RuntimeError, match="the decoder leaks"):
        check_causal(glp)
