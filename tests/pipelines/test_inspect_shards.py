"""pan status, verify, explain and inspect on an output whose every row is known."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from curation.binding import seal
from curation.clips import table_of
from curation.ledger import FrozenLedger
from curation.lock import acquire
from curation.pack import pack
from curation.plan import write_plan
from curation.sink import Ledger
from curation.verify import verify
from pipelines import explain, inspect_shards, recipe, status
from pipelines.cli import app
from pipelines.exits import Exit
from pipelines.judge import judge_ledger
from pipelines.outcome import outcome
from pipelines.run import RESOLVED, ended

STAGES = ["rules", "detectors", "caption", "cut"]
OFF = ("camera", "quality", "scene_text", "content")
SETTINGS = [*(f"filters.{name}.enabled=false" for name in OFF), "filters.motion.low=0.022", "filters.motion.high=1.2", "pack.val_share=0.0"]


def passing() -> dict[str, float]:
    """A value that every rule lets through, for each score of the enabled filters."""
    scores = {}
    for entry in recipe.load("local", SETTINGS).entries():
        for name in entry.columns():
            low = max((rule.low for rule in entry.rules if rule.score == name and rule.low is not None), default=None)
            high = min((rule.high for rule in entry.rules if rule.score == name and rule.high is not None), default=None)
            scores[name] = 0.1 if low is None and high is None else 2 * low + 0.01 if high is None else high / 2 if low is None else (low + high) / 2
    return scores | {"motion_flow": 0.1}


def clip(index: int, video: str = "aa" * 8, stages: list[str] = STAGES, **other: Any) -> dict[str, Any]:
    """A clip's row, kept unless `other` says otherwise."""
    data = f"mp4 {video} {index}".encode()
    whole = "cut" in stages
    mp4 = {"video": data, "video_sha256": hashlib.sha256(data).hexdigest(), "video_frames": 41, "video_fps": 16.0, "video_width": 320, "video_height": 240}
    text = {"events": [{"start_s": 0.0, "end_s": 2.5, "text": "it moves"}], "caption": "it moves", "caption_backend": "measured", "prompt_version": "1"}
    row = {
        "kind": "clip",
        "clip_id": f"{index:02d}{video[:14]}",
        "video_id": video,
        "video_uri": f"/videos/{video}.mp4",
        "provenance": "{}",
        "clip_index": index,
        "start_s": 3.0 * index,
        "end_s": 3.0 * index + 2.6,
        "start_pts": index,
        "end_pts": index + 1,
        "time_base": "1/1",
        "start_frame": index,
        "end_frame": index + 1,
        "chunks": 1,
        "fps": 25.0,
        "width": 640,
        "height": 360,
        "notes": [],
        "stages": stages,
        **(passing() if "rules" in stages else {}),
        **(text if "caption" in stages else {}),
        **(mp4 if whole else {}),
        **other,
    }
    return row | ({"caption_sha256": seal({"frames_sha256": None, "structure": None, **row})} if "caption" in stages else {})


def video(clips: int, name: str = "aa" * 8, **other: Any) -> dict[str, Any]:
    """A video's row."""
    stats = json.dumps({"clips": clips})
    return {"kind": "video", "video_id": name, "video_uri": f"/videos/{name}.mp4", "provenance": "{}", "stats": stats, **other}


ROWS = [
    clip(0),
    clip(1, motion_flow=0.9, width=1280, height=720),
    clip(2, stages=["rules"], motion_flow=0.001, reject=["static"]),
    clip(3, stages=["split"], reject=["too_short"], chunks=0),
    clip(4, stages=["rules"], status="failed", error_code="decode_error", error_detail="a [red]packet[/red]\x1b[31m"),
    video(5),
    video(0, "bb" * 8, status="failed", error_code="truncated", error_detail="ends early"),
]


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that died before it packed."""
    return begun(tmp_path_factory.mktemp("unpacked"))


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run."""
    out = begun(tmp_path_factory.mktemp("packed"))
    settings = recipe.load("local", SETTINGS)
    ledger = FrozenLedger.read(out)
    found = judge_ledger(ledger, settings.entries())
    reasons = {c: r for c, r in zip(found.clip_ids, found.reasons, strict=True) if r}
    pack(ledger, found.kept(), settings.pack_plan("0" * 64), reasons)
    ended(str(out), Exit.COMPLETE, "complete", {}, ["pan", "curate"])
    return out


