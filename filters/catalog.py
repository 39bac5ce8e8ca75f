"""The catalogue: every filter, where it runs, and the rules with the default thresholds that judge it."""

import difflib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from filters.aesthetic import AestheticSettings
from filters.base import Entry, Filter, Rule
from filters.content import PROPERTIES, ContentSettings
from filters.text_detector import SceneTextSettings


def _motion() -> Filter:
    from filters.motion import Motion

    return Motion()


def _camera() -> Filter:
    from filters.camera import Camera

    return Camera()


def _color() -> Filter:
    from filters.color import Color

    return Color()


def _quality() -> Filter:
    from filters.quality import Quality

    return Quality()


def _scene_text(settings: SceneTextSettings) -> Filter:
    from filters.scene_text import SceneText
    from filters.text_detector import detector

    detector(settings)  # its weights load here, where a missing one is the user's fault
    return SceneText(settings)


def _aesthetic(settings: AestheticSettings) -> Filter:
    from filters.aesthetic import Aesthetic

    return Aesthetic(settings)


def _content(settings: ContentSettings) -> Filter:
    if settings.backend == "vlm":
        from filters.content_vlm import Asked

        return Asked(settings)
    from filters.content import Measured

    return Measured()


# Source of every threshold below that names no other: benchmarks/curation_quality.py. Most stand where their meaning puts them; those of `camera` and
# `scene_text` (but corners) are chosen on shots labelled by eye and on vices made from good ones, and it prints what left-out videos make of them.
# PAN publishes no thresholds. Columns are named "{filter}_{score}"; a reason is named after the vice, as labels name it.

MOTION = Entry(
    "motion",
    "rules",
    _motion,
    {
        "flow": "share of the diagonal per s: 95th percentile over the picture, mean of the middle 80 % of the samples",
        "moving_share": "share of the picture that moves, mean over time",
        "stability": "1 = the same speed throughout; mean speed / (mean speed + mean change between samples)",
        "edge_diff": "share of edge pixels that a sample and its neighbour do not have in common, median over time",
        "luma_diff": "mean absolute luma difference between a sample and its neighbour, share of full range, mean over time",
        "flicker": "share of full range per s: swings of mean brightness that turn back within half a second",
        "static_share": "share of the samples in which nothing moves",
    },
    (
        # Frozen: compression noise of a still picture gives 0.002. What moves a little is judged by `camera`, which tells it from the camera's motion.
        Rule("low", "motion_flow", "static", low=0.004),
        # More than a diagonal a second for most of a clip: each pixel is seen in two or three frames only.
        Rule("high", "motion_flow", "extreme_motion", high=1.2),
        # Slides and still pictures with a movement now and then.
        Rule("static_share_high", "motion_static_share", "static", high=0.7),
        # A lamp that goes on and off once a second between 0 and half of full range gives 1.
        Rule("flicker_high", "motion_flicker", "flashing", high=0.5),
    ),
)

CAMERA = Entry(
    "camera",
    "rules",
    _camera,
    {
        "translation": "share of the diagonal per s: length of the mean shift, so back and forth cancels",
        "translation_x": "share of the diagonal per s, mean; positive = the picture's content goes right (the camera left)",
        "translation_y": "share of the diagonal per s, mean; positive = the picture's content goes down (the camera up)",
        "zoom": "relative growth per s, mean; positive = towards the scene",
        "shake": "share of the diagonal per s: mean deviation of the shift from its mean",
        "residual": "share of the diagonal per s: the scene's own motion, 98th percentile over textured pixels, exceeded in a third of the time",
        "still": "0 to 1: how calm the scene is, if the camera hardly moves (0 if it does)",
        "pan": "0 to 1: how calm the scene is, if the camera above all translates (0 if not): 1 = nothing happens but the pan",
        "zoom_only": "0 to 1: how calm the scene is, if the camera above all zooms (0 if not): 1 = nothing happens but the zoom",
        "tracked": "share of the steps in which the camera could be followed",
    },
    (
        # `residual` as calm = 0.01 / (0.01 + residual), so 0.45 says that at most 2 % of the textured picture move by themselves at more than 1.2 % of the
        # diagonal per second, for two thirds of the time: what shimmers or drifts stays below, people who only breathe lie just above.
        Rule("still_high", "camera_still", "static", high=0.45),
        # 1.04 % under a camera that moves, however it does: a painted ceiling under a turning wide lens and a field seen from a rising drone lie
        # below, people at a table while the camera draws back above. One bound for both, as they are chosen together.
        Rule("pan_high", "camera_pan", "uniform_pan", high=0.49),
        Rule("zoom_high", "camera_zoom_only", "uniform_zoom", high=0.49),
    ),
)

COLOR = Entry(
    "color",
    "rules",
    _color,
    {
        "head": "share of the first second's samples that are one colour",
        "tail": "share of the last second's samples that are one colour",
        "anywhere": "share of all samples that are one colour",
        "evenness": "share of the picture that has its most common colour, median over time",
        "contrast": "standard deviation of luma, share of full range, median over time",
    },
    (
        # One sample of four may be the flash of a cut that was not trimmed; two are a leader or a fade.
        Rule("head_high", "color_head", "pure_color_or_fade", high=0.3),
        Rule("tail_high", "color_tail", "pure_color_or_fade", high=0.3),
        Rule("anywhere_high", "color_anywhere", "pure_color_or_fade", high=0.2),
    ),
)

