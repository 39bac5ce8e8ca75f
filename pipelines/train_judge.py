"""Train judge: fine-tunes the content filter's model on labelled clips under Ray Train; writes adapter, calibration and what both are worth."""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from pydantic import Field

from curation.clips import ClipError
from curation.config import Config
from curation.judge_labels import LabelledClip, frames_of_label, part_of, read_labels
from curation.vlm import VlmConfig
from filters.content import PROPERTIES
from filters.content_vlm import BESIDE_ADAPTER, question, write_calibration
from pipelines import command_line, recipe
from pipelines.exits import Exit
from pipelines.judge_model import JudgeModel, LoraConfig
from pipelines.judge_worth import calibrated, evaluated, text

PARTS = ("test", "calibration", "train")
EVALUATION = "evaluation.json"


class TrainJudge(Config):
    """How the judge is trained."""

    lora: LoraConfig = Field(default_factory=LoraConfig, description="the adapter")
    epochs: int = Field(3, ge=1, le=1000, description="passes over the labels: a few thousand labels are learnt in two or three")
    batch: int = Field(16, ge=1, le=4096, description="clips a step and worker; each goes through the model alone, so memory does not depend on it")
    rate: float = Field(1e-4, gt=0, le=1, description="peak learning rate of AdamW; falls to 0 over the run as a half cosine, after a twentieth of warm-up")
    test_share: float = Field(0.2, gt=0, lt=1, description="of the sources: seen by nothing but the evaluation")
    calibration_share: float = Field(0.15, ge=0, lt=1, description="of the sources: the calibration is fitted on them")
    balance: bool = Field(True, description="positives and negatives of a property weigh alike in the loss, however rare one of them is")
    workers: int = Field(1, ge=1, le=4096, description="processes; each has the whole model")
    gpu: bool = Field(False, description="one GPU a worker")
    failures: int = Field(2, ge=0, description="times that training goes on from the last epoch after a worker died")
    seed: int = Field(0, ge=0, description="of the adapter's first weights and of the order of clips")


@dataclass(frozen=True)
class Job:
    """Everything a worker needs; plain values, so that it travels."""

    settings: TrainJudge
    vlm: VlmConfig
    recipe: recipe.Recipe
    folder: Path
    clips: tuple[LabelledClip, ...]

    def part(self, name: str) -> list[LabelledClip]:
        """The clips of one part of `PARTS`."""
        shares = (self.settings.test_share, self.settings.calibration_share)
        return [clip for clip in self.clips if PARTS[part_of(clip.group, shares)] == name]

    def weights(self) -> dict[tuple[str, bool], float]:
        """What a label of a property and a truth weighs in the loss."""
        total: dict[tuple[str, bool], float] = {}
        for clip in self.part("train"):
            for name, truth in clip.labels.items():
                total[name, truth] = total.get((name, truth), 0.0) + clip.weight
        if not self.settings.balance:
            return dict.fromkeys(total, 1.0)
        return {(name, truth): (value + total.get((name, not truth), 0.0)) / (2 * value) for (name, truth), value in total.items()}


# ---- in the workers -----------------------------------------------------------------------------------------------------------------


