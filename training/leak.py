"""Leak: what was noised less must not see what was noised more: checked on the live model, as it is wrapped, before it learns anything."""

import torch

from training.diffusion.swin import levels
from training.model.glp import GLP
from training.step import seeded

SIDE = 4  # tokens a side: enough for eight ranks to share a frame


def check_causal(glp: GLP, device: str = "cpu") -> None:
    """Changes a window's last chunk, and holds what comes of all that lies before it to be the same to the bit; all ranks call it together.

    A mask that is off goes unnoticed otherwise: such a model learns well, and fails only when it is rolled out.

    Raises:
        RuntimeError: the decoder leaks.
    """
    plan, spec = glp.plan, glp.spec
    if not plan.causal or plan.chunks == 1:
        return
    sigma = torch.linspace(0.3, 0.9, plan.chunks, dtype=torch.float64)[None]
    window = levels(plan, glp.schedule, spec.chunks, sigma)
    layout, decoder, (_, rows, columns) = window.layout, spec.decoder, spec.decoder.patch
    generator = seeded("leak")
    latents = torch.randn(1, decoder.in_channels, layout.frames, SIDE * rows, SIDE * columns, generator=generator)
    text = torch.randn(1, layout.contexts, decoder.text_tokens, decoder.text_dim, generator=generator)
    other = latents.clone()
    other[:, :, -layout.chunks[-1] :] += 1.0
    seen: list[torch.Tensor] = []
    training, _ = glp.training, glp.eval()
    hook = glp.decoder.head.register_forward_pre_hook(lambda _, given: seen.append(given[0][:, : -layout.chunks[-1]]))  # a fresh head says nothing but 0
    try:
        with torch.no_grad():
            for x in (latents, other):
                glp.decoder(x.to(device), window.timestep_BF.to(device), text.to(device), None, layout)
    finally:
        hook.remove()
        glp.train(training)
    if not torch.equal(*seen):
        raise RuntimeError("the decoder leaks: an earlier chunk depends on a later one; its mask, or how it is wrapped, is wrong")
