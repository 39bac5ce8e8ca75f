"""Trackers: a log that outlives lost steps, event files that hold what was told, pictures with ink in them."""

import math
import struct
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from training.curves import COLOURS, picture, ticks
from training.tensorboard import TensorBoard, grouped, masked_crc
from training.trackers import Curves, Log, Weights, read_log, trackers


def test_a_lost_attempts_words_on_what_was_learnt_again_do_not_count(tmp_path: Path) -> None:
    log = Log(tmp_path)
    for step, loss in ((1, 3.0), (2, 2.0), (3, 1.0), (4, 0.5), (2, 2.5), (3, 2.2)):
        log.told(step, {"loss": loss}, f"step {step}")
    log.told(3, {"validation_loss": 4.0}, "")
    with log.file.open("a") as file:
        file.write('{"step": 4, "lo')  # its writer was killed
    assert read_log(tmp_path) == {"loss": [(1, 3.0), (2, 2.5), (3, 2.2)], "validation_loss": [(3, 4.0)]}
    assert read_log(tmp_path / "none") == {}


def test_curves_are_drawn_from_the_log(tmp_path: Path) -> None:
    log, curves = Log(tmp_path), Curves(tmp_path)
    for step in (1, 2):
        log.told(step, {"loss": 1.0 / step, "noise_0": 1.0, "mfu": 0.4}, "")
        curves.told(step, {}, "")
    assert sorted(path.name for path in (tmp_path / "curves").iterdir()) == ["loss.png", "noise.png", "time.png"]


def test_drawing_costs_no_more_than_the_runs_length_and_the_last_picture_is_of_the_whole_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines, read = 200, list[int]()

    def counted(folder: Path) -> dict[str, list[tuple[int, float]]]:
        found = read_log(folder)
        read.append(len(found["loss"]))
        return found

    monkeypatch.setattr("training.trackers.read_log", counted)
    log, curves = Log(tmp_path), Curves(tmp_path)
    for step in range(1, lines + 1):
        log.told(step, {"loss": math.cos(step / 9) + 1 / step}, "")
        curves.told(step, {}, "")
        assert read[-1] >= 0.9 * step  # what is looked at meanwhile is a tenth old at most
    curves.close()
    assert read[-1] == lines
    assert sum(read) < 15 * lines  # 20100 with a drawing at each line
    drawn, pictures = (tmp_path / "curves" / "loss.png").read_bytes(), len(read)
    curves.close()
    assert len(read) == pictures  # nothing was told since
    Curves(tmp_path).told(lines, {}, "")
    assert (tmp_path / "curves" / "loss.png").read_bytes() == drawn


def test_curves_of_nothing_but_nan_are_not_drawn_and_end_no_run(tmp_path: Path) -> None:
    log, curves = Log(tmp_path), Curves(tmp_path)
    for step in (1, 2, 3):
        log.told(step, {"validation_loss": math.nan}, "")
        curves.told(step, {}, "")
    assert list((tmp_path / "curves").iterdir()) == []


def test_a_picture_holds_every_curve_in_its_colour() -> None:
    made = np.asarray(picture("t", {"a": [(0, 0.0), (10, 1.0)], "b": [(0, 1.0), (5, float("nan")), (10, 0.0)]}))
    for colour in COLOURS[:2]:
        rgb = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
        assert (made == rgb).all(-1).sum() > 500
    assert not (made == [int(COLOURS[2][i : i + 2], 16) for i in (1, 3, 5)]).all(-1).any()
    with pytest.raises(ValueError, match="nothing to draw"):
        picture("t", {"a": [(0, float("nan"))]})


def test_ticks_are_round() -> None:
    assert ticks(0.0, 1.0) == pytest.approx([0.0, 0.2, 0.4, 0.6, 0.8, 1.0])
    assert ticks(0.37, 0.52) == pytest.approx([0.4, 0.45, 0.5])
    assert ticks(0, 12000) == [0, 5000, 10000]
    for low, high in ((0.001, 0.0013), (-5.0, 17.0), (3.0, 4.0)):
        found = ticks(low, high)
        assert 2 <= len(found) <= 6
        assert all(low - 1e-9 <= value <= high + 1e-9 for value in found)


def events(folder: Path) -> list[bytes]:
    """The records of the one event file, each with sound checksums."""
    data, found = next(folder.iterdir()).read_bytes(), []
    while data:
        length = struct.unpack("<Q", data[:8])[0]
        assert struct.unpack("<I", data[8:12])[0] == masked_crc(data[:8])
        found.append(data[12 : 12 + length])
        assert struct.unpack("<I", data[12 + length : 16 + length])[0] == masked_crc(found[-1])
        data = data[16 + length :]
    return found


