"""A training step at the 14B model's width on one device, by the trainer itself: our decoder, and diffusers' in its place, on the same windows.

Both go through the same trainer: the decoder phase (texts alone), AdamW on float32 master weights, blocks checkpointed and compiled one by one, autocast.
diffusers is run twice: *masked*, which computes the same as ours (a time a token, both texts, masks for what no chunk may see), and *unmasked*, which
computes something else, a plain bidirectional window, but is the fastest that it can do with as many tokens.

Tensor names end in their shape: B batch, C channels, F latent frames, H W latent rows and columns, G texts, N text tokens, D width.
"""

import gc
import importlib.util
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from training.data.windows import Batch
from training.loop import Trainer
from training.loop_settings import LoopSettings, Settings
from training.meter import ceiling
from training.model.attention import Layout
from training.model.counts import decoder_block
from training.model.decoder import Decoder, Outputs, first_output
from training.model.flops import forward_flops
from training.model.glp import GLP, Window
from training.model.spec import SPECS, DecoderSpec, ModelSpec
from training.parallel import ParallelSettings, World, spread
from training.phases import PHASES, prepare
from training.step import LossSettings

#: Share of the matrix ceiling; diffusers' time over ours.
MFU, OVER_DIFFUSERS = 0.45, 1.3
TARGETS = {
    "gpu_14b_train_mfu": MFU,
    "gpu_14b_train_over_diffusers": OVER_DIFFUSERS,
    "gpu_14b_train_over_diffusers_unmasked": None,
    "gpu_14b_train_tokens_per_s": None,
    "gpu_14b_train_layers": None,
    "gpu_matmul_tflops": None,
}
#: Bytes kept free for the inside of a block that is computed again, and for what compilation needs: diffusers' alone projects a time for each token.
INSIDE = 32e9
#: A parameter's weight, both moments and gradient in float32, and its rounded copy.
PARAMETER = 18
Figures = dict[str, tuple[float | None, float | None]]
Arms = dict[str, "Step"]


@dataclass(frozen=True)
class Work:
    """What a step computes: a model without a state stream, windows at once, and the size of a latent frame."""

    spec: ModelSpec
    size_HW: tuple[int, int]
    windows: int = 1

    @property
    def tokens_per_frame(self) -> int:
        """Tokens of a latent frame: 1560 at 480 x 832."""
        _, high, across = self.spec.decoder.patch
        return self.size_HW[0] // high * (self.size_HW[1] // across)

    @property
    def layout(self) -> Layout:
        """The window's."""
        from training.diffusion.swin import layout

        return layout(self.spec.plan, self.spec.chunks)

    @property
    def tokens(self) -> int:
        """Of a step."""
        return self.windows * self.layout.frames * self.tokens_per_frame

    @property
    def flops(self) -> float:
        """Useful operations of a step, by the mask that is attended, nothing counted twice."""
        return self.windows * forward_flops(self.spec.decoder, self.layout, self.tokens_per_frame).training()


@dataclass(frozen=True)
class Step:
    """Seconds of a step, and the loss of the first one."""

    seconds: float
    loss: float


