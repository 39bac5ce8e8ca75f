"""The console script: light to start, every command has help, faults end with the right code."""

import json
import subprocess
import sys
from pathlib import Path

from curation.plan import write_plan
from tests.curation import made_rows as made

ROOT = Path(__file__).parents[2]
HEAVY = ("ray", "torch", "cv2", "pyarrow", "numpy", "av", "scenedetect", "onnxruntime", "pandas", "webdataset")
COMMANDS = (
    "",
    "curate",
    "rejudge",
    "recaption",
    "demo",
    "assemble",
    "simulate",
    "export",
    "plan",
    "recipe",
    "recipe show",
    "recipe check",
    "recipe diff",
    "status",
    "verify",
    "gc",
    "explain",
    "inspect",
)


def pan(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "pipelines.cli", *args], cwd=ROOT, capture_output=True, text=True, timeout=120)


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom pipelines.cli import app\n"
        f"for command in {COMMANDS!r}:\n"
        "    try: app([*command.split(), '--help'])\n"
        "    except SystemExit as end: assert not end.code, end.code\n"
        f"    print('heavy:', command, sorted(set({HEAVY!r}) & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stdout.splitlines() if line.startswith("heavy:")] == [f"heavy: {command} []" for command in COMMANDS]
    assert done.stdout.count("Usage:") == len(COMMANDS)


def test_recipe_check_tells_every_problem_and_ends_with_2(tmp_path: Path) -> None:
    bad = tmp_path / "bad.toml"
    bad.write_text("[resources.split]\nnum_cpu = 2\n[resources.cut]\nnum_cpus = -1\n")
    done = pan("recipe", "check", str(bad))
    assert done.returncode == 2
    assert done.stderr.splitlines()[0] == f"pan: {bad}: resources.split.num_cpu: unknown key; did you mean resources.split.num_cpus?"
    as_json = pan("recipe", "check", str(bad), "--json")
    assert as_json.returncode == 2
    assert len(json.loads(as_json.stdout)["problems"]) == 2


def test_recipe_show_is_a_recipe_again(tmp_path: Path) -> None:
    shown = pan("recipe", "show", "local", "--set", "resources.cut.num_cpus=0.5")
    assert shown.returncode == 0
    again = tmp_path / "again.toml"
    again.write_text(shown.stdout)
    assert json.loads(pan("recipe", "diff", "local", str(again), "--json").stdout) == {"resources.cut.num_cpus": {"left": 1.0, "right": 0.5}}


def test_an_unknown_recipe_names_the_known_ones() -> None:
    done = pan("recipe", "show", "nowhere")
    assert done.returncode == 2
    assert "neither a packaged recipe (blockworld, local, pan) nor a file" in done.stderr


def test_an_unknown_command_ends_with_2() -> None:
    assert pan("curat").returncode == 2


def test_verify_says_what_is_wrong_and_how_to_mend_it_which_works(tmp_path: Path) -> None:
    write_plan(tmp_path, {"inputs": []})
    made.curate(tmp_path, made.corpus(videos=3))
    before = made.published(tmp_path)
    shard = next((tmp_path / "packs").rglob("*.tar"))
    data = bytearray(shard.read_bytes())
    data[2000] ^= 1
    shard.write_bytes(data)
    done = pan("verify", str(tmp_path))
    assert done.returncode == 3
    assert f"sha256: {shard.relative_to(tmp_path)}: its bytes have changed since it was published" in done.stdout
    assert "to mend: remove the damaged files" in done.stdout
    shard.unlink()
    made.curate(tmp_path, made.corpus(videos=3))
    assert made.published(tmp_path) == before
    assert pan("verify", str(tmp_path), "--json").returncode == 0


def test_an_output_that_cannot_be_written_ends_with_4_and_says_why(tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    (tmp_path / "file").write_text("")
    done = pan("curate", str(tmp_path / "videos"), "--out", str(tmp_path / "file" / "out"))
    assert done.returncode == 4
    assert "file/out cannot be written: Not a directory; choose another --out" in done.stderr
    assert "Traceback" not in done.stderr
