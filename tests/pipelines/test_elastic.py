"""An elastic `pan train`: a node joins its cluster and leaves it again while it trains, and no sample is lost or learnt from twice."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest

from pipelines.exits import Exit
from tests.pipelines.conftest import NODE
from tests.training.data import made_clips
from tests.training.data.made_latents import encode
from training.data.index import Index
from training.model.checkpoint import init_model, save_model
from training.model.spec import SPECS
from training.phases import read_history
from training.seen import read_seen
from training.snapshots import committed

SAMPLES, EPOCHS = 12, 2

# As `pan train`, but Ray looks each second, not each 20, at which nodes its cluster has.
DRIVER = """
import sys
import ray
from pipelines import cluster, train
from ray.data._internal.cluster_autoscaler.default_autoscaling_coordinator import _AutoscalingCoordinatorActor

class Coordinator(_AutoscalingCoordinatorActor):
    TICK_INTERVAL_S = 1

cluster.connect()
name = "AutoscalingCoordinator"
ray.remote(num_cpus=0)(Coordinator).options(name=name, namespace=name, lifetime="detached").remote()
train.leave(train.main(sys.argv[1:]))
"""

PACE = {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "1",  # a report waits for the controller's next look, so that a step takes a second and the run is not over too soon
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "5",  # so long Ray waits for room on a node of which it does not know yet that it is gone; 60 by default
}


def waited_for(true: Callable[[], bool], run: subprocess.Popen[bytes]) -> None:
    """Returns as soon as it is true; the run must go on until then."""
    until = time.monotonic() + 200
    while not true():
        assert run.poll() is None, "the run was over too soon"
        assert time.monotonic() < until
        time.sleep(0.1)


def worlds(out: Path) -> list[int]:
    """How many workers took the run's committed steps, each number as often as the run came to it."""
    return [size for size, _ in groupby(snapshot.state["windows"] for snapshot in committed(out / "snapshots"))]


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_run_grows_and_shrinks_while_it_runs(standing: Any, tmp_path: Path) -> None:
    model, clips, latents, out = (tmp_path / name for name in ("debug", "clips", "latents", "run"))
    save_model(model, init_model(SPECS["debug"], seed=3))
    made_clips.published(clips, [made_clips.clip(tmp_path, video, 1, width=64) for video in range(SAMPLES)])
    encode(clips, latents, model)
    elastic = ["workers.least=1", "workers.most=2", "workers.resize_s=1", "data.workers=0", "loss.compute=float32"]
    each = [f"loop.epochs={EPOCHS}", "loop.windows=1", "loop.log_every=1", "loop.save_every=1", "loop.keep_last=99", "loop.validate_every=0"]
    given = [str(out), "--shards", str(latents), "--model", str(model), *(text for key in (*elastic, *each) for text in ("--set", key))]
    run = subprocess.Popen([sys.executable, "-c", DRIVER, *given], env=os.environ | PACE)
    try:
        waited_for(lambda: worlds(out) == [1], run)
        node = standing.add_node(**NODE)
        waited_for(lambda: worlds(out) == [1, 2], run)
        standing.remove_node(node)
        assert run.wait(300) == Exit.COMPLETE
    finally:
        run.kill()
        run.wait()
    assert worlds(out) == [1, 2, 1]
    seen, steps = read_seen(out / "samples"), committed(out / "snapshots")[-1].step
    assert list(seen) == list(range(1, steps + 1))
    keys = [key for step in seen.values() for key in step]
    manifest = sorted(sample.entry.key for sample in Index.read(latents, SPECS["debug"]).samples)
    assert len(set(manifest)) == SAMPLES
    assert [sorted(keys[start : start + SAMPLES]) for start in range(0, len(keys), SAMPLES)] == [manifest] * EPOCHS
    assert read_history(out / "model") == ("decoder",)
