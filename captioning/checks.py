"""Checks: what a dense caption may not say of its clip, found without a model: against the text alone, and against what was measured."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import cv2
import numpy as np
from pydantic import ValidationError

from captioning import words
from captioning.events import chunk_spans
from captioning.measured import SLOW, SMALL, STILL, TEXT, ZOOM_SLOW, ZOOM_STILL
from captioning.moments import Moment, moments
from captioning.structure import Dense, OffGrid, fitted, one_line_of
from curation.frames import Frames

#: A chunk is frozen where no patch of the picture changes by so many gray levels between its samples: twice what a coarse encoder makes of a still picture.
FROZEN_LEVELS = 8.0
#: A claim about so much of the clip is also held against the camera filter's scores, which are means over the clip.
WHOLE = 0.8
#: From this share of the texts on that quote or speak of lettering, the caption is about the text and not about what happens.
OVERLAP = 0.5

WAYS = {
    "pan_left": "left",
    "pan_right": "right",
    "track_left": "left",
    "track_right": "right",
    "tilt_up": "up",
    "tilt_down": "down",
    "dolly_up": "up",
    "dolly_down": "down",
    "dolly_forward": "in",
    "dolly_backward": "out",
    "zoom_in": "in",
    "zoom_out": "out",
    "static": "static",
}
#: way -> (which of pan, tilt, zoom; its sign).
_AXES = {"left": (0, -1), "right": (0, 1), "up": (1, 1), "down": (1, -1), "in": (2, 1), "out": (2, -1)}
_LEAST, _CLEAR = (STILL, STILL, ZOOM_STILL), (SLOW, SLOW, ZOOM_SLOW)

REASONS = {
    "caption_invalid": "the answer is not of the asked form",
    "caption_unsafe": "an order to a model, a link, markup, or a character that is not shown",
    "caption_off_grid": "a time outside the clip, an interval without length, or chunks that are not the clip's",
    "caption_repeated": "one text for all chunks",
    "caption_static": "a text that tells of nothing that happens",
    "caption_contradicted": "the camera, or whether anything moves, was measured otherwise",
    "caption_text": "the caption is about lettering, although that was blurred",
    "caption_not_given": "the source's list tells nothing of one of the clip's chunks",
    "caption_unbound": "the answer is not about this clip's pictures",
}


class Unfit(ValueError):
    """A caption that must not be published as it is; its text begins with the reason and is what a model reads before its next try.

    Attributes:
        reason: a key of `REASONS`.
    """

    def __init__(self, reason: str, what: str) -> None:
        assert reason in REASONS
        super().__init__(f"{reason}: {what}")
        self.reason = reason


@dataclass(frozen=True)
class Evidence:
    """What is known of a clip without a model.

    Attributes:
        frames: its pictures.
        spans: [start, end) in s of its chunks.
        scores: its score columns; what is absent or null is not held against a caption.
    """

    frames: Frames
    spans: Sequence[tuple[float, float]]
    scores: Mapping[str, float | None]

    @classmethod
    def of(cls, frames: Frames, chunks: int, duration_s: float, scores: Mapping[str, float | None]) -> "Evidence":
        """Of a clip of `chunks` chunks.

        Raises:
            ClipError: "caption_invalid" where it has none.
        """
        return cls(frames, chunk_spans(chunks, duration_s), scores)

    def measure(self) -> None:
        """Measures now what the checks will ask for: in a thread beside a model that is still writing, it costs no time."""
        _ = self.moments, self.changes

    @property
    def end_s(self) -> float:
        """The clip's length in s."""
        return self.spans[-1][1]

    @cached_property
    def moments(self) -> list[Moment]:
        """What moves at each sample."""
        return moments(self.frames)

    @cached_property
    def changes(self) -> list[tuple[float, float]]:
        """(time in s, gray levels): the largest change of any patch from each sample to its neighbour and to the next sample."""
        rgb, start = self.frames.rgb, float(self.frames.time_s[0])
        lumas = [_patches(np.asarray(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY))) for picture in rgb]
        later = [_patches(picture) for picture in self.frames.next_luma]
        pairs = [(i, lumas[i + 1] if i + 1 < len(rgb) else later[i]) for i in range(len(rgb))]
        return [(float(self.frames.time_s[i]) - start, float(max(np.abs(b - lumas[i]).max(), np.abs(later[i] - lumas[i]).max()))) for i, b in pairs]

    def frozen(self, start_s: float, end_s: float) -> bool:
        """Whether nothing at all changes in the stretch; False where no sample lies in it."""
        levels = [level for t, level in self.changes if start_s <= t < end_s]
        return bool(levels) and max(levels) < FROZEN_LEVELS

    def camera(self, start_s: float, end_s: float) -> list[tuple[float, float, float]]:
        """Mean (pan, tilt, zoom) of the stretch as far as it was measured, right, up and in positive.

        From its own samples, and from the camera filter's scores where it is most of the clip.
        """
        here = [m for m in self.moments if start_s <= m.time_s < end_s and m.seen]
        found = [tuple(float(v) for v in np.mean([(m.pan, m.tilt, m.zoom) for m in here], axis=0))] if len(here) >= 2 else []
        names = ("camera_translation_x", "camera_translation_y", "camera_zoom", "camera_tracked")
        x, y, zoom, tracked = (self.scores.get(name) for name in names)
        if end_s - start_s >= WHOLE * self.end_s and x is not None and y is not None and zoom is not None and (tracked or 0.0) >= 0.5:
            found.append((-x, y, zoom))  # content that goes right or down: a camera that goes left or up
        return [(a, b, c) for a, b, c in found]

    @property
    def moved(self) -> bool | None:
        """Whether the camera moved at any time, as far as the camera filter tells; None where it was not measured."""
        names = ("camera_translation", "camera_zoom", "camera_shake")
        values = [self.scores.get(name) for name in names]
        known = [abs(value) for value in values if value is not None]
        return any(value > least for value, least in zip(known, (STILL, ZOOM_STILL, STILL), strict=True)) if len(known) == 3 else None

    def activity(self, start_s: float, end_s: float) -> float | None:
        """Mean share of the picture that moves apart from the camera; None where it was not measured."""
        here = [float(m.activity.sum()) for m in self.moments if start_s <= m.time_s < end_s and m.seen]
        return float(np.mean(here)) if here else None


