"""Weights from safetensors into a module: memory-mapped, straight to device and dtype; what is missing or surplus is named, never ignored.

A module is built without memory of its own (`empty_weights`) and each tensor is put in its place as it is read, so that no weight is held twice.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from training.model.tensor_files import Stored, listed, stored

Named: TypeAlias = Callable[[str], bool]
KeyMap: TypeAlias = Callable[[str], str]
"""A tensor's name in the files to its name in the module; raises ValueError for a name that it does not know."""


def none(name: str) -> bool:
    """No name at all."""
    return False


@contextmanager
def empty_weights() -> Iterator[None]:
    """Modules built inside have parameters without memory (on device "meta"); their buffers, such as rotary tables, are real.

    Values that a constructor gives to parameters are lost: each is to be loaded, or filled afterwards. It changes `nn.Module` itself for the while: one thread.
    """
    register = nn.Module.register_parameter

    def without_memory(module: nn.Module, name: str, parameter: Any) -> None:
        if parameter is not None and not parameter.is_meta:
            parameter = nn.Parameter(parameter.to("meta"), requires_grad=parameter.requires_grad)
        register(module, name, parameter)

    nn.Module.register_parameter = without_memory
    try:
        yield
    finally:
        nn.Module.register_parameter = register


def load(
    module: nn.Module,
    source: Path,
    *,
    device: Any = "cpu",
    dtype: Any = None,
    keymap: KeyMap | None = None,
    absent: Named = none,
    unused: Named = none,
) -> list[str]:
    """Fills every parameter and persistent buffer of `module` from `source`, a folder or a file, and moves its other buffers to `device`.

    Args:
        module: built inside `empty_weights`, or anyhow.
        device: where each tensor goes as it is read.
        dtype: of floating-point tensors, a torch.dtype or a function from the module's name to one; None: as stored. On the CPU, a tensor that keeps its
            dtype stays mapped to its file, and is read when it is first used.
        keymap: None where the files use the module's names.
        absent: the module's names that the files may lack: what has values keeps them, what has no memory gets some, without values.
        unused: names in the files that this module does without.

    Returns:
        The names that the files lacked, as `absent` allowed, and that were without memory: to be filled by the caller.

    Raises:
        ValueError: a tensor is missing, surplus, twice there, or of another shape: all of them are named, and nothing has been changed.
    """
    entries, places = stored(source), _places(module)
    found, surplus = _pairs(entries, places, keymap, unused)
    missing = [name for name in places if name not in found and not absent(name)]
    wrong = list(_faults(module, found, entries, places))
    if missing or surplus or wrong:
        lists = (("missing", missing), ("surplus", surplus), ("wrong", wrong))
        told = "; ".join(f"{len(names)} {what}: {listed(names)}" for what, names in lists if names)
        raise ValueError(f"{source}: not the weights of this {type(module).__name__}: {told}")
    aliases = {alias for names in places.values() for alias in names}
    lost = [name for name, tensor in module.named_buffers() if tensor.is_meta and name not in aliases]
    if lost:
        raise ValueError(f"buffers without memory, which no file holds: {listed(lost)}; build the module inside empty_weights(), not on device meta")
    given = {name: keys[0] for name, keys in found.items()}
    for name, tensor in _read(given, entries, device):
        _put(module, places[name], _cast(tensor, name, dtype))
    left = [name for name in places if name not in given and _at(module, name).is_meta]
    for name in left:
        old = _at(module, name)
        _put(module, places[name], _cast(torch.empty(old.shape, dtype=old.dtype, device=device), name, dtype))
    module.to(device)
    return left


def differing(module: nn.Module, source: Path, *, keymap: KeyMap | None = None, but: Named = none, unused: Named = none) -> list[str]:
    """The module's names whose values are not those that `source` has, rounded to the module's dtype; each is read and compared, one at a time.

    Args:
        keymap, unused: as for `load`; but: names that are not looked at.
    """
    entries, places = stored(source), _places(module)
    found, _ = _pairs(entries, places, keymap, unused)
    same = set()
    for name, tensor in _read({name: keys[0] for name, keys in found.items()}, entries, "cpu"):
        mine = _at(module, name).detach().cpu()
        if mine.shape == tensor.shape and torch.equal(mine, tensor.to(mine.dtype)):
            same.add(name)
    return [name for name in places if name not in same and not but(name)]


def _places(module: nn.Module) -> dict[str, list[str]]:
    """Each tensor that the module keeps, by its first name, with all its names: a tied parameter has several."""
    found: dict[int, list[str]] = {}
    for name, tensor in module.state_dict(keep_vars=True).items():
        found.setdefault(id(tensor), []).append(name)
    return {names[0]: names for names in found.values()}


def _pairs(entries: Mapping[str, Stored], places: Mapping[str, list[str]], keymap: KeyMap | None, unused: Named) -> tuple[dict[str, list[str]], list[str]]:
    """The module's tensors, by first name, with what the files hold for each; and the files' names that nothing in the module is called by."""
    first = {alias: name for name, aliases in places.items() for alias in aliases}
    found: dict[str, list[str]] = {}
    surplus = []
    for key in entries:
        if unused(key):
            continue
        try:
            name = first.get(keymap(key) if keymap else key)
        except ValueError:
            name = None
        if name is None:
            surplus.append(key)
        else:
            found.setdefault(name, []).append(key)
    return found, surplus


def _faults(module: nn.Module, found: Mapping[str, list[str]], entries: Mapping[str, Stored], places: Mapping[str, list[str]]) -> Iterator[str]:
    """Tensors of another shape, and tensors that are there more often than the module has names for them."""
    for name, keys in found.items():
        shape = tuple(_at(module, name).shape)
        for key in keys:
            if entries[key].shape != shape:
                yield f"{key}: {list(entries[key].shape)} in the file, {list(shape)} in the model"
        if len(keys) > len(places[name]):
            yield f"{name}: held {len(keys)} times, as {', '.join(keys)}"


def _read(given: Mapping[str, str], entries: Mapping[str, Stored], device: Any) -> Iterator[tuple[str, Tensor]]:
    """The module's names with their tensors, on `device`; a file after the other, each opened once and mapped, not copied."""
    from safetensors import safe_open

    def file_of(name: str) -> Path:
        return entries[given[name]].file

    for file, names in groupby(sorted(given, key=file_of), key=file_of):
        with safe_open(str(file), framework="pt", device=str(device)) as opened:
            for name in names:
                yield name, opened.get_tensor(given[name])


def _cast(tensor: Tensor, name: str, dtype: Any) -> Tensor:
    """`tensor` in its dtype of `load`."""
    wanted = dtype(name) if callable(dtype) else dtype
    return tensor.to(wanted) if wanted is not None and tensor.is_floating_point() else tensor


def _at(module: nn.Module, name: str) -> Tensor:
    """The parameter or buffer of that name."""
    owner, _, leaf = name.rpartition(".")
    found: Tensor = getattr(module.get_submodule(owner), leaf)
    return found


def _put(module: nn.Module, names: list[str], tensor: Tensor) -> None:
    """`tensor` in place of the parameter or buffer that bears `names`; tied ones stay tied."""
    old = _at(module, names[0])
    new = nn.Parameter(tensor, requires_grad=old.requires_grad) if isinstance(old, nn.Parameter) else tensor
    for name in names:
        owner, _, leaf = name.rpartition(".")
        setattr(module.get_submodule(owner), leaf, new)
