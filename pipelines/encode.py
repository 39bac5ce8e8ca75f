"""Encode: published clips to latent shards: each clip's latents, texts, actions and what the vision tower sees, once for all epochs."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic import Field

from curation.config import Config
from curation.stage import Resources
from pipelines import strict_toml
from pipelines.exits import Exit, leave
from training.data.identity import EncodeSettings

if TYPE_CHECKING:
    import pyarrow as pa

    from curation.ledger import FrozenLedger
    from training.data.hearing import Hearing
    from training.data.latent_pack import Wanted

#: Failures that may lie in the storage rather than in the clip: the next run tries again.
PASSING = ("bad_sample", "io_error")
NULL = "_run/null.safetensors"


class Settings(Config):
    """All settings of `pan encode`."""

    encode: EncodeSettings = Field(default_factory=EncodeSettings, description="what the latents are; other settings need another folder")
    resources: Resources = Field(default_factory=Resources, description="of one encoder; num_gpus > 0 puts it on a GPU, `actors` is how many there are")
    max_failed: float = Field(0.05, ge=0, le=1, description="share of clips that may fail before the run ends with code 3; what could be encoded is published")

    def to_toml(self) -> str:
        """Every key with its value."""
        return strict_toml.dump(self)


def encode(shards: str, out: str, model: str, settings: Settings, cpus: int | None = None, counts: dict[str, Any] | None = None) -> Exit:
    """Encodes the clips that `shards` publishes into `out`; what an earlier run has encoded with this very model is not encoded again.

    Latents are kept under an address made of the encoders' weights, the settings, and the clip with its caption: after a `pan curate`, `rejudge` or
    `recaption` the same command encodes what is new, and publishes what is kept.

    Raises:
        ValueError: `shards` is no output, `model` no model, or `out` was begun with other encoders or settings (exit code 2).
    """
    from curation.ledger import FrozenLedger, Tail
    from curation.shards import load_manifest
    from curation.storage import Storage
    from pipelines import cluster, preflight, run, stream
    from pipelines.progress import Committed, shown
    from pipelines.simulate import tokenizer_of
    from training.data.hearing import Hearing
    from training.data.identity import identity
    from training.data.latent_pack import kept_null, publish
    from training.model.card import read_spec

    source = Storage.at(shards)
    manifest, spec = load_manifest(source), read_spec(Path(model))
    _different(shards, out)
    encoder, counts = identity(Path(model), spec, settings.encode), counts if counts is not None else {}
    hearing = Hearing(tokenizer_of(Path(model)), spec.text.tokens)
    listed = wanted(source, manifest, encoder, hearing)
    if hearing.cut:
        print(f"pan: warning: {hearing.text(spec.name)}", file=sys.stderr)
    with run.begin(out, settings, {"encoder": encoder}) as held:
        rows = to_do(listed, FrozenLedger.read(held.out))
        if rows.num_rows:
            cluster.connect(cpus)
            stage = stage_of(source, model, settings)
            preflight.check(held.out, [stage])
            tail = Tail(held.out)
            tail.fresh()
            with shown(Committed(tail.fresh, rows.num_rows, "clips encoded")):
                stream.run(rows, [stage], held, settings.resources, ending="safetensors")
        about = {"pack": manifest["pack"], "clips": manifest["totals"]["clips"]}
        null = kept_null(held.out, [NULL]) or null_text(Path(model), settings)
        if held.out.size(NULL) is None or held.out.read(NULL) != null:
            held.out.replace(NULL, null)
        made = publish(FrozenLedger.read(held.out), listed, about, encoder, null, held.lock.fence)
    failed = sum(made["failed"].values())
    counts |= {"clips": made["totals"]["clips"], "failed": made["failed"], "encoded_now": rows.num_rows, "bytes": made["totals"]["bytes"]}
    counts |= {"actions_cut": hearing.times, "texts_cut": hearing.cut, "texts_alike": hearing.alike}
    if listed and failed > settings.max_failed * len(listed):
        counts["over_budget"] = f"{failed} of {len(listed)} clips could not be encoded, allowed is a share of {settings.max_failed:g}: {made['failed']}"
        return Exit.OVER_BUDGET
    return Exit.COMPLETE


def wanted(source: Any, manifest: dict[str, Any], encoder: dict[str, Any], hearing: "Hearing | None" = None) -> "list[Wanted]":
    """Every clip that is published, in the order of the shards, with the address of its latents.

    Args:
        hearing: listens to every action.

    Raises:
        ValueError: the folder holds no clips.
    """
    from curation.sample import digest
    from training.data.identity import address
    from training.data.index import kind_of
    from training.data.latent_pack import Wanted
    from training.data.samples import Entry, sidecar_rows

    if kind_of(manifest, source) != "clips":
        raise ValueError(f"{source.root} holds latents already; give the output of `pan curate`")
    told, found = digest(encoder), []
    for shard in manifest["shards"]:
        for row in sidecar_rows(source, shard):
            found.append(Wanted(shard["split"], Entry.of(row, shard["path"], "clips"), address(told, row["binding"])))
            if hearing is not None:
                hearing.listen(event["text"] for event in row["events"] or ())
    return found


def to_do(listed: "Sequence[Wanted]", ledger: "FrozenLedger") -> "pa.Table":
    """The rows of clips that were never encoded, or failed for a fault that passes; ready for the stream."""
    from training.data.encode_clips import row_of, table_of

    clips = ledger.clips()
    ended = zip(*(clips[name].to_pylist() for name in ("clip_id", "error_code")), strict=True)
    done = {address for address, code in ended if code not in PASSING}
    return table_of([row_of(want.entry, want.address) for want in listed if want.address not in done])


def stage_of(source: Any, model: str, settings: Settings) -> Any:
    """The one stage: the model is loaded once a worker."""
    from functools import partial

    from curation.stage import Stage
    from training.data.encode_clips import EncodeClips

    resources = settings.resources
    if resources.num_gpus and resources.actors is None:
        resources = resources.model_copy(update={"actors": 1})
    make = partial(EncodeClips, source, str(Path(model).resolve()), settings.encode, "cuda" if resources.num_gpus else "cpu")
    return Stage(name="EncodeClips", make=make, resources=resources)


def null_text(model: Path, settings: Settings) -> bytes:
    """The empty text, encoded, as safetensors: what guidance leads away from."""
    from safetensors.torch import save

    from training.data.encoder import Encoder
    from training.model.card import read_spec

    return bytes(save({"text": Encoder.open(model, read_spec(model), settings.encode).text("")}))


def training(out: str, model: str) -> str:
    """The command that trains the model's first phase on these latents."""
    from pipelines import again
    from training.model.card import read_spec

    first = "alignment" if read_spec(Path(model)).connector == "qformer" else "decoder"
    return again.text(["pan", "train", "RUN", "--shards", out, "--model", model, "--phase", first])


