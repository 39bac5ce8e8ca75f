"""Start image: a picture file as the first frame of a film: read safely, upright, in the film's size."""

import warnings
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from training.model.spec import ModelSpec


def opened(path: str) -> Any:
    """A picture file as an upright RGB picture of Pillow's.

    Raises:
        ValueError: it is not there, no picture, damaged, or too large.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as picture:
                return ImageOps.exif_transpose(picture).convert("RGB")
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise ValueError(f"--image {path}: more pixels than a picture may have ({error}); make it smaller") from error
    except UnidentifiedImageError as error:
        raise ValueError(f"--image {path}: not a picture; give a PNG, JPEG or WebP file") from error
    except (OSError, SyntaxError, ValueError) as error:  # Pillow's own: some damaged files end it with the last two
        raise ValueError(f"--image {path} cannot be read: {getattr(error, 'strerror', None) or error}") from error


def film_size(spec: "ModelSpec", size: str | None, picture: Any) -> tuple[int, int]:
    """(width, height) of the film: `size`, or the model's own, turned upright for an upright picture.

    Raises:
        ValueError: no such size, or one that the model's tokens do not divide.
    """
    width, height = spec.width, spec.height
    if size is None:
        return (height, width) if (picture.height > picture.width) == (height < width) and picture.height != picture.width else (width, height)
    sides = size.lower().split("x")
    if len(sides) != 2 or not all(side.isascii() and side.isdecimal() and int(side) for side in sides):
        raise ValueError(f"--size {size}: give WIDTHxHEIGHT in px, such as {width}x{height}")
    width, height = (int(side) for side in sides)
    rows, columns = (spec.vae.spatial * side for side in spec.decoder.patch[1:])
    if width % columns or height % rows or max(width, height) > 8192:
        near = f"{max(columns, round(width / columns) * columns)}x{max(rows, round(height / rows) * rows)}"
        raise ValueError(f"--size {size}: width and height must be multiples of {columns} and {rows} up to 8192, a token's pixels; near it lies {near}")
    return width, height


def fitted(picture: Any, width: int, height: int) -> "npt.NDArray[np.uint8]":
    """The picture's middle in the film's shape, then scaled to it: uint8 RGB [height, width, 3]; nothing is stretched."""
    import numpy as np
    from PIL import Image, ImageOps

    return np.asarray(ImageOps.fit(picture, (width, height), Image.Resampling.LANCZOS), np.uint8)
