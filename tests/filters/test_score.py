"""ScoreClips: columns in order, rejected rows without frames, other rows untouched, faults recorded or noted."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import pyarrow as pa
import pytest

from curation.clips import ClipError, clip_schema, table_of
from curation.frames import Frames
from filters.base import Entry, Rule
from filters.score import ScoreClips


@dataclass
class Length:
    """Measures how many samples a clip has, or does what it was told."""

    scores: ClassVar[Mapping[str, str]] = {"samples": "count", "height": "px"}
    fault: Exception | None = None
    value: float | None = None
    seen: list[int] = field(default_factory=list)

    def score(self, frames: Frames) -> dict[str, float]:
        self.seen.append(len(frames))
        if self.fault:
            raise self.fault
        return {"samples": float(len(frames)) if self.value is None else self.value, "height": float(frames.rgb.shape[1])}


@dataclass
class Batch(Length):
    """Takes clips together; one of them may be at fault."""

    batches: list[int] = field(default_factory=list)

    def score_many(self, clips: Sequence[Frames]) -> list[dict[str, float]]:
        self.batches.append(len(clips))
        if self.fault:
            raise self.fault
        return [Length().score(clip) for clip in clips]


def stage(made: Length, *rules: Rule, name: str = "length", stage_name: str = "rules") -> ScoreClips:
    return ScoreClips([Entry(name, "rules", lambda: made, Length.scores, rules)], stage_name)


@pytest.fixture
def table(scene) -> pa.Table:
    """A long clip, a short one, and rows that are not to be measured."""
    base = {"video_id": "v", "video_uri": "v.mp4"}
    blobs = [scene(seconds=seconds, width=64, height=36).frames().to_bytes() for seconds in (2.0, 1.0)]
    rows = [
        {**base, "clip_id": "long", "frames": blobs[0], "stages": ["split"]},
        {**base, "clip_id": "short", "frames": blobs[1], "stages": ["split"]},
        {**base, "clip_id": "rejected", "reject": ["too_short"]},
        {**base, "clip_id": "failed", "status": "failed", "error_code": "truncated", "frames": blobs[0]},
        {**base, "kind": "video"},
    ]
    return table_of(rows)


TOO_FEW = Rule("low", "length_samples", "few", low=6)


def test_clips_are_measured_judged_and_marked(table: pa.Table) -> None:
    out = stage(Length(), TOO_FEW)(table).to_pylist()
    assert [row["length_samples"] for row in out] == [8.0, 4.0, None, None, None]
    assert [row["reject"] for row in out] == [[], ["few"], ["too_short"], [], []]
    assert [row["stages"] for row in out] == [["split", "rules"], ["split", "rules"], [], [], []]
    assert [row["frames"] is None for row in out] == [False, True, True, False, True]


def test_other_rows_pass_untouched(table: pa.Table) -> None:
    out = stage(Length(), TOO_FEW)(table)
    assert out.select(table.column_names).slice(2).equals(table.slice(2))
    assert out.column("frames")[0].as_py() == table.column("frames")[0].as_py()


@pytest.mark.parametrize("rows", [0, 5])
def test_the_schema_is_the_inputs_and_the_columns_whatever_the_rows(table: pa.Table, rows: int) -> None:
    out = stage(Length(), TOO_FEW)(table.slice(0, rows))
    assert out.schema == clip_schema(["length_samples", "length_height"])


def test_a_second_stage_adds_its_columns_behind_and_skips_what_the_first_rejected(table: pa.Table) -> None:
    later = Length()
    out = stage(later, name="later", stage_name="detectors")(stage(Length(), TOO_FEW)(table))
    assert out.column_names[-4:] == ["length_samples", "length_height", "later_samples", "later_height"]
    assert later.seen == [8]
    assert out["later_samples"].to_pylist() == [8.0, None, None, None, None]
    assert out["stages"].to_pylist()[:2] == [["split", "rules", "detectors"], ["split", "rules"]]


@pytest.mark.parametrize("made", [Length(fault=ClipError("no_texture")), Length(value=float("nan")), Length(value=float("inf"))])
def test_what_cannot_be_measured_is_null_and_rejected(table: pa.Table, made: Length) -> None:
    row = stage(made, TOO_FEW)(table).to_pylist()[0]
    assert row["length_samples"] is None
    assert row["reject"] == ["not_measured:length_samples"]
    assert row["frames"] is None


def test_our_own_fault_stops_the_job_with_the_clips_id(table: pa.Table) -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        stage(Length(fault=ZeroDivisionError()))(table)
    assert caught.value.__notes__ == ["filter Length, clip long"]


def test_unreadable_frames_are_our_fault(table: pa.Table) -> None:
    broken = table.set_column(table.schema.get_field_index("frames"), table.schema.field("frames"), pa.array([b"no frames"] * 5, pa.large_binary()))
    with pytest.raises(ValueError) as caught:
        stage(Length())(broken)
    assert caught.value.__notes__ == ["clip long: its frames could not be read back"]


def test_a_filter_that_takes_batches_gets_them(table: pa.Table) -> None:
    made = Batch()
    assert stage(made)(table)["length_samples"].to_pylist() == [8.0, 4.0, None, None, None]
    assert (made.batches, made.seen) == ([2], [])


def test_one_bad_clip_of_a_batch_costs_the_others_nothing(table: pa.Table) -> None:
    made = Batch(fault=ClipError("odd"))
    assert stage(made)(table)["length_samples"].to_pylist() == [None] * 5
    assert made.seen == [8, 4]


def test_filters_are_built_once(table: pa.Table) -> None:
    built = []
    entry = Entry("length", "rules", lambda: built.append(1) or Length(), Length.scores, ())
    score = ScoreClips([entry], "rules")
    score(table)
    score(table)
    assert built == [1]


def test_a_stage_that_is_behind_a_clip_leaves_it_alone(table: pa.Table) -> None:
    first, again = stage(Length(), TOO_FEW), Length()
    once = first(table)
    twice = stage(again, TOO_FEW)(once)
    assert again.seen == []
    assert twice.equals(once)


def test_names_must_differ_and_there_must_be_one() -> None:
    entry = Entry("length", "rules", Length, Length.scores, ())
    for entries in ([], [entry, entry]):
        with pytest.raises(ValueError, match="at least one filter, each once"):
            ScoreClips(entries, "rules")
