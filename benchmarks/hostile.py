"""Naturally broken videos through `pan curate`: the run must end, with each file in exactly one state and a typed reason.

    python benchmarks/hostile.py [FOLDER]

FOLDER is the corpus' hostile folder (labels.jsonl beside files/). Prints a table of what became of each file, and as its last line one JSON object.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[1]
DEFAULT = ROOT.parent / "shared" / "corpus" / "hostile"


def main() -> int:
    """Runs the command and prints the table."""
    cli = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    cli.add_argument("folder", nargs="?", type=Path, default=DEFAULT)
    folder = cli.parse_args().folder
    labels = folder / "labels.jsonl"
    if not labels.is_file():
        print(f"hostile: {labels} is not there: give the folder of labelled hostile videos")
        print(json.dumps({"hostile_run_ends": {"value": None, "target": 0, "met": None}}))
        return 0
    files = {json.loads(line)["file"]: json.loads(line)["defect"] for line in labels.read_text().splitlines() if line.strip()}
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "out"
        command = [sys.executable, str(ROOT / "pipelines" / "curate.py"), str(folder / "files"), "--out", str(out)]
        code = subprocess.run(command, stdout=subprocess.DEVNULL, timeout=1800).returncode
        ends = read(out)
    print(f"{'file':<52} {'defect':<34} end")
    for file, defect in sorted(files.items()):
        print(f"{Path(file).name:<52} {defect:<34} {ends.get(Path(file).name, ('LOST', ''))[0]}")
    print(dict(Counter(end for end, _ in ends.values())))
    lost = sorted(Path(f).name for f in files if Path(f).name not in ends)
    untyped = sorted(name for name, (end, error) in ends.items() if end == "failed" or (error and not end))
    figures = {
        "hostile_exit_code": {"value": code, "target": 0, "met": code == 0},
        "hostile_files_without_an_end": {"value": len(lost), "target": 0, "met": not lost},
        "hostile_failures_without_a_reason": {"value": len(untyped), "target": 0, "met": not untyped},
    }
    print(json.dumps(figures))
    return 0


def read(out: Path) -> dict[str, tuple[str, str]]:
    """{file name: (error code or status, detail)} from the published table of videos."""
    import pyarrow.parquet as pq

    manifest = json.loads((out / "manifest.json").read_text())
    rows = pq.read_table(out / manifest["files"]["videos"]["path"]).to_pylist()
    return {Path(r["video_uri"]).name: (r["error_code"] or r["status"], r["error_detail"] or "") for r in rows}


if __name__ == "__main__":
    sys.exit(main())
