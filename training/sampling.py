"""Sampling: how a world is rolled out; plain settings that import nothing heavy, so that they are checked before a model is loaded."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

from training.model.plain import must


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """The settings of a rollout.

    Args:
        steps: denoising steps of a chunk; PAN gives none, 50 is Wan's. Must be even, since a chunk spends half of them in each place of the window.
        guidance: scale of classifier-free guidance, PAN's 4; 1 spares the unconditional half of the work.
        solver: "euler", or Wan's "unipc" of order 2.
        shift: of the noise schedule; None for the model's own, and nothing else is sound.
        seed: of all noise: the same seed and actions give the same film.
        negative: the text that guidance leads away from; Wan's own sampler has a long list of faults here.
        unconditional: what the branch that guidance leads away from does without: "text", or "both" text and state.

    Raises:
        ValueError: a setting is out of its range.
    """

    steps: int = 50
    guidance: float = 4.0
    solver: Literal["euler", "unipc"] = "euler"
    shift: float | None = None
    seed: int = 0
    negative: str = ""
    unconditional: Literal["text", "both"] = "text"

    def __post_init__(self) -> None:
        must(1 <= self.steps <= 1000, f"steps {self.steps}: it must lie in [1, 1000]; 50 is usual")
        must(0 <= self.guidance <= 100, f"guidance {self.guidance}: it must lie in [0, 100]; PAN's is 4, 1 is none")
        must(self.solver in ("euler", "unipc"), f"solver {self.solver!r}: there are euler and unipc")
        must(self.shift is None or 0 < self.shift <= 100, f"shift {self.shift}: it must lie in (0, 100]; leave it out for the model's own")
        must(0 <= self.seed < 2**63, f"seed {self.seed}: it must lie in [0, 2^63)")
        must(self.unconditional in ("text", "both"), f"unconditional {self.unconditional!r}: there are text and both")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for a file."""
        return asdict(self)
