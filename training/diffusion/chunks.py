"""ChunkSampler: chunk after chunk in latent space, either each as soon as its action is known or, for a script, overlapping in shared windows."""

# Shape suffixes: B batch (1, or 2 with guidance), C channels, F latent frames, H W latent height and width, G chunks of a window, N text tokens, D text width,
# Q queries, S state width.

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Literal, Protocol

import torch
from torch import Tensor

from training.diffusion.plan import WindowPlan
from training.diffusion.sampler import Progress, Solver, guided
from training.diffusion.schedule import NoiseSchedule
from training.diffusion.swin import Levels, cond_sigma, levels, noised
from training.model.spec import ChunkSpec

Outputs = Literal["chunks", "last_chunk"]


class Velocity(Protocol):
    """The decoder, as sampling sees it."""

    def __call__(self, latents_BCFHW: Tensor, levels: Levels, text_BGND: Tensor, state_BGQS: Tensor | None, outputs: Outputs) -> Tensor:
        """eps - x, in the latents' dtype: of all chunks' frames, or of the last chunk's.

        Args:
            latents_BCFHW: a noised window; its levels say what sees what.
            text_BGND, state_BGQS: one a context of `levels.layout`.
        """


@dataclass(frozen=True)
class Context:
    """What a chunk is conditioned on, and what guidance leads away from.

    Attributes:
        text_ND: the action, encoded; state_QS: the predicted next latent state, None for a model of texts alone.
        null_text_ND, null_state_QS: the same for the unconditional branch.
    """

    text_ND: Tensor
    null_text_ND: Tensor
    state_QS: Tensor | None = None
    null_state_QS: Tensor | None = None

    def unconditional(self) -> "Context":
        """What guidance leads away from, as a context."""
        return Context(self.null_text_ND, self.null_text_ND, self.null_state_QS, self.null_state_QS)

    def nothing(self) -> "Context":
        """No action and no state, whatever guidance does without: a condition frame's own context, as in training (`GLP.window_loss`)."""
        none = None if self.state_QS is None else torch.zeros_like(self.state_QS)
        return Context(self.null_text_ND, self.null_text_ND, none, none)


@dataclass(frozen=True)
class Chunk:
    """One chunk, from noise to latents. Immutable: futures that fork share their past.

    Attributes:
        number: 1 is the first that is generated; 0 stands for the image, which is given.
        context: None for the image alone.
        progress: the latents so far.
        seen: the latents before each step but those of the chunk's first phase: what later chunks see of it while they are denoised. As latents, not keys and
            values: those of one chunk at 480p would be 350 GB.
        condition_BCFHW: its last latent frames with the condition's noise, what follows it begins with; None until it is done.
    """

    number: int
    context: Context | None
    progress: Progress
    seen: tuple[Tensor, ...] = ()
    condition_BCFHW: Tensor | None = None

    @property
    def latents_BCFHW(self) -> Tensor:
        """As they stand."""
        return self.progress.latents_BCFHW


Past = tuple[Chunk, ...]
"""The chunks that a next one can still depend on, earliest first."""


