"""Judge labels: lines are read strictly, the shipped schema is the model's own, a clip's frames are those of its stretch, groups stay together."""

import json
from pathlib import Path

import av
import jsonschema
import numpy as np
import pytest

from curation import judge_labels
from curation.clips import ClipError
from curation.judge_labels import SCHEMA, LabelledClip, frames_of_label, part_of, read_labels
from curation.limits import Limits
from curation.shots import SplitConfig

KNOWN = ("lecture", "low_quality")
LINE = {"schema": "pan-judge-label/1", "clip": {"video": "a.mp4", "start_s": 1.0, "end_s": 3.0}, "labels": {"lecture": True}, "annotator": "A"}


def written(folder: Path, *lines: object) -> Path:
    path = folder / "labels.jsonl"
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines) + "\n")
    return path


def test_lines_are_read_and_blank_ones_passed_over(tmp_path: Path) -> None:
    sample = {"clip": {"output": "out", "clip_id": "0a"}, "labels": {"low_quality": False, "lecture": True}, "source": "film 7", "weight": 0.5}
    one, two = read_labels(written(tmp_path, LINE, "", sample), KNOWN)
    assert (one.group, one.labels, one.weight, one.annotator) == ("a.mp4", {"lecture": True}, 1.0, "A")
    assert (two.group, two.labels, two.weight) == ("film 7", {"low_quality": False, "lecture": True}, 0.5)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({**LINE, "labels": {"lectur": True}}, "line 2: no such property: lectur; there are lecture, low_quality"),
        ({**LINE, "labels": {}}, "line 2: labels"),
        ({**LINE, "labels": {"lecture": "perhaps"}}, "line 2: labels.lecture"),
        ({**LINE, "clip": {"video": "a.mp4", "output": "out", "clip_id": "0a"}}, "give video .*, or output and clip_id"),
        ({**LINE, "clip": {"output": "out"}}, "give video .*, or output and clip_id"),
        ({**LINE, "clip": {"video": "a.mp4", "start_s": 3.0, "end_s": 3.0}}, "is not after start_s"),
        ({**LINE, "schema": "pan-judge-label/2"}, "line 2: schema"),
        ({**LINE, "lables": {}}, "line 2: lables"),
        ("{", "line 2: "),
    ],
)
def test_a_line_that_does_not_fit_is_named(tmp_path: Path, line: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_labels(written(tmp_path, LINE, line), KNOWN)


def test_no_labels_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no labels in it"):
        read_labels(written(tmp_path, ""), KNOWN)
    with pytest.raises(ValueError, match="cannot be read"):
        read_labels(tmp_path / "none.jsonl", KNOWN)


def test_the_shipped_schema_is_the_models_own_and_accepts_a_line() -> None:
    schema = json.loads((Path(judge_labels.__file__).parent / SCHEMA).read_text())
    assert schema == json.loads(json.dumps(LabelledClip.model_json_schema(by_alias=True)))
    jsonschema.validate(LINE, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"clip": {}}, schema)


def test_a_groups_part_is_always_the_same_and_parts_have_their_shares() -> None:
    parts = [part_of(f"video {k}", (0.2, 0.1)) for k in range(2000)]
    assert parts == [part_of(f"video {k}", (0.2, 0.1)) for k in range(2000)]
    assert [parts.count(p) / 2000 for p in range(3)] == pytest.approx([0.2, 0.1, 0.7], abs=0.03)


def video(path: Path, seconds: float) -> Path:
    """A square that walks, 16 frames a second."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=16)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for k in range(round(seconds * 16)):
            picture = np.full((64, 96, 3), 60, np.uint8)
            picture[20:40, k : k + 20] = 220
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        container.mux(stream.encode())
    return path


def test_frames_are_those_of_the_stretch(tmp_path: Path) -> None:
    path = video(tmp_path / "a.mp4", 4.0)
    label = LabelledClip.model_validate({"clip": {"video": path.name, "start_s": 1.0, "end_s": 3.0}, "labels": {"lecture": True}})
    frames = frames_of_label(label, path.parent, SplitConfig(), Limits())
    assert len(frames) == 8
    assert frames.time_s[0] == pytest.approx(1.0, abs=0.05)
    assert frames.time_s[-1] < 3.0
    whole = label.model_copy(update={"clip": label.clip.model_copy(update={"start_s": 0.0, "end_s": None})})
    assert len(frames_of_label(whole, path.parent, SplitConfig(), Limits())) == 16
    late = label.model_copy(update={"clip": label.clip.model_copy(update={"start_s": 90.0, "end_s": 91.0})})
    with pytest.raises(ClipError, match="too_short"):
        frames_of_label(late, path.parent, SplitConfig(), Limits())