def _different(shards: str, out: str) -> None:
    if "://" not in shards + out and Path(shards).resolve() == Path(out).resolve():
        raise ValueError(f"{out} holds the clips; give another folder for the latents")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    from pipelines import cluster, command_line

    cluster.authenticate()
    return command_line.run(command, arguments, "pan encode")


def command(
    shards: Annotated[str, typer.Argument(help="The output of `pan curate`.", show_default=False)],
    out: Annotated[str, typer.Argument(help="Folder or uri for the latents; a run that was killed is taken up there.", show_default=False)],
    model: Annotated[str, typer.Option(help="The model's folder, whose autoencoder and text encoder are used.", show_default=False)],
    sets: Annotated[list[str] | None, typer.Option("--set", help="KEY=VALUE, such as encode.dtype=float32 or resources.num_gpus=1.")] = None,
    cpus: Annotated[int | None, typer.Option(min=1, help="Logical CPUs of the local Ray; all by default. Not on a cluster.")] = None,
) -> int:
    """Clips to latent shards, for training: encode each clip once, with the model's frozen encoders."""
    from pipelines import again
    from pipelines.run import guarded

    def work(counts: dict[str, Any]) -> Exit:
        settings = strict_toml.build(Settings, strict_toml.apply_sets({}, sets or []), "--set")
        code = encode(shards, out, model, settings, cpus, counts)
        failed = "; ".join(f"{reason} {number}" for reason, number in counts["failed"].items())
        print(f"{counts['clips']} clips of latents in {out} ({counts['bytes'] / 1e6:.1f} MB), {counts['encoded_now']} encoded now; failed: {failed or 'none'}")
        if counts["clips"]:
            print(f"next: {training(out, model)}")
        return code

    return guarded(work, out, again.words(["pan", "encode", shards, out], {"--model": model, "--set": sets, "--cpus": cpus}))


if __name__ == "__main__":
    leave(main())
