"""Held: a model as the ranks of a training hold it, and what of it learns; for planning, before anything is read."""

from collections.abc import Mapping
from dataclasses import dataclass

from training.model import counts
from training.model.spec import ModelSpec

HALF, SINGLE = 2, 4  # bytes of bfloat16 and float32


@dataclass(frozen=True, kw_only=True)
class Held:
    """A model as the GPUs hold it, and what of it learns.

    Attributes:
        spec: as it is stored: in a decoder's phase with backbone and state's stream, which are cut up and gathered with the rest, and not computed.
        runs: the parts that are computed: of "decoder", "backbone", "connector".
        learning: parameters that learn, by the parts of `counts.parameters`.
        width: bytes of a stored parameter that does not learn, by part.
        hears, sees: whether parameters of the language model, and of the vision tower, are among those that learn.
    """

    spec: ModelSpec
    runs: tuple[str, ...]
    learning: Mapping[str, int]
    width: Mapping[str, float]
    hears: bool = False
    sees: bool = False


def assumed(stored: ModelSpec, computed: ModelSpec) -> Held:
    """A model that nobody has looked at yet: what PAN's phases learn, the autoencoder in float32 and all else that does not learn in bfloat16.

    Args:
        computed: `stored` as it is in the phase (`planner.in_phase`).
    """
    sizes = counts.parameters(computed)
    return Held(
        spec=stored,
        runs=tuple(part for part in ("decoder", "backbone", "connector") if part in sizes),
        learning={part: sizes[part] for part in ("decoder", "queries", "connector") if part in sizes},
        width={part: SINGLE if part == "vae" else HALF for part in counts.parameters(stored)},
    )
