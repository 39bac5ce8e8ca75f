"""Aesthetic: how beautiful people find a clip's pictures, by open_clip's image tower and LAION's head."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import Field

from curation.frames import U8, Frames
from curation.image_tower import ImageTower, TowerSettings, seed_of, spread

if TYPE_CHECKING:
    import torch

F32 = npt.NDArray[np.float32]


class AestheticSettings(TowerSettings):
    """Which tower and head judge. No registry ships their weights, so the filter is off until a recipe names them."""

    head: str = Field("", description="LAION's linear or MLP head for this tower: a .safetensors or a weights-only .pth file, or 'random:SEED' for tests")
    pictures: int = Field(8, ge=1, le=64, description="pictures a clip, evenly spread: neighbours a quarter of a second apart score alike")


class Aesthetic:
    """Mean over evenly spread pictures of a score from about 1 to 10.

    A picture's embedding, made unit length, goes through the head: one linear layer (LAION's first) or a chain of them (its "improved" predictor,
    whose layers have no nonlinearity between). Pictures of all clips of a batch go through the tower together.

    Source: PAN, section 6.2.2: mean over uniformly sampled frames, and a threshold. LAION-AI/aesthetic-predictor (linear) and
    christophschuhmann/improved-aesthetic-predictor (MLP, for embeddings of unit length): the heads' layout.

    Raises:
        ValueError: weights or head are not named or not there, the head does not fit the tower, or open_clip is not installed.
    """

    scores: ClassVar[Mapping[str, str]] = {
        "mean": "about 1 (ugly) to 10 (beautiful), mean over the pictures looked at",
        "min": "the same, lowest of the pictures looked at",
    }

    def __init__(self, settings: AestheticSettings) -> None:
        if not settings.head:
            raise ValueError("filters.aesthetic.head is empty: name LAION's head for this tower (.safetensors or .pth), or set filters.aesthetic.enabled=false")
        self._pictures, self.tower = settings.pictures, ImageTower(settings)
        self._head = [(w.to(self.tower.device), b.to(self.tower.device)) for w, b in read_head(settings.head, self.tower.width)]

    def score(self, frames: Frames) -> dict[str, float]:
        """The scores of one clip; frames: rgb uint8 [T, H, W, 3], T >= 1."""
        return self.score_many([frames])[0]

    def score_many(self, clips: Sequence[Frames]) -> list[dict[str, float]]:
        """The scores of several clips, in order; a clip's scores do not depend on its neighbours beyond rounding."""
        if not clips:
            return []
        rows = [spread(len(clip), self._pictures) for clip in clips]
        ratings = self._ratings([clip.rgb[r] for clip, chosen in zip(clips, rows, strict=True) for r in chosen])
        ends = np.cumsum([len(chosen) for chosen in rows])
        parts = np.split(ratings, ends[:-1])
        return [{"mean": float(part.mean()), "min": float(part.min())} for part in parts]

    def _ratings(self, pictures: Sequence[U8]) -> F32:
        import torch

        with torch.inference_mode():
            x = torch.from_numpy(self.tower.embed(pictures)).to(self.tower.device)
            for weight, bias in self._head:
                x = x @ weight.T + bias
            return np.asarray(x[:, 0].cpu().numpy(), np.float32)


def read_head(name: str, width: int) -> list[tuple["torch.Tensor", "torch.Tensor"]]:
    """(weight [out, in], bias [out]) of each linear layer of a head, in order, from `width` inputs to one output.

    Raises:
        ValueError: no such file, not a weights-only file, or layers that do not follow one another from `width` to 1.
    """
    import torch

    if (seed := seed_of(name)) is not None:
        made = torch.Generator().manual_seed(seed)
        return [(torch.randn(1, width, generator=made), torch.full((1,), 5.0))]
    path = Path(name)
    if not path.is_file():
        raise ValueError(f"filters.aesthetic.head: there is no file {name}")
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        state: Mapping[str, Any] = load_file(path)
    else:
        state = torch.load(path, map_location="cpu", weights_only=True)
    layers = [key.removesuffix("weight") for key in state if key.endswith("weight")]
    layers.sort(key=lambda prefix: [int(part) for part in prefix.split(".") if part.isdigit()])
    found = [(state[f"{prefix}weight"].float(), state[f"{prefix}bias"].float()) for prefix in layers]
    sizes = [width, *(w.shape[0] for w, _ in found)]
    if not found or sizes[-1] != 1 or any(w.ndim != 2 or w.shape[1] != before for (w, _), before in zip(found, sizes, strict=False)):
        shapes = [tuple(w.shape) for w, _ in found]
        raise ValueError(f"filters.aesthetic.head {name}: linear layers from {width} (the tower's embedding) to 1 are needed, the file has {shapes}")
    return found
