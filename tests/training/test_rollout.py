"""Sessions: what the paper says happens in a step, the same film however it is asked for, and futures that do not touch."""

import math
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from safetensors import SafetensorError

from tests.training.made_world import DEBUG, PANDORA, picture, wider, world
from training.diffusion.plan import PLANS
from training.model.dialogue import Dialogue, Round
from training.model.glp import GLP
from training.model.spec import VaeSpec
from training.model.vision import see
from training.rollout import Frames_THWC, Session, film
from training.sampling import Sampling

FEW = Sampling(steps=4, seed=1)
ACTIONS = ("go left", "go right", "stop", "pick it up")


@pytest.fixture(scope="module")
def pan() -> GLP:
    return world()


@pytest.fixture(scope="module")
def of_texts() -> GLP:
    return world(states=False)


def begun(model: GLP, sampling: Sampling = FEW, seed: int = 0) -> Session:
    session = Session(model, sampling)
    session.start(picture(seed))
    return session


def test_a_film_is_the_image_and_a_chunk_an_action(pan: GLP) -> None:
    pieces = list(film(Session(pan, FEW), picture(), ACTIONS))
    chunk = DEBUG.chunks.chunk_frames
    assert [piece.shape for piece in pieces] == [(1, 64, 64, 3)] + [(chunk, 64, 64, 3)] * 4
    assert {piece.dtype for piece in pieces} == {np.dtype(np.uint8)}
    assert np.array_equal(pieces[0][0], picture())
    assert len(np.concatenate(pieces)) == 1 + 4 * chunk


