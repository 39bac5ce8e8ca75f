"""Export: a model as safetensors for others; whole in PAN's layout, or its decoder as Wan's own code or diffusers reads it."""

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

import typer

from pipelines.exits import Exit, leave

if TYPE_CHECKING:
    from training.model.spec import DecoderSpec

Layout = Literal["pan", "wan", "diffusers"]
STEM = "diffusion_pytorch_model"  # what both of Wan's layouts call the decoder's files


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What was written.

    Attributes:
        out: the folder.
        layout: whose.
        tensors: how many of them, and their size in bytes.
        beside: PAN's parameters, for which the layout has no place: they lie in the folder `pan` beside.
    """

    out: str
    layout: Layout
    tensors: int
    bytes: int
    beside: int


def export(checkpoint: Path, out: Path, layout: Layout, dtype: str | None = None) -> Exported:
    """Writes the model in the folder `checkpoint` to `out`, which appears when all is written.

    Args:
        layout: "pan": a folder as `pan simulate` takes it, with all parts in it, also those that `checkpoint` only names. "wan", "diffusers": the decoder,
            as Wan2.1's `WanModel.from_pretrained` or diffusers' `WanTransformer3DModel.from_pretrained` takes it. What PAN adds to a block, the state's
            stream, is in neither of them: it lies beside, and a decoder without it computes what PAN's does without a state.
        dtype: "float32" or "bfloat16", of floating-point tensors; None: as stored.

    Raises:
        ValueError: `checkpoint` is no model, its files are not its model's, or there is something in `out`.
    """
    import torch

    from training.model.checkpoint import open_model, open_part, save_model
    from training.model.keymaps import renamed, to_diffusers
    from training.model.parts import BESIDE, own_names
    from training.model.tensor_files import save

    kind = None if dtype is None else getattr(torch, dtype)
    if layout == "pan":
        _must_be_free(out)
        save_model(out, open_model(checkpoint), dtype=kind)
        return _counted(out, layout)
    with _appearing(out) as partial:
        decoder = open_part(checkpoint, "decoder")
        own = own_names("decoder")
        weights, beside = ({name: tensor for name, tensor in decoder.state_dict().items() if own(name) == ours} for ours in (False, True))
        save(renamed(weights, to_diffusers) if layout == "diffusers" else weights, partial, stem=STEM, dtype=kind)
        (partial / "config.json").write_text(json.dumps(config(decoder.spec, layout), indent=2) + "\n", "utf-8")
        if beside:
            (partial / BESIDE).mkdir()
            save(beside, partial / BESIDE, dtype=kind)
    return _counted(out, layout)


def config(spec: "DecoderSpec", layout: Layout) -> dict[str, Any]:
    """The decoder's config.json. Source: Wan-AI/Wan2.1-T2V-14B and its -Diffusers folder, config.json."""
    if layout == "wan":
        return {
            "_class_name": "WanModel",
            "model_type": "t2v",
            "patch_size": list(spec.patch),
            "text_len": spec.text_tokens,
            "in_dim": spec.in_channels,
            "dim": spec.dim,
            "ffn_dim": spec.ffn,
            "freq_dim": spec.freq_dim,
            "text_dim": spec.text_dim,
            "out_dim": spec.out_channels,
            "num_heads": spec.heads,
            "num_layers": spec.layers,
            "eps": spec.eps,
        }
    return {
        "_class_name": "WanTransformer3DModel",
        "patch_size": list(spec.patch),
        "num_attention_heads": spec.heads,
        "attention_head_dim": spec.head_dim,
        "in_channels": spec.in_channels,
        "out_channels": spec.out_channels,
        "text_dim": spec.text_dim,
        "freq_dim": spec.freq_dim,
        "ffn_dim": spec.ffn,
        "num_layers": spec.layers,
        "cross_attn_norm": True,
        "qk_norm": "rms_norm_across_heads",
        "eps": spec.eps,
        "image_dim": None,
        "added_kv_proj_dim": None,
        "rope_max_seq_len": 1024,
        "pos_embed_seq_len": None,
    }


def text(exported: Exported) -> str:
    """For people."""
    line = f"{exported.out}: {exported.tensors} tensors, {exported.bytes / 1e9:.2f} GB, layout {exported.layout}"
    if not exported.beside:
        return line
    return f"{line}\n{exported.beside} of them are PAN's own and lie in {exported.out}/pan: Wan's layouts have no place for them, and its code runs without"


def _counted(out: Path, layout: Layout) -> Exported:
    """What lies in `out` now."""
    from training.model.parts import BESIDE
    from training.model.tensor_files import read_header

    headers = {file: read_header(file) for file in sorted(out.rglob("*.safetensors"))}
    entries = [entry for header in headers.values() for entry in header.values()]
    size = sum(entry["data_offsets"][1] - entry["data_offsets"][0] for entry in entries)
    beside = sum(len(header) for file, header in headers.items() if file.parent == out / BESIDE)
    return Exported(out=str(out), layout=layout, tensors=len(entries), bytes=size, beside=beside)


def _must_be_free(out: Path) -> None:
    """Raises ValueError where something is in the way."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out}: there is something already; give a new folder")


@contextmanager
def _appearing(out: Path) -> Iterator[Path]:
    """A folder to write into, which becomes `out` when all went well, and nothing otherwise."""
    _must_be_free(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.parent / f".{out.name}.{os.getpid()}.partial"
    partial.mkdir()
    try:
        yield partial
        os.replace(partial, out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    from pipelines import command_line

    return command_line.run(command, arguments, "pan export")


def command(
    checkpoint: Annotated[str, typer.Argument(help="A PAN folder: model.json and its weights.", show_default=False)],
    out: Annotated[str, typer.Argument(help="The folder to write; it must not exist yet, or be empty.", show_default=False)],
    layout: Annotated[str, typer.Option(help="pan: the whole model; wan or diffusers: its decoder, as they name it.")] = "pan",
    dtype: Annotated[str | None, typer.Option(help="float32 or bfloat16; as stored by default.", show_default=False)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")] = False,
) -> int:
    """Write a model as safetensors: whole, or its decoder for Wan's own code or for diffusers."""
    for option, value, known in (("--layout", layout, get_args(Layout)), ("--dtype", dtype or "float32", ("float32", "bfloat16"))):
        if value not in known:
            raise ValueError(f"{option} {value}: there are {', '.join(known)}")
    done = export(Path(checkpoint), Path(out), layout, dtype)  # type: ignore[arg-type]
    print(json.dumps(asdict(done)) if as_json else text(done))
    return Exit.COMPLETE


if __name__ == "__main__":
    leave(main())
