"""Verdicts from made ledger rows: what stands, what is judged again, what a clip still lacks."""

import pyarrow as pa

from curation.clips import table_of
from filters.base import Entry, Rule
from pipelines.judge import funnel, judge

MOTION = Entry("motion", "rules", lambda: None, {"flow": "1/s"}, (Rule("low", "motion_flow", "static", low=0.02),))  # type: ignore[arg-type,return-value]
TEXT = Entry("text", "detectors", lambda: None, {"area": "1"}, (Rule("high", "text_area", "subtitles", high=0.1),))  # type: ignore[arg-type,return-value]
ALL = ["rules", "detectors", "caption", "cut"]


def clips(*rows: dict[str, object]) -> pa.Table:
    made = [{"clip_id": f"c{i}", "video_id": "v", "video_uri": "v.mp4", **row} for i, row in enumerate(rows)]
    return table_of(made, ["motion_flow", "text_area"])


def test_kept_rejected_and_why() -> None:
    table = clips(
        {"motion_flow": 0.5, "text_area": 0.0, "stages": ALL},
        {"motion_flow": 0.01, "stages": ["rules"], "reject": ["static"]},
        {"motion_flow": 0.5, "text_area": 0.5, "stages": ["rules", "detectors"], "reject": ["subtitles"]},
    )
    verdicts = judge(table, [MOTION, TEXT])
    assert verdicts.reasons == [[], ["static"], ["subtitles"]]
    assert verdicts.kept() == ["c0"]
    assert verdicts.pending() == {}


def test_a_looser_threshold_names_the_missing_stages() -> None:
    table = clips({"motion_flow": 0.01, "stages": ["rules"], "reject": ["static"]})
    loose = Entry("motion", "rules", MOTION.make, MOTION.scores, (Rule("low", "motion_flow", "static", low=0.001),))
    verdicts = judge(table, [loose, TEXT])
    assert verdicts.kept() == []
    assert verdicts.pending() == {"c0": ["detectors", "caption", "cut"]}


def test_a_tighter_threshold_rejects_what_was_kept() -> None:
    table = clips({"motion_flow": 0.03, "text_area": 0.0, "stages": ALL})
    tight = Entry("motion", "rules", MOTION.make, MOTION.scores, (Rule("low", "motion_flow", "static", low=0.04),))
    assert judge(table, [tight, TEXT]).reasons == [["static"]]


def test_what_the_splitter_said_stands_and_a_missing_score_fails_closed() -> None:
    table = clips(
        {"reject": ["too_short"]},
        {"stages": ["rules"], "motion_flow": None},
        {"stages": ["rules"], "motion_flow": float("nan")},
        {"status": "failed", "error_code": "cut_mismatch", "stages": ["rules", "detectors", "caption"], "motion_flow": 0.5, "text_area": 0.0},
    )
    assert judge(table, [MOTION, TEXT]).reasons == [["too_short"], ["not_measured:motion_flow"], ["not_measured:motion_flow"], ["cut_mismatch"]]


def test_clips_of_a_failed_video_are_rejected() -> None:
    table = clips({"motion_flow": 0.5, "text_area": 0.0, "stages": ALL})
    assert judge(table, [MOTION, TEXT], frozenset({"v"})).reasons == [["video_failed"]]


def test_a_score_column_that_was_never_written_is_not_measured() -> None:
    table = clips({"stages": ALL, "motion_flow": 0.5}).drop_columns(["text_area"])
    assert judge(table, [MOTION, TEXT]).reasons == [["not_measured:text_area"]]


def test_the_funnel_follows_the_present_thresholds_and_not_the_past() -> None:
    table = clips({"motion_flow": 0.03, "text_area": 0.0, "stages": ALL}, {"motion_flow": 0.5, "text_area": 0.0, "stages": ALL})
    tight = Entry("motion", "rules", MOTION.make, MOTION.scores, (Rule("low", "motion_flow", "static", low=0.04),))
    verdicts = judge(table, [tight, TEXT])
    assert verdicts.fell_at == ["rules", None]
    counted = {s.stage: (s.given, s.kept, s.rejected) for s in funnel(table, table.slice(0, 0), verdicts).active()}
    assert counted == {"split": (2, 2, 0), "rules": (2, 1, 1), "detectors": (1, 1, 0), "caption": (1, 1, 0), "cut": (1, 1, 0)}