def fields(data: bytes) -> list[tuple[int, Any]]:
    """A protobuf message's (field, value); as the format is published, independent of our writer."""
    found, at = [], 0

    def number() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte, at = data[at], at + 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(data):
        key = number()
        kind: int = key & 7
        if kind == 0:
            found.append((key >> 3, number()))
        elif kind == 1:
            found.append((key >> 3, struct.unpack("<d", data[at : at + 8])[0]))
            at += 8
        elif kind == 5:
            found.append((key >> 3, struct.unpack("<f", data[at : at + 4])[0]))
            at += 4
        else:
            length = number()
            found.append((key >> 3, data[at : at + length]))
            at += length
    return found


def test_an_event_file_holds_what_was_told(tmp_path: Path) -> None:
    board = TensorBoard(tmp_path, first_step=300)
    board.told(300, {"loss": 0.5, "noise_3": 2.0}, "a line")
    board.close()
    version, start, told = (dict(fields(record)) for record in events(tmp_path))
    assert version[3] == b"brain.Event:2"
    assert start[2] == 300
    assert fields(start[7]) == [(1, 1)]  # START: later steps of an earlier run are dropped
    assert told[2] == 300
    assert [dict(fields(value)) for _, value in fields(told[5])] == [{1: b"loss", 2: 0.5}, {1: b"noise/3", 2: 2.0}]


def test_checksums_are_castagnolis() -> None:
    """RFC 3720, B.4: 32 zeros give 0x8a9136aa; TFRecord turns it by 15 bits and adds 0xa282ead8."""
    crc = 0x8A9136AA
    assert masked_crc(bytes(32)) == ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def test_names_are_grouped() -> None:
    assert [grouped(name) for name in ("loss", "noise_3", "validation_chunk_1", "validation_loss", "share_data")] == [
        "loss",
        "noise/3",
        "validation_chunk/1",
        "validation_loss",
        "share/data",
    ]


def test_services_are_used_through_the_same_interface(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    run = SimpleNamespace(log=calls.append, finish=lambda: calls.append("end"), define_metric=lambda *_, **__: None)
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=lambda **given: calls.append(given["resume"]) or run, Video=str))
    info = SimpleNamespace(info=SimpleNamespace(run_id="r7"))
    flow = SimpleNamespace(
        set_experiment=calls.append,
        start_run=lambda run_id, run_name: calls.append(run_id) or info,
        log_dict=lambda *_: None,
        log_metrics=lambda figures, step: calls.append((figures, step)),
        end_run=lambda: calls.append("over"),
    )
    monkeypatch.setitem(sys.modules, "mlflow", flow)
    for _ in range(2):
        for each in trackers(tmp_path, ("wandb", "mlflow"), "p", {"a": 1})[3:]:
            each.told(5, {"noise_1": 0.5}, "")
            each.close()
    figures = ({"noise/1": 0.5}, 5)
    once = ["allow", "p", None, {"noise/1": 0.5, "step": 5}, "end", figures, "over"]
    assert calls == [*once, *("r7" if call is None else call for call in once)]


class Board:
    """A W&B run as its documentation tells: what comes with a step below the last is dropped; charts are over the step metric of a figure's name or glob."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.over: dict[str, str] = {}
        self.last = 0

    def define_metric(self, name: str, step_metric: str | None = None) -> None:
        if step_metric is not None:
            self.over[name] = step_metric

    def log(self, figures: dict[str, Any], step: int | None = None) -> None:
        if step is None or step >= self.last:
            self.last = self.last + 1 if step is None else step
            self.rows.append(figures)


def test_what_is_learnt_again_after_a_resume_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    board = Board()
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=lambda **_: board, Video=str))
    for steps in ((1, 2, 3), (2, 3, 4)):
        weights = Weights(tmp_path, "pan", {})
        for step in steps:
            weights.told(step, {"loss": 1.0 / step}, "")
    weights.film(4, tmp_path / "a.mp4")
    assert board.over == {"*": "step"}
    assert [row["step"] for row in board.rows] == [1, 2, 3, 2, 3, 4, 4]


def test_two_folders_of_one_name_are_two_runs_and_one_that_is_taken_up_stays_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[tuple[str, str, str]] = []
    run = SimpleNamespace(define_metric=lambda *_, **__: None)
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=lambda **given: begun.append((given["id"], given["name"], given["resume"])) or run))
    one, other = tmp_path / "a" / "decoder", tmp_path / "b" / "decoder"
    for folder in (one, other, one, other):
        folder.mkdir(parents=True, exist_ok=True)
        Weights(folder, "pan", {})
    first, second = begun[:2]
    assert begun[2:] == [first, second]
    assert first[0] != second[0]
    assert first[1:] == second[1:] == ("decoder", "allow")
    assert all(len(each[0]) == 16 for each in begun)


def test_a_service_that_is_not_installed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ValueError, match="names wandb, which is not installed"):
        trackers(tmp_path, ("wandb",), "p", {})
