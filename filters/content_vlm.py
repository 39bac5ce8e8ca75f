"""Asked: PAN's six properties put to a vision-language model as yes-or-no questions, and the calibration that makes its answers confidences."""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import Field, ValidationError

from curation.config import Config
from curation.frames import Frames
from curation.vlm import SYSTEM, Answer, Prompt, Question, Vlm, VlmConfig, open_vlm
from filters.content import PROPERTIES, ContentSettings, logistic

F64 = npt.NDArray[np.float64]

CHOICES = ("yes", "no")
#: What is asked of each property. Source: PAN, section 6.2.3, names the properties; the wording is ours.
ASKED: Mapping[str, str] = {
    "lecture": "Is this a lecture, a presentation or a talk: slides, or a person who mainly speaks to the camera or an interviewer while little else happens?",
    "text_dominated": "Is written text the main thing to be seen for most of the clip, such as a page, a title card, credits or large captions?",
    "screen_recording": "Is this a recording of a computer, phone or game screen: windows, a desktop, a web page, or a game with its bars and counters?",
    "low_quality": "Is the picture technically poor throughout: out of focus, heavily compressed into blocks, very noisy, or enlarged from a tiny source?",
    "heavily_edited": "Is the picture put together by editing: a split screen, a picture in the picture, added frames or stickers, or heavy effects?",
    "residual_cut": "Does the clip contain a cut, a dissolve or another transition, so that its beginning and its end come from different shots?",
}
VERSION = "content/1"
PROMPTS: Mapping[str, Prompt] = {name: Prompt(name, VERSION, SYSTEM, f"{text} Answer yes or no.") for name, text in ASKED.items()}
#: The file that `pipelines/train_judge.py` writes beside an adapter.
BESIDE_ADAPTER = "calibration.json"


class Line(Config):
    """Confidence = 1 / (1 + exp(-(slope x (log p(yes) - log p(no)) + offset))): 1 / slope is a temperature."""

    slope: float = Field(1.0, gt=0, description="below 1 where the model is too sure of itself")
    offset: float = Field(0.0, description="moves what it says too often or too seldom")
    clips: int = Field(0, ge=0, description="labelled clips that it was fitted on")


class Calibration(Config):
    """What turns one model's log-probabilities into confidences; fitted on labels, and of no use for another model or another wording."""

    format: str = Field("pan-judge-calibration/1", pattern="^pan-judge-calibration/1$", description="of this file")
    model: str = Field(..., min_length=1, description="the model's name: what its folder, or the server, calls it")
    revision: str = Field("", description="of the model")
    adapter_sha256: str = Field("", description="of the adapter's weights; empty = none")
    prompts: dict[str, str] = Field(..., description="sha256 of each property's question")
    lines: dict[str, Line] = Field(..., description="a property's line; one that is missing has slope 1 and offset 0")

    def check(self, vlm: VlmConfig, where: str) -> None:
        """Raises:
        ValueError: it belongs to another model, revision, adapter or wording than the recipe's.
        """
        asked = {"model": model_name(vlm.model), "revision": vlm.revision, "adapter_sha256": adapter_sha256(vlm.adapter)}
        for name, value in asked.items():
            if getattr(self, name) != value:
                raise ValueError(f"{where} was fitted for {name} {getattr(self, name)!r}, but [vlm] has {value!r}: fit it anew with pipelines/train_judge.py")
        for name, prompt in PROMPTS.items():
            if self.prompts.get(name) != prompt.sha256:
                raise ValueError(f"{where} was fitted for another wording of {name} than {VERSION}: fit it anew with pipelines/train_judge.py")


class Asked:
    """The six confidences from a model's log-probabilities of yes and no.

    Each question stands behind the same system text and the same pictures as the captioner's, so that an engine encodes a clip's video once.
    What was refused, cut off, or never answered is missing: not measured, and so rejected.

    Raises:
        ValueError: the model is not named, the calibration cannot be read, or it belongs to another model.
    """

    scores: ClassVar[Mapping[str, str]] = PROPERTIES

    def __init__(self, settings: ContentSettings, vlm: Vlm | None = None) -> None:
        if vlm is None and not settings.vlm.model:
            raise ValueError('filters.content.backend is "vlm", but [vlm] names no model: set vlm.model, or filters.content.backend="measured"')
        self.lines = read_calibration(settings)
        self.vlm = vlm or open_vlm(settings.vlm)

    def score(self, frames: Frames) -> dict[str, float]:
        """The confidences of one clip."""
        return self.score_asked([frames], [""])[0][0]

    def score_asked(self, clips: Sequence[Frames], clip_ids: Sequence[str]) -> list[tuple[dict[str, float], list[str]]]:
        """Each clip's confidences, without those that no answer gave, and its answers' records."""
        answers = self.vlm.answer([question(name, frames, clip) for frames, clip in zip(clips, clip_ids, strict=True) for name in PROPERTIES])
        of_clip = [answers[i : i + len(PROPERTIES)] for i in range(0, len(answers), len(PROPERTIES))]
        return [(self._confidences(found), [answer.record() for answer in found]) for found in of_clip]

    def _confidences(self, answers: Sequence[Answer]) -> dict[str, float]:
        margins = {name: margin(answer) for name, answer in zip(PROPERTIES, answers, strict=True)}
        return {name: confidence(value, self.lines.get(name, Line())) for name, value in margins.items() if value is not None}