@dataclass(frozen=True, kw_only=True)
class ChunkSampler:
    """Samples chunk after chunk with a window plan.

    A chunk goes through as many phases as the plan has chunks in a window, from the window's last place to its first. In phase one PAN's new chunk stands
    behind the chunk before, in phase two it stands alone behind that chunk's last frame. All noise is a function of `seed` and the chunk's number, so the order
    in which chunks are computed does not matter.

    Args:
        velocity: the decoder.
        guidance: scale of classifier-free guidance; 1 leaves the unconditional branch out. What later chunks see of a chunk is the guided one.
        seed: of all noise.

    Raises:
        ValueError: the plan is one that only trains, or its phases do not divide the solver's steps.

    Source: PAN (arXiv 2511.09057v3), sections 3.3.4 and 5.1.
    """

    velocity: Velocity
    plan: WindowPlan
    schedule: NoiseSchedule
    spec: ChunkSpec
    solver: Solver
    guidance: float = 4.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.solver.steps % self.phases:
            raise ValueError(
                f"{self.solver.steps} steps do not divide into the {self.phases} phases of plan {self.plan.name}; take a multiple of {self.phases}"
            )

    @property
    def phases(self) -> int:
        """Places of the window that a chunk passes."""
        return self.plan.phases

    @property
    def chunk_latents(self) -> int:
        """Latent frames that are generated at once: a whole window's where all its chunks are at one level."""
        return self.spec.chunk_latents * (self.plan.chunks if self.plan.joint else 1)

    @property
    def stride(self) -> int:
        """Steps of one phase."""
        return self.solver.steps // self.phases

    def begin(self, image_BCFHW: Tensor) -> Past:
        """The past before the first chunk.

        Args:
            image_BCFHW: [1, C, cond_latents, H, W], the given frames' latents.
        """
        return (self._done(Chunk(0, None, Progress(image_BCFHW))),)

    def following(self, past: Past, context: Context) -> Past:
        """The past with one more chunk, its last; earlier chunks are not denoised further, so this needs nothing but what has been."""
        chunk = self._fresh(past, context)
        while chunk.progress.step < self.solver.steps:
            chunk = self._stepped(chunk, self._velocities(past, [chunk])[0])
        return self._extended(past, chunk)

    def scripted(self, past: Past, contexts: Iterable[Context]) -> Iterator[Past]:
        """As `following` for one context after the other, but neighbours share windows: fewer tokens, the same chunks.

        A context must be known before the chunk before it is done, which it is not where a state is predicted from that chunk's pixels. Each is asked for
        when its chunk begins.
        """
        coming, active = iter(contexts), list[Chunk]()
        while True:
            if not active or active[-1].progress.step == self.stride:
                active += [self._fresh((*past, *active), context) for context in islice(coming, 1)]
            if not active:
                return
            moved = zip(active, self._velocities(past, active), strict=True)
            active = [self._stepped(chunk, velocity) for chunk, velocity in moved]
            if active[0].progress.step == self.solver.steps:
                past = self._extended(past, active.pop(0))
                yield past

    def noise(self, what: str, number: int, like_BCFHW: Tensor, frames: int) -> Tensor:
        """Standard normal noise for one use in one chunk, the same on every device."""
        name = hashlib.sha256(f"{self.seed}/{what}/{number}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(name[:8], "big") >> 1)
        size = (1, like_BCFHW.shape[1], frames, *like_BCFHW.shape[3:])
        return torch.randn(size, generator=generator).to(like_BCFHW)

    def _fresh(self, past: Past, context: Context) -> Chunk:
        number = past[-1].number + 1
        return Chunk(number, context, Progress(self.noise("chunk", number, past[-1].latents_BCFHW, self.chunk_latents)))

    def _stepped(self, chunk: Chunk, velocity_BCFHW: Tensor) -> Chunk:
        seen = chunk.seen if chunk.progress.step < self.stride else (*chunk.seen, chunk.latents_BCFHW)
        return replace(chunk, progress=self.solver.step(chunk.progress, velocity_BCFHW), seen=seen)

    def _done(self, chunk: Chunk) -> Chunk:
        """With the condition for what follows; a solver's memory is not needed any more."""
        progress = Progress(chunk.latents_BCFHW, chunk.progress.step)
        return replace(chunk, progress=progress, condition_BCFHW=self._condition(chunk, "condition"))

    def _condition(self, chunk: Chunk, use: str) -> Tensor:
        """A done chunk's last latent frames with the condition's noise, drawn for this use; chunk 0 is the image."""
        last, frames = chunk.latents_BCFHW, self.spec.cond_latents
        share = cond_sigma(self.plan, self.schedule, first=chunk.number == 0)
        sigma = torch.full((1, frames), share, dtype=torch.float64, device=last.device)
        return noised(last[:, :, -frames:], self.noise(use, chunk.number, last, frames), sigma)

    def _extended(self, past: Past, chunk: Chunk) -> Past:
        """The past with `chunk`, and without what nothing can depend on any more."""
        return (*past, self._done(chunk))[-self.phases :]

    def _velocities(self, past: Past, active: Sequence[Chunk]) -> list[Tensor]:
        """The guided velocity of each active chunk, in one window that ends with the last of them."""
        chunks = {chunk.number: chunk for chunk in (*past, *active)}
        newest, steps, last = active[-1].number, [active[-1].progress.step], active[-1].number
        while last > 1 and steps[0] + self.stride < self.solver.steps:  # the chunk before, as it was when it stood one place further up
            last, steps = last - 1, [steps[0] + self.stride, *steps]
        window = [chunks[number] for number in range(last, newest + 1)]
        before = chunks[last - 1]
        condition = self._condition(before, f"condition/{steps[0]}") if self.plan.cond_redrawn else before.condition_BCFHW
        assert condition is not None
        shown = [self._before(chunk, step) for chunk, step in zip(window, steps, strict=True)]
        contexts = [chunk.context for chunk in window if chunk.context is not None]
        velocity = self._guided(torch.cat([condition, *shown], 2), steps, contexts, len(active), first=before.number == 0)
        return list(velocity.split(self.chunk_latents, 2)[-len(active) :])

    def _before(self, chunk: Chunk, step: int) -> Tensor:
        """A chunk's latents before `step`."""
        return chunk.latents_BCFHW if step == chunk.progress.step else chunk.seen[step - self.stride]

    def _guided(self, window_BCFHW: Tensor, steps: Sequence[int], contexts: Sequence[Context], active: int, first: bool) -> Tensor:
        """The velocity of the window's last chunks, `active` of them at least; its chunks stand at `steps`; `first`: its condition is the image."""
        sigma_BG = self.solver.sigmas[list(steps)].to(window_BCFHW.device)[None]
        if self.plan.joint:
            sigma_BG, contexts = sigma_BG.expand(-1, self.plan.chunks), [*contexts] * self.plan.chunks
        if self.plan.cond_context == "null":  # the condition's own context stands last
            contexts = [*contexts, contexts[0].nothing()]
        outputs: Outputs = "last_chunk" if active == 1 and not self.plan.joint else "chunks"
        if self.guidance == 1.0:
            one = levels(self.plan, self.schedule, self.spec, sigma_BG, first_B=torch.tensor([first]))
            return self.velocity(window_BCFHW, one, *_stacked([contexts]), outputs)
        both = levels(self.plan, self.schedule, self.spec, sigma_BG.expand(2, -1), first_B=torch.tensor([first, first]))
        branches = _stacked([contexts, [context.unconditional() for context in contexts]])
        conditional, unconditional = self.velocity(window_BCFHW.expand(2, -1, -1, -1, -1), both, *branches, outputs).chunk(2)
        return guided(conditional, unconditional, self.guidance)


def _stacked(branches: Sequence[Sequence[Context]]) -> tuple[Tensor, Tensor | None]:
    """text_BGND and state_BGQS of the contexts of each branch."""
    text_BGND = torch.stack([torch.stack([context.text_ND for context in branch]) for branch in branches])
    states = [[context.state_QS for context in branch if context.state_QS is not None] for branch in branches]
    return text_BGND, torch.stack([torch.stack(branch) for branch in states]) if states[0] else None
