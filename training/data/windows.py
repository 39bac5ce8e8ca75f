"""Windows: from one sample, raw or encoded, to one training window and the dialogue that leads to it; and a batch of them."""

# Shape suffixes: B batch, C channels, F latent frames of a window, H W latent height and width (pixels in frames), G chunks of a window, N text tokens,
# D text width, L a text's own tokens, R rounds, Q queries, S state width, T pixel frames.

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from curation.shards import Sample
from training.data.buckets import Size
from training.data.grid import Place, grid_of
from training.data.latents import Encoded
from training.data.pixels import pieces
from training.model.dialogue import Dialogue, Round
from training.model.glp import Window
from training.model.plain import must
from training.model.spec import ModelSpec
from training.model.text import padded
from training.model.vision import Look, look_at

Phase = Literal["decoder", "joint"]


@dataclass(frozen=True)
class Piece:
    """One sample's window, as a worker process makes it.

    Attributes:
        key: of the sample; "" for a blank, which fills a batch up.
        latents_CFHW: of the window; None of a raw clip, which is yet to be encoded.
        texts: each chunk's action, encoded, [L, D]; empty of a raw clip.
        frames_THWC: of a raw clip, uint8: from its image to the window's end.
        actions: one a chunk of the window.
        dialogue: in the joint phase: the rounds up to the window's end.
        wrong: why it could not be read; the rest is then a blank.
    """

    key: str
    place: Place
    latents_CFHW: Tensor | None = None
    texts: tuple[Tensor, ...] = ()
    frames_THWC: Tensor | None = None
    actions: tuple[str, ...] = ()
    dialogue: Dialogue | None = None
    wrong: str = ""

    @property
    def is_real(self) -> bool:
        """Whether there is something to learn from."""
        return bool(self.key) and not self.wrong


def of_encoded(key: str, document: Mapping[str, Any], encoded: Encoded, place: Place, phase: Phase, spec: ModelSpec) -> Piece:
    """The window of an encoded sample; for the joint phase it must have looks."""
    actions = document["actions"]
    own = tuple(actions[place.chunk : place.chunk + place.chunks])
    dialogue = dialogue_of(encoded.looks, actions, place, spec) if phase == "joint" else None
    latents_CFHW = encoded.latents_CFHW[:, place.latents(spec.chunks)].clone()  # lest the whole clip go through the pipe
    return Piece(key, place, latents_CFHW, tuple(encoded.texts[action] for action in own), actions=own, dialogue=dialogue)


def of_clip(sample: Sample, size: Size, place: Place, phase: Phase, spec: ModelSpec) -> Piece:
    """The window of a raw sample: its pixels from the clip's image on, so that its latents have their whole past.

    Raises:
        ClipError: the MP4 cannot be decoded, or has no such grid.
    """
    grid, stop = grid_of(sample.document, spec.chunks), place.chunk + place.chunks
    seen = list(pieces(sample.mp4, grid, spec.chunks, size, stop))
    dialogue = None
    if phase == "joint":
        looks = [look_at(piece, spec.chunks.fps, spec.backbone.vision) for piece in seen[:stop]]
        dialogue = dialogue_of(looks, grid.actions, place, spec)
    frames_THWC = torch.from_numpy(np.concatenate(seen))
    return Piece(sample.key, place, frames_THWC=frames_THWC, actions=grid.actions[place.chunk : stop], dialogue=dialogue)


def dialogue_of(looks: Sequence[Look], actions: Sequence[str], place: Place, spec: ModelSpec) -> Dialogue:
    """The rounds up to the window's last chunk: round r shows the image or chunk r - 1 and says chunk r's action. Source: PAN 3.2, teacher forcing."""
    return Dialogue(tuple(Round(looks[r].sight(spec.backbone.vision), actions[r]) for r in place.rounds(spec.backbone.max_rounds)))


