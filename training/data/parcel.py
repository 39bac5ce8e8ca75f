"""Parcel: what a worker process hands over, as one tensor: a tensor costs a handshake between the processes, whatever its size."""

import io
import pickle
from collections.abc import Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

from training.data.windows import Piece

Parcel: TypeAlias = tuple[bytes, Tensor]
"""The pieces without their tensors' bytes; and these, uint8 [n], one behind the other."""

_ALIGNED = 16  # bytes: more than any number takes


def packed(parts: Sequence[Piece]) -> Parcel:
    """The pieces, for another process."""
    text = io.BytesIO()
    packer = _Packer(text)
    packer.dump(list(parts))
    return text.getvalue(), torch.cat(packer.tensors) if packer.tensors else torch.empty(0, dtype=torch.uint8)


def unpacked(parcel: Parcel) -> list[Piece]:
    """The inverse of `packed`, in the process that started the worker; the tensors share the parcel's memory."""
    parts: list[Piece] = _Unpacker(io.BytesIO(parcel[0]), parcel[1]).load()
    return parts


class _Packer(pickle.Pickler):
    """A pickler that puts tensors aside."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, protocol=pickle.HIGHEST_PROTOCOL)
        self.tensors: list[Tensor] = []
        self._end = 0

    def persistent_id(self, thing: Any) -> Any:
        """Where a tensor's bytes are: (first byte, dtype, shape); None for all else."""
        if not isinstance(thing, Tensor):
            return None
        data = thing.detach().contiguous().reshape(-1).view(torch.uint8)
        begin, spare = self._end, -len(data) % _ALIGNED
        self.tensors += [data, torch.zeros(spare, dtype=torch.uint8)]
        self._end += len(data) + spare
        return begin, str(thing.dtype).removeprefix("torch."), tuple(thing.shape)


class _Unpacker(pickle.Unpickler):
    """Its inverse."""

    def __init__(self, file: io.BytesIO, data: Tensor) -> None:
        super().__init__(file)
        self._data = data

    def persistent_load(self, place: Any) -> Tensor:
        """The tensor at a place."""
        begin, name, shape = place
        dtype = getattr(torch, name)
        count = torch.Size(shape).numel() * dtype.itemsize
        return self._data[begin : begin + count].view(dtype).view(shape)
