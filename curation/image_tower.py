"""ImageTower: open_clip's image encoder on pictures of any size, prepared on the device as open_clip prepares them."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from curation.config import Config
from curation.frames import U8

if TYPE_CHECKING:
    import torch

F32 = npt.NDArray[np.float32]


class TowerSettings(Config):
    """Which encoder, and where it runs. No registry ships these weights: they are fetched by open_clip, or lie in a file."""

    tower: str = Field("ViT-L-14", description="open_clip model: the one that LAION's heads were trained on")
    weights: str = Field("openai", description="open_clip's name of pretrained weights, a local checkpoint, or 'random:SEED' for tests")
    batch: int = Field(256, ge=1, le=8192, description="pictures a forward pass: 256 of 224 px fill a GPU, and fit in 2 GB")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto: a GPU if torch sees one; there in bfloat16, on a CPU in float32")


class ImageTower:
    """Unit embeddings of pictures.

    Pictures are copied to the device once a batch and size, as bytes, and resized there: bicubic with antialiasing to the shortest side, then the
    middle square, as open_clip does with PIL on the CPU.

    Raises:
        ValueError: open_clip is not installed, the weights cannot be loaded, or the model wants pictures prepared in another way.
    """

    def __init__(self, settings: TowerSettings) -> None:
        try:
            import open_clip
            import torch
        except ImportError as fault:
            raise ValueError(f"the image tower {settings.tower} needs open_clip_torch: install the extra vlm or vlm-cpu") from fault
        self.settings = settings
        wanted = settings.device if settings.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
        self.device = torch.device(wanted)
        self._dtype = torch.bfloat16 if wanted == "cuda" else torch.float32
        model = _model(settings)
        self._tower, self.width = model.visual.to(self.device, self._dtype).eval(), int(model.text_projection.shape[-1])
        look = open_clip.get_model_preprocess_cfg(model)
        if look["interpolation"] != "bicubic" or look["resize_mode"] != "shortest":
            raise ValueError(f"image tower {settings.tower} wants pictures resized by {look}; only bicubic to the shortest side is known here")
        self._side = int(np.max(look["size"]))
        self._mean, self._std = (torch.tensor(look[name], device=self.device).view(1, 3, 1, 1) for name in ("mean", "std"))

    def embed(self, pictures: Sequence[U8]) -> F32:
        """Unit embeddings, float32 [n, width], of pictures uint8 [H, W, 3] of any sizes."""
        import torch

        found = [np.zeros((0, self.width), np.float32)]
        for start in range(0, len(pictures), self.settings.batch):
            with torch.inference_mode():
                vectors = self._tower(self._prepared(pictures[start : start + self.settings.batch])).float()
                found.append(torch.nn.functional.normalize(vectors, dim=-1).cpu().numpy())
        return np.concatenate(found)

    def _prepared(self, pictures: Sequence[U8]) -> "torch.Tensor":
        """Normalised [n, 3, side, side] on the device: one copy for each size of picture among them."""
        import torch

        out = torch.empty((len(pictures), 3, self._side, self._side), device=self.device)
        for size in sorted({p.shape for p in pictures}):
            rows = [i for i, p in enumerate(pictures) if p.shape == size]
            raw = torch.from_numpy(np.stack([pictures[i] for i in rows])).to(self.device)
            out[rows] = squared(raw.permute(0, 3, 1, 2).float(), self._side)
        return ((out / 255 - self._mean) / self._std).to(self._dtype)


def _model(settings: TowerSettings) -> Any:
    """The open_clip model, on the CPU."""
    import open_clip
    import torch

    if (seed := seed_of(settings.weights)) is not None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return open_clip.create_model(settings.tower)
    # OpenAI's weights were trained with QuickGELU, which the plain model's name does not say.
    quick = bool((open_clip.get_pretrained_cfg(settings.tower, settings.weights) or {}).get("quick_gelu", False))
    try:
        return open_clip.create_model(settings.tower, pretrained=settings.weights, require_pretrained=True, force_quick_gelu=quick)
    except (OSError, RuntimeError, ValueError) as fault:
        raise ValueError(
            f"open_clip could not load {settings.tower} with weights {settings.weights!r} ({fault}); name a local checkpoint where there is no network"
        ) from fault


def squared(pictures: "torch.Tensor", side: int) -> "torch.Tensor":
    """[n, 3, H, W] in [0, 255] with the short side resized to `side` (bicubic, antialiased, whole numbers as PIL gives), then the middle square."""
    import torch

    height, width = pictures.shape[2:]
    scale = side / min(height, width)
    size = (side, int(width * scale)) if height <= width else (int(height * scale), side)
    small = torch.nn.functional.interpolate(pictures, size=size, mode="bicubic", antialias=True).round().clamp(0, 255)
    top, left = round((size[0] - side) / 2), round((size[1] - side) / 2)
    return small[:, :, top : top + side, left : left + side]


def spread(count: int, most: int) -> list[int]:
    """Up to `most` indices below `count`, each in the middle of an equal share."""
    wanted = min(count, most)
    return [int((k + 0.5) * count / wanted) for k in range(wanted)]


def seed_of(name: str) -> int | None:
    """N of "random:N"; None for any other name."""
    kind, _, number = name.partition(":")
    return int(number) if kind == "random" and number.isdigit() else None
