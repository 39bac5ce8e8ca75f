"""Text detectors that can stand behind scene_text: PP-OCR by ONNX Runtime from a wheel, or by PaddleOCR from a folder that the user names."""

import os
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
from pydantic import Field

from curation.config import Config
from curation.frames import U8

I32 = npt.NDArray[np.int32]

#: Settings of the DB head for both back ends, so that they agree. Source: rapidocr-onnxruntime 1.4.4's own config.yaml; PP-OCR's differ slightly.
THRESH, BOX_THRESH, UNCLIP_RATIO = 0.3, 0.5, 1.6


class SceneTextSettings(Config):
    """Which detector finds the text."""

    backend: Literal["rapidocr", "paddle"] = Field("rapidocr", description="rapidocr: PP-OCRv4 mobile on a CPU, weights in the wheel; paddle: PaddleOCR")
    model: str = Field("PP-OCRv4_mobile_det", description="PaddleOCR's name of the detector; for backend paddle")
    model_dir: str = Field("", description="its folder (inference.yml beside the weights); empty: PaddleOCR looks in its cache, else fetches it")
    engine: Literal["paddle", "onnxruntime"] = Field("paddle", description="what runs it; onnxruntime needs no paddlepaddle, and an inference.onnx")
    device: str = Field("cpu", description="cpu, gpu, gpu:0, ...; for backend paddle")
    batch: int = Field(16, ge=1, le=512, description="pictures of one size a forward pass; for backend paddle")


class Detector(Protocol):
    """Finds lines of text."""

    def detect_many(self, pictures: Sequence[U8]) -> list[list[I32]]:
        """Outlines of the text lines in each of uint8 [H, W, 3] RGB: int32 [N, 2] each, x and y in px; none = empty."""
        ...


class RapidOcr:
    """PP-OCRv4 mobile detector (DB head) by ONNX Runtime on one CPU thread; the weights lie in the wheel.

    The picture goes in at its own size, sides rounded to 32 px: at short side 256 a line of text counts from about 7 px height,
    and smaller ones are no obstruction.

    Source: PP-OCRv4, https://github.com/PaddlePaddle/PaddleOCR; settings as in rapidocr-onnxruntime 1.4.4's own config.yaml.

    Raises:
        ValueError: the package is not installed.
    """

    def __init__(self) -> None:
        try:
            import rapidocr_onnxruntime
            from rapidocr_onnxruntime.ch_ppocr_det import TextDetector
        except ImportError as fault:
            raise ValueError("scene_text needs rapidocr-onnxruntime: run `make install`, or leave scene_text out of the recipe") from fault

        model = Path(rapidocr_onnxruntime.__file__).parent / "models" / "ch_PP-OCRv4_det_infer.onnx"
        threads = {"intra_op_num_threads": 1, "inter_op_num_threads": 1, "use_cuda": False, "use_dml": False}
        size = {"limit_side_len": 32, "limit_type": "min", "mean": [0.5] * 3, "std": [0.5] * 3}
        heat = {"thresh": THRESH, "box_thresh": BOX_THRESH, "unclip_ratio": UNCLIP_RATIO, "use_dilation": True, "score_mode": "fast"}
        self._net = TextDetector({"model_path": str(model), **threads, **size, **heat})

    def detect_many(self, pictures: Sequence[U8]) -> list[list[I32]]:
        """Boxes of four corners each (`Detector.detect_many`), one picture after the other."""
        return [self._detect(picture) for picture in pictures]

    def _detect(self, rgb: U8) -> list[I32]:
        boxes, _ = self._net(np.ascontiguousarray(rgb[..., ::-1]))
        return [] if boxes is None else [np.round(box).astype(np.int32) for box in boxes]


class PaddleOcr:
    """PaddleOCR's TextDetection, on a CPU or a GPU; pictures of one size go through together.

    Source: PaddleOCR 3.7, module `TextDetection`. oneDNN is off: with paddlepaddle 3.3.1 its executor refuses this network.

    Raises:
        ValueError: PaddleOCR is not installed, or cannot load the detector.
    """

    def __init__(self, settings: SceneTextSettings) -> None:
        folder = settings.model_dir or None
        if folder is not None and not (Path(folder) / "inference.yml").is_file():
            raise ValueError(f"filters.scene_text.model_dir {folder}: there is no inference.yml in it; name the folder of a PaddleOCR detector")
        os.environ.setdefault("PADDLE_PDX_DISABLE_MODEL_SOURCE_CHECK", "True")  # a run never waits for hosts that it does not need
        try:
            from paddleocr import TextDetection
        except ImportError as fault:
            raise ValueError("filters.scene_text.backend = 'paddle' needs the extra ocr (paddleocr), or set backend = 'rapidocr'") from fault
        limits = {"limit_side_len": 32, "limit_type": "min", "thresh": THRESH, "box_thresh": BOX_THRESH, "unclip_ratio": UNCLIP_RATIO}
        onednn = {"enable_mkldnn": False} if settings.device == "cpu" and settings.engine == "paddle" else {}
        try:
            self._net: Any = TextDetection(model_name=settings.model, model_dir=folder, engine=settings.engine, device=settings.device, **limits, **onednn)
        except (ImportError, OSError, RuntimeError, ValueError) as fault:
            raise ValueError(f"filters.scene_text: PaddleOCR could not load {settings.model} from {folder or 'its cache'}: {fault}") from fault
        _dilate(self._net)
        self._batch = settings.batch

    def detect_many(self, pictures: Sequence[U8]) -> list[list[I32]]:
        """Outlines as the network gives them (`Detector.detect_many`), in the pictures' order."""
        found: dict[int, list[I32]] = {}
        for shape in sorted({p.shape for p in pictures}):
            rows = [i for i, p in enumerate(pictures) if p.shape == shape]
            bgr = [np.ascontiguousarray(pictures[i][..., ::-1]) for i in rows]
            for i, result in zip(rows, self._net.predict(bgr, batch_size=self._batch), strict=True):
                found[i] = [np.round(np.asarray(outline)).astype(np.int32) for outline in result["dt_polys"]]
        return [found[i] for i in range(len(pictures))]


def _dilate(net: Any) -> None:
    """Lets PaddleOCR grow its heat map by a pixel before it draws outlines, as RapidOCR does: the rules' bounds were found on such outlines.

    Its arguments cannot say so, only a model's own inference.yml (`use_dilation`), which is not ours to write.

    Raises:
        ValueError: this PaddleOCR draws its outlines in another way.
    """
    drawn_by: Any = getattr(getattr(net, "paddlex_predictor", None), "post_op", None)
    if not hasattr(drawn_by, "use_dilation"):
        raise ValueError("filters.scene_text: this PaddleOCR has no DBPostProcess to be told to dilate; install paddleocr 3.7 (`pip install -e .[ocr]`)")
    drawn_by.use_dilation = True


#: Adding a back end = one class with `detect_many` and one line here.
BACKENDS: Mapping[str, Callable[[SceneTextSettings], Detector]] = {"rapidocr": lambda _: RapidOcr(), "paddle": PaddleOcr}


@cache
def detector(settings: SceneTextSettings) -> Detector:
    """The worker's one detector of these settings: weights load once in a process.

    Raises:
        ValueError: its package or weights are missing.
    """
    return BACKENDS[settings.backend](settings)
