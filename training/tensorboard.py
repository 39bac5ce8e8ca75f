"""TensorBoard: event files, written without its package."""

import struct
import time
from pathlib import Path


class TensorBoard:
    """An event file that TensorBoard reads.

    Source of the format: TensorFlow's `event.proto` and `summary.proto`, and TFRecord's framing with masked CRC-32C.
    """

    def __init__(self, folder: Path, first_step: int = 0) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._file = (folder / f"events.out.tfevents.{time.time_ns()}.pan").open("wb")
        self._event(0, _text(3, "brain.Event:2"))
        self._event(first_step, _bytes(7, _varint(1, 1)))  # START: readers drop what an earlier run wrote of this step and later ones

    def told(self, step: int, figures: dict[str, float], line: str) -> None:
        values = [_bytes(1, _text(1, grouped(name)) + _tag(2, 5) + struct.pack("<f", value)) for name, value in figures.items()]
        self._event(step, _bytes(5, b"".join(values)))

    def film(self, step: int, file: Path) -> None:
        """An event file holds no films; they lie beside it."""

    def close(self) -> None:
        self._file.close()

    def _event(self, step: int, body: bytes) -> None:
        data = _tag(1, 1) + struct.pack("<d", time.time()) + _varint(2, step) + body
        length = struct.pack("<Q", len(data))
        self._file.write(length + struct.pack("<I", masked_crc(length)) + data + struct.pack("<I", masked_crc(data)))
        self._file.flush()


def grouped(name: str) -> str:
    """noise_3 as noise/3: dashboards draw a group together."""
    for group in ("validation_noise", "validation_chunk", "noise", "chunk", "share"):
        if name.startswith(f"{group}_"):
            return f"{group}/{name.removeprefix(f'{group}_')}"
    return name


def _tag(field: int, kind: int) -> bytes:
    return _number(field << 3 | kind)


def _number(value: int) -> bytes:
    """Seven bits a byte, least first."""
    out = bytearray()
    while True:
        out.append(value & 0x7F | (0x80 if value > 0x7F else 0))
        value >>= 7
        if not value:
            return bytes(out)


def _varint(field: int, value: int) -> bytes:
    return _tag(field, 0) + _number(value)


def _bytes(field: int, value: bytes) -> bytes:
    return _tag(field, 2) + _number(len(value)) + value


def _text(field: int, value: str) -> bytes:
    return _bytes(field, value.encode())


def _table() -> tuple[int, ...]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return tuple(table)


_CRC = _table()


def masked_crc(data: bytes) -> int:
    """CRC-32C (Castagnoli), turned by 15 bits and with a constant added, as TFRecord has it."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _CRC[(crc ^ byte) & 0xFF] ^ crc >> 8
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
