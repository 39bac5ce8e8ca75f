"""Start images: upright, cropped, scaled, never stretched."""

from pathlib import Path

import numpy as np
from PIL import Image

from pipelines import start_image
from tests.training.made_world import wider


def test_the_picture_is_turned_upright_cropped_and_never_stretched(tmp_path: Path) -> None:
    made = np.zeros((100, 200, 3), np.uint8)
    made[:, 100:] = 255  # the right half is white
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by 90 degrees clockwise
    Image.fromarray(made).save(tmp_path / "turned.png", exif=exif)
    upright = start_image.opened(str(tmp_path / "turned.png"))
    assert upright.size == (100, 200)
    assert np.asarray(upright)[150].min() == 255  # white is below now
    wide = wider(height=64, width=96)
    assert start_image.film_size(wide, None, upright) == (64, 96)
    assert start_image.film_size(wide, None, Image.fromarray(made)) == (96, 64)
    assert start_image.film_size(wide, "32x16", upright) == (32, 16)
    fitted = start_image.fitted(Image.fromarray(made), 64, 64)
    assert (fitted.shape, fitted.dtype) == ((64, 64, 3), np.uint8)
    assert fitted[:, :28].max() < 8
    assert fitted[:, 36:].min() > 247
