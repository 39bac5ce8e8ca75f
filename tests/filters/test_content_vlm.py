"""Content, asked: log-probabilities become calibrated confidences; what was not answered is not measured; another model's calibration is refused."""

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from curation.clips import table_of
from curation.frames import Frames
from curation.vlm import SYSTEM, Question, Scripted, VlmConfig
from filters.base import Entry
from filters.catalog import CONTENT
from filters.content import PROPERTIES, ContentSettings
from filters.content_vlm import PROMPTS, Asked, Calibration, Line, confidence, fit_line, read_calibration, write_calibration
from filters.score import ScoreClips

MODEL = VlmConfig(model="someone/some-model", revision="7")


@pytest.fixture
def clip(scene: Callable[..., object]) -> Frames:
    found: Frames = scene(seconds=1.0, width=64, height=36).frames()  # type: ignore[attr-defined]
    return found


def scripted(logprobs: Callable[[Question], Sequence[float]], refuses: str = "") -> Scripted:
    return Scripted(lambda q: ("vlm_refused", "no") if q.prompt.name == refuses else "yes", chosen=logprobs)


def stage(vlm: Scripted, settings: ContentSettings | None = None) -> ScoreClips:
    entry = Entry("content", "content", lambda: Asked(settings or ContentSettings(backend="vlm", vlm=MODEL), vlm), PROPERTIES, CONTENT.rules)
    return ScoreClips([entry], "content")


def test_every_property_is_asked_behind_the_shared_system_text(clip: Frames) -> None:
    vlm = scripted(lambda q: (math.log(0.8), math.log(0.2)))
    scores, records = Asked(ContentSettings(vlm=MODEL), vlm).score_asked([clip, clip], ["a", "b"])[1]
    assert [(q.clip_id, q.prompt.name) for q in vlm.asked] == [(c, name) for c in "ab" for name in PROPERTIES]
    assert {q.prompt.system for q in vlm.asked} == {SYSTEM}
    assert all(q.choices == ("yes", "no") and q.frames is clip for q in vlm.asked)
    assert len({prompt.sha256 for prompt in PROMPTS.values()}) == len(PROPERTIES)
    assert scores == {name: pytest.approx(0.8) for name in PROPERTIES}
    assert {json.loads(record)["clip_id"] for record in records} == {"b"}


def test_unnormalised_log_probabilities_are_compared_with_each_other_alone(clip: Frames) -> None:
    scores = Asked(ContentSettings(vlm=MODEL), scripted(lambda q: (-9.0, -9.0 - math.log(3)))).score(clip)
    assert scores["lecture"] == pytest.approx(0.75)


def test_a_refusal_is_not_measured_and_fails_closed_with_its_reason_in_the_row(clip: Frames) -> None:
    sure_not = scripted(lambda q: (-9.0, -0.001), refuses="residual_cut")
    row = {"kind": "clip", "clip_id": "c", "video_id": "v", "video_uri": "v.mp4", "frames": clip.to_bytes(), "answers": ["earlier"]}
    out = stage(sure_not)(table_of([row, {**row, "clip_id": "d", "reject": ["static"]}])).to_pylist()
    assert out[0]["reject"] == ["not_measured:content_residual_cut"]
    assert out[0]["content_residual_cut"] is None
    assert out[0]["content_lecture"] < 0.01
    assert out[0]["frames"] is None
    assert out[0]["answers"][0] == "earlier"
    assert [json.loads(record)["reason"] for record in out[0]["answers"][1:]] == [None] * 5 + ["vlm_refused"]
    assert out[1]["answers"] == ["earlier"]
    assert out[1]["content_lecture"] is None


def test_an_answer_without_both_log_probabilities_is_not_measured(clip: Frames) -> None:
    assert Asked(ContentSettings(vlm=MODEL), scripted(lambda q: (-0.1,))).score(clip) == {}