def begun(out: Path) -> Path:
    settings = recipe.load("local", SETTINGS)
    held = acquire(out)
    write_plan(out, {"inputs": ["/videos"], "settings": settings.plan_settings()})
    (out / RESOLVED).write_text(settings.to_toml())
    scores = sorted({name for row in ROWS for name in row if name.startswith(("motion_", "color_"))})
    Ledger(out, held.fence).write([table_of(ROWS, scores)])
    held.release()
    return out


def test_overview_counts_everything_once(packed: Path) -> None:
    told = inspect_shards.overview(outcome(packed))
    assert told["clips"] == {"found": 5, "kept": 2, "rejected": 3, "pending": 0}
    assert told["videos"] == {"ok": 1, "failed": 1, "duplicate": 0}
    assert told["video_errors"] == {"truncated": 1}
    assert told["reasons"] == {"decode_error": 1, "static": 1, "too_short": 1}
    assert told["hours"] == {"found": round(5 * 2.6 / 3600, 6), "kept": round(2 * 2.6 / 3600, 6)}
    assert told["kept_resolution"] == {"1280x720": 1, "640x360": 1}
    assert told["kept_fps"] == {"25 to 30": 2}
    assert told["kept_duration_s"] == {"2.5 to 5": 2}
    assert told["splits"]["train"]["samples"] == 2
    flow = next(one for one in told["scores"] if one["name"] == "motion_flow")
    assert (sum(flow["kept"]), sum(flow["rejected"])) == (2, 2)
    json.dumps(told, allow_nan=False)


def test_overview_for_people_names_what_it_counts(packed: Path) -> None:
    text = inspect_shards.overview_text(outcome(packed))
    assert "2 kept of 5" in text
    assert "1 ok, 1 failed, 0 duplicates" in text
    assert "motion_flow" in text
    assert "below 0.022: static" in text


def test_listing_chooses_sorts_and_limits(packed: Path) -> None:
    found = outcome(packed)
    chosen = inspect_shards.listing(found, "motion_flow > 0.02 and kept", ["-motion_flow"], None)
    assert chosen["clip_id"].to_pylist() == [ROWS[1]["clip_id"], ROWS[0]["clip_id"]]
    assert inspect_shards.listing(found, None, ["clip_id"], 2).num_rows == 2
    assert inspect_shards.listing(found, '"static" in reasons', [], None)["clip_id"].to_pylist() == [ROWS[2]["clip_id"]]
    assert inspect_shards.listing(found, 'shard == "pan-train-000000"', [], None).num_rows == 2
    text = inspect_shards.listing_text(chosen, "motion_flow > 0.02", [])
    assert "motion_flow" in text
    assert "0.9" in text


def test_one_clip_by_the_first_digits_of_its_id(packed: Path) -> None:
    found = outcome(packed)
    row = inspect_shards.clip_row(found, "01")
    assert (row["kept"], row["shard"]) == (True, "pan-train-000000")
    assert "it moves" in inspect_shards.clip_text(row)
    for wrong in ("", "0", "zz"):
        with pytest.raises(ValueError, match=r"clips of .+ have this id"):
            inspect_shards.clip_row(found, wrong)


def test_arguments_that_a_view_does_not_take_are_refused(packed: Path) -> None:
    for view, name in (("show", None), ("ls", "01"), ("lss", None)):
        with pytest.raises(ValueError, match="pan inspect OUT ls"):
            inspect_shards.report(str(packed), view, name, None, [], None)


def test_a_terminal_gets_neither_control_characters_nor_markup(packed: Path) -> None:
    _, text = explain.report(str(packed), "04")
    assert "\x1b" not in text
    assert "[red]packet[/red]" in text


def test_explains_a_rejection_with_value_and_threshold(packed: Path) -> None:
    told, text = explain.report(str(packed), "02")
    assert (told["state"], told["reasons"]) == ("rejected", ["static"])
    rules = {rule["key"]: rule for stage in told["stages"] for rule in stage["rules"]}
    low = rules["filters.motion.low"]
    assert (low["verdict"], low["must_be"], low["threshold"], low["reason"]) == ("fail", "at least", 0.022, "static")
    assert low["value"] == pytest.approx(0.001)
    assert {rule["verdict"] for key, rule in rules.items() if key != "filters.motion.low"} == {"pass"}
    assert [stage["did"] for stage in told["stages"] if stage["stage"] in ("caption", "cut")] == ["did not run on this clip"] * 2
    assert "fail: static" in text