def row_by_row(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """A linear map in which a row's sums do not depend on how many rows there are."""
    product = (x.unsqueeze(-2) * weight).sum(-1)
    return product if bias is None else product + bias


def patch_by_patch(original: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """The same for a convolution whose patches do not overlap."""

    def conv3d(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, stride: tuple[int, ...], *rest: Any) -> torch.Tensor:
        if tuple(stride) != tuple(weight.shape[2:]) or math.prod(stride) == 1:
            return original(x, weight, bias, stride, *rest)
        patches = x
        for axis, side in enumerate(stride, 2):
            patches = patches.unfold(axis, side, side)
        rows = patches.permute(0, 2, 3, 4, 1, 5, 6, 7).flatten(4)
        return row_by_row(rows, weight.flatten(1), bias).permute(0, 4, 1, 2, 3)

    return conv3d


@pytest.mark.parametrize("sampling", [FEW, Sampling(steps=6, solver="unipc", guidance=1.0), Sampling(steps=4, negative="blurred", seed=9)])
def test_interactive_order_is_scripted_order_to_the_bit(of_texts: GLP, sampling: Sampling, monkeypatch: pytest.MonkeyPatch) -> None:
    """The best single test of the decoder: mask, levels, trajectories, rotation and routing must all be right for it to hold.

    What is left between the orders is how many rows share a matrix product, and a library may add up a row among 48 otherwise than among 80: here each row is
    multiplied by itself, and then nothing is left.
    """
    monkeypatch.setattr(torch.nn.functional, "linear", row_by_row)
    monkeypatch.setattr(torch.nn.functional, "conv3d", patch_by_patch(torch.nn.functional.conv3d))
    interactive, scripted = begun(of_texts, sampling), begun(of_texts, sampling)
    assert [chunk.tobytes() for chunk in map(interactive.step, ACTIONS)] == [chunk.tobytes() for chunk in scripted.scripted(ACTIONS)]
    assert interactive.actions == scripted.actions == ACTIONS
    one, two = (session._past[-1] for session in (interactive, scripted))
    assert torch.equal(one.latents_BCFHW, two.latents_BCFHW)
    assert all(torch.equal(a, b) for a, b in zip(one.seen, two.seen, strict=True))


@pytest.mark.parametrize(("dtype", "atol"), [(torch.float64, 1e-12), (torch.float32, 1e-4)])
def test_interactive_order_is_scripted_order_with_a_librarys_matrix_products(dtype: torch.dtype, atol: float) -> None:
    model = world(states=False, dtype=dtype)
    interactive, scripted = begun(model), begun(model)
    for action in ACTIONS:
        interactive.step(action)
    list(scripted.scripted(ACTIONS))
    one, two = (session._past[-1].latents_BCFHW for session in (interactive, scripted))
    assert one.dtype == dtype
    torch.testing.assert_close(one, two, rtol=0, atol=atol)


def test_a_script_that_ends_early_leaves_a_session_that_goes_on(of_texts: GLP) -> None:
    one, two = begun(of_texts), begun(of_texts)
    pieces = np.concatenate([one.step(action) for action in ACTIONS])
    again = np.concatenate([*two.scripted(ACTIONS[:2]), two.step(ACTIONS[2]), *two.scripted(ACTIONS[3:])])
    assert np.abs(pieces.astype(int) - again).max() <= 1  # rounded latents may fall on either side of a grey level


def test_a_script_encodes_an_action_when_its_chunk_begins(of_texts: GLP, monkeypatch: pytest.MonkeyPatch) -> None:
    session, heard = begun(of_texts), Mock(side_effect=of_texts.encode_text)
    monkeypatch.setattr(of_texts, "encode_text", heard)
    begins = [heard.call_count for _ in session.scripted(ACTIONS)]
    assert begins == [2, 3, 4, 4]  # a chunk and the one that shares its window


def test_a_model_of_states_has_no_scripted_order(pan: GLP) -> None:
    with pytest.raises(ValueError, match="cannot be run ahead"):
        next(begun(pan).scripted(ACTIONS))


def test_each_state_is_predicted_from_the_frames_that_were_generated(pan: GLP) -> None:
    """Closed loop: the states are those of one forward over the dialogue of image, actions and generated chunks."""
    session, seen = begun(pan), [picture()[None]]
    states = []
    for action in ACTIONS[:3]:
        seen.append(session.step(action))
        context = session._past[-1].context
        assert context is not None
        assert context.state_QS is not None
        states.append(context.state_QS)
    vision, fps = DEBUG.backbone.vision, DEBUG.chunks.fps
    dialogue = Dialogue(tuple(Round(see(frames, fps, vision), action) for frames, action in zip(seen, ACTIONS[:3], strict=False)))
    with torch.no_grad():
        whole = pan.predict_states([dialogue])[0]
    torch.testing.assert_close(torch.stack(states), whole, rtol=0, atol=1e-5)


@pytest.mark.parametrize("vae", [DEBUG.vae, replace(DEBUG.vae, kind="wan", base_dim=8)], ids=["small", "wan"])
def test_the_frames_are_the_decoding_of_the_whole_latent_film(vae: VaeSpec) -> None:
    pan = world(wider(vae=vae))
    session = begun(pan)
    latents, frames = [session._past[0].latents_BCFHW], []
    for action in ACTIONS:
        frames.append(session.step(action))
        latents.append(session._past[-1].latents_BCFHW)
    with torch.no_grad():
        video = pan.vae.decode(torch.cat(latents, 2))[0]  # type: ignore[operator]
    whole = ((video + 1) * 127.5).round().clamp(0, 255).byte().permute(1, 2, 3, 0).numpy()
    assert np.array_equal(whole[1:], np.concatenate(frames))


def test_an_action_changes_what_comes_but_not_what_was(pan: GLP) -> None:
    one, two = begun(pan), begun(pan)
    assert np.array_equal(one.step("go left"), two.step("go left"))
    assert not np.array_equal(one.step("go left"), two.step("go right"))


def test_futures_from_one_moment_do_not_touch(pan: GLP) -> None:
    session = begun(pan)
    session.step("go left")
    left, right, same = session.fork(), session.fork(), session.fork()
    one, other = left.step("go left"), right.step("go right")
    assert not np.array_equal(one, other)
    assert np.array_equal(same.step("go left"), one)
    left.step("stop")
    right.fork().step("stop")
    straight = begun(pan)
    straight.step("go left")
    assert np.array_equal(straight.step("go right"), session.step("go right"))
    assert np.array_equal(straight.step("stop"), session.step("stop"))
    assert (session.actions, left.actions) == (("go left", "go right", "stop"), ("go left", "go left", "stop"))


def test_a_step_that_is_interrupted_leaves_the_session_where_it_was(pan: GLP, monkeypatch: pytest.MonkeyPatch) -> None:
    session, undisturbed = begun(pan), begun(pan)
    for part, name in ((pan, "velocity"), (Session, "_decoded")):
        with monkeypatch.context() as patch:
            patch.setattr(part, name, Mock(side_effect=KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                session.step("go left")
    assert session.actions == ()
    assert np.array_equal(session.step("stop"), undisturbed.step("stop"))


def test_a_fork_with_another_seed_is_another_future_of_one_action(pan: GLP) -> None:
    session = begun(pan)
    session.step("go left")
    one, two = (session.fork(seed).step("stop") for seed in (7, 8))
    assert not np.array_equal(one, two)
    assert np.array_equal(session.fork(7).step("stop"), one)
    assert session.sampling.seed == 1


@pytest.mark.parametrize("solver", ["euler", "unipc"])
def test_a_session_goes_on_from_a_file_to_the_bit(solver: str, pan: GLP, of_texts: GLP, tmp_path: Path) -> None:
    for number, model in enumerate((pan, of_texts)):
        session, path = begun(model, replace(FEW, solver=solver)), tmp_path / f"{number}.safetensors"  # type: ignore[arg-type]
        session.step("go left")
        session.save(path)
        again = Session.load(path, model)
        assert (again.actions, again.sampling) == (("go left",), session.sampling)
        assert np.array_equal(again.frames, session.frames)
        for action in ("stop", "go right"):
            assert np.array_equal(again.step(action), session.step(action))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.safetensors", "1.safetensors"]


def test_a_session_can_be_saved_before_its_first_step(pan: GLP, tmp_path: Path) -> None:
    session = begun(pan)
    session.save(tmp_path / "s")
    assert np.array_equal(Session.load(tmp_path / "s", pan).step("stop"), session.step("stop"))


def test_what_a_caller_does_with_an_image_or_a_film_changes_nothing(pan: GLP) -> None:
    image, session, straight = picture().copy(), Session(pan, FEW), begun(pan)
    session.start(image)[:] = 0
    image[:] = 0
    session.frames[:] = 0
    for action in ACTIONS[:2]:
        frames = session.step(action)
        assert np.array_equal(frames, straight.step(action))
        frames[:] = 0


def test_a_condition_frame_with_a_context_of_its_own_hears_in_sampling_what_it_heard_in_training() -> None:
    """The empty text and no state, also where guidance keeps the state."""
    model, heard = world(plan=replace(PLANS["causal_swin"], cond_context="null")), list[tuple[Any, ...]]()
    model.decoder.register_forward_pre_hook(lambda _, arguments: heard.append(arguments))
    begun(model, replace(FEW, guidance=1.0)).step("stop")
    text, state = heard[0][2], heard[0][3]
    assert torch.equal(text[:, -1], model.encode_text([""]))
    assert state[:, -1].abs().max() == 0
    assert state[:, 0].abs().max() > 0


def test_a_file_that_cannot_be_written_is_told_and_nothing_is_left(pan: GLP, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: object, file: Path, *__: object) -> None:
        file.write_bytes(b"half")
        raise SafetensorError("no space left")

    session = begun(pan)
    monkeypatch.setattr("safetensors.torch.save_file", full)
    (tmp_path / "folder").mkdir()
    with pytest.raises(ValueError, match="a folder is there"):
        session.save(tmp_path / "folder")
    with pytest.raises(ValueError, match="cannot be written there"):
        session.save(tmp_path / "s")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder"]


def test_files_that_are_no_session_of_this_model_are_refused(pan: GLP, of_texts: GLP, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    begun(pan).save(tmp_path / "s")
    for part in ("vae", "backbone"):  # decoders are the same
        changed = world()
        with torch.no_grad():
            next(getattr(changed, part).parameters()).mul_(2)
        with pytest.raises(ValueError, match=r"another model \(weights differ"):
            Session.load(tmp_path / "s", changed)
    others = [(of_texts, "states, weights differ"), (world(dtype=torch.float64), "weights differ"), (world(plan=PLANS["last_frame"]), "spec differ")]
    for model, what in others:
        with pytest.raises(ValueError, match=what):
            Session.load(tmp_path / "s", model)
    with pytest.raises(ValueError, match="there is no folder"):
        begun(pan).save(tmp_path / "nowhere" / "s")
    (tmp_path / "text").write_text("no session")
    with pytest.raises(ValueError, match="no session can be read there"):
        Session.load(tmp_path / "text", pan)
    with pytest.raises(ValueError, match="no session can be read there"):
        Session.load(tmp_path / "nowhere", pan)
    save_file({"a": torch.zeros(1)}, tmp_path / "tensors")
    with pytest.raises(ValueError, match="not a session's"):
        Session.load(tmp_path / "tensors", pan)


def test_seeds_make_a_film_and_make_it_again(pan: GLP) -> None:
    films = [np.concatenate(list(film(Session(pan, replace(FEW, seed=seed)), picture(), ACTIONS[:2]))) for seed in (3, 3, 4)]
    assert np.array_equal(films[0], films[1])
    assert not np.array_equal(films[0], films[2])


def test_the_dialogue_holds_the_last_rounds_alone() -> None:
    spec = wider(backbone=replace(DEBUG.backbone, max_rounds=2))
    session = begun(world(spec))
    for action in ACTIONS:
        session.step(action)
    assert session._dialogue is not None
    assert session._dialogue.rounds == 2


@pytest.mark.parametrize(
    "other",
    [
        lambda s: replace(s, guidance=1.0),
        lambda s: replace(s, negative="blurred"),
        lambda s: replace(s, unconditional="both"),
        lambda s: replace(s, solver="unipc"),
    ],
    ids=["guidance", "negative", "unconditional", "solver"],
)
def test_settings_reach_the_film(other: Callable[[Sampling], Sampling], pan: GLP) -> None:
    assert not np.array_equal(begun(pan).step("stop"), begun(pan, other(FEW)).step("stop"))


def test_training_and_sampling_share_one_schedule(pan: GLP) -> None:
    session = Session(pan, FEW)
    assert session._sampler.schedule is pan.schedule
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Session(pan, replace(FEW, shift=5.0))
    with pytest.warns(UserWarning, match="trained with shift 5 and is sampled with shift 3"):
        Session(pan, replace(FEW, shift=3.0))


def test_pandora_begins_each_chunk_behind_the_last_frames() -> None:
    """Pandora's recipe: states as text tokens, one chunk at a time over the whole schedule, behind the last latent frame: the last four frames."""
    model = world(PANDORA)
    session = begun(model, Sampling(steps=3))
    for action in ACTIONS[:2]:
        assert session.step(action).shape == (8, 64, 64, 3)
    (last,) = session._past
    assert last.seen == ()
    assert last.condition_BCFHW is not None
    assert last.condition_BCFHW.shape[2] == 1
    frame = last.latents_BCFHW[:, :, -1:]
    expected = 0.945 * frame + 0.055 * session._sampler.noise("condition", 2, frame, 1)
    torch.testing.assert_close(last.condition_BCFHW, expected)
    assert last.context is not None
    assert last.context.state_QS is None  # it stands in the text's place
    other = begun(model, Sampling(steps=3))
    assert not np.array_equal(other.step("another action"), begun(model, Sampling(steps=3)).step(ACTIONS[0]))


def test_longer_conditions_and_other_plans_roll_out_too() -> None:
    spec = wider(chunks=replace(DEBUG.chunks, cond_latents=2))
    assert begun(world(spec)).step("stop").shape == (8, 64, 64, 3)
    assert begun(world(states=False, plan=PLANS["full_window"])).step("stop").shape == (16, 64, 64, 3)
    magi = begun(world(plan=PLANS["magi"]), Sampling(steps=8))
    magi.step("stop")
    assert magi.step("go").shape == (8, 64, 64, 3)
    with pytest.raises(ValueError, match="only trains"):
        Session(world(states=False, plan=PLANS["teacher_forcing"]), FEW)


def test_a_picture_may_have_any_size_that_tokens_divide(of_texts: GLP) -> None:
    session = Session(of_texts, FEW)
    session.start(picture(height=32, width=96))
    assert session.step("stop").shape == (8, 32, 96, 3)


def test_what_cannot_be_is_refused(pan: GLP) -> None:
    with pytest.raises(ValueError, match="3 steps do not divide"):
        Session(pan, Sampling(steps=3))
    fresh = Session(pan, FEW)
    for call in (lambda: fresh.step("stop"), lambda: fresh.frames, lambda: fresh.save(Path("s"))):
        with pytest.raises(ValueError, match="has not begun"):
            call()
    with pytest.raises(ValueError, match="multiples of 16 and 16"):
        fresh.start(picture(height=60))
    with pytest.raises(ValueError, match="uint8 RGB"):
        fresh.start(picture().astype(np.float32))  # type: ignore[arg-type]
    frames: Frames_THWC = fresh.start(picture())
    assert len(frames) == 1
    with pytest.raises(ValueError, match="has begun"):
        fresh.start(picture())
