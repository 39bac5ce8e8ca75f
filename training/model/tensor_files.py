"""Safetensors on disk: what a folder holds, by name, shape and dtype, without torch; and how tensors are written, sharded as on the hub.

Source: https://github.com/huggingface/safetensors, "Format": 8 bytes of length, little-endian, then a table in JSON, then the bytes.
"""

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SUFFIX = ".safetensors"
INDEX = ".safetensors.index.json"
PICKLED = (".pth", ".pt", ".bin", ".ckpt", ".pkl")
SHARD_BYTES = 5 * 10**9  # a file's size on the hub
_LONGEST_TABLE = 100_000_000  # bytes; safetensors' own limit
_LISTED = 30  # groups of names that an error shows


@dataclass(frozen=True)
class Stored:
    """A tensor in a file: where, and what; nothing of it is read yet.

    Attributes:
        file: the safetensors file.
        shape: its shape.
        dtype: as safetensors writes it, such as "BF16".
    """

    file: Path
    shape: tuple[int, ...]
    dtype: str


def stored(source: Path) -> dict[str, Stored]:
    """Every tensor that a folder, or a single file, holds: by name; only headers are read.

    Raises:
        ValueError: there are no safetensors, more than one set of them, a damaged file, or an index that tells otherwise than the files.
    """
    found: dict[str, Stored] = {}
    for file in _files(source):
        for name, entry in read_header(file).items():
            if name in found:
                raise ValueError(f"{source}: tensor {name!r} is both in {found[name].file.name} and in {file.name}; leave one of the two files")
            found[name] = Stored(file, tuple(entry["shape"]), entry["dtype"])
    return found


