"""Containers and codecs that may be decoded: sniffed by their first bytes, never by a file's name."""

import struct
from collections.abc import Iterator
from typing import BinaryIO

from curation.clips import ClipError

SNIFF_BYTES = 8192

#: Demuxers by sniffed kind. ISO-BMFF, Matroska, AVI, MPEG-TS and FLV are what video corpora hold; program streams, RealMedia
#: and bare H.264/HEVC streams come up in old and scraped ones, and their demuxers open no other file.
DEMUXERS: dict[str, str] = {
    "mov": "mov",
    "matroska": "matroska",
    "avi": "avi",
    "mpegts": "mpegts",
    "flv": "flv",
    "mpeg": "mpeg",
    "rm": "rm",
    "hevc": "hevc",
    "h264": "h264",
}

#: Decoders by FFmpeg's codec id. MJPEG and PNG are left out (still pictures in disguise), and so is every game or screen codec.
CODECS: tuple[str, ...] = (
    "h264",
    "hevc",
    "vp8",
    "vp9",
    "av1",
    "mpeg4",
    "mpeg2video",
    "mpeg1video",
    "prores",
    "h263",
    "flv1",
    "rv10",
    "rv20",
)

#: Containers in which a seek lands on a key frame with true timestamps; the others are read from their start.
SEEKABLE = frozenset({"mov", "matroska"})

