"""Makers of good and bad videos whose truth is known by construction; nothing binary lies in the repository."""

import struct
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt

U8 = npt.NDArray[np.uint8]
WIDTH, HEIGHT = 128, 96


def scene(index: int, width: int = WIDTH, height: int = HEIGHT) -> U8:
    """uint8 [height, width, 3]: a soft texture that moves, a red mark top left, a green bar at the bottom, and a patch as bright as `index` says."""
    y, x = np.mgrid[0:height, 0:width]
    texture = 110 + 40 * np.sin((x + 3 * index) / 9) * np.cos(y / 7)
    image = np.repeat(texture[..., None], 3, axis=2)
    image[: height // 4, : width // 4] = (220, 30, 30)
    image[-height // 6 :] = (30, 200, 30)
    image[height // 3 : 2 * height // 3, width // 3 : 2 * width // 3] = brightness(index)
    return np.asarray(image, np.uint8)


def brightness(index: int) -> int:
    """The grey of frame `index`'s patch: the next frame's differs by at least 18 levels."""
    return 30 + 19 * (index % 11)


def index_of(luma: U8) -> int:
    """`index % 11` of the frame whose upright picture has this luma (full range)."""
    height, width = luma.shape
    patch = float(np.median(luma[2 * height // 5 : 3 * height // 5, 2 * width // 5 : 3 * width // 5]))
    return round((patch - 30) / 19)


def make_video(
    path: Path,
    images: Sequence[U8] | int = 24,
    codec: str = "libx264",
    rate: int | Fraction = 24,
    size: tuple[int, int] = (WIDTH, HEIGHT),
    pix_fmt: str = "yuv420p",
    options: dict[str, str] | None = None,
    pts: Sequence[int] | None = None,
    time_base: Fraction | None = None,
    mux: dict[str, str] | None = None,
    form: str | None = None,
    prepare: Callable[[Any, Any], None] | None = None,
    dress: Callable[[Any], None] | None = None,
) -> Path:
    """Writes a video of `images`, or of that many `scene`s.

    Args:
        pts: presentation times in `time_base`; 0, 1, ... in 1/rate if not given.
        prepare: called with the container and the video stream before the first frame.
        dress: called with every frame before it is encoded (colour tags, interlacing).
    """
    images = [scene(i, *size) for i in range(images)] if isinstance(images, int) else images
    with av.open(str(path), "w", format=form, options=mux or {}) as container:
        stream: Any = container.add_stream(codec, rate=rate, options=options or {})
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt = pix_fmt
        stream.codec_context.thread_count = 1
        stream.codec_context.time_base = time_base or 1 / Fraction(rate)
        if prepare:
            prepare(container, stream)
        for number, image in enumerate(images):
            form_of = "rgba" if image.shape[2] == 4 else "rgb24"
            frame = av.VideoFrame.from_ndarray(image, format=form_of).reformat(format=pix_fmt, threads=1)
            frame.pts, frame.time_base = pts[number] if pts else number, stream.codec_context.time_base
            if dress:
                dress(frame)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def add_sound(container: Any, seconds: float = 1.0) -> None:
    """A silent AAC stream, written at once."""
    stream = container.add_stream("aac", rate=48000)
    frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
    frame.sample_rate = 48000
    for number in range(int(seconds * 48000 / 1024)):
        frame.pts = number * 1024
        container.mux(stream.encode(frame))
    container.mux(stream.encode())


def sound_only(path: Path, cover: bool = False) -> Path:
    """An MP4 (or M4A with cover art) without moving pictures."""
    with av.open(str(path), "w", format="mp4") as container:
        if cover:
            picture: Any = container.add_stream("png", rate=1)
            picture.width, picture.height, picture.pix_fmt = WIDTH, HEIGHT, "rgb24"
            picture.disposition = av.stream.Disposition.attached_pic
            frame = av.VideoFrame.from_ndarray(scene(0), format="rgb24")
            frame.pts = 0
            packets = [*picture.encode(frame), *picture.encode()]
        add_sound(container)
        if cover:
            container.mux(packets)
    return path


def boxes(data: bytes | bytearray, start: int = 0, stop: int | None = None) -> list[tuple[bytes, int, int]]:
    """(type, first byte, end) of the MP4 boxes in [start, stop)."""
    found, stop = [], len(data) if stop is None else stop
    while start + 8 <= stop:
        length, name = struct.unpack_from(">I4s", data, start)
        found.append((name, start, start + length))
        start += max(length, 8)
    return found


def find_box(data: bytes | bytearray, *names: bytes) -> tuple[int, int]:
    """(first byte, end) of the box at a path such as moov, trak, mdia."""
    start, stop = 0, len(data)
    for depth, name in enumerate(names):
        begin = start + 8 if depth else 0
        start, stop = next((first, end) for kind, first, end in boxes(data, begin, stop) if kind == name)
    return start, stop


STBL = (b"moov", b"trak", b"mdia", b"minf", b"stbl")


def patched(path: Path, at: int, value: bytes) -> Path:
    """The file with `value` written over the bytes from `at` on."""
    data = bytearray(path.read_bytes())
    data[at : at + len(value)] = value
    path.write_bytes(data)
    return path


def encrypt(path: Path) -> Path:
    """A faststart H.264 MP4's sample entry renamed to 'encv', with 'sinf' and 'tenc' behind it, and its pictures scrambled (as CENC leaves them)."""
    data = bytearray(path.read_bytes())
    scheme = b"\0\0\0\x0cfrmaavc1" + b"\0\0\0\x14schm\0\0\0\0cenc\0\x01\0\0"
    tenc = b"\0\0\0\x20tenc\0\0\0\0\0\0\x01\x08" + bytes(range(16))
    schi = struct.pack(">I4s", 8 + len(tenc), b"schi") + tenc
    sinf = struct.pack(">I4s", 8 + len(scheme) + len(schi), b"sinf") + scheme + schi
    entry = find_box(data, *STBL, b"stsd")[0] + 16
    entry_stop = entry + struct.unpack_from(">I", data, entry)[0]
    data[entry + 4 : entry + 8] = b"encv"
    parents = [find_box(data, *[*STBL, b"stsd"][: depth + 1])[0] for depth in range(len(STBL) + 1)]
    for at in [*parents, entry]:
        struct.pack_into(">I", data, at, struct.unpack_from(">I", data, at)[0] + len(sinf))
    data[entry_stop:entry_stop] = sinf
    table = find_box(data, *STBL, b"stco")[0]
    for k in range(struct.unpack_from(">I", data, table + 12)[0]):
        at = table + 16 + 4 * k
        struct.pack_into(">I", data, at, struct.unpack_from(">I", data, at)[0] + len(sinf))
    media, stop = find_box(data, b"mdat")
    noise = np.random.default_rng(0).integers(0, 256, stop - media - 8, dtype=np.uint8)
    data[media + 8 : stop] = noise.tobytes()
    path.write_bytes(data)
    return path


def add_content_encryption(path: Path) -> Path:
    """A WebM whose track declares AES encryption (ContentEncodings); its pictures stay as they are. Source: RFC 9559, 5.1.4.1.31."""
    encryption = bytes.fromhex("5035 88 47e1 81 05 47e2 81 01")
    encoding = bytes.fromhex("5031 81 00 5032 81 01 5033 81 01") + encryption
    encodings = b"\x6d\x80" + bytes([0x83 + len(encoding)]) + b"\x62\x40" + bytes([0x80 + len(encoding)]) + encoding
    data = bytearray(path.read_bytes())
    tracks = data.rindex(b"\x16\x54\xae\x6b", 0, data.index(b"\x1f\x43\xb6\x75"))  # a list of what lies where names it before
    entry, stop = tracks + 5, tracks + 5 + data[tracks + 4] - 0x80
    assert data[entry : entry + 2] == b"\xae\x01", "FFmpeg writes one track, its size in eight bytes"
    struct.pack_into(">Q", data, entry + 1, struct.unpack_from(">Q", data, entry + 1)[0] + len(encodings))
    data[tracks + 4] += len(encodings)
    data[stop:stop] = encodings
    path.write_bytes(data)
    return path
