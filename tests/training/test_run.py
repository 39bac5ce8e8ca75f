"""Run: what is learnt from raw clips is what is learnt from their latents, and what is exported is the moving average."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import numpy.typing as npt
import pytest
import torch

from tests.training.data import made_clips
from tests.training.data.made_latents import encode
from tests.training.gloo_world import on_ranks
from tests.training.made_run import Data, trainer, weights
from tests.training.made_world import DEBUG, picture
from training.claim import PIECE, PIECES, claim, identity
from training.data.index import Index
from training.loop_settings import LoopSettings
from training.model.checkpoint import init_model, open_model, save_model
from training.optim import OptimSettings, OverBudget
from training.parallel import ParallelSettings
from training.phases import PHASES, read_history
from training.run import DataSettings, FilmSettings, Places, RunSettings, export, opened, train
from training.seen import read_seen
from training.snapshots import committed
from training.step import LossSettings
from training.trackers import read_log


@pytest.fixture(scope="module")
def debug(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model that made_run's trainers begin with, as a folder."""
    folder = tmp_path_factory.mktemp("model") / "debug"
    save_model(folder, init_model(DEBUG, seed=1))
    return folder


def test_the_exported_weights_are_the_moving_average_and_not_the_last(debug: Path, tmp_path: Path) -> None:
    run = trainer(tmp_path / "snapshots", data=Data(4), ema=0.5, epochs=2)
    first = weights(run.glp)
    run.run()
    assert run.average is not None
    last, average = weights(run.glp), run.average.shadow
    export(run, Places(shards="", model=debug, out=tmp_path), ("decoder",), RunSettings())
    exported = open_model(tmp_path / "model")
    assert set(average) == set(last)
    for name, value in last.items():
        given = exported.get_parameter(name)
        assert torch.equal(given, average[name]), name
        assert not torch.equal(given, value), name
        assert not torch.equal(given, first[name]), name
    still = "decoder.state_proj.weight"  # the phase has no states
    assert torch.equal(exported.get_parameter(still), open_model(debug).get_parameter(still))