_BOXES = frozenset({b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot", b"styp", b"sidx", b"moof", b"uuid"})
_MAX_HEADER = 64 << 20


def sniff(head: bytes) -> str:
    """The kind of container (a key of `DEMUXERS`) that begins with `head`.

    Raises:
        ClipError: unsupported_container; text, playlists, pictures, audio and everything unknown.
    """
    if len(head) >= 8 and head[4:8] in _BOXES:
        return "mov"
    if head[:4] == b"\x1a\x45\xdf\xa3":
        return "matroska"
    if head[:4] == b"RIFF" and head[8:11] == b"AVI":
        return "avi"
    if head[:3] == b"FLV":
        return "flv"
    if head[:4] == b".RMF":
        return "rm"
    if head[:4] == b"\x00\x00\x01\xba":
        return "mpeg"
    if _is_transport_stream(head):
        return "mpegts"
    return _annex_b(head)


def _is_transport_stream(head: bytes) -> bool:
    """Sync bytes at five successive packets of 188 (or, with a timestamp or parity, 192 or 204) bytes."""
    for size in (188, 192, 204):
        for start in range(min(size, max(0, len(head) - 4 * size))):
            if all(head[start + k * size] == 0x47 for k in range(5)):
                return True
    return False


def _annex_b(head: bytes) -> str:
    """Bare H.264 or HEVC by the parameter sets in front of the first picture.

    Raises:
        ClipError: unsupported_container.
    """
    if head[:3] == b"\x00\x00\x01" or head[:4] == b"\x00\x00\x00\x01":
        types = [head[i + 3] for i in range(len(head) - 4) if head[i : i + 3] == b"\x00\x00\x01"]
        if {(t >> 1) & 0x3F for t in types if not t & 0x81} >= {32, 33, 34}:
            return "hevc"
        if {t & 0x1F for t in types if not t & 0x80} >= {7, 8}:
            return "h264"
    raise ClipError("unsupported_container", f"begins with {head[:16].hex() or 'nothing: the file is empty'}")


def cut_short(kind: str, source: BinaryIO, size: int) -> str | None:
    """Why the container's own sizes say that its end is missing, or None. Leaves `source` anywhere."""
    if kind == "mov":
        return _mov_cut_short(source, size)
    if kind == "avi":
        source.seek(4)
        claimed = 8 + struct.unpack("<I", source.read(4).ljust(4, b"\0"))[0]
        return f"RIFF of {claimed} bytes in a file of {size}" if size < claimed else None
    if kind == "matroska":
        return _matroska_cut_short(source, size)
    return None


def _mov_boxes(source: BinaryIO, start: int, end: int) -> list[tuple[bytes, int, int]]:
    """(type, first byte of content, end) of the boxes in [start, end), at most 100 000."""
    boxes: list[tuple[bytes, int, int]] = []
    while start + 8 <= end and len(boxes) < 100_000:
        source.seek(start)
        head = source.read(16)
        length, name, body = struct.unpack(">I", head[:4])[0], head[4:8], start + 8
        if length == 1 and len(head) == 16:
            length, body = struct.unpack(">Q", head[8:])[0], start + 16
        stop = end if length == 0 else start + length
        if stop < body:
            break
        boxes.append((name, body, stop))
        start = stop
    return boxes


def _mov_cut_short(source: BinaryIO, size: int) -> str | None:
    boxes = _mov_boxes(source, 0, size)
    if not any(name in (b"moov", b"moof") for name, _, _ in boxes):
        return "no moov box"
    name, _, stop = boxes[-1]
    return f"box {name!r} ends at byte {stop} of a file of {size}" if stop > size else None


def _matroska_cut_short(source: BinaryIO, size: int) -> str | None:
    source.seek(0)
    head = source.read(SNIFF_BYTES)
    at = head.find(b"\x18\x53\x80\x67")
    if at < 0 or at + 12 > len(head):
        return None
    width = 9 - head[at + 4].bit_length()
    if not 1 <= width <= 8:
        return None
    value = int.from_bytes(head[at + 4 : at + 4 + width], "big") & ((1 << 7 * width) - 1)
    stop = at + 4 + width + value
    unknown = value == (1 << 7 * width) - 1
    return f"Segment ends at byte {stop} of a file of {size}" if not unknown and stop > size else None


def is_encrypted(kind: str, source: BinaryIO, size: int) -> bool:
    """Whether the header (of an MP4 also its first fragment) declares that a track is encrypted.

    Source: ISO/IEC 23001-7: a protected video sample entry is 'encv' and holds 'sinf' with 'tenc'; RFC 9559, 5.1.4.1.31: ContentEncryption.
    """
    if kind == "matroska":
        return _holds(source, 0, size, _TO_ENCRYPTION)
    if kind != "mov":
        return False
    for name, body, stop in _mov_boxes(source, 0, size):
        if name == b"moov":
            source.seek(body)
            moov = source.read(min(stop - body, _MAX_HEADER))
            return b"encv" in moov or (b"sinf" in moov and b"tenc" in moov and b"enca" not in moov)
    return False


#: Matroska's Segment, Tracks, TrackEntry, ContentEncodings, ContentEncoding, ContentEncryption.
_TO_ENCRYPTION = tuple(bytes.fromhex(code) for code in ("18538067", "1654ae6b", "ae", "6d80", "6240", "5035"))
_CLUSTER = bytes.fromhex("1f43b675")  # behind it come the pictures


def _holds(source: BinaryIO, start: int, end: int, names: tuple[bytes, ...]) -> bool:
    """Whether there is an element of the first name in [start, end), in it one of the second, and so on."""
    if not names:
        return True
    return any(name == names[0] and _holds(source, body, stop, names[1:]) for name, body, stop in _elements(source, start, end))


def _elements(source: BinaryIO, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """(id, first byte of content, end) of the EBML elements in [start, end) up to the first cluster, at most 10 000."""
    for _ in range(10_000):
        source.seek(start)
        head = source.read(12)
        long = 9 - head[0].bit_length() if start < end and head else 9
        wide = 9 - head[long].bit_length() if long < len(head) else 9
        if long > 4 or wide > 8 or head[:long] == _CLUSTER or long + wide > len(head):
            return
        value = int.from_bytes(head[long : long + wide], "big") & ((1 << 7 * wide) - 1)
        body = start + long + wide
        stop = end if value == (1 << 7 * wide) - 1 else min(body + value, end)  # all ones: unknown, to the end
        yield head[:long], body, stop
        start = stop
