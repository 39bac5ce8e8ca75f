"""pan train: recipes and plans, a whole training in this process, and one on two workers of a cluster."""

import contextlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from PIL import Image

from curation.lock import hold
from pipelines import train, train_recipe, train_status
from pipelines.exits import Exit
from pipelines.strict_toml import SettingsError
from tests.training.data import made_clips
from tests.training.data.made_latents import encode
from training.data.index import Index
from training.model.checkpoint import init_model, open_model, save_model
from training.model.spec import SPECS
from training.phases import read_history
from training.seen import read_seen
from training.snapshots import committed
from training.trackers import LOG, read_log

SAMPLES = 7


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh debug model."""
    folder = tmp_path_factory.mktemp("model") / "debug"
    save_model(folder, init_model(SPECS["debug"], seed=3))
    return folder


@pytest.fixture(scope="module")
def latents(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The latents of seven clips, one of them held out."""
    tmp, clips, out = tmp_path_factory.mktemp("made"), tmp_path_factory.mktemp("clips"), tmp_path_factory.mktemp("latents")
    made_clips.published(clips, [made_clips.clip(tmp, v, 1 + v % 2, width=64) for v in range(7)])
    encode(clips, out, model)
    return out


FAST = ["optim.lr=1e-3", "optim.clip=1.0", "loop.windows=2", "loop.log_every=1", "data.workers=0", "loop.validate_every=0", "loss.compute=float32"]


def arguments(out: Path, latents: Path, model: Path, *sets: str, phase: str = "decoder") -> list[str]:
    chosen = [text for each in (*FAST, *sets) for text in ("--set", each)]
    return [str(out), "--shards", str(latents), "--model", str(model), "--phase", phase, *chosen]


def test_a_recipe_is_strict(tmp_path: Path) -> None:
    file = tmp_path / "r.toml"
    file.write_text('phase = "joint"\n[optim]\nlr = 2e-5\n[workers]\nleast = 4\n[parallel]\nsequence = 2\n')
    recipe = train_recipe.load(str(file), ["loop.epochs=1"])
    assert (recipe.phase, recipe.optim.lr, recipe.workers.least, recipe.loop.epochs) == ("joint", 2e-5, 4, 1)
    assert "workers" not in recipe.run_settings()
    assert train_recipe.load(None).optim.clip == 0.05
    assert train_recipe.load(None, ["workers.least=4", "workers.most=8"]).workers.most == 8
    for sets, text in (
        (["optim.klip=1"], r"unknown key; did you mean optim\.clip"),
        (["workers.least=3", "parallel.shard=2"], r"no multiple of parallel\.shard x parallel\.sequence, 4"),
        (["workers.most=2"], r"workers\.most 2 is below workers\.least 4"),
        (["workers.most=8"], r"workers\.most 8 is above workers\.least 4 while parallel\.shard x parallel\.sequence is 2: .* leave workers\.most out"),
        (["workers.most=8", "parallel.sequence=1", "parallel.replicate=4"], r"while parallel\.replicate is 4: .* parallel\.sequence 1, no replicate"),
        (
            ["workers.least=8", "parallel.replicate=2"],
            r"workers\.least 8 is not parallel\.replicate x parallel\.shard x parallel\.sequence, 4; make them equal",
        ),
        (["loop.patience=3", "loop.validate_every=0"], r"loop\.patience 3 counts validations, and loop\.validate_every 0 makes none"),
        (["loop.epochs=0"], "greater than or equal to 1"),
    ):
        with pytest.raises(SettingsError, match=text):
            train_recipe.load(str(file), sets)


