"""WanVae: diffusers' numbers, the normalisation, causality, and pieces that equal the whole."""

from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from training.model.small_vae import SmallVae
from training.model.spec import SPECS, VaeSpec
from training.model.vae import WanVae, build_vae, denormalised, normalised

TINY = VaeSpec(base_dim=8)


@pytest.fixture(scope="module")
def vae() -> WanVae:
    torch.manual_seed(0)
    return WanVae(TINY).eval().requires_grad_(False)


def video(frames: int, seed: int = 0, side: int = 16) -> Tensor:
    return torch.rand(1, 3, frames, side, side, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def latents(frames: int, seed: int = 0) -> Tensor:
    return torch.randn(1, 16, frames, 2, 3, generator=torch.Generator().manual_seed(seed))


MEAN, STD = torch.tensor(TINY.mean).view(16, 1, 1, 1), torch.tensor(TINY.std).view(16, 1, 1, 1)
# Ours runs diffusers' 1x1 convolutions a latent frame at a time, so float32 may round otherwise; in float64 both are equal but for an upsampling in float32.
DTYPES = [(torch.float32, 1e-5), (torch.float64, 1e-6)]


@pytest.mark.parametrize(("dtype", "tolerance"), DTYPES)
def test_encode_is_diffusers_mean_normalised(vae: WanVae, dtype: torch.dtype, tolerance: float) -> None:
    exact, clip = deepcopy(vae).to(dtype), video(9).to(dtype)
    mean = exact.network.encode(clip).latent_dist.mode()
    torch.testing.assert_close(exact.encode(clip), (mean - MEAN.to(dtype)) / STD.to(dtype), atol=tolerance, rtol=0)


@pytest.mark.parametrize(("dtype", "tolerance"), DTYPES)
def test_decode_is_diffusers_of_the_latents_not_normalised(vae: WanVae, dtype: torch.dtype, tolerance: float) -> None:
    exact, given = deepcopy(vae).to(dtype), latents(3).to(dtype)
    wanted = exact.network.decode(given * STD.to(dtype) + MEAN.to(dtype)).sample
    assert wanted.abs().max() > 0.01
    torch.testing.assert_close(exact.decode(given), wanted, atol=tolerance, rtol=0)


def test_normalisation_has_an_inverse_and_is_not_rounded_in_bfloat16() -> None:
    given = latents(2)
    torch.testing.assert_close(denormalised(normalised(given, TINY), TINY), given, atol=1e-6, rtol=0)
    one = torch.ones(1, 16, 1, 1, 1, dtype=torch.bfloat16)
    assert normalised(one, TINY).dtype == torch.float32
    torch.testing.assert_close(normalised(one, TINY)[0, 0].item(), (1 + 0.7571) / 2.8184, atol=1e-7, rtol=0)


@pytest.mark.parametrize("pieces", [(1, 4, 8), (5, 4, 4), (9, 4), (1, 12)])
def test_a_video_encoded_in_pieces_equals_the_whole_to_the_bit(vae: WanVae, pieces: tuple[int, ...]) -> None:
    clip = video(13)
    stream = vae.stream_encode()
    assert torch.equal(torch.cat([stream.push(piece) for piece in clip.split(pieces, 2)], 2), vae.encode(clip))


@pytest.mark.parametrize("pieces", [(1, 1, 1, 1), (2, 2), (1, 3)])
def test_latents_decoded_in_pieces_equal_the_whole_to_the_bit(vae: WanVae, pieces: tuple[int, ...]) -> None:
    given = latents(4)
    stream = vae.stream_decode()
    assert torch.equal(torch.cat([stream.push(piece) for piece in given.split(pieces, 2)], 2), vae.decode(given))


def test_what_comes_later_changes_nothing_before(vae: WanVae) -> None:
    clip, other = video(9), video(9)
    other[:, :, 5:] = video(4, seed=1)
    one, two = vae.encode(clip), vae.encode(other)
    assert torch.equal(one[:, :, :2], two[:, :, :2])
    assert not torch.equal(one[:, :, 2], two[:, :, 2])
    assert torch.equal(vae.encode(clip[:, :, :5]), one[:, :, :2])
    assert torch.equal(vae.decode(one[:, :, :2]), vae.decode(one)[:, :, :5])


def test_a_piece_without_its_past_is_another(vae: WanVae) -> None:
    given = latents(3)
    stream = vae.stream_decode()
    stream.push(given[:, :, :2])
    assert not torch.allclose(stream.push(given[:, :, 2:])[:, :, -1:], vae.decode(given[:, :, 2:]), atol=1e-4)


def test_a_fork_and_a_saved_state_go_on_on_their_own(vae: WanVae) -> None:
    given, other = latents(4), latents(4, seed=1)
    stream = vae.stream_decode()
    stream.push(given[:, :, :2])
    fork, loaded = stream.fork(), vae.stream_decode()
    loaded.load({name: tensor.clone() for name, tensor in stream.state().items()})
    fork.push(other[:, :, 2:])
    whole = vae.decode(given)[:, :, 5:]
    assert torch.equal(stream.push(given[:, :, 2:]), whole)
    assert torch.equal(loaded.push(given[:, :, 2:]), whole)


def test_the_state_after_one_frame_keeps_the_upsamplers_mark(vae: WanVae) -> None:
    given = latents(3)
    stream, loaded = vae.stream_decode(), vae.stream_decode()
    stream.push(given[:, :, :1])
    loaded.load(stream.state())
    assert torch.equal(loaded.push(given[:, :, 1:]), vae.decode(given)[:, :, 1:])


def test_a_state_of_another_autoencoder_is_refused(vae: WanVae) -> None:
    small = SmallVae(SPECS["debug"].vae).stream_decode()
    small.push(latents(1))
    with pytest.raises(ValueError, match=r"decoding from a state of \d+ places: this autoencoder has \d+"):
        vae.stream_decode().load(small.state())


@pytest.mark.parametrize(
    ("shape", "text"),
    [
        ((1, 3, 8, 16, 16), r"encoding 8 frames: 1 \+ 4n are needed, or the tail would be lost; give 5 or 9 of them"),
        ((1, 3, 0, 16, 16), r"1 \+ 4n are needed"),
        ((1, 3, 5, 16, 20), "16x20 px: both sides must be multiples of 8"),
        ((1, 4, 5, 16, 16), r"\[batch, 3, frames, height, width\]"),
        ((3, 5, 16, 16), r"\[batch, 3, frames, height, width\]"),
    ],
)
def test_a_video_that_does_not_fit_is_refused(vae: WanVae, shape: tuple[int, ...], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        vae.encode(torch.zeros(shape))


def test_a_piece_that_does_not_fit_is_refused_and_changes_nothing(vae: WanVae) -> None:
    clip = video(9)
    stream = vae.stream_encode()
    with pytest.raises(ValueError, match=r"a piece of 4 frames: 1 \+ 4n are needed"):
        stream.push(clip[:, :, :4])
    stream.push(clip[:, :, :5])
    with pytest.raises(ValueError, match="a piece of 3 frames: 4n are needed"):
        stream.push(clip[:, :, 5:8])
    assert torch.equal(stream.push(clip[:, :, 5:]), vae.encode(clip)[:, :, 2:])


def test_latents_that_do_not_fit_are_refused(vae: WanVae) -> None:
    with pytest.raises(ValueError, match=r"\[batch, 16, frames, height, width\]"):
        vae.decode(torch.zeros(1, 8, 2, 2, 2))
    with pytest.raises(ValueError, match="frames"):
        vae.decode(torch.zeros(1, 16, 0, 2, 2))


def test_results_come_in_the_dtype_of_what_is_given() -> None:
    torch.manual_seed(0)
    half = WanVae(TINY).to(torch.bfloat16)
    assert half.encode(video(5)).dtype == torch.float32
    assert half.decode(latents(2)).dtype == torch.float32


def test_published_sizes() -> None:
    with torch.device("meta"):
        whole = WanVae(VaeSpec())
    assert sum(p.numel() for p in whole.parameters()) == 126_892_531
    assert (whole.channels, whole.temporal, whole.spatial) == (16, 4, 8)


def test_a_compression_that_is_not_wans_is_refused() -> None:
    with pytest.raises(ValueError, match="4x4x4: Wan's compresses 4x8x8"):
        WanVae(replace(TINY, spatial=4))
    assert isinstance(build_vae(TINY), WanVae)
    assert isinstance(build_vae(SPECS["debug"].vae), SmallVae)
