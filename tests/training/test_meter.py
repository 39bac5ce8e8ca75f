"""Meter: seconds in parts, and operations by the mask that is attended."""

import pytest
import torch

from training import meter
from training.meter import Meter, ceiling, left
from training.model.attention import Layout
from training.model.spec import SPECS

WAN = SPECS["pan_14b"].decoder


def test_a_known_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meter, "ceiling", lambda *_: 1e15)
    watch = Meter(WAN, "cpu", torch.bfloat16, recomputed=1.0)
    watch.windows(2, Layout(1, (10, 10)), 1560)
    watch.steps = 4
    watch.spent("data", 2.0)
    watch.spent("forward", 10.0)
    watch.spent("backward", 8.0)
    figures = watch.read()
    # A forward of PAN's second phase at 480p is 1677 TF where each chunk is counted against both texts; it reads its own.
    assert figures["mfu"] == pytest.approx(2 * 3 * 1677e12 / (20 * 1e15), rel=0.02)
    assert figures["hfu"] == pytest.approx(figures["mfu"] * 4 / 3)
    assert figures["step_s"] == 5.0
    assert figures["share_data"] == pytest.approx(0.1)
    assert figures["mfu_ceiling_tflops"] == 1e3
    assert watch.read() == {}


class Event:
    """A GPU's event whose GPU takes two seconds from each record to the next, however soon the CPU is done."""

    clock, waited = 0.0, 0

    def __init__(self, *, enable_timing: bool) -> None:
        assert enable_timing

    def record(self) -> None:
        Event.clock += 2.0
        self.at = Event.clock

    def synchronize(self) -> None:
        Event.waited += 1

    def elapsed_time(self, later: "Event") -> float:
        return 1000 * (later.at - self.at)  # milliseconds, as torch.cuda.Event's


def test_a_gpus_parts_are_timed_by_its_own_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meter, "ceiling", lambda *_: 1e15)
    monkeypatch.setattr(torch.cuda, "Event", Event)
    watch = Meter(WAN, "cuda:0", torch.bfloat16)
    for part in ("forward", "backward", "forward"):
        with watch.timed(part):
            pass
    watch.spent("data", 2.0)
    watch.steps = 2
    assert Event.waited == 0  # nobody waits for the GPU until figures are asked for
    figures = watch.read()
    assert Event.waited == 3
    assert figures["step_s"] == 4.0
    assert {name: figures[f"share_{name}"] for name in ("data", "forward", "backward")} == {"data": 0.25, "forward": 0.5, "backward": 0.25}
    assert watch.read() == {}


def test_a_cpus_parts_are_timed_by_the_clock() -> None:
    watch = Meter(WAN)
    with watch.timed("forward"):
        torch.randn(64, 64) @ torch.randn(64, 64)
    assert watch.parts_s["forward"] > 0


def test_a_shared_window_and_no_state_are_less_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meter, "ceiling", lambda *_: 1e15)

    def used(**options: object) -> float:
        watch = Meter(WAN, "cpu", torch.bfloat16, **options)  # type: ignore[arg-type]
        watch.windows(1, Layout(1, (10, 10)), 1560)
        watch.steps = 1
        watch.spent("forward", 1.0)
        return watch.read()["mfu"]

    assert used(sequence=4) == pytest.approx(used() / 4)
    assert used(state=False) == pytest.approx(3 * 1439e12 / 1e15, rel=0.01)


def test_the_ceiling_is_measured() -> None:
    assert 1e7 < ceiling("cpu", torch.float32, 64) < 1e14


def test_where_narrow_products_are_the_slower_ones_the_ceiling_is_float32s(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def rate(device: str, dtype: torch.dtype, size: int) -> float:
        asked.append((device, dtype, size))
        return 9e9 if dtype == torch.bfloat16 else 9e10

    monkeypatch.setattr(meter, "_rate", rate)
    assert ceiling.__wrapped__("cpu", torch.bfloat16) == 9e10
    assert ceiling.__wrapped__("cuda:0", torch.bfloat16) == 9e9  # no product of the model's is wide there
    assert asked[-1] == ("cuda:0", torch.bfloat16, 8192)


def test_durations() -> None:
    assert [left(seconds) for seconds in (0, 45, 89, 100, 3000, 4500, 200_000)] == ["0 s", "45 s", "89 s", "2 min", "50 min", "1 h 15 min", "2 d 7 h"]


def test_figures_are_of_all_ranks_and_the_waits_of_the_rank_that_waits_longest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meter, "ceiling", lambda *_: 1.0)
    watch = Meter(WAN)
    watch.steps = 2
    watch.spent("data", 1.0)
    watch.spent("forward", 9.0)
    watch.useful, watch.done = 2.0, 4.0
    assert watch.numbers() == [2.0, 4.0, 1.0, 9.0]
    figures = watch.read([watch.numbers(), [1.0, 4.0, 6.0, 4.0]])
    assert (figures["share_data"], figures["share_forward"], figures["step_s"]) == (0.6, 0.4, 5.0)
    assert (figures["mfu"], figures["hfu"]) == (3.0 / 20, 8.0 / 20)


def test_a_window_is_as_useful_as_the_chunks_that_it_has() -> None:
    """Of three windows one is a blank, and one lacks its second chunk."""

    def useful(*given: object) -> float:
        watch = Meter(WAN)
        watch.windows(*given)  # type: ignore[arg-type]
        return watch.useful

    both, one = Layout(1, (10, 10)), Layout(1, (10,))
    assert useful(3, both, 64, 2, [20, 10]) == pytest.approx(useful(1, both, 64) + useful(1, one, 64))
    assert useful(3, both, 64, 2, [0, 20]) == useful(2, both, 64)  # the first is shown clean, and there all the same
    assert useful(3, both, 64, 0, [0, 0]) == 0
