"""Trackers: where a run's figures go: a log, TensorBoard, pictures of its curves, and Weights & Biases or MLflow, by one small interface."""

import json
import math
import secrets
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Protocol

from training.curves import picture
from training.tensorboard import TensorBoard, grouped

LOG = "log.jsonl"
Service = Literal["wandb", "mlflow"]


class Watcher(Protocol):
    """Is told what happens in a run: trackers, a terminal, Ray Train."""

    def told(self, step: int, figures: dict[str, float], line: str) -> None:
        """Figures of the steps since the last time, or of a validation, and a line for people ("" for none)."""


class Tracker(Watcher, Protocol):
    """A watcher that is shown films too, and has an end."""

    def film(self, step: int, file: Path) -> None:
        """A film was written."""

    def close(self) -> None:
        """The run is over, or stops for now."""


class Log:
    """log.jsonl: one line of JSON each time; what a terminal follows, and what the curves are drawn from.

    Where a run goes on from an earlier step, the lines of later steps are those of a run that was lost; the newer ones come after them and count.
    """

    def __init__(self, folder: Path) -> None:
        self.file = folder / LOG

    def told(self, step: int, figures: dict[str, float], line: str) -> None:
        with self.file.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, "time": time.time(), "line": line, **figures}) + "\n")

    def film(self, step: int, file: Path) -> None:
        self.told(step, {}, f"step {step}  {file.name}")

    def close(self) -> None:
        """Nothing is open."""


def read_log(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Each figure's (step, value), by step. A line that a killed run left half is left out.

    Where the steps go back a run was taken up there: what the lost attempt told of that step and later ones is left out, even if the later one, of more ranks,
    ends sooner.
    """
    found, last = dict[str, dict[int, float]](), 0
    file = folder / LOG
    for text in file.read_text("utf-8").splitlines() if file.is_file() else []:
        if not text.endswith("}"):
            continue
        entry = json.loads(text)
        if entry["step"] < last:
            found = {name: {step: value for step, value in values.items() if step < entry["step"]} for name, values in found.items()}
        last = entry["step"]
        for name, value in entry.items():
            if name not in ("step", "time", "line"):
                found.setdefault(name, {})[entry["step"]] = value
    return {name: sorted(values.items()) for name, values in found.items()}


class Curves:
    """Pictures of the losses and of what the steps' time went to, drawn anew from the log: curves/*.png.

    The longer a curve, the rarer: each drawing reads the whole log, and one at each line would cost a run's length squared. The last is drawn at the end.
    """

    CHARTS: Mapping[str, tuple[str, ...]] = {"loss": ("loss", "validation_loss"), "noise": ("noise_",), "chunk": ("chunk_",), "time": ("share_", "mfu", "hfu")}

    def __init__(self, folder: Path) -> None:
        self._run, self._folder = folder, folder / "curves"
        self._folder.mkdir(exist_ok=True)
        self._untold, self._patience = 0, 1

    def told(self, step: int, figures: dict[str, float], line: str) -> None:
        self._untold += 1
        if self._untold >= self._patience:
            self._draw()

    def film(self, step: int, file: Path) -> None:
        """Films are no curves."""

    def close(self) -> None:
        """Draws what was not yet drawn."""
        if self._untold:
            self._draw()

    def _draw(self) -> None:
        """Draws the log as it is; the next drawing is due when the longest curve has grown by a tenth."""
        curves = read_log(self._run)
        self._untold, self._patience = 0, max(1, max(map(len, curves.values()), default=0) // 10)
        for title, names in self.CHARTS.items():
            chosen = {name: points for name, points in curves.items() if any(name == n or (n.endswith("_") and name.startswith(n)) for n in names)}
            if any(sum(math.isfinite(value) for _, value in points) > 1 for points in chosen.values()):
                picture(title, chosen).save(self._folder / f"{title}.png")


class Weights:
    """Weights & Biases: a run of the project, taken up under the same id, which is drawn once: folders of one name are not one run.

    The step is a figure of its own, over which all others are drawn: W&B's own step only rises, and what is told of an earlier one is dropped, as all that a
    run learns again which was taken up from a checkpoint before its last line.
    """

    STEP = "step"

    def __init__(self, folder: Path, project: str, settings: Mapping[str, Any]) -> None:
        wandb = _package("wandb")
        kept = folder / "wandb_run"
        if not kept.is_file():
            kept.write_text(secrets.token_hex(8), "utf-8")
        name, mine = folder.name, kept.read_text("utf-8")
        self._wandb, self._run = wandb, wandb.init(project=project, dir=str(folder), id=mine, name=name, resume="allow", config=dict(settings))
        self._run.define_metric(self.STEP)
        self._run.define_metric("*", step_metric=self.STEP)

    def told(self, step: int, figures: dict[str, float], line: str) -> None:
        self._run.log({grouped(name): value for name, value in figures.items()} | {self.STEP: step})

    def film(self, step: int, file: Path) -> None:
        self._run.log({"film": self._wandb.Video(str(file)), self.STEP: step})

    def close(self) -> None:
        self._run.finish()


class MLflow:
    """MLflow: a run of the experiment, on the server that MLFLOW_TRACKING_URI names, taken up by its name."""

    def __init__(self, folder: Path, project: str, settings: Mapping[str, Any]) -> None:
        self._mlflow = _package("mlflow")
        self._mlflow.set_experiment(project)
        kept = folder / "mlflow_run"
        run = self._mlflow.start_run(run_id=kept.read_text("utf-8") if kept.is_file() else None, run_name=folder.name)
        if not kept.is_file():
            kept.write_text(run.info.run_id, "utf-8")
            self._mlflow.log_dict(dict(settings), "settings.json")

    def told(self, step: int, figures: dict[str, float], line: str) -> None:
        self._mlflow.log_metrics({grouped(name): value for name, value in figures.items()}, step=step)

    def film(self, step: int, file: Path) -> None:
        self._mlflow.log_artifact(str(file), "films")

    def close(self) -> None:
        self._mlflow.end_run()


def trackers(folder: Path, services: tuple[Service, ...], project: str, settings: Mapping[str, Any], first_step: int = 0) -> list[Tracker]:
    """The log, the curves and TensorBoard always; then the services.

    Raises:
        ValueError: a service's package is not installed.
    """
    made: list[Tracker] = [Log(folder), Curves(folder), TensorBoard(folder / "tensorboard", first_step)]
    for service in services:
        made.append(Weights(folder, project, settings) if service == "wandb" else MLflow(folder, project, settings))
    return made


def _package(name: str) -> Any:
    from importlib import import_module

    try:
        return import_module(name)
    except ImportError as error:
        raise ValueError(f"track.services names {name}, which is not installed on the workers: pip install {name}, or leave it out") from error
