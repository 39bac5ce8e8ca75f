"""WindowPlan: which noise levels the chunks of a window have and what sees what, as data; PAN's plan, and others to compare it with."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

Space = Literal["index", "sigma"]


@dataclass(frozen=True, kw_only=True)
class WindowPlan:
    """Which noise levels the chunks of a window have, in training and in sampling, and what sees what.

    Args:
        name: what it is called in files.
        offsets: one number a chunk, earliest first: how much further up the schedule it lies than the first; ascending from 0, below 1.
        offset_space: where offsets add up. In index space a window in training has the very levels that it has in sampling, where half of the schedule means
            half of the steps; in sigma space only if the shift is 1.
        independent: every chunk draws a level of its own (diffusion forcing), instead of all from one draw.
        clean: so many of the first chunks are history: no noise but the condition's, no loss (teacher forcing).
        causal: a chunk sees itself and what is earlier; otherwise everything sees everything.
        cond_in_first_chunk: the condition frame and the first chunk see one another; by default it is a group of its own, as in Self-Forcing.
        cond_context: the condition frame is told the first chunk's action and state, or the null text ("null", as MAGI-1 does with clean chunks).
        cond_noise: the condition frame's noise: a trace, so that fine detail that cannot be known is not relied on.
        first_cond_noise: that of a clip's very first image, which is given and not generated; None: the same.
        cond_redrawn: in sampling, the condition's noise is drawn anew for each step, instead of once for its window.
        cond_space: "sigma": that is its noise share; "index": its place in the schedule, a share of 0.225 at shift 5.
        first_share: how many of the windows in training begin at a clip's first frame, and so learn to start from noise without a chunk before.

    Raises:
        ValueError: a number is out of its range, or the plan contradicts itself.

    Source: PAN (arXiv 2511.09057v3), sections 3.3.3 to 3.3.5; what it leaves open has the defaults above.
    """

    name: str
    offsets: tuple[float, ...] = (0.0, 0.5)
    offset_space: Space = "index"
    independent: bool = False
    clean: int = 0
    causal: bool = True
    cond_in_first_chunk: bool = False
    cond_context: Literal["first_chunk", "null"] = "first_chunk"
    cond_noise: float = 0.055
    first_cond_noise: float | None = None
    cond_redrawn: bool = False
    cond_space: Space = "sigma"
    first_share: float = 0.25

    def __post_init__(self) -> None:
        rising = bool(self.offsets) and self.offsets[0] == 0.0 and all(a <= b < 1 for a, b in zip(self.offsets, self.offsets[1:], strict=False))
        for holds, otherwise in (
            (rising, f"offsets {self.offsets} must ascend from 0 and stay below 1, one a chunk"),
            (0 <= self.cond_noise < 1, f"cond_noise {self.cond_noise} must lie in [0, 1)"),
            (0 <= (self.first_cond_noise or 0) < 1, f"first_cond_noise {self.first_cond_noise} must lie in [0, 1), or be none"),
            (0 <= self.first_share <= 1, f"first_share {self.first_share} must lie in [0, 1]"),
            (0 <= self.clean < max(1, self.chunks), f"clean {self.clean} of {self.chunks} chunks leaves nothing to learn"),
            (self.span == 1 or not (self.independent or self.clean), "chunks that are clean, or draw a level each, have no offsets; set them all to 0"),
        ):
            if not holds:
                raise ValueError(f"plan {self.name}: {otherwise}")

    @property
    def chunks(self) -> int:
        """G, chunks of a full window."""
        return len(self.offsets)

    @property
    def span(self) -> float:
        """The share of the schedule that the first chunk of a full window passes: PAN's half."""
        return 1 - self.offsets[-1] if self.offsets else 1.0

    @property
    def joint(self) -> bool:
        """Whether all chunks of a window are at one level, and are sampled together."""
        return self.span == 1 and not (self.independent or self.clean)

    @property
    def phases(self) -> int:
        """Places of the window that a sampled chunk passes: 2 in PAN.

        Raises:
            ValueError: the chunks do not stand at equal distances over the whole schedule, so that one at its end would not be done; or the plan only trains.
        """
        if self.joint:
            return 1
        if self.independent or self.clean or self.offsets != tuple(k / self.chunks for k in range(self.chunks)) or not self.causal:
            raise ValueError(f"plan {self.name} only trains: sampling needs causal chunks at equal distances, such as offsets (0, 0.5), or all at one level")
        return self.chunks


PLANS: Mapping[str, WindowPlan] = MappingProxyType(
    {
        plan.name: plan
        for plan in (
            WindowPlan(name="causal_swin"),
            WindowPlan(name="last_frame", offsets=(0.0,)),
            WindowPlan(name="full_window", offsets=(0.0, 0.0), causal=False),
            WindowPlan(name="magi", offsets=(0.0, 0.25, 0.5, 0.75), cond_context="null"),
            WindowPlan(name="diffusion_forcing", offsets=(0.0, 0.0), independent=True),
            WindowPlan(name="teacher_forcing", offsets=(0.0, 0.0), clean=1),
        )
    }
)
"""PAN's plan first; then what it is compared with: each chunk by itself behind the last frame, as Pandora does; Wan's own window, bidirectional at one level;
four chunks in flight (MAGI-1); a level each (diffusion forcing, arXiv 2407.01392); a clean past."""