def test_the_plan_tells_memory_and_time_and_starts_nothing(latents: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    assert train.main([*arguments(out, latents, model, "loop.epochs=3"), "--plan"]) == Exit.COMPLETE
    told = capsys.readouterr().out
    assert "optimiser" in told
    assert "7 samples, 2 windows an optimiser step (2 micro-steps): 12 steps" in told
    assert not out.exists()
    assert train.main([*arguments(out, latents, model, "workers.memory=0.001"), "--here"]) == Exit.USAGE
    assert "this training does not fit" in capsys.readouterr().err
    assert not out.exists()


def test_windows_that_make_an_epoch_one_step_are_warned_of(latents: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train.main([*arguments(tmp_path, latents, model, "loop.windows=8", "loop.epochs=1"), "--here"]) == Exit.COMPLETE
    told = capsys.readouterr().err.splitlines()
    assert told[0].startswith("pan: warning: an optimiser step wants 8 windows (loop.windows), and an epoch has 7 samples: it is 1 optimiser step(s)")


def test_what_the_user_has_wrong_is_told_before_anything_starts(latents: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, other = tmp_path / "run", tmp_path / "other"
    save_model(other, init_model(SPECS["debug"], seed=4))
    for given, text in (
        (arguments(out, latents, model, phase="joint"), "phase 'joint' follows on phase decoder"),
        (arguments(out, tmp_path, model), "published"),
        (arguments(out, latents, tmp_path), r"no model\.json"),
        (arguments(out, latents, other), "made with other encoders than those of"),
        (arguments(out, latents, model, "loop.validate_every=5"), "to train without validation, set loop.validate_every=0"),
        ([*arguments(out, latents, model), "--image", "a.png"], "films while training need all three"),
    ):
        assert train.main(given) == Exit.USAGE
        (line,) = capsys.readouterr().err.splitlines()
        assert re.search(text, line)
    assert not (out / "snapshots").exists()
    assert not (out / "_run").exists()


def test_a_uri_is_no_place_for_a_run(latents: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    assert train.main(["s3://bucket/run", *arguments(Path("run"), latents, model)[1:], "--here"]) == Exit.USAGE
    assert "OUT s3://bucket/run is a uri, and a run's checkpoints need a file system that every worker reaches" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_one_folder_is_trained_by_one_command_at_a_time(latents: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with hold(tmp_path / "run"):
        assert train.main([*arguments(tmp_path / "run", latents, model), "--here"]) == Exit.LOCKED
    assert "locked by another run: process" in capsys.readouterr().err
    assert not (tmp_path / "run" / "recipe.toml").exists()


def ended(out: Path) -> dict[str, object]:
    """How a run's last command ended, as `ray job submit` cannot tell."""
    told: dict[str, object] = json.loads((out / "_run" / "exit.json").read_text("utf-8"))
    return told


def test_the_script_of_a_cluster_ends_a_users_mistake_with_one_line_and_code_2(model: Path, tmp_path: Path) -> None:
    script = Path(__file__).parents[2] / "pipelines" / "train.py"
    command = [sys.executable, str(script), *arguments(tmp_path / "run", tmp_path / "nothing", model), "--here"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, cwd=tmp_path)
    assert done.returncode == Exit.USAGE
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("pan: ")


@pytest.mark.timeout(300)
def test_a_run_that_is_told_to_stop_says_how_to_go_on(latents: Path, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "a run"
    given = [*arguments(out, latents, model, "loop.epochs=300", "loop.save_every=2", "loop.windows=1"), "--here"]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    running = subprocess.Popen([sys.executable, "-m", "pipelines.train", *given], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    watch = threading.Thread(target=stopped_at, args=(out, 5, running), daemon=True)
    watch.start()
    _, told = running.communicate(timeout=240)
    assert running.returncode == Exit.INTERRUPTED
    command = str(ended(out)["resume_command"])
    assert told.splitlines()[-1].endswith(f"Resume with: {command}")
    assert ended(out)["code"] == Exit.INTERRUPTED
    assert shlex.split(command) == ["pan", "train", *given[:5], "--here", *given[5:-1]]
    told = train_status.status(str(out))
    assert (told["state"], told["phase"], told["model"]) == ("interrupted", "decoder", None)
    assert told["step"] >= 5
    assert told["checkpoints"]
    assert f"resume with    {command}" in re.sub(" {2,}", "    ", train_status.text(told))
    assert train.main([*shlex.split(command)[2:], "--set", "loop.steps=8"]) == Exit.COMPLETE
    assert (train_status.status(str(out))["state"], train_status.is_run(str(out)), train_status.is_run(str(latents))) == ("complete", True, False)
    assert ended(out)["code"] == Exit.COMPLETE
    assert committed(out / "snapshots")[-1].step >= 8


def stopped_at(out: Path, step: int, running: "subprocess.Popen[str]", how: signal.Signals = signal.SIGTERM) -> None:
    """Sends the signal as soon as the run has told of `step`."""
    while running.poll() is None:
        if (out / LOG).is_file() and f'"step": {step}, ' in (out / LOG).read_text():
            running.send_signal(how)
            return
        time.sleep(0.02)


def test_a_training_that_diverges_ends_with_3_and_keeps_its_good_checkpoint(
    latents: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [*arguments(tmp_path, latents, model, "optim.most_bad=2", "loop.save_every=1", "loop.windows=1"), "--here"]
    assert train.main([*given, "--set", "loop.steps=3"]) == Exit.COMPLETE
    kept = committed(tmp_path / "snapshots")[-1]
    monkeypatch.setattr("training.loop.total_norm", lambda gradients: torch.tensor(float("nan")))
    assert train.main([*given, "--set", "loop.steps=9"]) == Exit.OVER_BUDGET
    assert "Take the run up with a lower optim.lr" in capsys.readouterr().err
    assert (ended(tmp_path)["code"], ended(tmp_path)["name"]) == (3, "over_budget")
    assert kept in committed(tmp_path / "snapshots")


def test_a_bug_keeps_its_traceback_and_a_full_disk_is_the_storages(
    latents: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(error: Exception) -> None:
        def failing(*args: object, **options: object) -> None:
            raise error

        monkeypatch.setattr("training.run.train", failing)

    given = [*arguments(tmp_path, latents, model), "--here"]
    fails(ZeroDivisionError("ours"))
    with pytest.raises(ZeroDivisionError, match="ours"):
        train.main(given)
    assert ended(tmp_path)["code"] == Exit.BUG
    fails(OSError(28, "No space left on device"))
    assert train.main(given) == Exit.STORAGE
    assert "No space left on device. Nothing committed is lost" in capsys.readouterr().err
    fails(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nmore"))
    assert train.main(given) == Exit.USAGE
    assert "Tried to allocate 2 GiB. Lower loop.batch, or spread the model" in capsys.readouterr().err
    assert ended(tmp_path)["code"] == Exit.USAGE


def test_both_phases_in_this_process(latents: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second, picture = tmp_path / "first", tmp_path / "second", tmp_path / "image.png"
    Image.fromarray(np.full((64, 64, 3), 90, np.uint8)).save(picture)
    films = ["loop.films_every=2", 'films.actions=["left"]', "films.steps=2", "films.guidance=1.0"]
    assert train.main([*arguments(first, latents, model, "loop.epochs=2", *films), "--here", "--image", str(picture)]) == Exit.COMPLETE
    assert read_history(first / "model") == ("decoder",)
    why, following = capsys.readouterr().out.splitlines()
    assert why == f"{first}/model: trained in phase decoder; it ended because all epochs are done"
    assert following == f"next: pan train {tmp_path}/first_joint --shards {latents} --model {first}/model --phase joint"
    before, after = open_model(model), open_model(first / "model")
    assert not torch.equal(before.decoder.blocks[0].ffn[0].weight, after.decoder.blocks[0].ffn[0].weight)
    assert torch.equal(before.decoder.state_proj.weight, after.decoder.state_proj.weight)
    log = read_log(first)
    assert log["loss"][0][0] == 1
    assert {"loss.png", "time.png"} <= {path.name for path in (first / "curves").iterdir()}
    assert len(list((first / "tensorboard").iterdir())) == 1
    steps = committed(first / "snapshots")[-1].step
    assert {path.name for path in (first / "films").iterdir()} == {f"step_{n:08}.mp4" for n in {*range(2, steps + 1, 2), steps}}
    assert json.loads((first / "run.json").read_text())["phase"] == "decoder"
    assert train.main([*arguments(second, latents, first / "model", "loop.epochs=1", phase="joint"), "--here"]) == Exit.COMPLETE
    assert read_history(second / "model") == ("decoder", "joint")
    joint = open_model(second / "model")
    assert not torch.equal(joint.backbone.query_embed, after.backbone.query_embed)
    assert torch.equal(joint.backbone.model.language_model.embed_tokens.weight, after.backbone.model.language_model.embed_tokens.weight)
    assert train.main([*arguments(first, latents, model, "loop.seed=1"), "--here"]) == Exit.USAGE
    assert "is a run with seed 0, this one has 1" in capsys.readouterr().err


def keys_by_epoch(out: Path, steps: int) -> list[list[str]]:
    """The samples of each epoch of seven samples, sorted; every step must be there."""
    seen = read_seen(out / "samples")
    assert list(seen) == list(range(1, steps + 1))
    keys = [key for step in seen.values() for key in step]
    return [sorted(keys[start : start + SAMPLES]) for start in range(0, len(keys), SAMPLES)]


def told_twice(out: Path) -> dict[int, set[float]]:
    """Each step's loss in every attempt that got there."""
    found: dict[int, set[float]] = {}
    for text in (out / LOG).read_text().splitlines():
        entry = json.loads(text)
        if "loss" in entry:
            found.setdefault(entry["step"], set()).add(entry["loss"])
    return found


def attempts(out: Path) -> int:
    """How often the run was begun."""
    return len({json.loads(text)["attempt"] for file in (out / "samples").iterdir() for text in file.read_text().splitlines() if text.endswith("}")})


def killed_at(out: Path, step: int, victims: Callable[[], list[psutil.Process]]) -> threading.Thread:
    """Kills one of `victims` as soon as the run has told of `step`."""

    def watch() -> None:
        until = time.monotonic() + 500
        while time.monotonic() < until:
            if (out / LOG).is_file() and f'"step": {step}, ' in (out / LOG).read_text():
                for victim in victims()[:1]:
                    victim.kill()
                return
            time.sleep(0.02)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    return thread


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_driver_killed_within_an_epoch_and_the_same_command_again(latents: Path, model: Path, tmp_path: Path) -> None:
    sets = ("loop.epochs=6", "loop.save_every=3", "loop.windows=1", "loop.export=last")
    out, whole = tmp_path / "killed", tmp_path / "whole"
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pipelines.train", *arguments(out, latents, model, *sets), "--here"]
    victim = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    killed_at(out, 11, lambda: [psutil.Process(victim.pid)]).join()
    assert victim.wait() == -signal.SIGKILL
    assert not (out / "model").exists()
    for folder in (out, whole):
        assert train.main([*arguments(folder, latents, model, *sets), "--here"]) == Exit.COMPLETE
    assert (attempts(out), attempts(whole)) == (2, 1)
    epochs = keys_by_epoch(out, 42)
    assert len(epochs) == 6
    assert epochs == [sorted(set(epochs[0]))] * 6
    assert read_seen(out / "samples") == read_seen(whole / "samples")
    curve = told_twice(out)
    assert all(len(losses) == 1 for losses in curve.values())  # what was lost is learnt again to the bit
    assert curve == told_twice(whole)
    one, other = (open_model(folder / "model").decoder.state_dict() for folder in (out, whole))
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.usefixtures("ray_local")
def test_two_workers_of_which_one_is_killed_and_a_resume_by_one(latents: Path, model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Two workers hold a shard each; one is killed, both come again; then one process goes on from what they saved."""
    spread = ["workers.least=2", "parallel.shard=2", "parallel.gather=float32", "loop.save_every=2", "loop.epochs=4", "loop.export=last"]
    out, whole = tmp_path / "killed", tmp_path / "whole"

    def workers() -> list[psutil.Process]:
        return [child for child in psutil.Process().children(recursive=True) if "TrainWorker" in " ".join(child.cmdline())]

    watch = killed_at(out, 5, workers)
    assert train.main(arguments(out, latents, model, *spread, "loop.steps=12")) == Exit.COMPLETE
    watch.join()
    assert attempts(out) == 2
    assert "step 12/12" in capfd.readouterr().err
    assert read_history(out / "model") == ("decoder",)
    assert committed(out / "snapshots")[-1].step == 12
    assert train.main([*arguments(whole, latents, model, "loop.epochs=4", "loop.steps=12"), "--here"]) == Exit.COMPLETE
    epochs = keys_by_epoch(out, 12)
    assert epochs[:2] == [sorted(set(epochs[0]))] * 2
    assert len(epochs[0]) == SAMPLES
    curve = told_twice(out)
    assert all(len(losses) == 1 for losses in curve.values())  # what was lost is learnt again to the bit
    for step, losses in told_twice(whole).items():
        assert losses.pop() == pytest.approx(curve[step].pop(), rel=1e-3)  # one rank's sums are in another order
    assert train.main([*arguments(out, latents, model, "loop.epochs=4", "loop.steps=14"), "--here"]) == Exit.COMPLETE
    assert committed(out / "snapshots")[-1].step == 14


def in_the_manifest(latents: Path) -> list[str]:
    """The samples that are published to learn from."""
    return sorted(sample.entry.key for sample in Index.read(latents, SPECS["debug"]).samples)


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.usefixtures("standing")
def test_a_driver_killed_on_a_cluster_that_stays_and_the_same_command_again(latents: Path, model: Path, tmp_path: Path) -> None:
    """The driver's own worker outlives it for a while, and writes nothing that the next one would take for its own."""
    out = tmp_path / "killed"
    given = arguments(out, latents, model, "loop.epochs=4", "loop.save_every=3", "loop.windows=1", "data.workers=1", "loop.export=last")
    command = [sys.executable, "-m", "pipelines.train", *given]
    victim = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    killed_at(out, 9, lambda: [psutil.Process(victim.pid)]).join()  # the second epoch's second step
    assert victim.wait() == -signal.SIGKILL
    assert not (out / "model").exists()
    assert 3 <= committed(out / "snapshots")[-1].step < 4 * SAMPLES
    assert subprocess.run(command, check=False).returncode == Exit.COMPLETE
    assert attempts(out) == 2
    assert keys_by_epoch(out, 4 * SAMPLES) == [in_the_manifest(latents)] * 4
    assert all(len(losses) == 1 for losses in told_twice(out).values())  # what was lost is learnt again to the bit
    assert read_history(out / "model") == ("decoder",)


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_ctrl_c_stops_a_ray_run_as_any_other_command(latents: Path, model: Path, tmp_path: Path) -> None:
    """Ray Train's own handler would end it with 1, a bug's."""
    out = tmp_path / "stopped"
    given = [*arguments(out, latents, model, "loop.epochs=3000", "loop.save_every=2", "loop.windows=1"), "--cpus", "1"]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    running = subprocess.Popen([sys.executable, "-m", "pipelines.train", *given], env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True)
    watch = threading.Thread(target=stopped_at, args=(out, 3, running, signal.SIGINT), daemon=True)
    watch.start()
    try:
        _, told = running.communicate(timeout=500)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(running.pid, signal.SIGKILL)  # the Ray that it started
    assert running.returncode == Exit.INTERRUPTED
    assert "pan: SIGINT: nothing committed is lost. Resume with: pan train" in told
    assert ended(out)["code"] == Exit.INTERRUPTED


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.usefixtures("ray_local")
def test_as_many_workers_as_the_cluster_has_room_for(latents: Path, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "elastic"
    assert train.main(arguments(out, latents, model, "workers.least=1", "workers.most=3", "loop.epochs=2")) == Exit.COMPLETE
    assert {file.name for file in (out / "samples").iterdir()} == {"rank_0.jsonl", "rank_1.jsonl"}  # the cluster has two CPUs
    keys = sorted(key for step in read_seen(out / "samples").values() for key in step)
    assert keys == sorted(in_the_manifest(latents) * 2)
    assert read_history(out / "model") == ("decoder",)
