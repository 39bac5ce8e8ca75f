"""Grid: a clip on a model's clock: its chunks, what is done in each, and where in it a training window lies."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from curation.clips import ClipError
from curation.sample import CHUNK_FRAMES, GRID_FPS, rounds
from training.data.order import drawn
from training.model.plain import must
from training.model.spec import ChunkSpec


@dataclass(frozen=True)
class Grid:
    """A clip as a model sees it: one image, then chunks of equal length, each with the action that leads to it.

    Attributes:
        start: the MP4's frame that is the image.
        stride: MP4 frames a frame of the model's.
        actions: one a chunk, in words.
    """

    start: int
    stride: int
    actions: tuple[str, ...]

    @property
    def chunks(self) -> int:
        """How many there are."""
        return len(self.actions)


def grid_of(document: Mapping[str, Any], spec: ChunkSpec) -> Grid:
    """The grid of a sample by its pan-clip/1 document.

    A chunk's action is the text of the event that overlaps it most, by the rule of `curation.sample.rounds` on the model's own grid; at 16 frames a second and
    40 frames a chunk these are the document's rounds.

    Raises:
        ClipError: "off_grid" where the MP4's rate is no whole multiple of the model's, "too_short" where no chunk fits in, "no_action" where nothing is said
            of one.
    """
    mp4 = document["mp4"]
    stride = round(mp4["fps"] / spec.fps)
    if stride < 1 or abs(stride * spec.fps - mp4["fps"]) > 1e-3 * spec.fps:
        raise ClipError("off_grid", f"{mp4['fps']:g} frames a second are no whole multiple of the model's {spec.fps:g}; cut the clips at such a rate (cut.fps)")
    captioned_s = document["chunks"] * CHUNK_FRAMES / GRID_FPS
    frames = min((mp4["frames"] - mp4["start_frame"] - 1) // stride, int(captioned_s * spec.fps + 1e-6))
    chunks = frames // spec.chunk_frames
    if chunks < 1:
        raise ClipError("too_short", f"{frames} frames after the first at {spec.fps:g} a second; one chunk has {spec.chunk_frames}")
    events = [(c["t0"], c["t1"], c["text"]) for c in document["captions"]]
    actions = tuple(str(r["action"]) for r in rounds(chunks, events, spec.chunk_frames, spec.fps))
    if "" in actions:
        raise ClipError("no_action", f"no event of the caption speaks of chunk {actions.index('')} of {chunks}")
    return Grid(mp4["start_frame"], stride, actions)


@dataclass(frozen=True)
class Place:
    """Where a window lies in its clip.

    Attributes:
        chunk: its first chunk; its condition is the latent frame before it.
        chunks: how many it holds.
    """

    chunk: int
    chunks: int

    @property
    def is_first(self) -> bool:
        """Whether its condition is the clip's image."""
        return self.chunk == 0

    def latents(self, spec: ChunkSpec) -> slice:
        """Its latent frames, of the whole clip's."""
        first = self.chunk * spec.chunk_latents
        return slice(first, first + 1 + self.chunks * spec.chunk_latents)

    def rounds(self, most: int) -> range:
        """The dialogue's rounds up to the window's last chunk, the `most` latest; round r leads to chunk r.

        Raises:
            ValueError: the window's own rounds are more.
        """
        must(self.chunks <= most, f"a window of {self.chunks} chunks needs as many rounds, the model's dialogue has at most {most}")
        stop = self.chunk + self.chunks
        return range(max(0, stop - most), stop)


def place(key: str, chunks: int, window: int, first_share: float, seed: int, epoch: int, last: int | None = None) -> Place:
    """Where an epoch's window of a clip lies: a pure function of what is given.

    With the probability `first_share` it is the first; otherwise any later one. A clip as long as its window has only the first.

    Args:
        chunks: of the clip; at least `window`, the chunks of a window.
        last: the chunk where a window may begin at the latest; None: wherever it fits.

    Source: PAN (arXiv 2511.09057v3) 3.3.5 for first and later windows; their shares are not published.
    """
    must(chunks >= window, f"sample {key}: {chunks} chunks hold no window of {window}")
    later = chunks - window if last is None else min(last, chunks - window)
    if later < 1 or drawn("first", seed, epoch, key) < first_share * 2**64:
        return Place(0, window)
    return Place(1 + drawn("place", seed, epoch, key) % later, window)
