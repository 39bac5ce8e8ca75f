"""Train: a phase of a world model's training on a Ray cluster: shards and a model in, checkpoints and a trained model out."""

import json
import os
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipelines import train_ending
from pipelines.exits import Exit, leave
from pipelines.train_worker import read_ending, read_faults, worker

if TYPE_CHECKING:
    from pipelines.train_recipe import TrainRecipe

POLL_S = 0.5
RECIPE = "recipe.toml"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    from pipelines import command_line

    return command_line.run(command, arguments, "pan train")


def command(
    out: Annotated[str, typer.Argument(help="The run's folder, which every worker reaches: checkpoints, figures, the trained model.", show_default=False)],
    shards: Annotated[str, typer.Option(help="Output of `pan encode`, or of `pan curate` (then clips are encoded in each epoch).", show_default=False)],
    model: Annotated[str, typer.Option(help="A PAN folder to begin with: of `pan assemble`, or OUT/model of an earlier phase.", show_default=False)],
    recipe: Annotated[str | None, typer.Option(help="A TOML file; what it leaves out has the defaults.", show_default=False)] = None,
    phase: Annotated[str | None, typer.Option(help="decoder or joint, or matching to compare with it; --set phase=... in short.", show_default=False)] = None,
    sets: Annotated[list[str] | None, typer.Option("--set", help="KEY=VALUE on top of the recipe, such as optim.lr=1e-4; may be repeated.")] = None,
    image: Annotated[str | None, typer.Option(help="A picture that films while training begin with.", show_default=False)] = None,
    here: Annotated[bool, typer.Option("--here", help="In this process, as one worker, without Ray.")] = False,
    cpus: Annotated[int | None, typer.Option(help="Logical CPUs of a local Ray; the machine's by default.", show_default=False)] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Print memory and time, and start nothing.")] = False,
    tflops: Annotated[float, typer.Option(help="With --plan: of a GPU in bfloat16, at its peak.")] = 989.0,
    utilisation: Annotated[float, typer.Option(help="With --plan: share of that which is reached.")] = 0.4,
) -> int:
    """Train a phase of a model on curated shards; the same command takes up a run that was stopped."""
    from curation.lock import hold
    from curation.storage import Storage
    from pipelines import again, run, train_recipe

    told = {"--shards": shards, "--model": model, "--here": here, "--recipe": recipe, "--phase": phase, "--image": image, "--cpus": cpus, "--set": sets}
    words = again.words(["pan", "train", out], told)

    def work(counts: dict[str, Any]) -> Exit:
        folder = run_folder(out)
        resolved = train_recipe.load(recipe, [*(sets or []), *([f'phase="{phase}"'] if phase else [])])
        if here:
            resolved = train_recipe.alone(resolved)
        index = train_recipe.checked(resolved, model, shards)
        if plan or resolved.workers.memory is not None:
            planned = train_recipe.planned(resolved, model, index, tflops, utilisation)
            print(train_recipe.plan_text(planned))
            if not planned["fits"]:
                raise ValueError("this training does not fit; see above what would")
        if plan:
            return Exit.COMPLETE
        for line in train_recipe.warnings_of(resolved, index):
            print(line, file=sys.stderr)
        folder.mkdir(parents=True, exist_ok=True)
        asked = {"out": str(folder), "shards": shards_path(shards), "model": str(Path(model).absolute()), "settings": resolved.run_settings()}
        asked |= {"start": f"{time.time_ns()}-{os.getpid()}", "image": pictured(image, model, resolved)}
        store = Storage.at(str(folder))
        with hold(store), run.interruptible(store, words), followed(folder):
            (folder / RECIPE).write_text(resolved.to_toml(), "utf-8")
            return in_process(asked, counts) if here else on_cluster(asked, resolved, cpus, counts)

    return run.guarded(work, out, words, report=not plan and "://" not in out, ours=RECIPE)


def run_folder(out: str) -> Path:
    """The run's folder, as every worker finds it.

    Raises:
        ValueError: a uri.
    """
    if "://" in out:
        raise ValueError(
            f"OUT {out} is a uri, and a run's checkpoints need a file system that every worker reaches (each rank writes its part, and one renames the whole); "
            "give a folder on a shared mount, such as /mnt/shared/run; --shards may be a uri"
        )
    return Path(out).absolute()


def shards_path(shards: str) -> str:
    """A folder as every worker finds it; a uri as it is."""
    return shards if "://" in shards else str(Path(shards).absolute())


def pictured(image: str | None, model: str, recipe: "TrainRecipe") -> Any:
    """The films' first frame in the model's size.

    Raises:
        ValueError: it cannot be read, or actions and picture are not both there.
    """
    wanted = recipe.loop.films_every > 0
    if wanted != (image is not None) or wanted != bool(recipe.films.actions):
        raise ValueError("films while training need all three: --image, films.actions and loop.films_every above 0; give all or none of them")
    if image is None:
        return None
    from pipelines.start_image import film_size, fitted, opened
    from training.model.card import read_spec

    picture = opened(image)
    return fitted(picture, *film_size(read_spec(Path(model)), None, picture))