def read_header(file: Path) -> dict[str, Any]:
    """A file's table of tensors: name to {"dtype", "shape", "data_offsets"}.

    Raises:
        ValueError: it is no safetensors file, or a part of it is missing.
    """
    size = file.stat().st_size
    with file.open("rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        if size < 8 or length > min(size - 8, _LONGEST_TABLE):
            raise ValueError(f"{file}: not a safetensors file, or cut off ({size} bytes); copy it again")
        try:
            header = dict(json.loads(opened.read(length)))
            header.pop("__metadata__", None)
            needed = 8 + length + max((entry["data_offsets"][1] for entry in header.values()), default=0)
        except (ValueError, TypeError, KeyError, IndexError) as error:
            raise ValueError(f"{file}: its table of tensors is damaged ({error!r}); copy it again") from error
    if size != needed:
        raise ValueError(f"{file}: {size} bytes where its table says {needed}; the copy is incomplete, copy it again")
    return header


def save(tensors: Mapping[str, Any], folder: Path, *, stem: str = "model", dtype: Any = None, shard_bytes: int = SHARD_BYTES) -> list[Path]:
    """Writes torch tensors into an existing folder: one file, or several with an index, as the hub's folders have them.

    A tensor that appears under two names is written once, under the first. Each shard is converted and brought to the CPU on its own.

    Args:
        dtype: torch's, of floating-point tensors; None: as they are.

    Returns:
        The files written, the index last.
    """
    from safetensors.torch import save_file

    shards = _sharded(tensors, shard_bytes)
    names = [f"{stem}{SUFFIX}"] if len(shards) == 1 else [f"{stem}-{i:05}-of-{len(shards):05}{SUFFIX}" for i in range(1, len(shards) + 1)]
    for name, shard in zip(names, shards, strict=True):
        ready = {key: _alone(tensor, dtype) for key, tensor in shard.items()}
        save_file(ready, str(folder / name), metadata={"format": "pt"})
    written = [folder / name for name in names]
    if len(shards) > 1:
        total = sum(tensor.nbytes for shard in shards for tensor in shard.values())
        table = {key: name for name, shard in zip(names, shards, strict=True) for key in shard}
        written.append(folder / f"{stem}{INDEX}")
        written[-1].write_text(json.dumps({"metadata": {"total_size": total}, "weight_map": table}, indent=2) + "\n", "utf-8")
    return written


def listed(names: Collection[str]) -> str:
    """Names for an error, those that differ in a layer's number together: blocks.{0-39}.norm3.weight."""
    groups: dict[tuple[str, str], list[int]] = {}
    for name in names:
        head, number, tail = re.fullmatch(r"(.*?)(?:(?<=\.)(\d+)(?=\.)(.*))?", name, re.DOTALL).groups()  # type: ignore[union-attr]
        groups.setdefault((head, tail) if number else (name, ""), []).append(int(number) if number else -1)
    texts = [head if numbers == [-1] else f"{head}{_ranges(numbers)}{tail}" for (head, tail), numbers in groups.items()]
    return ", ".join(texts[:_LISTED]) + (f" and {len(texts) - _LISTED} groups more" if len(texts) > _LISTED else "")


def _ranges(numbers: list[int]) -> str:
    """3 as "3"; 0, 1, 2, 5 as "{0-2,5}"."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][-1] + 1:
            runs[-1][1:] = [number]
        else:
            runs.append([number])
    text = ",".join("-".join(map(str, run)) for run in runs)
    return text if len(numbers) == 1 else f"{{{text}}}"


def _alone(tensor: Any, dtype: Any) -> Any:
    """`tensor` on the CPU, contiguous, and in memory of its own: safetensors writes no views of one another."""
    ready = tensor.detach().to("cpu", dtype if tensor.is_floating_point() else None).contiguous()
    return ready if ready.untyped_storage().nbytes() == ready.nbytes else ready.clone()


def _sharded(tensors: Mapping[str, Any], shard_bytes: int) -> list[dict[str, Any]]:
    """The tensors in their order, in pieces of at most `shard_bytes`, or one tensor; aliases left out."""
    shards: list[dict[str, Any]] = [{}]
    held = 0
    seen: set[Any] = set()
    for name, tensor in tensors.items():
        same = (tensor.data_ptr(), tuple(tensor.shape), tensor.stride())
        if tensor.numel() and same in seen:
            continue
        seen.add(same)
        if shards[-1] and held + tensor.nbytes > shard_bytes:
            shards.append({})
            held = 0
        shards[-1][name] = tensor
        held += tensor.nbytes
    return shards


def _files(source: Path) -> list[Path]:
    """The safetensors files that `source` means.

    Raises:
        ValueError: see `stored`.
    """
    if source.is_file():
        if not source.name.endswith(SUFFIX):
            raise ValueError(_refused(source.parent, [source.name]))
        return [source]
    if not source.is_dir():
        raise ValueError(f"{source}: no such folder; give the one that holds the weights")
    names = sorted(path.name for path in source.iterdir())
    indices = [name for name in names if name.endswith(INDEX)]
    plain = [name for name in names if name.endswith(SUFFIX)]
    if len(indices) == 1:
        return _indexed(source, indices[0])
    if len(indices) > 1 or len(plain) > 1:
        raise ValueError(f"{source}: more than one set of weights ({', '.join(indices or plain)}); give the file that is meant, or leave one set there")
    if not plain:
        raise ValueError(_refused(source, names))
    return [source / plain[0]]


def _indexed(source: Path, index: str) -> list[Path]:
    """The files that an index names, and that hold what it says.

    Raises:
        ValueError: a file is missing or lies elsewhere, or a tensor is not where the index says.
    """
    try:
        table = dict(json.loads((source / index).read_text("utf-8"))["weight_map"])
        files = sorted({str(name) for name in table.values()})
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{source / index}: not an index of safetensors ({error!r}); copy it again") from error
    lacking = [name for name in files if Path(name).name != name or not (source / name).is_file()]
    if lacking:
        raise ValueError(f"{source}: {index} names files that are not there: {', '.join(lacking)}; copy them too")
    held = {name: read_header(source / name).keys() for name in files}
    wrong = [name for name, file in table.items() if name not in held[file]]
    if wrong:
        raise ValueError(f"{source}: {index} names tensors that its files do not hold: {listed(wrong)}; index and files are of different models")
    return [source / name for name in files]


def _refused(folder: Path, names: Collection[str]) -> str:
    """Why there is nothing to load."""
    pickled = [name for name in names if name.endswith(PICKLED)]
    if pickled:
        return (
            f"{folder}: {', '.join(pickled)}: pickled weights are not opened, since reading a pickle can run any code; "
            "give the safetensors of the same model (the folders for diffusers have them), or convert it where it may be opened"
        )
    return f"{folder}: no safetensors there; give the folder that holds them"
