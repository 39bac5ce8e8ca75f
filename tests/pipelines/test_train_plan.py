"""`pan train --plan`: what of memory a recipe's settings take, the steps that the loop really does, runs without a GPU, and no speed of nothing."""

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from curation.storage import Storage
from pipelines import train_recipe
from pipelines.strict_toml import SettingsError
from pipelines.train_checks import lonely
from tests.training.made_run import Data, trainer
from training.data.index import Index, Usable
from training.data.order import shuffled, steps
from training.model import counts
from training.model.card import CARD, Card, Part, parts_of
from training.model.spec import SPECS, ModelSpec
from training.phases import PHASES

PAN = SPECS["pan_14b"]
GPUS = ("workers.gpus=1", "workers.least=8", "parallel.shard=8", "loop.validate_every=0")
SIZE = (480, 832)


def folder_of(folder: Path, spec: ModelSpec, kind: str = "BF16") -> str:
    """A model's folder with one small tensor a part: what a plan reads, the card and how the weights are stored."""
    card = Card(format=1, model=spec, **{part: Part() for part in parts_of(spec)})
    folder.mkdir()
    (folder / CARD).write_text(json.dumps(asdict(card)))
    for part in parts_of(spec):
        dtype, size = ("F32", 4) if part == "vae" else (kind, {"BF16": 2, "F32": 4}[kind])
        header = json.dumps({"a": {"dtype": dtype, "shape": [8], "data_offsets": [0, 8 * size]}}).encode()
        (folder / part).mkdir()
        (folder / part / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(8 * size))
    return str(folder)


@pytest.fixture(scope="module")
def pan(tmp_path_factory: pytest.TempPathFactory) -> str:
    """PAN, without its weights."""
    return folder_of(tmp_path_factory.mktemp("pan") / "model", PAN)


