"""Processes with a gloo group, forked from one that has imported torch: a function runs on every rank, and what each returns comes back."""

import multiprocessing
import os
import pickle
import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PRELOAD = ["torch", "torch.distributed.fsdp", "torch.distributed.checkpoint", "tests.training.made_run"]
WAIT_S = 500


def on_ranks(function: Callable[..., Any], ranks: int, folder: Path, *given: Any) -> list[Any]:
    """What `function(folder, *given)` returns on each of so many ranks; the first fault of a rank is raised here, with its trace."""
    before = {name: os.environ.get(name) for name in ("PYTHONPATH", "GLOO_SOCKET_IFNAME", "OMP_NUM_THREADS")}
    os.environ |= {"PYTHONPATH": str(ROOT), "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    try:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(PRELOAD)
        processes = [context.Process(target=_rank, args=(function, rank, ranks, folder, given), daemon=True) for rank in range(ranks)]
        for process in processes:
            process.start()
        for process in processes:
            process.join(WAIT_S)
            if process.is_alive():
                process.kill()
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
    told = [pickle.loads(file.read_bytes()) if (file := folder / f"rank_{rank}").is_file() else ("fault", "it was lost") for rank in range(ranks)]
    faults = [f"rank {rank}: {value}" for rank, (kind, value) in enumerate(told) if kind == "fault"]
    assert not faults, "\n".join(faults)
    return [value for _, value in told]


def _rank(function: Callable[..., Any], rank: int, ranks: int, folder: Path, given: tuple[Any, ...]) -> None:
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=ranks, timeout=timedelta(seconds=WAIT_S - 50))
    try:
        told = ("value", function(folder, *given))
    except BaseException:
        told = ("fault", traceback.format_exc())
        (folder / f"rank_{rank}").write_bytes(pickle.dumps(told))
        raise
    (folder / f"rank_{rank}").write_bytes(pickle.dumps(told))
    dist.destroy_process_group()
