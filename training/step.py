"""Step: from micro-batches to gradients: the sum of all errors over all ranks, divided once by how many there were."""

# Shape suffixes: B batch, Q queries, S state width, R rounds.

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from pydantic import Field
from torch import Tensor

from curation.config import Config
from training.model.glp import GLP, Unconditional, Window, WindowLoss
from training.model.objectives import Tally, Weighting
from training.phases import Phase

BUCKETS = 10


class LossSettings(Config):
    """What the loss is made of."""

    weighting: Weighting = Field("none", description="what noise levels weigh; none: all the same, as PAN")
    dropped: float = Field(0.1, ge=0, le=1, description="share of windows that learn the empty text, for guidance; PAN gives none, 0.1 is usual")
    unconditional: Unconditional = Field("text", description="what these windows do without: the text alone, or the state too")
    compute: Literal["bfloat16", "float32"] = Field("bfloat16", description="precision of the matrix products; weights and what is summed stay float32")


class Batch(Protocol):
    """What a step takes: training.data.loader's batch."""

    @property
    def window(self) -> Window:
        """Without states."""
        ...

    @property
    def dialogues(self) -> Sequence[Any] | None:
        """In the joint phase, one a window."""
        ...

    @property
    def keys(self) -> Sequence[str]:
        """Of the samples; "" for a blank."""
        ...

    def with_states(self, states_BRQS: Tensor) -> Window:
        """The window with the states of its own rounds."""
        ...

    def only(self, number: int) -> "Batch":
        """One of its windows, as a batch of its own."""
        ...

    def to(self, device: Any, dtype: Any = None) -> "Batch":
        """On a device."""
        ...


class Data(Protocol):
    """training.data.loader.Loader, as the loop sees it."""

    @property
    def epoch(self) -> int:
        """Of the batch that comes next."""
        ...

    @property
    def epoch_steps(self) -> int:
        """Batches of a whole epoch on each rank."""
        ...

    @property
    def skipped(self) -> Mapping[str, str]:
        """Samples that this rank has left out because they failed their check, and why."""
        ...

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[Batch]: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: Any) -> None: ...


@dataclass(frozen=True)
class Sums:
    """What a step, or a part of one, found; sums, so that they add up over micro-batches and ranks.

    Attributes:
        loss: float64 scalar, the loss times `weight`.
        weight: float64 scalar, the latent frames learnt from (the tokens, in an alignment).
        noise: errors by place in the schedule; chunk: by chunk of the window.
    """

    loss: Tensor
    weight: Tensor
    noise: Tally
    chunk: Tally

    def __add__(self, other: "Sums") -> "Sums":
        return Sums(self.loss + other.loss, self.weight + other.weight, self.noise + other.noise, self.chunk + other.chunk)

    def reduced(self, group: Any = None) -> "Sums":
        """Summed over the ranks of a process group, by one collective; as it is without one."""
        if group is None:
            return self
        vector = torch.cat([self.loss[None], self.weight[None], self.noise.total, self.noise.count, self.chunk.total, self.chunk.count]).double()
        torch.distributed.all_reduce(vector, group=group)
        lengths = [1, 1, BUCKETS, BUCKETS, len(self.chunk.total), len(self.chunk.total)]
        loss, weight, noise, noises, chunk, chunks = vector.split(lengths)
        return Sums(loss[0], weight[0], Tally(noise, noises.long()), Tally(chunk, chunks.long()))

    def state_dict(self) -> dict[str, Any]:
        """Plain values, exact."""
        tallies = {"noise": self.noise, "chunk": self.chunk}
        return {"loss": float(self.loss), "weight": float(self.weight)} | {n: [t.total.tolist(), t.count.tolist()] for n, t in tallies.items()}

    @classmethod
    def of(cls, state: Mapping[str, Any], device: Any = "cpu") -> "Sums":
        """The inverse."""
        loss, weight = (torch.tensor(state[name], dtype=torch.float64, device=device) for name in ("loss", "weight"))
        tallies = [(torch.tensor(state[n][0], dtype=torch.float64, device=device), torch.tensor(state[n][1], device=device)) for n in ("noise", "chunk")]
        return cls(loss, weight, *(Tally(total, count) for total, count in tallies))

    @property
    def mean(self) -> float:
        """The loss; NaN of nothing."""
        return float(self.loss / self.weight)

    def figures(self) -> dict[str, float]:
        """The loss by noise bucket and by chunk, where there is any, by name."""
        named = {f"noise_{k}": value for k, value in enumerate(self.noise.mean().tolist())} | {
            f"chunk_{k}": value for k, value in enumerate(self.chunk.mean().tolist())
        }
        return {name: value for name, value in named.items() if value == value}