def wide(layers: int) -> Work:
    """Some layers of the 14B model, and PAN's window at 480 x 832."""
    spec = SPECS["pan_14b"]
    return Work(replace(spec, decoder=replace(spec.decoder, layers=layers, state_dim=None)), (spec.height // spec.vae.spatial, spec.width // spec.vae.spatial))


class Theirs(nn.Module):  # type: ignore[misc]  # torch is Any to mypy
    """diffusers' decoder where the trainer expects ours.

    Args:
        like: our decoder, whose weights it takes; None: its own.
        masked: no chunk sees what it may not.
    """

    def __init__(self, work: Work, device: str, masked: bool, like: nn.Module | None = None) -> None:
        from decoder_arms import masks, shut, theirs
        from diffusers import WanTransformer3DModel

        super().__init__()
        with torch.device(device):
            self.model = WanTransformer3DModel(**theirs(work.spec.decoder))
        if like is not None:
            from training.model.keymaps import renamed, to_diffusers

            self.model.load_state_dict(renamed(like.state_dict(), to_diffusers))
        if masked:
            shut(self.model, *masks(work.layout, work.tokens_per_frame, work.spec.decoder.text_tokens, torch.device(device)))
        self._tokens = work.tokens_per_frame

    def forward(self, latents_BCFHW: Tensor, timestep_BF: Tensor, text_BGND: Tensor, _state: None, layout: Layout, *, outputs: Outputs = "all") -> Tensor:
        """The velocity, as `Decoder` gives it."""
        told = self.model(latents_BCFHW, timestep_BF.repeat_interleave(self._tokens, 1), text_BGND.flatten(1, 2), return_dict=False)[0]
        return told[:, :, first_output(layout, outputs) :]


def ours(work: Work, device: str) -> Decoder:
    """Our decoder, with a head that is not zero, or no gradient would pass it."""
    torch.manual_seed(0)
    with torch.device(device):
        decoder = Decoder(work.spec.decoder)
    nn.init.xavier_uniform_(decoder.head.head.weight)
    return decoder


def step(decoder: nn.Module, work: Work, device: str, *, turns: int, compiled: bool, compute: Any) -> Step:
    """The trainer's step on `decoder`: the median of `turns` after two that warm up."""
    spec, blocks = work.spec, "decoder.blocks.*" if hasattr(decoder, "blocks") else "decoder.model.blocks.*"
    glp = GLP(spec, decoder=decoder, vae=nn.Identity(), text=nn.Identity())
    prepare(glp, PHASES["decoder"])
    parallel = ParallelSettings(compile=compiled, blocks=(blocks,))
    spread(glp, parallel, World())
    settings = Settings(loop=LoopSettings(windows=work.windows, batch=work.windows, samples=False), parallel=parallel, loss=_loss(compute))
    generator = torch.Generator().manual_seed(1)
    latents_BCFHW = torch.randn(work.windows, spec.vae.channels, work.layout.frames, *work.size_HW, generator=generator)
    text_BGND = torch.randn(work.windows, work.layout.contexts, spec.text.tokens, spec.text.d_model, generator=generator)
    real_B = torch.ones(work.windows, dtype=torch.bool)
    batch = Batch(Window(latents_BCFHW, text_BGND, None, ~real_B, torch.zeros(spec.text.tokens, spec.text.d_model), real_B), None, None, ("made",), 0)
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(glp, PHASES["decoder"], None, Path(folder), settings, device=device)  # type: ignore[arg-type]  # it is given its batches
        trainer.learn([batch])
        loss = trainer._found.mean if trainer._found is not None else float("nan")
        trainer.learn([batch])
        took = sorted(_seconds(lambda: trainer.learn([batch]), device) for _ in range(turns))
        trainer.snapshots.close()
    return Step(took[len(took) // 2], loss)


def _loss(compute: Any) -> LossSettings:
    """No window forgets its text: all steps are the same work."""
    return LossSettings(compute=compute, dropped=0.0)


def _seconds(run: Callable[[], object], device: str) -> float:
    """By the wall, the device's queue empty before and after."""
    wait = torch.cuda.synchronize if device.startswith("cuda") else lambda: None
    wait()
    began = time.perf_counter()
    run()
    wait()
    return time.perf_counter() - began


def arms(work: Work, device: str, *, turns: int, compiled: bool, compute: Any, same: bool = False) -> Arms:
    """Our step, and diffusers' where it is installed; one after the other, so that each has the memory for itself.

    Args:
        same: diffusers takes our weights: the losses can then be compared.
    """
    options: dict[str, Any] = {"turns": turns, "compiled": compiled, "compute": compute}
    found = {"ours": step(ours(work, device), work, device, **options)}
    if importlib.util.find_spec("diffusers") is None:
        return found
    for name, masked in (("diffusers, masked", True), ("diffusers, unmasked", False)):
        _emptied(device)
        found[name] = step(Theirs(work, device, masked, ours(work, device) if same else None), work, device, **options)
    return found


def _emptied(device: str) -> None:
    """The last model's memory given back, also what a circle of references still holds."""
    gc.collect()
    if device.startswith("cuda"):
        torch.compiler.reset()
        torch.cuda.empty_cache()


def fitting(spec: DecoderSpec, free: float, tokens: int) -> int:
    """Layers whose training fits so many free bytes: their parameters, and for each what a checkpointed block keeps.

    Raises:
        ValueError: not even one does.
    """
    layers = int((free - INSIDE) // (PARAMETER * decoder_block(spec) + 4 * tokens * spec.dim))
    if layers < 1:
        raise ValueError(f"{free / 1e9:.0f} GB are free on the GPU, one layer and its gradients need more; end what else runs on it")
    return min(layers, SPECS["pan_14b"].decoder.layers)


def figures(work: Work, found: Arms, top: float) -> Figures:
    """The table, printed; name -> (value, target)."""
    for name, each in found.items():
        rate, tokens = work.flops / each.seconds, work.tokens / each.seconds
        print(f"{name:<20} {each.seconds:>8.3f} s a step {tokens:>9.0f} tokens/s {rate / 1e12:>7.1f} TFLOP/s {rate / top:>6.1%} of the ceiling")
    mine = found["ours"].seconds
    over = [found[name].seconds / mine if name in found else None for name in ("diffusers, masked", "diffusers, unmasked")]
    if None in over:
        print("diffusers: not measured, it is not installed")
    measured = (work.flops / mine / top, *over, work.tokens / mine, float(work.spec.decoder.layers), top / 1e12)
    return {name: (value, target) for (name, target), value in zip(TARGETS.items(), measured, strict=True)}


def on_gpu(turns: int = 7) -> Figures:
    """name -> (value, target); values are None without a GPU, and the table says so."""
    if not torch.cuda.is_available():
        print("GPU: not measured, this machine shows none")
        return {name: (None, target) for name, target in TARGETS.items()}
    device, free = "cuda", torch.cuda.mem_get_info()[0]
    layers = fitting(wide(1).spec.decoder, free, wide(1).tokens)
    top = ceiling(device, torch.bfloat16)
    print(f"GPU: {torch.cuda.get_device_name()}; matrix products of 8192 in bfloat16: {top / 1e12:.0f} TFLOP/s, the best of five")
    while True:
        work = wide(layers)
        print(f"a training step of {layers} layers, 5120 wide, {work.tokens} tokens, {work.flops / 1e12:.0f} TFLOP by the mask; recomputation is not counted")
        try:
            return figures(work, arms(work, device, turns=turns, compiled=True, compute="bfloat16"), top)
        except torch.cuda.OutOfMemoryError as error:
            if layers == 1:
                raise
            layers = max(1, layers - 2)
            print(f"out of memory ({str(error).splitlines()[0]}); again with fewer layers")
        _emptied(device)
