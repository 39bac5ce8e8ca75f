"""Every rank: what each rank has to tell, on every rank, by one small collective."""

from collections.abc import Sequence
from typing import Any

import torch


def every_rank(mine: Sequence[float], group: Any = None, device: str = "cpu") -> list[list[float]]:
    """Each rank's numbers, by rank; its own alone without a group.

    Args:
        mine: as many on every rank.
        group: a process group that nothing else uses at the time: checkpoints are written in the background by one of their own.
        device: on which the group's collectives work.
    """
    if group is None:
        return [list(mine)]
    import torch.distributed as dist

    told = torch.tensor(mine, dtype=torch.float64, device=device)
    rows = [torch.empty_like(told) for _ in range(dist.get_world_size(group))]
    dist.all_gather(rows, told, group=group)
    return [row.tolist() for row in rows]