@pytest.fixture(scope="module")
def debug(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The miniature, stored in float32 as fresh models are, without its weights."""
    return folder_of(tmp_path_factory.mktemp("debug") / "model", SPECS["debug"], "F32")


def index_of(*sizes: tuple[int, tuple[int, int]], kind: Any = "latents") -> Index:
    """So many samples of each size."""
    entry: Any = None
    samples = tuple(Usable(entry, 2, size) for count, size in sizes for _ in range(count))
    return Index(Storage.at("."), kind, {}, samples, {})


def told(model: str, *sets: str, index: Index | None = None, tflops: float = 989.0, utilisation: float = 0.4) -> dict[str, Any]:
    return train_recipe.planned(train_recipe.load(None, sets), model, index or index_of((2000, SIZE)), tflops, utilisation)


def memory(model: str, *sets: str, index: Index | None = None) -> dict[str, float]:
    found: dict[str, float] = told(model, *GPUS, *sets, index=index)["options"][0]["memory"]
    return found


def test_a_moving_average_is_counted(pan: str) -> None:
    learn = counts.decoder(PAN.decoder) - sum(count for count in (5_262_668_800,))
    plain, averaged = memory(pan), memory(pan, "optim.ema=0.9999")
    assert averaged["optimiser"] - plain["optimiser"] == pytest.approx(4 * learn / 8 / 1e9, abs=0.02)
    assert averaged["total"] > plain["total"] + 7


def test_the_precision_of_gathering_and_of_computing_is_counted(pan: str) -> None:
    plain = memory(pan)
    gathered = memory(pan, "parallel.gather=float32")
    assert gathered["weights"] > plain["weights"] + 2 * 14.2  # autocast keeps a narrow copy of each float32 weight
    both = memory(pan, "parallel.gather=float32", "loss.compute=float32")
    assert plain["weights"] < both["weights"] < gathered["weights"]
    assert both["activations"] == pytest.approx(2 * plain["activations"], rel=0.2)


def test_clips_and_films_keep_every_part_on_every_gpu(pan: str) -> None:
    plain = memory(pan)
    held = (2 * counts.text(PAN.text) + 4 * counts.vae(PAN.vae)) / 1e9
    assert memory(pan, index=index_of((2000, SIZE), kind="clips"))["frozen"] - plain["frozen"] == pytest.approx(held, abs=0.02)
    assert memory(pan, "loop.films_every=10")["frozen"] - plain["frozen"] == pytest.approx(held, abs=0.02)


def test_what_learns_too_is_counted(pan: str) -> None:
    plain, also = memory(pan, "phase=joint"), memory(pan, "phase=joint", 'also=["backbone.model.language_model.*"]')
    language = counts.language_model(PAN.backbone)
    assert also["optimiser"] - plain["optimiser"] == pytest.approx(12 * language / 8 / 1e9, abs=0.02)
    assert plain["frozen"] - also["frozen"] == pytest.approx(2 * language / 8 / 1e9, abs=0.02)
    assert also["activations"] > plain["activations"]
    assert told(pan, *GPUS, "phase=joint", 'also=["backbone.model.*"]')["learning"] == 19_551_160_384 + 7_747_169_280 + 917_504
    with pytest.raises(ValueError, match=r"no parameter is named like 'backbone\.modell"):
        told(pan, *GPUS, 'also=["backbone.modell.*"]')


def test_what_is_stored_in_float32_is_held_in_float32(pan: str, tmp_path: Path) -> None:
    wide = folder_of(tmp_path / "wide", PAN, "F32")
    assert memory(wide, "phase=joint")["frozen"] == pytest.approx(2 * memory(pan, "phase=joint")["frozen"], abs=0.02)


def test_a_phase_learns_what_it_says(pan: str) -> None:
    assert told(pan, *GPUS)["learning"] == 14_288_491_584
    assert told(pan, *GPUS, "phase=joint")["learning"] == 19_551_160_384 + 917_504
    matching = told(pan, *GPUS, "phase=matching")
    assert matching["learning"] == 917_504
    assert matching["options"][0]["memory"]["total"] < 40


def test_a_run_that_fits_once_it_is_cut_up_fits(pan: str) -> None:
    """No GPU ever has the decoder whole, which in float32 with its backbone is 100 GB (training.run.opened)."""
    data = told(pan, *GPUS, "phase=joint", "parallel.shard=64", "workers.least=64", "workers.memory=80")
    assert data["fits"]
    assert data["options"][0]["memory"]["total"] < 80


def test_uneven_shares_are_planned_as_the_trainer_takes_them(pan: str) -> None:
    joint = ("phase=joint", "workers.memory=141")
    for sequence in (3, 8):
        data = told(pan, *GPUS, *joint, "workers.least=24", "parallel.shard=1", f"parallel.sequence={sequence}", "parallel.checkpoint=true")
        assert data["options"][0]["sequence"] == sequence
    with pytest.raises(ValueError, match="only 40 heads of the decoder"):
        told(pan, *GPUS, *joint, "workers.least=32", "parallel.shard=1", "parallel.sequence=32")
    with pytest.raises(ValueError, match="4 tokens of a latent frame"):
        told(pan, *GPUS, "parallel.shard=1", "parallel.sequence=8", index=index_of((9, SIZE), (1, (32, 32))))


def test_memory_is_of_the_largest_size_and_time_of_each(pan: str) -> None:
    small, large, both = (index_of(*sizes) for sizes in (((400, (480, 480)),), ((400, SIZE),), ((200, (480, 480)), (200, SIZE))))
    assert memory(pan, index=both) == memory(pan, index=large)
    hours = [told(pan, *GPUS, index=index)["run"]["hours"] for index in (small, both, large)]
    assert hours[0] < 0.6 * hours[2]
    assert hours[1] == pytest.approx((hours[0] + hours[2]) / 2, rel=1e-6)


def test_a_run_without_a_gpu_is_no_run_on_gpus(debug: str) -> None:
    index = index_of((7, (64, 64)))
    data = told(debug, "loop.windows=2", "workers.least=2", index=index)
    text = train_recipe.plan_text(data)
    assert data["fits"]
    assert data["run"]["hours"] is None
    assert "on 2 workers on the CPU, without a GPU (their memory is not known, and compared with nothing), " in text
    assert "how long they take is not known (no GPU: workers.gpus is 0)" in text
    for wrong in ("GPUs", "80 GB", "hours"):
        assert wrong not in text
    assert told(debug, "workers.memory=16", index=index)["fits"]
    tight = told(debug, "workers.memory=0.5", index=index)
    assert not tight["fits"]
    assert tight["would_fit"] == ["1 workers of 2 GB on the CPU, without a GPU with replicate 1 x shard 1, sequence 1, checkpointing on"]


def test_a_short_run_on_a_gpu_takes_no_0_hours(debug: str) -> None:
    text = train_recipe.plan_text(told(debug, "workers.gpus=1", "loop.windows=2", index=index_of((7, (64, 64)))))
    assert "on 1 GPUs of 80 GB, " in text
    assert "about a minute or less at the speed assumed" in text


def looped(folder: Path, samples: int, windows: int, epochs: int, most: int | None) -> list[int]:
    """Micro-steps of each step that training.loop does; nothing is computed."""
    made = trainer(folder, data=Data(samples), windows=windows, epochs=epochs, steps=most, samples=False, export="last")
    found: list[int] = []

    def learn(batches: Sequence[Any]) -> bool:
        found.append(len(batches))
        made.step += 1
        return True

    made.learn = learn  # type: ignore[method-assign]
    made.run()
    return found


@pytest.mark.parametrize(("samples", "windows", "epochs", "most"), [(7, 2, 3, None), (7, 100, 3, None), (7, 3, 4, 5), (6, 3, 2, None)])
def test_steps_and_micro_steps_are_those_of_the_loop(tmp_path: Path, samples: int, windows: int, epochs: int, most: int | None) -> None:
    done = looped(tmp_path / "snapshots", samples, windows, epochs, most)
    sets = [f"loop.windows={windows}", f"loop.epochs={epochs}", *([f"loop.steps={most}"] if most else [])]
    run = train_recipe.whole([samples], train_recipe.load(None, sets), 1, [3600.0])
    assert (run["steps"], run["micro_steps"], run["accumulated"]) == (len(done), sum(done), max(done))
    assert run["hours"] == pytest.approx(sum(done))


def test_a_micro_step_is_of_one_size() -> None:
    buckets = np.repeat([0, 1, 2], [9, 5, 1]).astype(np.int64)
    order = shuffled([str(n) for n in range(15)], 0, 0)
    run = train_recipe.whole([9, 5, 1], train_recipe.load(None, ["loop.windows=8", "loop.epochs=1", "loop.batch=4"]), 4, [36.0, 36.0, 72.0])
    assert run["micro_steps"] == len(steps(order, buckets, 4)) == 6
    assert run["steps"] == 3
    assert run["hours"] == pytest.approx((5 * 36 + 72) / 3600)


def test_steps_and_hours() -> None:
    recipe = train_recipe.load(None, ["loop.windows=8", "loop.batch=2", "loop.epochs=3"])
    run = train_recipe.whole([100], recipe, 4, [36.0])
    assert (run["windows_a_step"], run["accumulated"], run["steps"], run["micro_steps"]) == (8, 2, 39, 75)
    assert run["hours"] == pytest.approx(0.75)


def test_more_windows_than_an_epoch_has_are_warned_of(debug: str) -> None:
    data = told(debug, index=index_of((386, (64, 64))))
    assert (data["run"]["steps"], data["run"]["micro_steps"]) == (5, 5 * 386)
    *_, line, last = train_recipe.plan_text(data).splitlines()
    assert line.startswith("386 samples, 386 windows an optimiser step (386 micro-steps): 5 steps, 1930 micro-steps in all")
    assert last == (
        "pan: warning: an optimiser step wants 960 windows (loop.windows), and an epoch has 386 samples: it is 1 optimiser step(s), and the whole run 5; "
        "lower loop.windows: 38 makes 11 steps an epoch"
    )
    wide = told(debug, "workers.least=64", index=index_of((40, (64, 64))))
    assert train_recipe.plan_text(wide).endswith("take fewer workers or a lower loop.batch, then a lower loop.windows")
    assert "warning" not in train_recipe.plan_text(told(debug, "loop.windows=38", index=index_of((386, (64, 64)))))


@pytest.mark.parametrize(("tflops", "utilisation"), [(0.0, 0.4), (-1.0, 0.4), (989.0, 0.0), (989.0, 1.5), (float("nan"), 0.4), (float("inf"), 0.4)])
def test_a_speed_of_nothing_is_refused(debug: str, tflops: float, utilisation: float) -> None:
    for gpus in (0, 1):
        with pytest.raises(ValueError, match=f"--tflops {tflops:g} --utilisation {utilisation:g}: a speed above 0, and a share of it up to 1"):
            told(debug, f"workers.gpus={gpus}", index=index_of((7, (64, 64))), tflops=tflops, utilisation=utilisation)


def test_one_process_alone_is_planned_on_this_machines_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = train_recipe.load(None, ["workers.gpus=1", "workers.least=4", "workers.most=8"])
    for there in (True, False):
        monkeypatch.setattr("torch.cuda.is_available", lambda there=there: there)
        workers = train_recipe.alone(recipe).workers
        assert (workers.least, workers.most, workers.gpus) == (1, None, there)


def test_what_one_process_cannot_be_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"--here, as one worker: .*workers\.least 1 is not parallel\.replicate x .*, 2"):
        train_recipe.alone(train_recipe.load(None, ["workers.least=2", "parallel.replicate=2"]))


def test_hidden_states_are_fed_back_on_one_worker_alone() -> None:
    hidden = replace(SPECS["debug"], backbone=replace(SPECS["debug"].backbone, feedback="hidden"))
    two, one = (train_recipe.load(None, [f"workers.least={count}"]) for count in (2, 1))
    with pytest.raises(ValueError, match=r"backbone\.feedback is 'hidden'\), and phase 'joint' of such a model works on one worker alone, not on 2"):
        lonely(two, hidden, PHASES["joint"])
    for recipe, spec, phase in ((one, hidden, "joint"), (two, hidden, "decoder"), (two, SPECS["debug"], "joint")):
        lonely(recipe, spec, PHASES[phase])


def test_samples_that_the_model_cannot_use_are_told() -> None:
    recipe, index = train_recipe.load(None, ["loop.windows=2"]), index_of((7, (64, 64)))
    assert train_recipe.warnings_of(recipe, index) == []
    (line,) = train_recipe.warnings_of(recipe, replace(index, unfit={"shorter_than_a_window": 4, "too_small": 1}))
    assert line == "pan: warning: 5 of 12 samples are of no use to this model and left out: shorter_than_a_window 4, too_small 1"
