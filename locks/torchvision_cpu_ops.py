"""Lets torchvision's CUDA wheel be imported beside a CPU build of torch; `python torchvision_cpu_ops.py` installs it where that is so.

torchvision 0.28.0 from the package registry is linked against CUDA. Beside a CPU build of torch its operators do not load, and `import torchvision` ends with
"operator torchvision::nms does not exist", and with it open_clip, timm, Qwen's processors and vLLM. They only need the two operators' names at import,
never the operators: so these are named, without an implementation, and a call to one still fails. Where the operators load, nothing is done.
A .pth file imports this module in every process of the environment, Ray's workers and vLLM's children among them.
"""

import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

WATCHED = "torchvision.extension"
OPERATORS = {
    "nms": "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}


class Naming:
    """The watched module's own loader; when the module has run and has found no operators, they are named."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """As the module's own loader does."""
        return self._loader.create_module(spec)  # type: ignore[no-any-return]

    def exec_module(self, module: ModuleType) -> None:
        """As the module's own loader does; then names the operators."""
        self._loader.exec_module(module)
        if not module._has_ops():
            name_operators()


class Finder:
    """Finds the watched module as Python would, with `Naming` as its loader."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Python's own spec of the watched module with another loader; None, which lets Python go on, for all others."""
        spec = PathFinder.find_spec(name, path, target) if name == WATCHED else None
        if spec is not None and spec.loader is not None:
            spec.loader = Naming(spec.loader)  # type: ignore[assignment]
        return spec


def name_operators() -> None:
    """Defines the operators' schemas in torch's registry, once a process."""
    import torch

    for name, schema in OPERATORS.items():
        if not hasattr(torch.ops.torchvision, name):
            torch.library.define(f"torchvision::{name}", schema.removeprefix(name))


def install() -> str:
    """Copies this file and its .pth into this Python's site-packages where torch is a CPU build; says what was done."""
    import sysconfig
    from pathlib import Path

    import torch

    if torch.version.cuda is not None:
        return f"torch {torch.__version__} has CUDA: torchvision's operators load, nothing to do"
    here, site = Path(__file__), Path(sysconfig.get_paths()["purelib"])
    (site / here.name).write_bytes(here.read_bytes())
    (site / f"{here.stem}.pth").write_text(f"import {here.stem}\n")
    return f"torch {torch.__version__} is a CPU build: torchvision's operators are named through {site / here.stem}.pth"


if __name__ == "__main__":
    print(install())
elif not any(finder is Finder for finder in sys.meta_path):
    sys.meta_path.insert(0, Finder)