def seeded(*what: object) -> torch.Generator:
    """A generator on the CPU whose numbers are a pure function of `what`: the same after a resume, and on every rank that is told the same."""
    name = hashlib.sha256("/".join(map(str, what)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(name[:8], "big") >> 1)


def errors(
    glp: GLP, phase: Phase, batch: Batch, generator: torch.Generator, settings: LossSettings, *, dropped: float | None = None
) -> tuple[Tensor, Sums, Any]:
    """The sum of a micro-batch's errors, with its graph; what it found; and the layout of its window (None of an alignment).

    Args:
        generator: of noise and its levels.
        dropped: in place of the settings', such as 0 in validation.
    """
    if phase.objective == "matching":
        return _matching(glp, batch)
    window = batch.window if batch.dialogues is None else batch.with_states(glp.predict_states(batch.dialogues))
    kind, narrow = window.latents_BCFHW.device.type, settings.compute == "bfloat16"
    with torch.autocast(kind, torch.bfloat16) if narrow else nullcontext():
        if phase.objective == "alignment":
            return _alignment(glp, window)
        share = settings.dropped if dropped is None else dropped
        found = glp.window_loss(window, generator, weighting=settings.weighting, dropped=share, unconditional=settings.unconditional)
    weight = found.levels.loss_BF.sum()
    total = found.loss * weight
    return total, _sums(found, total, weight, glp.plan.chunks), found.levels.layout


def _sums(found: WindowLoss, total: Tensor, weight: Tensor, chunks: int) -> Sums:
    chunk = found.by_chunk()
    spare = chunks - len(chunk.total)  # chunks that no window of the batch has
    padded = Tally(torch.nn.functional.pad(chunk.total, (0, spare)), torch.nn.functional.pad(chunk.count, (0, spare)))
    return Sums(total.detach().double(), weight.double(), found.by_noise(BUCKETS), padded)


def _alignment(glp: GLP, window: Window) -> tuple[Tensor, Sums, None]:
    """Pandora's first phase: the connector against the text encoder, over the rounds of the window."""
    assert window.state_BGQS is not None
    loss = glp.alignment_loss(window.state_BGQS, window.text_BGND, window.real_B)
    windows = len(window.text_BGND) if window.real_B is None else int(window.real_B.sum())
    weight = torch.tensor(float(windows * window.text_BGND.shape[1]), dtype=torch.float64, device=loss.device)
    total = loss * weight.to(loss.dtype)
    return total, _plain_sums(total, weight, glp.plan.chunks), None


def _matching(glp: GLP, batch: Batch) -> tuple[Tensor, Sums, None]:
    """The joint-embedding objective: the states that are predicted against what the tower makes of what then came, over all rounds but each dialogue's last."""
    assert batch.dialogues is not None
    loss, rounds = glp.matching_loss(batch.dialogues, None if batch.window.real_B is None else batch.window.real_B.tolist())
    weight = torch.tensor(float(rounds), dtype=torch.float64, device=loss.device)
    total = loss * rounds
    return total, _plain_sums(total, weight, glp.plan.chunks), None


def _plain_sums(total: Tensor, weight: Tensor, chunks: int) -> Sums:
    """Of an objective without noise levels."""

    def nothing(entries: int) -> Tally:
        return Tally(torch.zeros(entries, dtype=torch.float64, device=total.device), torch.zeros(entries, dtype=torch.long, device=total.device))

    return Sums(total.detach().double(), weight, nothing(BUCKETS), nothing(chunks))
