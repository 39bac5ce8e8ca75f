"""The decoder on a GPU: the 14B-width block on PAN's window at 480 x 832, forward and backward, against the matrix ceiling that is measured beside it."""

import statistics
import warnings
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from training.model.attention import Backend, Layout, attend, rotary_table
from training.model.decoder import Block, Decoder
from training.model.flops import forward_flops
from training.model.spec import SPECS

#: Shares of the ceiling, and of FlexAttention's time.
CEILING, OVER_FLEX = 0.5, 1.3
TARGETS = {
    "gpu_matmul_tflops": None,
    "gpu_prefix_dense_tflops": None,
    "gpu_prefix_dense_share_of_ceiling": CEILING,
    "gpu_prefix_dense_over_flex": OVER_FLEX,
    "gpu_prefix_dense_over_mask": None,
    "gpu_14b_step_seconds": None,
    "gpu_14b_step_gib": None,
}
WINDOW, SIZE_FRC = Layout(1, (10, 10)), (21, 30, 52)  # 480 x 832: 32 760 tokens
WIDE = SPECS["pan_14b"].decoder
KERNELS = {"cudnn": SDPBackend.CUDNN_ATTENTION, "flash": SDPBackend.FLASH_ATTENTION, "any": None}
Figures = dict[str, tuple[float | None, float | None]]


def on_gpu() -> Figures:
    """name -> (value, target); values are None without a GPU, and the table says so."""
    if not torch.cuda.is_available():
        print("GPU: not measured, this machine shows none")
        return {name: (None, target) for name, target in TARGETS.items()}
    device = torch.device("cuda")
    print(f"GPU: {torch.cuda.get_device_name()}, bfloat16; a block 5120 wide, a window of 1 + 10 + 10, 32 760 tokens, forward and backward, compiled")
    ceiling = _matmul(device)
    flops = 3 * forward_flops(replace(WIDE, layers=1, state_dim=None), WINDOW, SIZE_FRC[1] * SIZE_FRC[2]).blocks
    print(f"matrix products of 8192: {ceiling / 1e12:.0f} TFLOP/s; the block: {flops / 1e12:.1f} TFLOP by the mask")
    print(f"flex and prefix-dense gradients differ by {_flex_gradient(device):.1e} of their size")
    arms = _arms(device)
    for name, seconds in arms.items():
        print(f"{name:<24} {seconds * 1e3:>9.1f} ms {flops / seconds / 1e12:>7.0f} TFLOP/s {flops / seconds / ceiling:>6.1%} of the ceiling")
    best = min(seconds for name, seconds in arms.items() if name.startswith("prefix"))
    seconds, gib = _step(device)
    print(f"one denoising step of the whole 14B decoder with its state stream, random weights: {seconds:.2f} s, {gib:.1f} GiB at most")
    measured = (ceiling / 1e12, flops / best / 1e12, flops / best / ceiling, arms["flex"] / best, arms["mask"] / best, seconds, gib)
    return {name: (value, target) for (name, target), value in zip(TARGETS.items(), measured, strict=True)}


def _arms(device: torch.device) -> dict[str, float]:
    """Seconds of the block by back end; prefix-dense once with each kernel that this GPU's torch has."""
    arms = {}
    for name, kernel in KERNELS.items():
        try:
            arms[f"prefix_dense, {name}"] = _block(device, "prefix_dense", kernel)
        except RuntimeError as fault:
            print(f"prefix_dense, {name}: not measured: {str(fault).splitlines()[0]}")
    return arms | {"flex": _block(device, "flex", None), "mask": _block(device, "mask", None)}


def _seconds(run: Callable[[], object], turns: int = 10) -> float:
    """The median of `turns` runs after three that warm up, by the GPU's own clock."""
    took = []
    for turn in range(3 + turns):
        began, ended = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        began.record()
        run()
        ended.record()
        torch.cuda.synchronize()
        if turn >= 3:
            took.append(began.elapsed_time(ended) / 1e3)
    return statistics.median(took)


def _matmul(device: torch.device) -> float:
    """Operations a second of a bfloat16 product of random 8192 x 8192 matrices."""
    one, other = (torch.randn(8192, 8192, device=device, dtype=torch.bfloat16) for _ in range(2))
    return 2 * 8192**3 / _seconds(lambda: one @ other, 30)


def _block(device: torch.device, backend: Backend, kernel: SDPBackend | None) -> float:
    """Seconds of a compiled block, forward and backward."""
    spec = replace(WIDE, layers=1, state_dim=None)
    torch.compiler.reset()
    torch.manual_seed(0)
    with device:
        block = Block(spec, backend).bfloat16()
    block.compile(dynamic=False)
    x_BFPD = torch.randn(1, WINDOW.frames, SIZE_FRC[1] * SIZE_FRC[2], spec.dim, device=device, dtype=torch.bfloat16, requires_grad=True)
    time_BF6D = torch.randn(1, WINDOW.frames, 6, spec.dim, device=device, requires_grad=True)
    text_BGND = torch.randn(1, 2, spec.text_tokens, spec.dim, device=device, dtype=torch.bfloat16, requires_grad=True)
    table = rotary_table(spec.head_dim, spec.rope_theta, SIZE_FRC, 0, device, torch.float32)
    ahead = torch.randn_like(x_BFPD)

    def run() -> None:
        block.zero_grad()
        block(x_BFPD, time_BF6D, text_BGND, None, table, WINDOW).backward(ahead)

    if kernel is None:
        return _seconds(run)
    with sdpa_kernel(kernel):
        return _seconds(run)


def _flex_gradient(device: torch.device) -> float:
    """How far FlexAttention's gradients are from prefix-dense's, relative, float32; the comparison that a CPU cannot make."""
    torch.manual_seed(0)
    layout = Layout(1, (2, 2))
    inputs = [torch.randn(1, 5 * 128, 4, 128, device=device, requires_grad=True) for _ in range(3)]

    def gradients(backend: Backend) -> tuple[Tensor, ...]:
        return torch.autograd.grad(attend(*inputs, layout, 128, backend).square().sum(), inputs)  # type: ignore[misc]

    return max(float((one - other).norm() / other.norm()) for one, other in zip(gradients("flex"), gradients("prefix_dense"), strict=True))


def _step(device: torch.device) -> tuple[float, float]:
    """(seconds, GiB at most) of one forward of the whole 14B decoder with its state stream, in bfloat16."""
    spec = WIDE
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    with torch.device("meta"):
        decoder = Decoder(spec).bfloat16()
    decoder.to_empty(device=device)
    with torch.no_grad():
        for weight in decoder.parameters():
            weight.normal_(std=0.02)
    for block in decoder.blocks:
        block.compile(dynamic=False)
    latents = torch.randn(1, 16, WINDOW.frames, 2 * SIZE_FRC[1], 2 * SIZE_FRC[2], device=device)
    timestep = torch.tensor([[[55.0, 437.0, 937.0][group] for group, (start, stop) in enumerate(WINDOW.groups()) for _ in range(start, stop)]], device=device)
    text = torch.randn(1, 2, spec.text_tokens, spec.text_dim, device=device)
    state = torch.randn(1, 2, spec.queries, spec.state_dim or 0, device=device)

    def run() -> None:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            decoder(latents, timestep, text, state, WINDOW)

    return _seconds(run, 3), torch.cuda.max_memory_allocated() / 2**30
