"""pan encode on a local Ray cluster: clips to latents that a loader reads, taken up after a kill, with the house's exit codes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from curation.ledger import FrozenLedger
from pipelines import encode, status
from pipelines.exits import Exit
from pipelines.outcome import outcome
from pipelines.publish import recipe_of
from tests.curation.made_rows import published
from tests.training.data import made_clips
from tests.training.data.made_latents import encode as encode_here
from training.data.loader import Loader
from training.model.checkpoint import init_model, save_model
from training.model.spec import SPECS


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight clips, one of them too small, and a model."""
    folder = tmp_path_factory.mktemp("encode")
    made = [made_clips.clip(folder, v, 1 + v % 2) for v in range(7)]
    made_clips.published(folder / "clips", [*made, made_clips.clip(folder, 7, 1, height=48)])
    save_model(folder / "model", init_model(SPECS["debug"], seed=3))
    return folder


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.usefixtures("ray_local")
def test_a_killed_encode_is_taken_up_and_ends_with_the_same_bytes(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, arguments = place / "latents", [str(place / "clips"), str(place / "latents"), "--model", str(place / "model"), "--set", "encode.dtype=float32"]
    code = "import sys; from pipelines.encode import main; sys.exit(main(sys.argv[1:]))"
    first = subprocess.Popen([sys.executable, "-c", code, *arguments, "--cpus", "1"], start_new_session=True)
    try:
        until = time.monotonic() + 200
        while not list((out / "_run/ledger").glob("*.parquet")) and first.poll() is None and time.monotonic() < until:
            time.sleep(0.05)
    finally:
        os.killpg(first.pid, signal.SIGKILL)  # the driver, and the Ray that it started
        first.wait()
    committed = FrozenLedger.read(out).clips().num_rows
    assert committed >= 1
    assert encode.main(arguments) == Exit.OVER_BUDGET  # 1 of 8 clips failed, more than 0.05
    told = json.loads((out / "_run/exit.json").read_text())
    assert told["counts"]["failed"] == {"too_small_px": 1}
    assert told["counts"]["encoded_now"] <= 8 - committed  # a worker that outlived the driver by a moment may have committed one more
    assert f"7 clips of latents in {out}" in capsys.readouterr().out
    encode_here(place / "clips", place / "here", place / "model")
    with_ray, here = published(out), published(place / "here")
    assert {name: data for name, data in with_ray.items() if name.endswith(".tar")} == {
        name.replace(*packs(place / "here", out)): data for name, data in here.items() if name.endswith(".tar")
    }
    assert encode.main([*arguments, "--set", "max_failed=0.2"]) == Exit.COMPLETE
    assert json.loads((out / "_run/exit.json").read_text())["counts"]["encoded_now"] == 0
    assert sum(len([k for k in batch.keys if k]) for batch in Loader(out, SPECS["debug"], phase="joint", batch=2, workers=0)) == 7


def packs(one: Path, other: Path) -> tuple[str, str]:
    """The names of two outputs' packs: they say which clips' pack they are of, and these tests tell that differently."""
    return tuple(json.loads((out / "manifest.json").read_text())["pack"] for out in (one, other))  # type: ignore[return-value]


def test_faults_of_the_user_are_said_before_any_cluster(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clips, model = str(place / "clips"), str(place / "model")
    for arguments, text in (
        ([str(tmp_path / "nothing"), str(tmp_path / "out"), "--model", model], f"there is no folder {tmp_path / 'nothing'}: give one that `pan curate`"),
        ([str(tmp_path), str(tmp_path / "out"), "--model", model], "has no manifest.json: nothing has been published there yet"),
        ([clips, str(tmp_path / "out"), "--model", str(tmp_path)], "no model.json there"),
        ([clips, clips, "--model", model], "give another folder for the latents"),
        ([clips, str(tmp_path / "out"), "--model", model, "--set", "encode.dtpe=float32"], "encode.dtype"),
        ([clips, str(tmp_path / "out"), "--model", model, "--set", "encode.buckets=[[40, 64]]"], "multiples of 16 px"),
    ):
        assert encode.main(arguments) == Exit.USAGE
        assert text in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_another_model_needs_another_folder(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    encode_here(place / "clips", tmp_path / "out", place / "model")
    (tmp_path / "out/_run/plan.json").write_text(json.dumps({"encoder": {"weights": {"vae": {"model.safetensors": "0"}}}}))
    assert encode.main([str(place / "clips"), str(tmp_path / "out"), "--model", str(place / "model")]) == Exit.USAGE
    assert "begun with another plan" in capsys.readouterr().err


@pytest.mark.ray
@pytest.mark.slow
def test_commands_of_clips_say_that_these_are_latents_and_status_tells_of_them(place: Path) -> None:
    out = str(place / "latents")
    told = status.status(out)
    assert (told["state"], told["clips"], told["published"]["clips"]) == ("complete", 8, 7)
    assert "MB of latents" in status.text(told)
    for read in (outcome, recipe_of):
        with pytest.raises(ValueError, match="holds latents of `pan encode`"):
            read(out)
