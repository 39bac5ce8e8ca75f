"""Aesthetic: how beautiful people find a clip's pictures, by open_clip's image tower and LAION's head."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from curation.config import Config
from curation.frames import U8, Frames

if TYPE_CHECKING:
    import torch

F32 = npt.NDArray[np.float32]


class AestheticSettings(Config):
    """Which tower and head judge. No registry ships their weights, so the filter is off until a recipe names them."""

    tower: str = Field("ViT-L-14", description="open_clip model: the one that LAION's heads were trained on")
    weights: str = Field("openai", description="open_clip's name of pretrained weights, a local checkpoint, or 'random:SEED' for tests")
    head: str = Field("", description="LAION's linear or MLP head for this tower: a .safetensors or a weights-only .pth file, or 'random:SEED' for tests")
    pictures: int = Field(8, ge=1, le=64, description="pictures a clip, evenly spread: neighbours a quarter of a second apart score alike")
    batch: int = Field(256, ge=1, le=8192, description="pictures a forward pass: 256 of 224 px fill a GPU, and fit in 2 GB")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto: a GPU if torch sees one; there in bfloat16, on a CPU in float32")


class Aesthetic:
    """Mean over evenly spread pictures of a score from about 1 to 10.

    A picture's embedding, made unit length, goes through the head: one linear layer (LAION's first) or a chain of them (its "improved" predictor,
    whose layers have no nonlinearity between). Pictures of all clips of a batch go through the tower together; they are copied to the device once, as
    bytes, and resized there (bicubic with antialiasing, as open_clip does on the CPU).

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
        try:
            import open_clip
            import torch
        except ImportError as fault:
            raise ValueError("filters.aesthetic needs open_clip_torch: install the extra vlm or vlm-cpu, or set filters.aesthetic.enabled=false") from fault
        self.settings = settings
        wanted = settings.device if settings.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
        self._device = torch.device(wanted)
        self._dtype = torch.bfloat16 if wanted == "cuda" else torch.float32
        model = _tower(settings)
        self._tower, self.embedding_size = model.visual.to(self._device, self._dtype).eval(), int(model.text_projection.shape[-1])
        look = open_clip.get_model_preprocess_cfg(model)
        if look["interpolation"] != "bicubic" or look["resize_mode"] != "shortest":
            raise ValueError(f"filters.aesthetic.tower {settings.tower} wants pictures resized by {look}; only bicubic to the shortest side is known here")
        self._side = int(np.max(look["size"]))
        self._mean, self._std = (torch.tensor(look[name], device=self._device).view(1, 3, 1, 1) for name in ("mean", "std"))
        self._head = [(w.to(self._device), b.to(self._device)) for w, b in read_head(settings.head, self.embedding_size)]

    def score(self, frames: Frames) -> dict[str, float]:
        """The scores of one clip; frames: rgb uint8 [T, H, W, 3], T >= 1."""
        return self.score_many([frames])[0]

    def score_many(self, clips: Sequence[Frames]) -> list[dict[str, float]]:
        """The scores of several clips, in order; a clip's scores do not depend on its neighbours beyond rounding."""
        if not clips:
            return []
        rows = [spread(len(clip), self.settings.pictures) for clip in clips]
        ratings = self._ratings([clip.rgb[r] for clip, chosen in zip(clips, rows, strict=True) for r in chosen])
        ends = np.cumsum([len(chosen) for chosen in rows])
        parts = np.split(ratings, ends[:-1])
        return [{"mean": float(part.mean()), "min": float(part.min())} for part in parts]

    def embed(self, pictures: Sequence[U8]) -> F32:
        """Unit embeddings, float32 [n, D], of pictures uint8 [H, W, 3] of any sizes."""
        import torch

        found = [np.zeros((0, self.embedding_size), np.float32)]
        for start in range(0, len(pictures), self.settings.batch):
            with torch.inference_mode():
                vectors = self._tower(self._prepared(pictures[start : start + self.settings.batch])).float()
                found.append(torch.nn.functional.normalize(vectors, dim=-1).cpu().numpy())
        return np.concatenate(found)

    def _ratings(self, pictures: Sequence[U8]) -> F32:
        import torch

        with torch.inference_mode():
            x = torch.from_numpy(self.embed(pictures)).to(self._device)
            for weight, bias in self._head:
                x = x @ weight.T + bias
            return np.asarray(x[:, 0].cpu().numpy(), np.float32)

    def _prepared(self, pictures: Sequence[U8]) -> "torch.Tensor":
        """Normalised [n, 3, side, side] on the device: one copy for each size of picture among them."""
        import torch

        out = torch.empty((len(pictures), 3, self._side, self._side), device=self._device)
        for size in sorted({p.shape for p in pictures}):
            rows = [i for i, p in enumerate(pictures) if p.shape == size]
            raw = torch.from_numpy(np.stack([pictures[i] for i in rows])).to(self._device)
            out[rows] = squared(raw.permute(0, 3, 1, 2).float(), self._side)
        return ((out / 255 - self._mean) / self._std).to(self._dtype)


def _tower(settings: AestheticSettings) -> Any:
    """The open_clip model, on the CPU."""
    import open_clip
    import torch

    if (seed := _seed(settings.weights)) is not None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return open_clip.create_model(settings.tower)
    # OpenAI's weights were trained with QuickGELU, which the plain model's name does not say.
    quick = bool((open_clip.get_pretrained_cfg(settings.tower, settings.weights) or {}).get("quick_gelu", False))
    try:
        return open_clip.create_model(settings.tower, pretrained=settings.weights, require_pretrained=True, force_quick_gelu=quick)
    except (OSError, RuntimeError, ValueError) as fault:
        raise ValueError(
            f"filters.aesthetic: open_clip could not load {settings.tower} with weights {settings.weights!r} ({fault}); "
            "name a local checkpoint where there is no network"
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


def read_head(name: str, width: int) -> list[tuple["torch.Tensor", "torch.Tensor"]]:
    """(weight [out, in], bias [out]) of each linear layer of a head, in order, from `width` inputs to one output.

    Raises:
        ValueError: no such file, not a weights-only file, or layers that do not follow one another from `width` to 1.
    """
    import torch

    if (seed := _seed(name)) is not None:
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


def _seed(name: str) -> int | None:
    """N of "random:N"; None for any other name."""
    kind, _, number = name.partition(":")
    return int(number) if kind == "random" and number.isdigit() else None