def in_process(asked: dict[str, Any], counts: dict[str, Any]) -> Exit:
    """Trains in this process.

    Raises:
        ValueError: what is wrong is the user's, such as a batch that does not fit into the GPU's memory.
    """
    import torch

    from training.optim import OverBudget
    from training.run import Places, RunSettings, train

    places = Places(shards=asked["shards"], model=Path(asked["model"]), out=Path(asked["out"]), image=asked["image"])
    try:
        ending = train(places, RunSettings(**asked["settings"]), device="cuda:0" if torch.cuda.is_available() else "cpu")
    except OverBudget as error:
        counts["over_budget"] = str(error)
        return Exit.OVER_BUDGET
    except torch.OutOfMemoryError as error:
        raise ValueError(too_large(str(error))) from error
    print(train_ending.told(asked, ending))
    return Exit.COMPLETE


def on_cluster(asked: dict[str, Any], recipe: "TrainRecipe", cpus: int | None, counts: dict[str, Any]) -> Exit:
    """Trains on the workers of a Ray cluster.

    Raises:
        ConnectionError: there is no cluster. Preflight: it can never give what the workers need.
        ValueError: what a worker found is the user's fault. OSError, RuntimeError: each worker's own code failed, each time that it was tried.
    """
    from pipelines import cluster

    cluster.authenticate()
    cluster.connect(cpus)
    from ray.train import TrainingFailedError

    enough(recipe)
    out, failed = Path(asked["out"]), None
    try:
        cluster.fitted(trainer(asked, recipe))
    except TrainingFailedError as error:
        failed = error
    told = read_ending(out, asked["start"])
    if told.get("fault") in ("OverBudget", "TrainingDiverged"):
        counts["over_budget"] = told["text"]
        return Exit.OVER_BUDGET
    if told.get("fault"):
        raise ValueError(told["text"])
    if "ending" not in told:
        own_fault(out, asked["start"], list(getattr(failed, "worker_failures", {})))
        counts["lost"] = f"the workers were lost: {failed or 'they said nothing'}; the same command goes on from the newest checkpoint"
        return Exit.INTERRUPTED
    print(train_ending.told(asked, told["ending"]))
    return Exit.COMPLETE


def own_fault(out: Path, start: str, failed: list[int]) -> None:
    """Raises what the workers' own code met, if every rank that failed last has told of something: one that was killed tells nothing.

    Raises:
        ValueError: a GPU's memory was too small. OSError: a file could not be read or written. RuntimeError: anything else, with its traceback.
    """
    told = read_faults(out, start)
    if not failed or not set(failed) <= told.keys():
        return
    first = min((told[rank] for rank in failed), key=lambda fault: float(fault["time_s"]))  # the others may have met its absence
    if first["kind"] == "memory":
        raise ValueError(too_large(first["text"]))
    if first["kind"] == "storage":
        raise OSError(first["text"])
    raise RuntimeError(f"a worker's own code failed, each time that it was tried: {first['text']}\n{first['traceback']}")


def too_large(text: str) -> str:
    """What to do about a GPU's memory that was too small."""
    first = text.splitlines()[0] if text else "out of memory"
    return f"{first} Lower loop.batch, or spread the model with parallel.shard; `pan train --plan` with workers.memory says what fits"


def trainer(asked: dict[str, Any], recipe: "TrainRecipe") -> Any:
    """Ray Train's trainer of this run.

    Checkpoints are the run's own (`training.snapshots`): a marker says which are whole, and any number of workers can read them; Ray is told figures alone.
    """
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    workers = recipe.workers
    count = workers.least if workers.most in (None, workers.least) else (workers.least, workers.most)
    alone = {} if os.environ.get("RAY_ADDRESS") else {"GLOO_SOCKET_IFNAME": "lo"}  # one machine: its own name may lead nowhere
    return TorchTrainer(
        worker,
        train_loop_config=asked,
        torch_config=TorchConfig(backend="nccl" if workers.gpus else "gloo", timeout_s=int(workers.timeout_s)),
        scaling_config=ScalingConfig(
            num_workers=count,
            use_gpu=workers.gpus > 0,
            resources_per_worker={"CPU": workers.cpus} | ({"GPU": workers.gpus} if workers.gpus else {}),
            elastic_resize_monitor_interval_s=workers.resize_s,
        ),
        run_config=RunConfig(
            name=asked["start"],
            storage_path=f"{asked['out']}/ray",
            failure_config=FailureConfig(max_failures=workers.failures),
            worker_runtime_env={"env_vars": alone},
        ),
    )


def enough(recipe: "TrainRecipe") -> None:
    """Refuses what Ray would wait for without end.

    Raises:
        Preflight: the cluster has too little for the least number of workers.
    """
    import ray

    from pipelines.run import Preflight

    total, workers = ray.cluster_resources(), recipe.workers
    for name, each in (("CPU", workers.cpus), ("GPU", workers.gpus)):
        needed = each * workers.least
        if needed > total.get(name, 0.0):
            there = f"the cluster has {total.get(name, 0.0):g}"
            raise Preflight(f"{workers.least} workers need {needed:g} {name}s, {there}; lower workers.least or workers.{name.lower()}s")


@contextmanager
def followed(folder: Path) -> Iterator[None]:
    """Prints the run's lines as they are written, while the block runs."""
    from training.trackers import LOG

    file, stop = folder / LOG, threading.Event()
    place = [file.stat().st_size if file.is_file() else 0]

    def show() -> None:
        if not file.is_file():
            return
        with file.open("rb") as opened:
            opened.seek(place[0])
            for text in opened:
                if not text.endswith(b"\n"):
                    return
                place[0] += len(text)
                if line := json.loads(text)["line"]:
                    print(line, file=sys.stderr, flush=True)

    def watch() -> None:
        while not stop.wait(POLL_S):
            show()

    thread = threading.Thread(target=watch, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        show()


if __name__ == "__main__":
    leave(main())
