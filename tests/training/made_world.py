"""Whole models of debug size with lively weights, and pictures to begin with."""

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from tests.training.model.made_decoder import decoder_of
from tests.training.model.worlds import lively
from training.diffusion.plan import WindowPlan
from training.model.connector import QFormer
from training.model.glp import GLP
from training.model.spec import SPECS, ModelSpec
from training.model.text import TextEncoder
from training.model.vae import build_vae

DEBUG, PANDORA = SPECS["debug"], SPECS["pandora_debug"]


def world(spec: ModelSpec = DEBUG, *, states: bool = True, dtype: torch.dtype = torch.float32, plan: WindowPlan | None = None) -> GLP:
    """A model of random weights, in evaluation mode; without states it knows actions as texts alone."""
    if plan is not None:
        spec = replace(spec, window=plan, chunks=replace(spec.chunks, window_chunks=plan.chunks))
    torch.manual_seed(0)
    vae, text = build_vae(spec.vae), TextEncoder(spec.text)
    backbone = lively(spec.backbone) if states else None
    connector = QFormer(spec.qformer, spec.backbone.hidden, spec.text.d_model) if spec.qformer is not None else None
    made = GLP(spec, decoder=decoder_of(spec.decoder, dtype), vae=vae, text=text, backbone=backbone, connector=connector)
    return made.to(dtype).eval()


def picture(seed: int = 0, height: int = 64, width: int = 64) -> npt.NDArray[np.uint8]:
    """Noise, uint8 [H, W, 3]."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def wider(spec: ModelSpec = DEBUG, **changes: Any) -> ModelSpec:
    """The spec, changed."""
    return replace(spec, **changes)
