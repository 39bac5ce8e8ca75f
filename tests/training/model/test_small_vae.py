"""SmallVae: causal, the same in pieces, trainable."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from training.model.small_vae import SmallVae, fold, low_frequencies, unfold
from training.model.spec import SPECS, VaeSpec

SPEC = SPECS["debug"].vae


def made(spec: VaeSpec = SPEC) -> SmallVae:
    torch.manual_seed(0)
    return SmallVae(spec)


def video(frames: int, seed: int = 0, side: int = 16, batch: int = 1) -> Tensor:
    return torch.rand(batch, 3, frames, side, side, generator=torch.Generator().manual_seed(seed)) * 2 - 1


@pytest.mark.parametrize(("temporal", "spatial"), [(4, 8), (4, 4), (2, 2), (1, 8)])
def test_shapes_of_each_compression(temporal: int, spatial: int) -> None:
    vae = made(replace(SPEC, temporal=temporal, spatial=spatial))
    latents = vae.encode(video(1 + 2 * temporal))
    assert latents.shape == (1, 16, 3, 16 // spatial, 16 // spatial)
    assert vae.decode(latents).shape == (1, 3, 1 + 2 * temporal, 16, 16)


def test_fold_has_an_inverse_and_keeps_time_in_order() -> None:
    clip = video(8)
    folded = fold(clip, 4, 2)
    assert folded.shape == (1, 48, 2, 8, 8)
    assert torch.equal(unfold(folded, 4, 2), clip)
    assert torch.equal(folded[0, 0, 1, 3, 5], clip[0, 0, 4, 6, 10])


def test_pieces_equal_the_whole_to_the_bit_and_the_pass_at_once_within_rounding() -> None:
    vae, clip = made(), video(17)
    whole = vae.encode(clip)
    stream = vae.stream_encode()
    assert torch.equal(torch.cat([stream.push(piece) for piece in clip.split([5, 8, 4], 2)], 2), whole)
    torch.testing.assert_close(vae(clip)[0], whole, atol=1e-5, rtol=0)
    decoding = vae.stream_decode()
    pixels = vae.decode(whole)
    assert torch.equal(torch.cat([decoding.push(piece) for piece in whole.split([1, 2, 2], 2)], 2), pixels)
    torch.testing.assert_close(vae.reconstruct(whole).clamp(-1, 1), pixels, atol=1e-5, rtol=0)


def test_what_comes_later_changes_nothing_before() -> None:
    vae, clip, other = made(), video(17), video(17)
    other[:, :, 9:] = video(8, seed=1)
    one, two = vae.encode(clip), vae.encode(other)
    assert torch.equal(one[:, :, :3], two[:, :, :3])
    assert not torch.allclose(one[:, :, 3], two[:, :, 3])
    assert torch.equal(vae.decode(one)[:, :, :9], vae.decode(torch.cat([one[:, :, :3], two[:, :, 3:]], 2))[:, :, :9])
    mean, _ = vae(clip)
    torch.testing.assert_close(vae(other)[0][:, :, :3], mean[:, :, :3], atol=1e-6, rtol=0)


def test_the_past_reaches_the_present() -> None:
    vae, clip, other = made(), video(9), video(9)
    other[:, :, 0] = video(1, seed=1)[:, :, 0]
    assert not torch.allclose(vae.encode(clip)[:, :, 2], vae.encode(other)[:, :, 2], atol=1e-4)


def test_a_saved_stream_goes_on() -> None:
    vae = made()
    latents = vae.encode(video(17))
    stream, loaded = vae.stream_decode(), vae.stream_decode()
    stream.push(latents[:, :, :2])
    loaded.load(stream.state())
    assert torch.equal(loaded.push(latents[:, :, 2:]), vae.decode(latents)[:, :, 5:])


def test_latents_are_normalised_by_the_spec() -> None:
    plain = made()
    scaled = made(replace(SPEC, mean=(0.5,) * 16, std=(2.0,) * 16))
    clip = video(5)
    torch.testing.assert_close(scaled.encode(clip), (plain.encode(clip) - 0.5) / 2)
    torch.testing.assert_close(scaled.decode(scaled.encode(clip)), plain.decode(plain.encode(clip)), atol=1e-6, rtol=0)


def test_eight_frames_are_refused_at_once_too() -> None:
    vae = made()
    for encode in (vae.encode, vae):
        with pytest.raises(ValueError, match=r"encoding 8 frames: 1 \+ 4n"):
            encode(video(8))


@pytest.mark.parametrize("spec", [replace(SPEC, spatial=6), replace(SPEC, spatial=1), replace(SPEC, temporal=0), replace(SPEC, kind="wan")])
def test_a_compression_it_cannot_do_is_refused(spec: VaeSpec) -> None:
    with pytest.raises(ValueError, match="SmallVae wants temporal >= 1 and spatial 2, 4, 8"):
        SmallVae(spec)


def squares(seed: int, batch: int = 8, frames: int = 9, side: int = 24) -> Tensor:
    """Coloured squares that move by two pixels a frame over a plain ground: a block world in the small."""
    random = torch.Generator().manual_seed(seed)
    clip = torch.empty(batch, 3, frames, side, side)
    for sample in range(batch):
        clip[sample] = (torch.rand(3, 1, 1, 1, generator=random) * 0.5) - 1
        for _ in range(2):
            x, y, right = (int(torch.randint(0, limit, (), generator=random)) for limit in (side - 8, side - 8, 2))
            color = torch.rand(3, 1, 1, generator=random) * 2 - 1
            for frame in range(frames):
                at = min(max(x + (2 if right else -2) * frame, 0), side - 8)
                clip[sample, :, frame, y : y + 8, at : at + 8] = color
    return clip


def error(vae: SmallVae, clip: Tensor) -> float:
    with torch.no_grad():
        return functional.mse_loss(vae.decode(vae.encode(clip)), clip).item()


@pytest.mark.parametrize(("spatial", "least"), [(4, 0.3), (8, 0.6)])
def test_before_training_it_blurs(spatial: int, least: float) -> None:
    vae, clip = made(replace(SPEC, spatial=spatial)), squares(0)
    variance = (clip - clip.mean(dim=(2, 3, 4), keepdim=True)).square().mean().item()
    assert error(vae, clip) < least * variance
    rows = low_frequencies(vae.spec).flatten(1)
    torch.testing.assert_close(rows @ rows.T, torch.eye(16), atol=1e-5, rtol=0)


def test_it_learns_moving_squares() -> None:
    vae, clip, noise = made(replace(SPEC, spatial=4, base_dim=24)), squares(0, batch=2), torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW(vae.parameters(), lr=3e-3, betas=(0.9, 0.95))
    before = error(vae, clip)
    for _ in range(100):
        mean, log_variance = vae(clip)
        sample = mean + torch.randn(mean.shape, generator=noise) * (0.5 * log_variance).exp()
        kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()
        loss = functional.mse_loss(vae.reconstruct(sample), clip) + 1e-5 * kl
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
    assert error(vae, clip) < 0.4 * before