def test_a_positive_property_rejects(clip: Frames) -> None:
    vlm = scripted(lambda q: (-0.01, -5.0) if q.prompt.name == "lecture" else (-5.0, -0.01))
    row = {"kind": "clip", "clip_id": "c", "video_id": "v", "video_uri": "v.mp4", "frames": clip.to_bytes()}
    assert stage(vlm)(table_of([row])).to_pylist()[0]["reject"] == ["lecture"]


def test_a_line_is_recovered_from_the_labels_that_it_makes() -> None:
    margins = [m / 10 for m in range(-100, 101)] * 10
    line = Line(slope=0.5, offset=1.0)
    truth = [(k * 0.61803398875) % 1 < confidence(m, line) for k, m in enumerate(margins)]
    found = fit_line(margins, truth)
    assert found.slope == pytest.approx(0.5, rel=0.15)
    assert found.offset == pytest.approx(1.0, abs=0.2)
    assert found.clips == len(margins)


def test_few_clean_labels_do_not_make_a_model_certain() -> None:
    found = fit_line([3.0, -3.0], [True, False])
    assert 0.8 < confidence(3.0, found) < 0.999
    with pytest.raises(ValueError, match="as many answers as labels"):
        fit_line([1.0], [])


def test_a_calibration_is_written_read_and_applied(tmp_path: Path, clip: Frames) -> None:
    path = tmp_path / "calibration.json"
    write_calibration(path, MODEL, {"lecture": Line(slope=2.0, offset=0.5)})
    asked = Asked(ContentSettings(backend="vlm", calibration=str(path), vlm=MODEL), scripted(lambda q: (-1.0, -2.0)))
    assert asked.score(clip)["lecture"] == pytest.approx(1 / (1 + math.exp(-2.5)))
    assert asked.score(clip)["low_quality"] == pytest.approx(1 / (1 + math.exp(-1.0)))


@pytest.mark.parametrize(
    ("vlm", "message"),
    [
        (MODEL.model_copy(update={"model": "another"}), "was fitted for model 'someone/some-model', but .* has 'another'"),
        (MODEL.model_copy(update={"revision": "8"}), "was fitted for revision '7'"),
    ],
)
def test_another_models_calibration_is_refused(tmp_path: Path, vlm: VlmConfig, message: str) -> None:
    path = tmp_path / "calibration.json"
    write_calibration(path, MODEL, {})
    with pytest.raises(ValueError, match=message):
        read_calibration(ContentSettings(calibration=str(path), vlm=vlm))


def test_another_wordings_or_adapters_calibration_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "calibration.json"
    write_calibration(path, MODEL, {})
    known = Calibration.model_validate_json(path.read_text())
    path.write_text(known.model_copy(update={"prompts": {**known.prompts, "lecture": "0"}}).model_dump_json())
    with pytest.raises(ValueError, match="another wording of lecture"):
        read_calibration(ContentSettings(calibration=str(path), vlm=MODEL))
    (tmp_path / "adapter_model.safetensors").write_bytes(b"weights")
    write_calibration(path, MODEL, {})
    with pytest.raises(ValueError, match="adapter_sha256"):
        read_calibration(ContentSettings(vlm=MODEL.model_copy(update={"adapter": str(tmp_path)})))  # the one beside the adapter, made without it
    with pytest.raises(ValueError, match="cannot be read"):
        read_calibration(ContentSettings(calibration=str(tmp_path / "none.json"), vlm=MODEL))


def test_the_calibration_beside_the_adapter_is_taken(tmp_path: Path) -> None:
    (tmp_path / "adapter_model.safetensors").write_bytes(b"weights")
    vlm = MODEL.model_copy(update={"adapter": str(tmp_path)})
    write_calibration(tmp_path / "calibration.json", vlm, {"lecture": Line(offset=1.0)})
    assert read_calibration(ContentSettings(vlm=vlm))["lecture"].offset == 1.0
    assert read_calibration(ContentSettings(vlm=MODEL)) == {}
