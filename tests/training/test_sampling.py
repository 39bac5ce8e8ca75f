"""Sampling: PAN's defaults, and settings out of range are refused before anything is loaded."""

import pytest

from training.model.plain import built
from training.sampling import Sampling


def test_the_defaults_are_pans() -> None:
    told = Sampling()
    assert (told.guidance, told.steps, told.solver, told.shift, told.negative, told.unconditional) == (4.0, 50, "euler", None, "", "text")
    assert built(Sampling, told.to_dict(), "sampling") == told


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"steps": 0}, "steps 0: it must lie in"),
        ({"steps": 10**12}, "steps 1000000000000: it must lie in"),
        ({"guidance": -1.0}, "guidance -1"),
        ({"guidance": float("nan")}, "guidance nan"),
        ({"shift": 0.0}, "shift 0"),
        ({"seed": -1}, "seed -1"),
        ({"solver": "heun"}, "there are euler and unipc"),
        ({"unconditional": "state"}, "there are text and both"),
    ],
)
def test_settings_out_of_range_are_refused(wrong: dict[str, object], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        Sampling(**wrong)  # type: ignore[arg-type]