def blank(size: Size, window: int, phase: Phase, spec: ModelSpec, dtype: torch.dtype, wrong: str = "", key: str = "") -> Piece:
    """A window of nothing, of a bucket's shape: keeps a batch's size where there are no samples, and is never learnt from."""
    vae, place = spec.vae, Place(0, window)
    frames = 1 + window * spec.chunks.chunk_latents
    latents_CFHW = torch.zeros(vae.channels, frames, size[0] // vae.spatial, size[1] // vae.spatial, dtype=dtype)
    texts, dialogue = (torch.zeros(1, spec.text.d_model, dtype=dtype),) * window, None
    if phase == "joint":
        dark = look_at(np.zeros((1, *size, 3), np.uint8), spec.chunks.fps, spec.backbone.vision)
        dialogue = dialogue_of([dark] * window, [""] * window, place, spec)
    return Piece(key, place, latents_CFHW, texts, actions=("",) * window, dialogue=dialogue, wrong=wrong)


@dataclass(frozen=True)
class Batch:
    """Windows to learn from.

    Attributes:
        window: without states.
        dialogues: in the joint phase, one a window.
        rounds_BG: which of its dialogue's rounds lead to the window's chunks; None in the decoder phase.
        keys: of the samples; "" for a blank.
        epoch: 0 is the first.
    """

    window: Window
    dialogues: tuple[Dialogue, ...] | None
    rounds_BG: Tensor | None
    keys: tuple[str, ...]
    epoch: int

    @property
    def real_B(self) -> Tensor:
        """bool: which windows are samples; the others are blanks, which no loss counts."""
        assert self.window.real_B is not None
        return self.window.real_B

    def with_states(self, states_BRQS: Tensor) -> Window:
        """The window with the states that the backbone predicted for its dialogues.

        Raises:
            ValueError: this is a batch of the decoder phase.
        """
        must(self.rounds_BG is not None, "this batch has no dialogues: it is of the decoder phase")
        assert self.rounds_BG is not None
        rows_B1 = torch.arange(len(self.keys), device=states_BRQS.device)[:, None]
        return replace(self.window, state_BGQS=states_BRQS[rows_B1, self.rounds_BG.to(states_BRQS.device)])

    def only(self, number: int) -> "Batch":
        """One of its windows, with its dialogue, as a batch of its own."""
        dialogues = None if self.dialogues is None else self.dialogues[number : number + 1]
        rounds = None if self.rounds_BG is None else self.rounds_BG[number : number + 1]
        return replace(self, window=self.window.only(number), dialogues=dialogues, rounds_BG=rounds, keys=self.keys[number : number + 1])

    def to(self, device: Any, dtype: torch.dtype | None = None) -> "Batch":
        """Its window on `device`, its floats in `dtype` (None: as they are). The dialogues stay: the backbone takes what it needs."""
        window = self.window
        assert window.null_ND is not None and window.real_B is not None  # noqa: PT018 - ours are never without
        moved = replace(
            window,
            latents_BCFHW=window.latents_BCFHW.to(device, dtype, non_blocking=True),
            text_BGND=window.text_BGND.to(device, dtype, non_blocking=True),
            null_ND=window.null_ND.to(device, dtype, non_blocking=True),
            first_B=window.first_B.to(device),
            real_B=window.real_B.to(device),
        )
        return replace(self, window=moved)


def batched(parts: Sequence[Piece], null_ND: Tensor, spec: ModelSpec, epoch: int) -> Batch:
    """Encoded pieces of one bucket as a batch.

    Args:
        null_ND: the empty text, padded.
    """
    texts = [padded(part.texts, spec.text.tokens) for part in parts]
    latents = [part.latents_CFHW for part in parts if part.latents_CFHW is not None]
    window = Window(
        latents_BCFHW=torch.stack(latents),
        text_BGND=torch.stack(texts).to(latents[0]),
        state_BGQS=None,
        first_B=torch.tensor([part.place.is_first for part in parts]),
        null_ND=null_ND.to(latents[0]),
        real_B=torch.tensor([part.is_real for part in parts]),
    )
    dialogues = tuple(part.dialogue for part in parts if part.dialogue is not None)
    if not dialogues:
        return Batch(window, None, None, tuple(part.key for part in parts), epoch)
    behind = [len(dialogue.rounds) - part.place.chunks for part, dialogue in zip(parts, dialogues, strict=True)]
    rounds_BG = torch.tensor([[first + k for k in range(part.place.chunks)] for part, first in zip(parts, behind, strict=True)])
    return Batch(window, dialogues, rounds_BG, tuple(part.key for part in parts), epoch)
