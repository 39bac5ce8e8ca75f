"""Cluster: joins the Ray cluster that the job runs on, or starts a local one with authentication."""

import logging
import os
import secrets
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from curation.stage import Stage

ATTEMPTS = 3
log = logging.getLogger("pan.cluster")


def authenticate() -> None:
    """Gives a Ray that this process will start a token of its own; call it before Ray is first imported, which reads these variables once.

    A cluster that RAY_ADDRESS names has its own, and what the user has set stays.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_raylet_start_wait_time_s", "180")  # Ray's own 60 s are not enough on a machine that is busy with other work
    if os.environ.get("RAY_ADDRESS") or "ray" in sys.modules:
        return
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    if os.environ["RAY_AUTH_MODE"] == "token":
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))


def connect(cpus: int | None = None) -> None:
    """Joins the cluster that RAY_ADDRESS names (as it is under `ray job submit`), else starts Ray on this machine.

    Args:
        cpus: logical CPUs of a local Ray; None = the machine's cores. Has no meaning on a cluster.

    Raises:
        ValueError: `cpus` was given for a cluster that is already there.
        ConnectionError: the named cluster does not answer, or no local Ray comes up.
    """
    import ray

    if ray.is_initialized():
        return
    with _own_signals():
        _connect(cpus)


@contextmanager
def _own_signals() -> Iterator[None]:
    """Puts back our handlers: `ray.init` takes SIGTERM for itself, and ends with 1 what should end with 75."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _connect(cpus: int | None) -> None:
    import ray

    address = os.environ.get("RAY_ADDRESS")
    if address and cpus is not None:
        raise ValueError(f"--cpus {cpus}: RAY_ADDRESS names a cluster ({address}), whose CPUs are its own; leave --cpus out or unset RAY_ADDRESS")
    if address:
        if os.environ.get("RAY_AUTH_MODE", "") != "token":
            log.warning("joining %s without RAY_AUTH_MODE=token: whoever reaches an open Ray cluster can run code on it", address)
        ray.init(address=address, log_to_driver=False, logging_level=logging.WARNING)
        return
    for attempt in range(ATTEMPTS):
        try:
            ray.init(address="local", num_cpus=cpus, include_dashboard=False, log_to_driver=False, logging_level=logging.WARNING)
            return
        except Exception as error:  # Ray raises a bare Exception where a process of its own came up too late
            ray.shutdown()
            if attempt == ATTEMPTS - 1 or "startup" not in str(error):
                raise ConnectionError(f"Ray did not start on this machine in {ATTEMPTS} attempts: {error}") from error
            log.warning("Ray did not come up in time, as happens on a busy machine; trying again")


def fitted(trainer: Any) -> Any:
    """What a Ray Train trainer's `fit` returns, run beside the main thread: in it Ray Train takes Ctrl-C for itself, and what was stopped would end as a bug.

    Raises:
        ray.train.TrainingFailedError: as `fit`.
    """
    with ThreadPoolExecutor(1, "pan-train") as aside:
        return aside.submit(trainer.fit).result()


def unsatisfiable(stages: "Sequence[Stage]") -> list[str]:
    """One sentence for each stage that this cluster could never run; empty = all can run.

    Ray Data waits for ever for resources that do not come; so they are counted before anything runs. An actor pool holds its
    share for the whole run, and tasks need at least one slot beside all pools.
    """
    import ray

    total = ray.cluster_resources()
    cpus, gpus = total.get("CPU", 0.0), total.get("GPU", 0.0)
    faults = []
    pools = [s for s in stages if s.resources.actors]
    held = sum((s.resources.actors or 0) * s.resources.num_cpus for s in pools)
    held_gpus = sum((s.resources.actors or 0) * s.resources.num_gpus for s in pools)
    for stage in stages:
        need = stage.resources
        if need.num_cpus > cpus or need.num_gpus > gpus:
            faults.append(f"{stage.name} wants {need.num_cpus:g} CPUs and {need.num_gpus:g} GPUs a worker; the cluster has {cpus:g} and {gpus:g}")
    tasks = max((s.resources.num_cpus for s in stages if not s.resources.actors), default=0.0)
    if not faults and (held + tasks > cpus or held_gpus > gpus):
        faults.append(
            f"the actor pools hold {held:g} CPUs and {held_gpus:g} GPUs, tasks need {tasks:g} CPUs more; the cluster has {cpus:g} and {gpus:g}: "
            "lower resources.<stage>.actors or num_cpus"
        )
    return faults