def question(name: str, frames: Frames, clip_id: str) -> Question:
    """One property asked of one clip."""
    return Question(clip_id, frames, PROMPTS[name], choices=CHOICES, max_tokens=4)


def margin(answer: Answer) -> float | None:
    """log p(yes) - log p(no); None where there is no answer or either is not known."""
    if answer.reason is not None or len(answer.logprobs) != len(CHOICES) or not all(map(math.isfinite, answer.logprobs)):
        return None
    return answer.logprobs[0] - answer.logprobs[1]


def confidence(value: float, line: Line) -> float:
    """A margin as a confidence."""
    return logistic(line.slope * value + line.offset)


def fit_line(margins: Sequence[float], truth: Sequence[bool], ridge: float = 1.0) -> Line:
    """The line under which the labels are most likely, drawn a little towards slope 1 and offset 0 (`ridge`, in clips).

    Source: Platt, "Probabilistic outputs for support vector machines", 1999; with offset 0 it is temperature scaling (Guo et al., ICML 2017).

    Raises:
        ValueError: no margins, or not as many as labels.
    """
    if not len(margins) or len(margins) != len(truth):
        raise ValueError(f"a calibration needs as many answers as labels, at least one: got {len(margins)} and {len(truth)}")
    x, y = np.asarray(margins, np.float64), np.asarray(truth, np.float64)
    log_slope, offset, lowest = 0.0, 0.0, math.inf
    for s in np.linspace(-5, 5, 201):  # the slope's logarithm on a grid, the offset by Newton's method: one cannot lead the other astray
        o = _offset(np.exp(s) * x, y, ridge)
        z = np.exp(s) * x + o
        cost = float(np.sum(np.logaddexp(0, z) - y * z)) + ridge * (s * s + o * o) / 2
        if cost < lowest:
            log_slope, offset, lowest = float(s), o, cost
    return Line(slope=round(math.exp(log_slope), 6), offset=round(offset, 6), clips=len(y))


def _offset(z: F64, y: F64, ridge: float) -> float:
    found = 0.0
    for _ in range(50):
        p = np.array([logistic(v) for v in z + found])
        step = (float(np.sum(p - y)) + ridge * found) / (float(np.sum(p * (1 - p))) + ridge)
        found -= max(-2.0, min(2.0, step))
    return found


def read_calibration(settings: ContentSettings) -> dict[str, Line]:
    """The lines that the settings name, or that lie beside the adapter; {} where there are none.

    Raises:
        ValueError: the file is not there, is no calibration, or belongs to another model.
    """
    beside = Path(settings.vlm.adapter) / BESIDE_ADAPTER
    path = Path(settings.calibration) if settings.calibration else beside if settings.vlm.adapter and beside.is_file() else None
    if path is None:
        return {}
    try:
        found = Calibration.model_validate_json(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, ValidationError) as fault:
        raise ValueError(f"filters.content.calibration {path} cannot be read: {str(fault).splitlines()[0]}") from fault
    found.check(settings.vlm, str(path))
    return found.lines


def write_calibration(path: Path, vlm: VlmConfig, lines: Mapping[str, Line]) -> None:
    """Writes what `read_calibration` reads."""
    prompts = {name: prompt.sha256 for name, prompt in PROMPTS.items()}
    found = Calibration(model=model_name(vlm.model), revision=vlm.revision, adapter_sha256=adapter_sha256(vlm.adapter), prompts=prompts, lines=dict(lines))
    path.write_text(json.dumps(found.model_dump(), indent=1, sort_keys=True) + "\n", "utf-8")


def model_name(model: str) -> str:
    """A folder's last part; any other name as it is."""
    return Path(model).resolve().name if Path(model).is_dir() else model


def adapter_sha256(folder: str) -> str:
    """Of an adapter's weights, in hex; "" without an adapter.

    Raises:
        ValueError: the folder holds no adapter.
    """
    if not folder:
        return ""
    weights = Path(folder) / "adapter_model.safetensors"
    if not weights.is_file():
        raise ValueError(f"vlm.adapter {folder} holds no adapter_model.safetensors: name a folder that pipelines/train_judge.py wrote")
    return hashlib.sha256(weights.read_bytes()).hexdigest()