def test_explains_what_was_kept_refused_by_the_splitter_or_failed(packed: Path) -> None:
    assert explain.report(str(packed), "00")[0]["state"] == "kept"
    short = explain.report(str(packed), "03")[0]
    assert (short["reasons"], short["stages"][0]["did"]) == (["too_short"], "rejected")
    failed = explain.report(str(packed), "04")[0]
    assert (failed["state"], failed["reasons"], failed["error_code"]) == ("rejected", ["decode_error"], "decode_error")
    assert [stage["did"] for stage in failed["stages"] if stage["stage"] == "caption"] == ["failed: decode_error"]


def test_status_of_a_finished_run(packed: Path) -> None:
    told = status.status(str(packed))
    assert (told["state"], told["clips"], told["failed"], told["clip_failures"]) == ("complete", 5, {"truncated": 1}, {"decode_error": 1})
    assert told["published"]["clips"] == 2
    assert told["last_commit_age_s"] >= 0
    assert "complete (exit code 0)" in status.text(told)


def test_status_tells_a_dead_run_from_a_living_one(unpacked: Path) -> None:
    assert status.status(str(unpacked))["state"] == "begun"
    held = acquire(unpacked)
    assert status.status(str(unpacked))["state"] == "running"
    later = float(held.record["heartbeat_s"]) + float(held.record["lease_s"]) + 1
    told = status.status(str(unpacked), now=later)
    assert (told["state"], told["published"]) == ("died", None)
    assert "last sign of life" in status.text(told)
    held.release()


def test_a_run_that_was_told_to_stop_and_left_its_lock_has_not_died() -> None:
    """SIGTERM may end the process before it gives the lock back; it has said how it ended by then."""
    left = {"alive": False, "released": False, "last_sign_of_life_s": 30.0}
    stopped = {"name": "interrupted", "ended_s": 1000.0}
    assert status.state(left, stopped, 1020.0) == "interrupted"
    assert status.state(left, stopped, 1040.0) == "died"  # another command has held it since, and said nothing
    assert status.state(left, None, 1020.0) == "died"
    assert status.state(left | {"alive": True}, stopped, 1020.0) == "running"
    assert status.state(left | {"released": True}, stopped, 1040.0) == "interrupted"
    assert status.state(None, None, 0.0) == "begun"


def test_everything_but_shards_can_be_seen_before_packing(unpacked: Path) -> None:
    told = inspect_shards.overview(outcome(unpacked))
    assert (told["published"], told["clips"]["kept"], told["splits"]) == (False, 2, {})
    assert inspect_shards.clip_row(outcome(unpacked), "00")["shard"] is None


def test_what_is_no_output_is_the_users_fault(tmp_path: Path) -> None:
    for read in (lambda: status.status(str(tmp_path)), lambda: inspect_shards.report(str(tmp_path), "overview", None, None, [], None)):
        with pytest.raises(ValueError, match="not an output of `pan curate`"):
            read()


def test_the_fixture_is_a_sound_output(packed: Path) -> None:
    assert verify(packed, fast=True).problems == []


def pan(*args: str) -> tuple[int, Any]:
    """`pan args --json` in this process: exit code and what it printed."""
    done = CliRunner().invoke(app, [*args, "--json"])
    return done.exit_code, json.loads(done.stdout) if done.stdout else done.exception


def test_every_reading_command_prints_one_json_value(packed: Path) -> None:
    out = str(packed)
    assert pan("status", out)[1]["state"] == "complete"
    assert pan("explain", out, "02")[1]["reasons"] == ["static"]
    assert pan("inspect", out)[1]["clips"]["kept"] == 2
    assert [row["clip_id"] for row in pan("inspect", out, "ls", "--where", "kept", "--sort", "-start_s", "--limit", "1")[1]] == [ROWS[1]["clip_id"]]
    assert pan("inspect", out, "show", "01")[1]["kept"] is True
    assert pan("verify", out, "--fast")[1]["ok"] is True


def test_verify_ends_with_3_where_a_byte_has_changed(packed: Path, tmp_path: Path) -> None:
    out = tmp_path / "copy"
    shutil.copytree(packed, out, symlinks=True)
    (shard,) = out.glob("packs/*/train/*.tar")
    shard.chmod(0o644)
    data = bytearray(shard.read_bytes())
    data[700] ^= 1
    shard.write_bytes(bytes(data))
    code, told = pan("verify", str(out))
    assert (code, told["ok"]) == (3, False)
    assert {problem["kind"] for problem in told["problems"]} >= {"sha256"}


def test_verify_of_what_is_no_output_is_the_users_fault(tmp_path: Path) -> None:
    code, error = pan("verify", str(tmp_path))
    assert code == 1  # typer's runner: main() turns the ValueError into 2
    assert isinstance(error, ValueError)
