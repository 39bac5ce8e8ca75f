"""ChunkSampler: interactive and scripted order are one film, what is seen of a chunk is what it was, and the noise has its place."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from training.diffusion.chunks import Chunk, ChunkSampler, Context, Outputs, Past
from training.diffusion.plan import PLANS, WindowPlan
from training.diffusion.sampler import Progress, Solver, SolverName
from training.diffusion.schedule import NoiseSchedule
from training.diffusion.swin import Levels
from training.model.spec import ChunkSpec

SPEC, SCHEDULE = ChunkSpec(chunk_latents=2), NoiseSchedule()
IMAGE = torch.randn(1, 4, 1, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(7))


class Toy:
    """A causal decoder in one line: a frame's velocity depends on all frames of its own and earlier chunks, on its level, and on its chunk's context."""

    def __init__(self) -> None:
        self.asked: list[Levels] = []
        self.windows: list[Tensor] = []

    def __call__(self, latents_BCFHW: Tensor, levels: Levels, text_BGND: Tensor, state_BGQS: Tensor | None, outputs: Outputs) -> Tensor:
        self.asked.append(levels)
        self.windows.append(latents_BCFHW)
        context = text_BGND.mean((2, 3)) + (0 if state_BGQS is None else state_BGQS.mean((2, 3)))
        out, stop = list[Tensor](), SPEC.cond_latents
        for k, length in enumerate(levels.layout.chunks):
            start, stop = stop, stop + length
            seen = latents_BCFHW[:, :, : stop if levels.layout.causal else None].mean(2, keepdim=True)
            own = latents_BCFHW[:, :, start:stop]
            level = levels.sigma_BF[:, None, start:stop, None, None]
            out.append(torch.tanh(own + 0.5 * seen + level) + context[:, k, None, None, None, None])
        return out[-1] if outputs == "last_chunk" else torch.cat(out, 2)


def context(number: int, states: bool = False) -> Context:
    text, null = torch.full((3, 5), 0.1 * number, dtype=torch.float64), torch.zeros(3, 5, dtype=torch.float64)
    state = torch.full((2, 2), 0.2, dtype=torch.float64) if states else None
    return Context(text, null, state, state)


def sampler(plan: str | WindowPlan = "causal_swin", steps: int = 8, name: SolverName = "euler", guidance: float = 4.0, seed: int = 0) -> ChunkSampler:
    chosen = PLANS[plan] if isinstance(plan, str) else plan
    solver = Solver(SCHEDULE.grid(steps), name)
    return ChunkSampler(velocity=Toy(), plan=chosen, schedule=SCHEDULE, spec=SPEC, solver=solver, guidance=guidance, seed=seed)


def interactive(made: ChunkSampler, contexts: list[Context]) -> list[Tensor]:
    past, film = made.begin(IMAGE), []
    for each in contexts:
        past = made.following(past, each)
        film.append(past[-1].latents_BCFHW)
    return film


@pytest.mark.parametrize("name", ["euler", "unipc"])
@pytest.mark.parametrize("plan", ["causal_swin", "last_frame", "magi", "full_window"])
@pytest.mark.parametrize("guidance", [1.0, 4.0])
def test_scripted_order_is_interactive_order_to_the_bit(plan: str, name: SolverName, guidance: float) -> None:
    made, contexts = sampler(plan, name=name, guidance=guidance), [context(k) for k in range(1, 6)]
    one = interactive(made, contexts)
    two = [past[-1].latents_BCFHW for past in made.scripted(made.begin(IMAGE), contexts)]
    assert len(one) == len(two) == 5
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    assert len({tuple(film.flatten()[:3].tolist()) for film in one}) == 5  # no two chunks alike


def test_a_script_may_go_on_where_actions_came_one_by_one() -> None:
    made, contexts = sampler(), [context(k) for k in range(1, 6)]
    past = made.following(made.following(made.begin(IMAGE), contexts[0]), contexts[1])
    rest = [p[-1].latents_BCFHW for p in made.scripted(past, contexts[2:])]
    assert all(torch.equal(a, b) for a, b in zip(rest, interactive(made, contexts)[2:], strict=True))


def test_sharing_windows_saves_tokens() -> None:
    contexts = [context(k) for k in range(1, 5)]
    tokens = []
    for scripted in (False, True):
        made = sampler()
        if scripted:
            list(made.scripted(made.begin(IMAGE), contexts))
        else:
            interactive(made, contexts)
        assert isinstance(made.velocity, Toy)
        tokens.append(sum(levels.layout.frames for levels in made.velocity.asked))
    # 4 steps a phase; frames a window: 3 with one chunk, 5 with two
    assert tokens == [4 * (2 * 3 + 3 * (3 + 5)), 4 * (3 + 3 * 5 + 3)]


def test_the_levels_are_pans() -> None:
    made = sampler(guidance=1.0)
    interactive(made, [context(1), context(2)])
    assert isinstance(made.velocity, Toy)
    grid = SCHEDULE.grid(8).tolist()
    asked = [tuple(dict.fromkeys(levels.sigma_BF[0].tolist())) for levels in made.velocity.asked]
    alone = [(0.055, sigma) for sigma in grid[:8]]
    second = [(0.055, grid[4 + j], grid[j]) for j in range(4)] + [(0.055, sigma) for sigma in grid[4:8]]
    assert asked == alone + second


def test_a_new_chunk_sees_the_chunk_before_as_it_was_and_its_condition_stays() -> None:
    made = sampler(guidance=1.0)
    interactive(made, [context(1), context(2), context(3)])
    assert isinstance(made.velocity, Toy)
    windows = made.velocity.windows
    for chunk in (1, 2):  # windows: 8 a chunk; the first four of chunk k + 1 show chunk k's last four
        for j in range(4):
            before, now = windows[8 * chunk - 4 + j], windows[8 * chunk + j]
            assert torch.equal(now[:, :, :3], before)  # the same condition frame, with the same noise, and the same latents
    assert not torch.equal(windows[4][:, :, :1], windows[12][:, :, :1])


def test_the_condition_is_the_last_frame_with_its_trace_of_noise() -> None:
    made = sampler()
    past = made.following(made.begin(IMAGE), context(1))
    last = past[-1].latents_BCFHW[:, :, -1:]
    expected = 0.945 * last + 0.055 * made.noise("condition", 1, last, 1)
    torch.testing.assert_close(past[-1].condition_BCFHW, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(past[0].condition_BCFHW, 0.945 * IMAGE + 0.055 * made.noise("condition", 0, IMAGE, 1), rtol=0, atol=1e-12)


def test_each_chunk_begins_as_noise_of_its_own() -> None:
    made = sampler(guidance=1.0)
    interactive(made, [context(1), context(2), context(3)])
    assert isinstance(made.velocity, Toy)
    begun = [made.velocity.windows[8 * k][:, :, -2:] for k in range(3)]
    assert all(torch.equal(latents, made.noise("chunk", k, IMAGE, 2)) for k, latents in enumerate(begun, 1))
    assert torch.cat(begun).flatten(1).corrcoef().fill_diagonal_(0).abs().max() < 0.5
    assert abs(torch.cat([made.noise("chunk", k, IMAGE, 2) for k in range(200)]).std().item() - 1) < 0.02


def test_the_past_holds_no_more_than_a_window_needs() -> None:
    for plan, kept in (("causal_swin", 2), ("last_frame", 1), ("magi", 4)):
        made, past = sampler(plan), sampler(plan).begin(IMAGE)
        for k in range(1, 7):
            past = made.following(past, context(k))
        assert [chunk.number for chunk in past] == list(range(7 - kept, 7))
        assert len(past[-1].seen) == (8 - 8 // kept)


def test_a_full_window_is_generated_at_once() -> None:
    made = sampler("full_window", guidance=1.0)
    assert interactive(made, [context(1)])[0].shape == (1, 4, 4, 3, 3)
    assert isinstance(made.velocity, Toy)
    assert {levels.layout.chunks for levels in made.velocity.asked} == {(2, 2)}
    assert not made.velocity.asked[0].layout.causal


def test_guidance_leads_away_from_the_null_text_in_one_batch() -> None:
    plain, strong = sampler(guidance=1.0), sampler(guidance=4.0)
    assert not torch.equal(interactive(plain, [context(1)])[0], interactive(strong, [context(1)])[0])
    assert isinstance(strong.velocity, Toy)
    assert {window.shape[0] for window in strong.velocity.windows} == {2}
    nothing = replace(context(1), text_ND=context(0).text_ND)  # nothing to lead away from
    same = zip(interactive(plain, [nothing]), interactive(strong, [nothing]), strict=True)
    for one, other in same:
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


def test_states_reach_the_decoder_with_their_chunk() -> None:
    assert not torch.equal(interactive(sampler(), [context(1)])[0], interactive(sampler(), [context(1, states=True)])[0])


def test_the_seed_decides_everything() -> None:
    contexts = [context(1), context(2)]
    one, again, other = (interactive(sampler(seed=seed), contexts) for seed in (3, 3, 4))
    assert all(torch.equal(a, b) for a, b in zip(one, again, strict=True))
    assert not torch.equal(one[0], other[0])


def test_futures_that_fork_do_not_touch_one_another() -> None:
    made = sampler()
    past: Past = made.following(made.begin(IMAGE), context(1))
    kept = [chunk.latents_BCFHW.clone() for chunk in past]
    left, right = made.following(past, context(2)), made.following(past, context(9))
    assert not torch.equal(left[-1].latents_BCFHW, right[-1].latents_BCFHW)
    assert all(torch.equal(chunk.latents_BCFHW, held) for chunk, held in zip(past, kept, strict=True))
    assert torch.equal(made.following(past, context(2))[-1].latents_BCFHW, left[-1].latents_BCFHW)


def test_plans_and_steps_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="9 steps do not divide into the 2 phases"):
        sampler(steps=9)
    with pytest.raises(ValueError, match="only trains"):
        sampler("teacher_forcing")


def test_the_image_is_chunk_zero() -> None:
    (chunk,) = sampler().begin(IMAGE)
    assert isinstance(chunk, Chunk)
    assert (chunk.number, chunk.context) == (0, None)
    assert torch.equal(chunk.latents_BCFHW, IMAGE)
    assert torch.equal(Progress(IMAGE).latents_BCFHW, IMAGE)


def test_the_first_image_may_have_noise_of_its_own() -> None:
    made = sampler(replace(PLANS["causal_swin"], first_cond_noise=0.0))
    toy = made.velocity
    assert isinstance(toy, Toy)
    past = made.begin(IMAGE)
    assert torch.equal(past[-1].condition_BCFHW, IMAGE)
    made.following(made.following(past, context(1)), context(2))
    told = [levels.sigma_BF[0, 0].item() for levels in toy.asked]
    # the first chunk, and the first half of the second, which still sees the first: behind the image; the rest behind a generated frame
    assert told == [0.0] * 12 + [0.055] * 4


def test_the_conditions_noise_may_be_drawn_anew_each_step() -> None:
    made = sampler(replace(PLANS["causal_swin"], cond_redrawn=True))
    toy, contexts = made.velocity, [context(k) for k in range(1, 6)]
    assert isinstance(toy, Toy)
    one = interactive(made, contexts)
    conditions = [window[0, :, 0].flatten() for window in toy.windows[:8]]
    assert len({tuple(c.tolist()) for c in conditions}) == 8
    two = [past[-1].latents_BCFHW for past in made.scripted(made.begin(IMAGE), contexts)]
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    assert not torch.equal(one[0], interactive(sampler(), contexts)[0])
