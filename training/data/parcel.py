"""Parcel: what a worker process hands over, as one tensor, or as bytes where it is small: a tensor costs a handshake of the processes, whatever its size."""

import io
import pickle
from typing import Any, TypeAlias

import torch
from torch import Tensor

Parcel: TypeAlias = tuple[bytes, Tensor | bytes]
"""The thing without its tensors' bytes; and these, uint8 [n], one behind the other: a tensor in shared memory, or bytes that go through the pipe."""

SMALL = 1 << 20
"""Bytes up to which a parcel goes through the pipe. Measured with 10 kB: a handshake takes 0.7 ms of the receiver's CPU, Python's lock held, the pipe 0.13."""

_ALIGNED = 16  # bytes: more than any number takes


def packed(thing: Any) -> Parcel:
    """Anything that pickles, for another process."""
    text = io.BytesIO()
    packer = _Packer(text)
    packer.dump(thing)
    data = torch.cat(packer.tensors) if packer.tensors else torch.empty(0, dtype=torch.uint8)
    return text.getvalue(), data if len(data) > SMALL else data.numpy().tobytes()


def unpacked(parcel: Parcel) -> Any:
    """The inverse of `packed`, in the process that started the worker; the tensors share the parcel's memory."""
    words, data = parcel
    if isinstance(data, bytes):
        data = torch.frombuffer(bytearray(data), dtype=torch.uint8) if data else torch.empty(0, dtype=torch.uint8)
    return _Unpacker(io.BytesIO(words), data).load()


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
