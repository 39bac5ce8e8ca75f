"""The funnel counts every clip once in each stage that it entered."""

from curation.clips import table_of
from curation.vlm import Answer
from pipelines.funnel import answer_counts, count


def test_counts_by_stage() -> None:
    base = {"video_id": "v", "video_uri": "v.mp4"}
    table = table_of(
        [
            {**base, "kind": "video"},
            {**base, "kind": "video", "status": "failed", "error_code": "truncated"},
            {**base, "clip_id": "a", "reject": ["too_short"]},
            {**base, "clip_id": "b", "reject": ["static"], "stages": ["rules"]},
            {**base, "clip_id": "c", "stages": ["rules", "detectors", "caption", "cut"]},
            {**base, "clip_id": "d", "status": "failed", "error_code": "cut_mismatch", "stages": ["rules", "detectors", "caption"]},
        ]
    )
    funnel = count([table.slice(0, 3), table.slice(3)])
    rows = {s.stage: (s.given, s.kept, s.rejected, s.failed) for s in funnel.active()}
    assert rows == {
        "split": (4, 3, 1, 0),
        "rules": (3, 2, 1, 0),
        "detectors": (2, 2, 0, 0),
        "caption": (2, 2, 0, 0),
        "cut": (2, 1, 0, 1),
    }
    assert funnel.videos == {"ok": 1, "failed": 1}
    assert funnel.errors == {"truncated": 1}
    assert funnel.clips == 4


def test_answers_are_counted_by_prompt_and_reason() -> None:
    def record(prompt: str, reason: str | None, text: str = "") -> str:
        named = {"clip_id": "a", "model": "m", "revision": "", "prompt_version": prompt, "prompt_sha256": "0", "frames_sha256": "0"}
        return Answer(**named, text=text, value=None, reason=reason).record()

    misleading = '{"reason": "vlm_refused", "prompt_version": "other/1"}\n"reason": "no"'
    table = table_of(
        [
            {
                "clip_id": "a",
                "video_id": "v",
                "answers": [record("content/1", None, misleading), record("content/1", "vlm_refused"), record("captions/1", None)],
            },
            {"clip_id": "b", "video_id": "v", "answers": None},
            {"clip_id": "c", "video_id": "v", "answers": [record("content/1", None)]},
        ]
    )
    assert answer_counts(table) == {"captions/1": {"answered": 1}, "content/1": {"answered": 2, "vlm_refused": 1}}
    assert answer_counts(table.slice(1, 1)) == {}