def test_where_the_best_is_exported_its_own_average_is(debug: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, told, averages = trainer(tmp_path / "snapshots", held=Data(1), ema=0.5, epochs=1, validate_every=1), iter([0.5, 0.7]), []
    assert run.average is not None
    shadow = run.average.shadow

    def validated(*_: object) -> SimpleNamespace:
        averages.append({name: value.clone() for name, value in shadow.items()})
        return SimpleNamespace(mean=next(told), figures=dict)

    monkeypatch.setattr("training.loop.validate", validated)
    run.run()
    assert run.restore_best() == 1
    export(run, Places(shards="", model=debug, out=tmp_path), ("decoder",), RunSettings())
    exported, (best, last) = open_model(tmp_path / "model"), averages
    for name in shadow:
        assert torch.equal(exported.get_parameter(name), best[name]), name
        assert not torch.equal(exported.get_parameter(name), last[name]), name


def test_without_an_average_the_exported_weights_are_the_last(debug: Path, tmp_path: Path) -> None:
    run = trainer(tmp_path / "snapshots", data=Data(2), epochs=1)
    run.run()
    export(run, Places(shards="", model=debug, out=tmp_path), ("decoder",), RunSettings())
    exported = open_model(tmp_path / "model")
    assert all(torch.equal(exported.get_parameter(name), value) for name, value in weights(run.glp).items())


def test_parts_that_are_to_be_cut_up_do_not_come_to_the_device_whole(debug: Path) -> None:
    """A device without memory stands for the GPU."""
    cut = ParallelSettings().roots

    def places(phase: str, *, whole: bool, cut: tuple[str, ...] = ()) -> dict[str, str]:
        glp = opened(debug, PHASES[phase], "meta", whole, cut)
        parts = ((name, getattr(glp, name)) for name in ("decoder", "vae", "text", "backbone"))
        return {name: next(part.parameters()).device.type for name, part in parts}

    assert places("joint", whole=True, cut=cut) == {"decoder": "cpu", "vae": "meta", "text": "meta", "backbone": "cpu"}
    assert places("joint", whole=False, cut=cut) == dict.fromkeys(("decoder", "vae", "text", "backbone"), "cpu")
    assert places("joint", whole=False) == {"decoder": "meta", "vae": "cpu", "text": "cpu", "backbone": "meta"}  # one GPU alone
    assert places("decoder", whole=False) == {"decoder": "meta", "vae": "cpu", "text": "cpu", "backbone": "cpu"}


def test_a_folder_is_the_run_of_one_model_and_another_of_the_same_size_is_refused(debug: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    save_model(other, init_model(DEBUG, seed=2))
    assert identity(debug) == identity(debug) != identity(other)
    copied = tmp_path / "elsewhere" / "copied"
    shutil.copytree(debug, copied)
    assert identity(copied) == identity(debug)
    asked = {"phase": "decoder", "shards": "/latents", "seed": 0, "also": []}
    claim(tmp_path / "run", debug, asked)
    claim(tmp_path / "run", copied, asked)
    for model, words in ((other, asked), (debug, asked | {"seed": 1})):
        with pytest.raises(ValueError, match=r"is a run with (model|seed) .*; give a new folder"):
            claim(tmp_path / "run", model, words)


def test_another_phase_in_the_same_folder_is_named_beside_its_model(debug: Path, tmp_path: Path) -> None:
    asked = {"phase": "decoder", "shards": "/latents", "seed": 0, "also": []}
    other = tmp_path / "other"
    shutil.copytree(debug, other)
    (other / "history.json").write_text('{"phases": ["decoder"]}')
    claim(tmp_path / "run", debug, asked)
    wanted = r"is a run with model \w+ and phase decoder, this one has model \w+ and phase joint; give a new folder \(each phase has a folder of its own\)"
    with pytest.raises(ValueError, match=wanted):
        claim(tmp_path / "run", other, asked | {"phase": "joint"})


def test_of_a_large_file_pieces_are_read_from_its_beginning_to_its_end(debug: Path, tmp_path: Path) -> None:
    grown = tmp_path / "grown"
    shutil.copytree(debug, grown)
    file = grown / "weights.bin"
    size = PIECES * PIECE + 100_000
    file.write_bytes(bytes(size))
    before = identity(grown)
    for place in (0, size // 2 // PIECE * PIECE, size - 1):
        data = bytearray(size)
        data[place] = 1
        file.write_bytes(data)
        assert identity(grown) != before, place


def validating(folder: Path, shard: int = 1) -> str:
    """A run that validates its average on a held-out split after each step and films it at its end, on one rank or on those of a process group."""
    settings = RunSettings(
        loop=LoopSettings(epochs=2, windows=2, log_every=1, validate_every=1, validation_windows=3, save_every=1, keep_last=9, films_every=1000),
        films=FilmSettings(actions=("push the red block left", "nothing moves"), steps=2, guidance=1.0),
        optim=OptimSettings(lr=1e-3, clip=1.0, ema=0.5),
        loss=LossSettings(compute="float32"),
        data=DataSettings(workers=0),
        parallel=ParallelSettings(shard=shard, gather="float32"),
    )
    return train(Places(shards=str(folder / "latents"), model=folder / "debug", out=folder / f"on_{shard}", image=picture()), settings)


def filmed(folder: Path, step: int) -> "npt.NDArray[np.int16]":
    """[T, H, W, 3] of a run's only film."""
    (file,) = (folder / "films").iterdir()
    assert file.name == f"step_{step:08}.mp4"
    with av.open(file) as video:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]).astype(np.int16)


@pytest.mark.slow
def test_the_held_out_split_is_validated_alike_on_one_rank_and_on_two_and_so_are_films(tmp_path: Path) -> None:
    clips, latents = tmp_path / "clips", tmp_path / "latents"
    save_model(tmp_path / "debug", init_model(DEBUG, seed=1))
    made_clips.published(clips, [made_clips.clip(tmp_path, video, 1) for video in range(12)], made_clips.PLAN.model_copy(update={"val_share": 0.4}))
    encode(clips, latents, tmp_path / "debug")
    held = {usable.entry.key for usable in Index.read(latents, DEBUG, "val").samples}
    assert len(held) > 3
    assert validating(tmp_path) == "epochs"
    assert on_ranks(validating, 2, tmp_path, 2) == ["epochs"] * 2
    one, two = (read_log(tmp_path / f"on_{shard}")["validation_loss"] for shard in (1, 2))
    assert len(one) == committed(tmp_path / "on_1" / "snapshots")[-1].step > 4
    assert two == [(step, pytest.approx(loss, rel=1e-5)) for step, loss in one]
    assert len({loss for _, loss in one}) == len(one)
    assert held.isdisjoint(key for keys in read_seen(tmp_path / "on_1" / "samples").values() for key in keys)
    here, there = (filmed(tmp_path / f"on_{shard}", len(one)) for shard in (1, 2))
    assert here.shape == there.shape == (1 + 2 * DEBUG.chunks.chunk_frames, DEBUG.height, DEBUG.width, 3)
    assert abs(here - there).max() <= 3
    assert abs(here[-1] - here[0]).mean() > 3  # it is no still
    best = min(one, key=lambda entry: entry[1])[0]
    assert min(committed(tmp_path / "on_2" / "snapshots"), key=lambda snapshot: snapshot.validation or 9.0).step == best
    names = ["decoder.blocks.0.ffn.0.weight", "decoder.head.head.weight"]
    mine, other = (open_model(tmp_path / f"on_{shard}" / "model") for shard in (1, 2))
    for name in names:
        torch.testing.assert_close(mine.get_parameter(name), other.get_parameter(name), rtol=1e-3, atol=1e-5)


def test_raw_clips_are_learnt_from_as_their_latents_are(debug: Path, tmp_path: Path) -> None:
    clips, latents = tmp_path / "clips", tmp_path / "latents"
    made_clips.published(clips, [made_clips.clip(tmp_path, video, 1) for video in range(2)])
    encode(clips, latents, debug)
    settings = RunSettings(
        loop=LoopSettings(epochs=2, windows=1, log_every=1, validate_every=0, export="last"),
        optim=OptimSettings(lr=1e-3, clip=1.0),
        loss=LossSettings(compute="float32"),
        data=DataSettings(workers=0),
    )
    outs = {name: tmp_path / f"of_{name}" for name in ("clips", "latents")}
    for name, out in outs.items():
        assert train(Places(shards=str(tmp_path / name), model=debug, out=out), settings) == "epochs"
        assert read_history(out / "model") == ("decoder",)
    seen = read_seen(outs["clips"] / "samples")
    assert list(seen) == [1, 2, 3, 4]
    assert sorted(seen[1] + seen[2]) == sorted(seen[3] + seen[4])
    assert len({*seen[1], *seen[2]}) == 2
    assert seen == read_seen(outs["latents"] / "samples")
    raw, made = (read_log(out)["loss"] for out in outs.values())
    assert [step for step, _ in raw] == [1, 2, 3, 4]
    assert [loss for _, loss in raw] == pytest.approx([loss for _, loss in made], rel=1e-6)
    one, other, begun = (open_model(folder) for folder in (outs["clips"] / "model", outs["latents"] / "model", debug))
    name = "decoder.blocks.0.ffn.0.weight"
    torch.testing.assert_close(one.get_parameter(name), other.get_parameter(name), rtol=1e-5, atol=1e-6)
    assert not torch.equal(one.get_parameter(name), begun.get_parameter(name))


def test_a_run_without_a_good_step_writes_no_model(debug: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clips, latents, out = tmp_path / "clips", tmp_path / "latents", tmp_path / "out"
    made_clips.published(clips, [made_clips.clip(tmp_path, video, 1) for video in range(2)])
    encode(clips, latents, debug)
    monkeypatch.setattr("training.loop.total_norm", lambda gradients: torch.tensor(float("nan")))
    settings = RunSettings(loop=LoopSettings(steps=2, windows=1, validate_every=0), loss=LossSettings(compute="float32"), data=DataSettings(workers=0))
    with pytest.raises(OverBudget, match="none of the run's 2 steps was a good one"):
        train(Places(shards=str(latents), model=debug, out=out), settings)
    assert not (out / "model").exists()