def work(settings: Mapping[str, Any]) -> None:
    """One worker: trains on its share of the clips; the first also saves the adapter after every epoch and answers the other parts' questions at the end."""
    import tempfile

    import torch
    from ray import train
    from ray.train.torch import get_device

    job: Job = settings["job"]
    context, held = train.get_context(), train.get_checkpoint()
    torch.manual_seed(job.settings.seed)
    with tempfile.TemporaryDirectory() as taken:
        begun = 0
        if held is not None:
            held.to_directory(taken)
            begun = int(json.loads((Path(taken) / "progress.json").read_text())["epochs"])
        model = JudgeModel(job.vlm, job.settings.lora, Path(taken) if held is not None else None, str(get_device()))
    mine = job.part("train")[context.get_world_rank() :: context.get_world_size()]
    steps = max(1, -(-len(job.part("train")) // (job.settings.batch * context.get_world_size())))
    teacher = Teacher(job, model, steps, context.get_world_size())
    for epoch in range(begun, job.settings.epochs):
        losses = teacher.epoch(mine, epoch, steps)
        with tempfile.TemporaryDirectory() as out:
            model.save(Path(out))
            (Path(out) / "progress.json").write_text(json.dumps({"epochs": epoch + 1}))
            answered = {}
            if epoch + 1 == job.settings.epochs and context.get_world_rank() == 0:
                answered = {name: teacher.answers(job.part(name)) for name in PARTS[:2]}
            first = context.get_world_rank() == 0
            losses, skipped = teacher.gathered(losses)
            report = {"epoch": epoch, "loss": float(np.mean(losses)), "losses": losses, "answered": answered, "skipped": skipped}
            train.report(report, checkpoint=train.Checkpoint.from_directory(out) if first else None)


class Teacher:
    """The loss and the optimizer of one worker of `workers`."""

    def __init__(self, job: Job, model: JudgeModel, steps: int, workers: int = 1) -> None:
        import torch

        self._job, self._model, self._network, self._workers = job, model, model.network, workers
        self._weights = job.weights()
        self._optimizer = torch.optim.AdamW(model.trained(), lr=job.settings.rate, weight_decay=0.0)
        self._whole = steps * job.settings.epochs
        self.skipped: list[str] = []

    def epoch(self, clips: Sequence[LabelledClip], number: int, steps: int) -> list[float]:
        """One pass in an order of its own; returns the mean loss of each step. Every worker takes the same number of steps."""
        order = np.random.default_rng([self._job.settings.seed, number]).permutation(len(clips))
        batches = np.array_split(order, steps)
        self._network.train()
        return [self._step([clips[i] for i in batch], number * steps + k) for k, batch in enumerate(batches)]

    def _step(self, clips: Sequence[LabelledClip], number: int) -> float:
        import torch

        for group in self._optimizer.param_groups:
            group["lr"] = self._job.settings.rate * schedule(number, self._whole)
        total = 0.0
        self._optimizer.zero_grad()
        for clip in clips:
            loss = self._loss(clip)
            if loss is not None:
                (loss / len(clips)).backward()
                total += float(loss.detach()) / len(clips)
        self._share()
        torch.nn.utils.clip_grad_norm_(list(self._model.trained()), 1.0)
        self._optimizer.step()
        return total

    def _share(self) -> None:
        """Makes every worker's gradients the workers' mean, once a step.

        Not DistributedDataParallel, which would do so once a clip: a worker with a clip more than the others, or one that cannot read a clip, would wait
        for them for ever.
        """
        import torch

        if self._workers == 1:
            return
        for weight in self._model.trained():
            if weight.grad is None:  # none of its clips could be read
                weight.grad = torch.zeros_like(weight)
            torch.distributed.all_reduce(weight.grad)
            weight.grad /= self._workers

    def gathered(self, losses: Sequence[float]) -> tuple[list[float], list[str]]:
        """(the mean over the workers of each step's loss, the clips that any of them could not read, each once)."""
        import torch

        told: list[Any] = [(list(losses), self.skipped)]
        if self._workers > 1:
            told = [None] * self._workers
            torch.distributed.all_gather_object(told, (list(losses), self.skipped))
        return np.mean([one for one, _ in told], axis=0).tolist(), sorted({clip for _, skipped in told for clip in skipped})

    def _loss(self, clip: LabelledClip) -> Any:
        """Cross-entropy between the labels and the model's yes or no, over the clip's labelled properties; None where the clip cannot be read."""
        import torch

        margins = self._margins(clip)
        if margins is None:
            return None
        truth = torch.tensor([float(t) for t in clip.labels.values()], device=margins.device)
        weight = torch.tensor([clip.weight * self._weights[label] for label in clip.labels.items()], device=margins.device)
        return torch.nn.functional.binary_cross_entropy_with_logits(margins, truth, weight=weight)

    def _margins(self, clip: LabelledClip) -> Any:
        try:
            frames = frames_of_label(clip, self._job.folder, self._job.recipe.split, self._job.recipe.limits)
        except ClipError as fault:
            self.skipped.append(f"{clip.clip.video or clip.clip.clip_id}: {fault}")
            return None
        return self._model.margins([question(name, frames, clip.group) for name in clip.labels], self._network)

    def answers(self, clips: Sequence[LabelledClip]) -> list[dict[str, Any]]:
        """Each clip's margins, for the calibration and the evaluation."""
        import torch

        self._network.eval()
        found = []
        with torch.no_grad():
            for clip in clips:
                margins = self._margins(clip)
                if margins is not None:
                    found.append({"group": clip.group, "labels": clip.labels, "margins": dict(zip(clip.labels, margins.tolist(), strict=True))})
        return found


def schedule(step: int, steps: int) -> float:
    """Share of the peak rate: a twentieth of the run up in a line, then half a cosine down."""
    warm = max(1, steps // 20)
    return (step + 1) / warm if step < warm else float(0.5 * (1 + np.cos(np.pi * (step - warm) / max(1, steps - warm))))


# ---- the command --------------------------------------------------------------------------------------------------------------------


def train(job: Job, out: Path) -> dict[str, Any]:
    """Trains on the running Ray cluster, writes `out`, returns what evaluation.json holds.

    Raises:
        ValueError: a part of the split is empty.
    """
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    from pipelines import cluster

    sizes = {name: len(job.part(name)) for name in PARTS}
    if not sizes["train"] or not sizes["test"]:
        raise ValueError(f"the labels' sources fall into {sizes}: label clips of more sources, or change test_share and calibration_share")
    out.mkdir(parents=True, exist_ok=True)
    needs = {"GPU": 1} if job.settings.gpu else {"CPU": 1}
    trainer = TorchTrainer(
        work,
        train_loop_config={"job": job},
        scaling_config=ScalingConfig(num_workers=job.settings.workers, use_gpu=job.settings.gpu, resources_per_worker=needs),
        run_config=RunConfig(name="train_judge", storage_path=str((out / "run").resolve()), failure_config=FailureConfig(max_failures=job.settings.failures)),
    )
    result = cluster.fitted(trainer)
    last = result.metrics or {}
    assert result.checkpoint is not None  # every epoch reports one
    with result.checkpoint.as_directory() as held:
        for name in ("adapter_config.json", "adapter_model.safetensors"):
            (out / name).write_bytes((Path(held) / name).read_bytes())
    lines = calibrated(last["answered"]["calibration"])
    write_calibration(out / BESIDE_ADAPTER, job.vlm.model_copy(update={"adapter": str(out)}), lines)
    before = result.metrics_dataframe["loss"].tolist() if result.metrics_dataframe is not None else [last["loss"]]
    found = {
        "clips": sizes,
        "loss": before,
        "last_losses": last["losses"],
        "skipped": last["skipped"],
        "properties": evaluated(last["answered"]["test"], lines),
    }
    (out / EVALUATION).write_text(json.dumps(found, indent=1) + "\n")
    return found


def run(
    labels: Annotated[Path, typer.Argument(help="JSON Lines of pan-judge-label/1.", show_default=False)],
    out: Annotated[Path, typer.Option(help="Folder for adapter, calibration.json and evaluation.json: what vlm.adapter then names.", show_default=False)],
    name: Annotated[str, typer.Option("--recipe", help="A packaged recipe or a TOML file: its [vlm] is trained, its [split] samples the clips.")] = "pan",
    sets: Annotated[list[str] | None, typer.Option("--set", help="KEY=VALUE on top of the recipe, such as vlm.model=/models/qwen; may be repeated.")] = None,
    train_sets: Annotated[
        list[str] | None, typer.Option("--train", help="KEY=VALUE of the training, such as epochs=2 or lora.rank=8; may be repeated.")
    ] = None,
    cpus: Annotated[int | None, typer.Option(help="Logical CPUs of a local Ray.")] = None,
) -> int:
    """Fine-tunes the content filter's model on labelled clips, split by source; writes adapter, calibration and figures."""
    from curation.storage import Storage
    from pipelines import again, cluster, strict_toml
    from pipelines.run import guarded, interruptible

    told = {"--out": out, "--recipe": name, "--set": sets, "--train": train_sets, "--cpus": cpus}
    words = again.words([sys.executable, "-m", "pipelines.train_judge", labels], told)

    def trained(counts: dict[str, Any]) -> Exit:
        chosen = recipe.load(name, sets or [])
        if not chosen.vlm.model:
            raise ValueError("vlm.model is empty: name the model to be trained, with --set vlm.model=...")
        settings = strict_toml.build(TrainJudge, strict_toml.apply_sets({}, train_sets or []), "--train")
        job = Job(settings, chosen.vlm.model_copy(update={"adapter": ""}), chosen, labels.parent.resolve(), tuple(read_labels(labels, PROPERTIES)))
        cluster.authenticate()
        cluster.connect(cpus)
        with interruptible(Storage.at(str(out)), words):
            found = train(job, out)
        print(text(found))
        return Exit.COMPLETE

    return guarded(trained, str(out), words, ours=EVALUATION)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    return command_line.run(run, arguments, "train_judge.py")


if __name__ == "__main__":
    sys.exit(main())