QUALITY = Entry(
    "quality",
    "rules",
    _quality,
    {
        "brisque": "BRISQUE, about 0 (clean) to 100 (bad), median of a few samples with contrast; 100 where none has",
        "sharpness": "gray levels per px: 99th percentile of the Laplacian's size at analysis scale, median over time",
        "dark_share": "share of pixels darker than 6 % of full range, median over time",
        "bright_share": "share of pixels brighter than 97 % of full range, median over time",
    },
    (
        # Drawings, screens and dark grounds lie high without being bad (see `Quality`): only what is far off.
        Rule("brisque_high", "quality_brisque", "low_quality", high=80.0),
        # Out of focus throughout; the softest pictures to keep have 30.
        Rule("sharpness_low", "quality_sharpness", "low_quality", low=15.0),
        Rule("dark_high", "quality_dark_share", "low_quality", high=0.95),
        Rule("bright_high", "quality_bright_share", "low_quality", high=0.95),
    ),
)

SCENE_TEXT = Entry(
    "scene_text",
    "detectors",
    _scene_text,
    {
        "area": "share of the picture, mean over the pictures looked at",
        "median_area": "share of the picture, median over the pictures looked at: what one false find cannot raise",
        "max_area": "share of the picture, largest of the pictures looked at",
        "persistent_area": "share of the picture x share of the pictures, over the places that hold lines of text that stay in place, in at least half of them",
        "overlay_area": "share of the picture that keeps holding text while the picture around it changes",
        "subtitle_area": "share of the picture: lines of text that stay in the lower third, centred",
        "corner_area": "share of the picture: lines of text that stay in a corner, within a tenth of the picture from two borders (a watermark, a logo)",
        "frames_with_text": "share of the pictures looked at",
    },
    (
        Rule("subtitle_high", "scene_text_subtitle_area", "subtitles", high=0.009),
        # A small corner logo covers 1 %, and is allowed; so are two.
        Rule("overlay_high", "scene_text_overlay_area", "overlay_text_large", high=0.02),
        # Text that stays over a still picture may be the scene's own. Peers reject from 2 % of a single frame (VideoX-Fun).
        Rule("persistent_high", "scene_text_persistent_area", "persistent_text", high=0.02),
        Rule("area_high", "scene_text_area", "text_dominated", high=0.1),
        # Not from the labels, which allow small corner logos (about 1 %): three times that is in the way.
        Rule("corner_high", "scene_text_corner_area", "watermark", high=0.03),
    ),
    settings=SceneTextSettings(),
)

AESTHETIC = Entry(
    "aesthetic",
    "detectors",
    _aesthetic,
    {
        "mean": "about 1 (ugly) to 10 (beautiful), mean over the pictures looked at",
        "min": "the same, lowest of the pictures looked at",
    },
    # Source: Cosmos and NeMo Curator reject below 3.5; 4.75 (Open-Sora Plan) would also take plain scenes that a world model has to know.
    (Rule("low", "aesthetic_mean", "not_aesthetic", low=3.5),),
    settings=AestheticSettings(),
    enabled=False,
)

CONTENT = Entry(
    "content",
    "content",
    _content,
    PROPERTIES,
    # Not chosen on labels: a good clip lost weighs as nine bad ones found (benchmarks/judge.py prints what that makes of labelled videos).
    (
        Rule("lecture_high", "content_lecture", "lecture", high=0.9),
        Rule("text_dominated_high", "content_text_dominated", "text_dominated", high=0.9),
        Rule("screen_recording_high", "content_screen_recording", "screen_recording", high=0.9),
        Rule("low_quality_high", "content_low_quality", "low_quality", high=0.9),
        Rule("heavily_edited_high", "content_heavily_edited", "heavily_edited", high=0.9),
        Rule("residual_cut_high", "content_residual_cut", "residual_cut", high=0.9),
    ),
    settings=ContentSettings(),
)

#: Cheapest first; every filter of a stage measures each clip that the stages before kept.
CATALOG: tuple[Entry, ...] = (
    MOTION,
    CAMERA,
    COLOR,
    QUALITY,
    SCENE_TEXT,
    AESTHETIC,
    CONTENT,
)


def with_thresholds(entries: Sequence[Entry], thresholds: Mapping[str, Mapping[str, float]] | None = None, disabled: Collection[str] = ()) -> tuple[Entry, ...]:
    """The entries without the disabled ones, with `thresholds` ({"motion": {"low": 0.02}}) in place of their rules' defaults.

    Raises:
        ValueError: an unknown filter or key; it names the nearest known one.
    """
    thresholds = thresholds or {}
    for name in [*thresholds, *disabled]:
        _known(name, [entry.name for entry in entries], "filters")
    return tuple(_changed(entry, thresholds.get(entry.name, {})) for entry in entries if entry.name not in disabled)


def thresholds_of(entry: Entry) -> dict[str, float]:
    """An entry's thresholds by their keys, as a recipe shows them."""
    return {rule.key: float(rule.low if rule.low is not None else rule.high) for rule in entry.rules}  # type: ignore[arg-type]


def _changed(entry: Entry, values: Mapping[str, float]) -> Entry:
    for key in values:
        _known(key, [rule.key for rule in entry.rules], f"filters.{entry.name}")
    return replace(entry, rules=tuple(_moved(rule, values[rule.key]) if rule.key in values else rule for rule in entry.rules))


def _moved(rule: Rule, bound: float) -> Rule:
    return replace(rule, low=bound) if rule.low is not None else replace(rule, high=bound)


def _known(name: str, known: Sequence[str], where: str) -> None:
    if name not in known:
        near = difflib.get_close_matches(name, known, 1, 0.0)
        raise ValueError(f"{where} has no {name!r}; did you mean {near[0]!r}?" if near else f"{where} has no {name!r}")
