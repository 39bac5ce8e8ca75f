"""GLP: the loss is what it says, each chunk hears its own action and state, and gradients go where they shall."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.training.made_world import DEBUG, PANDORA, wider, world
from tests.training.model.worlds import dialogue
from training.diffusion.plan import PLANS, WindowPlan
from training.diffusion.swin import draw, layout, levels
from training.model.glp import GLP, Window

SPEC = DEBUG.chunks


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def window(model: GLP, first: tuple[bool, ...] = (False, False), seed: int = 5) -> Window:
    """Random latents, texts and states."""
    spec, batch, made = model.spec, len(first), seeded(seed)
    chunks, frames = model.plan.chunks, layout(model.plan, spec.chunks).frames
    kind = next(model.decoder.parameters()).dtype

    def random(*size: int) -> Tensor:
        return torch.randn(size, generator=made).to(kind)

    state = random(batch, chunks, spec.backbone.queries, spec.backbone.hidden) if model.predicts_states else None
    text = random(batch, chunks, spec.text.tokens, spec.text.d_model)
    return Window(random(batch, 16, frames, 4, 4), text, state, torch.tensor(first), random(spec.text.tokens, spec.text.d_model))


def test_the_loss_is_that_of_the_velocity() -> None:
    """With a decoder that says nothing, it is the mean square of noise minus data over the chunks that are there."""
    model = world(states=False)
    with torch.no_grad():
        model.decoder.head.head.weight.zero_()
        model.decoder.head.head.bias.zero_()
    given = window(model, (True, False))
    found = model.window_loss(given, seeded(), dropped=0)
    again = seeded()
    drawn = draw(model.plan, model.schedule, SPEC, given.first_B, again)
    noise = torch.randn(given.latents_BCFHW.shape, generator=again)
    assert torch.equal(found.levels.sigma_BF, drawn.sigma_BF)
    frames = drawn.layout.frames
    square = (noise - given.latents_BCFHW)[:, :, :frames].square().mean((1, 3, 4))
    assert found.loss.item() == pytest.approx(square[drawn.loss_BF].mean().item(), rel=1e-6)
    chunks = found.by_chunk()
    assert chunks.count.sum() == found.by_noise().count.sum() == drawn.loss_BF.sum()
    assert (chunks.total.sum() / chunks.count.sum()).item() == pytest.approx(found.loss.item(), rel=1e-6)
    weighted = model.window_loss(given, seeded(), dropped=0, weighting="bell")
    assert weighted.loss.item() != pytest.approx(found.loss.item(), rel=1e-3)
    assert torch.equal(weighted.error_BF, found.error_BF)


def test_the_decoder_sees_the_noised_window_and_its_levels() -> None:
    model, seen = world(states=False), list[tuple[Any, ...]]()
    given = window(model)
    model.decoder.register_forward_pre_hook(lambda _, arguments: seen.append(arguments))
    model.window_loss(given, seeded(), dropped=0)
    again = seeded()
    drawn = draw(model.plan, model.schedule, SPEC, given.first_B, again)
    noise = torch.randn(given.latents_BCFHW.shape, generator=again)
    latents, told, text, state, layout = seen[0]
    share = drawn.sigma_BF.float()[:, None, :, None, None]
    torch.testing.assert_close(latents, (1 - share) * given.latents_BCFHW + share * noise)
    torch.testing.assert_close(told, (1000 * drawn.sigma_BF).float(), rtol=0, atol=0)
    assert torch.equal(text, given.text_BGND)
    assert state is None
    assert layout == drawn.layout


@pytest.mark.parametrize("what", ["text_BGND", "state_BGQS"])
def test_each_chunk_hears_its_own_action_and_state(what: str) -> None:
    model = world(dtype=torch.float64)
    given = window(model)
    other = getattr(given, what).clone()
    other[:, 1] += 1.0
    with torch.no_grad():
        before = model.window_loss(given, seeded(), dropped=0).error_BF
        after = model.window_loss(replace(given, **{what: other}), seeded(), dropped=0).error_BF
    assert torch.equal(before[:, :3], after[:, :3])  # the condition frame and chunk A
    assert bool((before[:, 3:] != after[:, 3:]).all())


def test_a_chunk_that_is_not_there_changes_nothing() -> None:
    model = world(states=False, dtype=torch.float64)
    given = window(model, (True, True, False))
    seed = next(s for s in range(100) if draw(model.plan, model.schedule, SPEC, given.first_B, seeded(s)).present_BG[:, 1].tolist() == [False, True, True])
    other = given.latents_BCFHW.clone()
    other[0, :, 3:] += 3.0
    with torch.no_grad():
        one = model.window_loss(given, seeded(seed), dropped=0)
        two = model.window_loss(replace(given, latents_BCFHW=other), seeded(seed), dropped=0)
    assert torch.equal(one.loss, two.loss)
    assert not torch.equal(one.error_BF[0, 3:], two.error_BF[0, 3:])


def test_without_its_text_a_window_knows_no_action() -> None:
    model = world(dtype=torch.float64)
    given = window(model)
    assert given.state_BGQS is not None
    said = replace(given, text_BGND=given.text_BGND + 1)
    acted = replace(given, state_BGQS=given.state_BGQS + 1)

    def losses(**options: Any) -> list[Tensor]:
        with torch.no_grad():
            return [model.window_loss(w, seeded(), **options).loss for w in (given, said, acted)]

    plain, always, both = losses(dropped=0.0), losses(dropped=1.0), losses(dropped=1.0, unconditional="both")
    assert not torch.equal(plain[0], plain[1])
    assert torch.equal(always[0], always[1])
    assert not torch.equal(always[0], always[2])  # the state stays
    assert torch.equal(both[0], both[2])  # and goes too


def test_the_share_that_is_dropped_changes_no_other_noise() -> None:
    model = world(states=False)
    given = window(model)
    with torch.no_grad():
        none, all_ = (model.window_loss(given, seeded(), dropped=share).levels.sigma_BF for share in (0.0, 1.0))
        alike = replace(given, text_BGND=given.text_BGND[:1, :1].expand_as(given.text_BGND), null_ND=given.text_BGND[0, 0])
        same, kept = (model.window_loss(alike, seeded(), dropped=share) for share in (1.0, 0.0))
    assert torch.equal(none, all_)
    assert torch.equal(same.loss, kept.loss)


def test_a_condition_frame_with_a_context_of_its_own() -> None:
    plan = replace(PLANS["causal_swin"], cond_context="null")
    model = world(plan=plan, dtype=torch.float64)
    given = window(model)
    assert given.null_ND is not None
    with torch.no_grad():
        one, two, three = (
            model.window_loss(w, seeded(), dropped=0).error_BF
            for w in (given, replace(given, null_ND=given.null_ND + 1), replace(given, text_BGND=given.text_BGND + 1))
        )
    assert bool((one != two).any(0)[0])
    assert torch.equal(one[:, 0], three[:, 0])  # it hears no action
    with pytest.raises(ValueError, match="the condition frame the empty text"):
        model.window_loss(replace(given, null_ND=None), seeded(), dropped=0)


def test_at_the_start_of_the_joint_phase_queries_learn_nothing_but_the_states_output_does() -> None:
    """Its zeros keep the pretrained decoder what it was, and learn first; one step later the queries learn too."""
    model = world()
    model.decoder.start_state_stream()
    given, rounds = window(model), [dialogue(seed, rounds=2, spec=DEBUG.backbone) for seed in (1, 2)]

    def backward() -> None:
        model.zero_grad()
        told = replace(given, state_BGQS=model.predict_states(rounds))
        model.window_loss(told, seeded(), dropped=0).loss.backward()

    with torch.no_grad():
        without = model.window_loss(replace(given, state_BGQS=None), seeded(), dropped=0).loss
        assert torch.equal(model.window_loss(given, seeded(), dropped=0).loss, without)
    backward()
    queries, outputs = model.backbone.query_embed, [block.state_out.weight for block in model.decoder.blocks]
    assert queries.grad.abs().max() == 0
    assert all(weight.grad.abs().max() > 0 for weight in outputs)
    with torch.no_grad():
        for weight in outputs:
            weight -= weight.grad
    backward()
    assert queries.grad.abs().max() > 0
    frozen = [name for name, p in model.backbone.named_parameters() if p.grad is not None]
    assert frozen == ["query_embed"]


def test_pandoras_states_take_the_texts_place() -> None:
    model = world(PANDORA)
    assert model.plan.name == "last_frame"
    given = window(model)
    assert given.state_BGQS is not None
    text, state = model.conditions(given.text_BGND, given.state_BGQS)
    assert state is None
    tokens = model.spec.qformer.queries if model.spec.qformer else 0
    assert bool((text[:, :, tokens:] == 0).all())
    assert bool((text[:, :, :tokens].abs().sum(-1) > 0).all())
    with torch.no_grad():
        one = model.window_loss(given, seeded(), dropped=0).loss
        assert torch.equal(one, model.window_loss(replace(given, text_BGND=given.text_BGND + 1), seeded(), dropped=0).loss)
        assert not torch.equal(one, model.window_loss(replace(given, state_BGQS=given.state_BGQS + 1), seeded(), dropped=0).loss)


def test_pandora_aligns_its_queries_with_captions() -> None:
    model = world(PANDORA)
    states = model.predict_states([dialogue(3, rounds=2, spec=PANDORA.backbone)])
    wanted = model.encode_text(["it moves", "it stops"])[None]
    model.alignment_loss(states, wanted).backward()
    assert model.backbone is not None
    assert model.backbone.query_embed.grad.abs().max() > 0
    assert model.connector is not None
    assert all(p.grad is not None for p in model.connector.parameters() if p.requires_grad)
    assert all(p.grad is None for p in model.text.parameters())
    with pytest.raises(ValueError, match="nothing to align"):
        world().alignment_loss(states, wanted)


def test_states_that_are_matched_to_the_next_sight_learn_and_what_they_are_held_to_does_not() -> None:
    model = world()
    assert model.backbone is not None
    for parameter in model.backbone.parameters():
        parameter.requires_grad_(True)
    loss, rounds = model.matching_loss([dialogue(3, rounds=3), dialogue(4, rounds=2), dialogue(5, rounds=1)])
    assert rounds == 2 + 1
    seen = model.backbone.look([each.sight for each in dialogue(3, rounds=2).rounds[1:]])[0]
    said = model.predict_states([dialogue(3, rounds=2)])[0, :1]
    wanted = torch.nn.functional.adaptive_avg_pool1d(seen.T, said.shape[1]).T[None]
    normed = [torch.nn.functional.layer_norm(x, x.shape[-1:]) for x in (said, wanted)]
    one, count = model.matching_loss([dialogue(3, rounds=2)])
    assert (one.item(), count) == (pytest.approx(torch.nn.functional.smooth_l1_loss(*normed).item(), rel=1e-5), 1)
    one.backward()
    assert float(model.backbone.query_embed.grad.abs().max()) > 0
    none, count = model.matching_loss([dialogue(5, rounds=1)])
    assert (none.item(), count, none.requires_grad) == (0.0, 0, True)
    assert loss.requires_grad


def test_other_plans_train_the_same_model() -> None:
    for name in ("full_window", "diffusion_forcing", "teacher_forcing", "magi"):
        plan: WindowPlan = PLANS[name]
        model = world(states=False, plan=plan)
        given = window(model, (False, False))
        loss = model.window_loss(given, seeded(), dropped=0).loss
        assert torch.isfinite(loss), name
    assert world(states=False).plan is PLANS["causal_swin"]


def test_two_windows_in_a_batch_are_two_batches() -> None:
    model = world(dtype=torch.float64)
    given = window(model)
    assert given.state_BGQS is not None
    sigma = torch.tensor([[0.2, 0.8], [0.5, 0.9]], dtype=torch.float64)
    with torch.no_grad():
        both = model.velocity(given.latents_BCFHW, levels(model.plan, model.schedule, SPEC, sigma), given.text_BGND, given.state_BGQS)
        for k in (0, 1):
            one = slice(k, k + 1)
            alone = model.velocity(given.latents_BCFHW[one], levels(model.plan, model.schedule, SPEC, sigma[one]), given.text_BGND[one], given.state_BGQS[one])
            torch.testing.assert_close(both[one], alone, rtol=0, atol=1e-12)


def test_parts_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="chunks are 3 and 2"):
        wider(chunks=replace(DEBUG.chunks, window_chunks=3))
    model = world(states=False)
    with pytest.raises(ValueError, match="predicts no states"):
        model.predict_states([])
    with pytest.raises(ValueError, match="takes 5"):
        model.window_loss(replace(window(model), latents_BCFHW=torch.zeros(2, 16, 3, 4, 4)), seeded())
    with pytest.raises(ValueError, match="needs the empty text"):
        model.window_loss(replace(window(model), null_ND=None), seeded(), dropped=0.1)
    with pytest.raises(ValueError, match="lacks its module"):
        GLP(PANDORA, decoder=model.decoder, vae=model.vae, text=model.text)
