"""Window plans: PAN's numbers, what can be sampled, what contradicts itself, and the way into and out of model.json."""

import json
from dataclasses import replace

import pytest

from training.diffusion.plan import PLANS, WindowPlan
from training.model.spec import SPECS, ModelSpec


def test_pans_plan() -> None:
    plan = PLANS["causal_swin"]
    assert (plan.offsets, plan.span, plan.offset_space, plan.causal) == ((0.0, 0.5), 0.5, "index", True)
    assert (plan.cond_noise, plan.cond_space, plan.cond_context, plan.cond_in_first_chunk, plan.first_share) == (0.055, "sigma", "first_chunk", False, 0.25)


def test_places_that_a_sampled_chunk_passes() -> None:
    assert [PLANS[name].phases for name in ("causal_swin", "last_frame", "full_window", "magi")] == [2, 1, 1, 4]
    odd = [PLANS["diffusion_forcing"], PLANS["teacher_forcing"], WindowPlan(name="odd", offsets=(0.0, 0.3)), WindowPlan(name="odd", causal=False)]
    for plan in odd:
        with pytest.raises(ValueError, match="only trains"):
            _ = plan.phases


def test_a_model_says_which_plan_it_was_trained_with() -> None:
    assert (SPECS["pan_14b"].plan, SPECS["pandora_recipe"].plan) == (PLANS["causal_swin"], PLANS["last_frame"])
    told = replace(SPECS["debug"], window=replace(PLANS["causal_swin"], cond_noise=0.1, cond_space="index"))
    again = ModelSpec.from_dict(json.loads(json.dumps(told.to_dict())))
    assert again.plan == told.plan != SPECS["debug"].plan


@pytest.mark.parametrize(
    ("fault", "match"),
    [
        ({"offsets": ()}, "must ascend from 0"),
        ({"offsets": (0.5, 0.0)}, "must ascend from 0"),
        ({"offsets": (0.0, 1.0)}, "below 1"),
        ({"cond_noise": 1.0}, "cond_noise 1"),
        ({"first_share": 1.5}, "first_share"),
        ({"offsets": (0.0, 0.0), "clean": 2}, "nothing to learn"),
        ({"independent": True}, "have no offsets"),
    ],
)
def test_plans_that_contradict_themselves_are_refused(fault: dict[str, object], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        WindowPlan(name="odd", **fault)  # type: ignore[arg-type]