def _patches(luma: Any) -> Any:
    """Means over patches of a 24th of the short side, float32: noise is averaged away, a moving fingertip is not."""
    side = max(4, min(luma.shape) // 24)
    return cv2.resize(luma, (max(1, luma.shape[1] // side), max(1, luma.shape[0] // side)), interpolation=cv2.INTER_AREA).astype(np.float32)


@dataclass(frozen=True)
class Found:
    """A caption that passed: on the grid, with what is to be known about it.

    Attributes:
        flags: "camera_unmeasured" (a claimed move that nothing could be held against), "text_not_measured" and "text_not_detected" (it speaks of
            lettering, and no detector ran, or found none).
        about_text: whether it is about lettering that was detected: worth a second look at pictures in which that is blurred.
    """

    dense: Dense
    flags: tuple[str, ...] = ()
    about_text: bool = False


@dataclass
class Check:
    """The check of one question's answer: called with its parsed JSON, raises `Unfit`.

    Attributes:
        evidence: of the clip.
    """

    evidence: Evidence
    flags: list[str] = field(default_factory=list)

    def __call__(self, value: Any) -> Found:
        """The caption as it will be kept.

        Raises:
            Unfit: the first rule that it breaks.
        """
        self.flags = []
        raw = dense_of(value)
        for text in raw.texts():
            if what := words.unsafe(one_line_of(text)):
                raise Unfit("caption_unsafe", f"a text holds {what}")
        try:
            dense = fitted(raw, self.evidence.spans)
        except OffGrid as fault:
            raise Unfit("caption_off_grid", str(fault)) from fault
        for rule in (self._repeated, self._static, self._moves, self._camera):
            rule(dense)
        about = self._about_text(dense)
        return Found(dense, tuple(dict.fromkeys(self.flags)), about)

    def _repeated(self, dense: Dense) -> None:
        texts = {words.plain(chunk.action) for chunk in dense.chunks}
        if len(dense.chunks) > 1 and len(texts) == 1:
            raise Unfit("caption_repeated", f"all {len(dense.chunks)} chunks have the same text; say of each what goes on in it alone")

    def _static(self, dense: Dense) -> None:
        for where, text in [*((f"chunk {c.chunk}", c.action) for c in dense.chunks), ("the whole clip's caption", dense.caption)]:
            if not words.says_motion(text) and not words.says_still(text):
                raise Unfit("caption_static", f"{where} tells of nothing that happens: {text[:120]!r}")

    def _moves(self, dense: Dense) -> None:
        """Action where nothing moves; rest where much does."""
        for chunk, (start, end) in zip(dense.chunks, self.evidence.spans, strict=True):
            moving = words.says_motion(chunk.action)
            if moving and self.evidence.frozen(start, end):
                raise Unfit("caption_contradicted", f"chunk {chunk.chunk} tells of action, but nothing in the picture changes there: {chunk.action[:120]!r}")
            if not moving and (self.evidence.activity(start, end) or 0.0) > SMALL:
                raise Unfit("caption_contradicted", f"chunk {chunk.chunk} tells of rest, but a part of the picture moves there: {chunk.action[:120]!r}")
        for actor in dense.actors:
            for action in actor.actions:
                if words.says_motion(action.action) and self.evidence.frozen(action.start_s, action.end_s):
                    when = f"from {action.start_s} to {action.end_s} s"
                    raise Unfit("caption_contradicted", f"{actor.name} is said to act {when}, but nothing in the picture changes there")

    def _camera(self, dense: Dense) -> None:
        """Moves that are claimed in the camera's stretches, in a chunk's text or in the whole clip's."""
        for shot in dense.camera:
            for move in shot.moves:
                if move in WAYS:
                    self._claim(WAYS[move], shot.start_s, shot.end_s, f"camera, {shot.start_s} to {shot.end_s} s: {move}")
        for chunk, (start, end) in zip(dense.chunks, self.evidence.spans, strict=True):
            for claim in words.camera_claims(chunk.action):
                self._claim(claim.way, start, end, f"chunk {chunk.chunk}: {claim.quote!r}")
        for claim in words.camera_claims(dense.caption):
            self._claim(claim.way, 0.0, self.evidence.end_s, f"the whole clip's caption: {claim.quote!r}")

    def _claim(self, way: str, start_s: float, end_s: float, where: str) -> None:
        measured = self.evidence.camera(start_s, end_s)
        if not measured:
            self.flags.append("camera_unmeasured")
        verdicts = [supports(way, motion, self.evidence.moved) for motion in measured]
        if False in verdicts and True not in verdicts:
            told = ", ".join(f"{name} {value:+.3f}" for name, value in zip(("pan", "tilt", "zoom"), measured[verdicts.index(False)], strict=True))
            raise Unfit("caption_contradicted", f"{where}, but the measured camera is {told} per second (right, up, in positive)")

    def _about_text(self, dense: Dense) -> bool:
        """Whether at least half of the texts speak of lettering, and lettering was detected.

        The detector finds where text is, not what it says, so overlap is judged by what gives a reading away: quoted words, and words such as
        "subtitle" or "the sign reads". A caption that repeats a sign's words without saying so is not found.
        """
        texts = [dense.caption, *(chunk.action for chunk in dense.chunks)]
        share = sum(map(words.speaks_of_text, texts)) / len(texts)
        if share == 0:
            return False
        areas = [self.evidence.scores.get(f"scene_text_{name}") for name in ("median_area", "max_area", "subtitle_area", "overlay_area")]
        if all(area is None for area in areas):
            self.flags.append("text_not_measured")
            return False
        if max(area or 0.0 for area in areas) < TEXT:
            self.flags.append("text_not_detected")
            return False
        return share >= OVERLAP


def supports(way: str, motion: tuple[float, float, float], moved: bool | None = None) -> bool | None:
    """Whether a measured (pan, tilt, zoom) supports a claimed way, contradicts it (False), or says neither (None).

    A claimed move is contradicted by one as clear as "slowly" in the opposite direction, and by a camera that rests in all three; a claimed rest by
    any clear move. What lies between says neither: the measure has its own errors before large subjects, which is also why rest does not count
    against a move where the camera filter has seen the camera move (`moved`), nor a move against rest where that has seen it rest.
    """
    if way == "static":
        clear = any(abs(value) > clear for value, clear in zip(motion, _CLEAR, strict=True))
        rests = all(abs(value) < 2 * least for value, least in zip(motion, _LEAST, strict=True))
        return (False if moved is not False else None) if clear else True if rests else None
    axis, sign = _AXES[way]
    along = sign * motion[axis]
    if along > _LEAST[axis]:
        return True
    rests = all(abs(value) < least / 2 for value, least in zip(motion, _LEAST, strict=True))
    return False if -along > _CLEAR[axis] / 2 or (rests and moved is not True) else None


def dense_of(value: Any) -> Dense:
    """The models' form of parsed JSON.

    Raises:
        Unfit: "caption_invalid".
    """
    try:
        return Dense.model_validate(value)
    except ValidationError as fault:
        first = fault.errors()[0]
        raise Unfit("caption_invalid", f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from fault
