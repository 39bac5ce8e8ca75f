"""What a film that was written shows."""

from pathlib import Path

from curation.limits import Limits
from curation.video import Video


def times(film: Path) -> list[float]:
    """When each frame of a film is shown, in s."""
    with Video(str(film), Limits(min_frames=1, min_side_px=2, max_fps=1e3)) as video:
        return [picture.time_s for picture in video.pictures()]
