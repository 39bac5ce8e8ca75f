"""What stands between worker processes and the training: parcels that hold all tensors in one, and a thread that fetches the next."""

import multiprocessing
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from training.data.ahead import Ahead
from training.data.grid import Place
from training.data.loader import Loader
from training.data.parcel import SMALL, packed, unpacked
from training.data.reader import Collator
from training.data.windows import Piece, blank
from training.model.dialogue import Dialogue, Round
from training.model.spec import SPECS
from training.model.vision import see

SPEC = SPECS["debug"]


def piece(dtype: torch.dtype) -> Piece:
    """A piece with tensors of several kinds and odd sizes."""
    generator = torch.Generator().manual_seed(1)
    sight = see(np.random.default_rng(0).integers(0, 256, (4, 60, 60, 3), dtype=np.uint8), 16.0, SPEC.backbone.vision)
    texts = (torch.randn(3, 5, generator=generator).to(dtype), torch.randn(1, 7, generator=generator).to(dtype))
    frames = torch.arange(13, dtype=torch.uint8)
    return Piece("key", Place(1, 2), torch.randn(2, 3, 5, generator=generator).to(dtype), texts, frames, ("a", "b"), Dialogue((Round(sight, "a"),)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64, torch.bool])
def test_a_parcel_gives_back_what_was_packed(dtype: torch.dtype) -> None:
    one = piece(dtype)
    words, data = packed([one, blank((64, 64), 2, "decoder", SPEC, torch.bfloat16)])
    assert len(words) < 2000
    other, nothing = unpacked((words, data))
    for left, right in zip((one.latents_CFHW, *one.texts, one.frames_THWC), (other.latents_CFHW, *other.texts, other.frames_THWC), strict=True):
        assert left is not None
        assert right is not None
        assert left.dtype == right.dtype
        assert torch.equal(left, right)
    assert one.dialogue is not None
    assert other.dialogue is not None
    assert torch.equal(one.dialogue.rounds[0].sight.patches_NP, other.dialogue.rounds[0].sight.patches_NP)
    assert (other.key, other.place, other.actions) == (one.key, one.place, one.actions)
    assert not nothing.is_real


@pytest.mark.parametrize("large", [0, 1])
def test_a_small_parcel_needs_no_tensor_and_a_large_one_does(large: int) -> None:
    thing = {"what": torch.arange(SMALL + 16 * large, dtype=torch.int64).to(torch.uint8), "nothing": torch.empty(0)}
    words, data = packed(thing)
    assert isinstance(data, torch.Tensor if large else bytes)
    assert len(data) == SMALL + 16 * large
    assert torch.equal(unpacked((words, data))["what"], thing["what"])
    assert unpacked(packed({"nothing": torch.empty(0, 3)}))["nothing"].shape == (0, 3)


def test_the_batch_is_made_where_the_training_does_not_wait_for_it() -> None:
    """The worker hands over five tensors, however many windows there are; the empty text, always the same, does not travel."""
    null_ND = torch.zeros(SPEC.text.tokens, SPEC.text.d_model)
    parts = [blank((64, 64), 2, "decoder", SPEC, torch.float32, wrong, key) for wrong, key in (("", ""), ("damaged", "k"))]
    handed = unpacked(Collator("latents", SPEC, null_ND)(parts))
    assert (handed.wrong, handed.pieces) == ({"k": "damaged"}, ())
    assert handed.batch.window.null_ND is None
    assert handed.batch.window.latents_BCFHW.shape[0] == 2
    raw = unpacked(Collator("clips", SPEC, null_ND)(parts))
    assert raw.batch is None
    assert [part.key for part in raw.pieces] == ["", "k"]


def test_ahead_gives_all_in_order_and_raises_what_was_raised() -> None:
    def items() -> Iterator[int]:
        yield from range(5)
        raise OSError("the disk is gone")

    ahead = Ahead(items())
    assert [next(ahead) for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(OSError, match="the disk is gone"):
        next(ahead)


def test_ahead_is_one_ahead_and_closes() -> None:
    asked: list[int] = []
    begun = threading.Event()

    def items() -> Iterator[int]:
        for number in range(100):
            asked.append(number)
            if number == 1:
                begun.set()
            yield number

    ahead = Ahead(items())
    assert next(ahead) == 0
    assert begun.wait(20)  # nobody has asked for it yet
    ahead.close()
    assert asked == [0, 1]


def test_half_a_message_of_a_dead_writer_ends_in_an_error_and_closes() -> None:
    """What a worker leaves in the pipe that is killed while it writes; its reader cannot tell it from a slow one."""
    reader, writer = multiprocessing.Pipe(duplex=False)
    died: list[str] = []

    def items() -> Iterator[bytes]:
        while True:
            yield reader.recv_bytes()

    writer.send_bytes(b"whole")
    ahead = Ahead(items(), lambda: died[0] if died else None)
    assert next(ahead) == b"whole"
    os.write(writer.fileno(), (100).to_bytes(4, "big") + b"half")
    died.append("data worker 7 ended with exit code -9")
    with pytest.raises(RuntimeError, match="worker 7 ended with exit code -9"):
        next(ahead)
    ahead.close()
    os.write(writer.fileno(), bytes(96))  # so that the thread ends


def test_a_killed_worker_stops_a_training_that_runs_in_a_thread(latents: Path) -> None:
    """As Ray runs it, where torch's own signal handler tells nobody."""
    code = f"""
import multiprocessing, threading, time
from training.data.loader import Loader
from training.model.spec import SPECS
def train():
    loader = Loader({str(latents)!r}, SPECS["debug"], phase="decoder", batch=1)
    try:
        next(iter(loader))
        for child in multiprocessing.active_children():
            child.kill()
        while True:
            list(loader)
    except RuntimeError as wrong:
        print(wrong, flush=True)
    loader.close()
    print("closed", flush=True)
if __name__ == "__main__":
    thread = threading.Thread(target=train)
    thread.start()
    thread.join()
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=200, check=False)
    assert ended.returncode == 0, ended.stderr[-500:]
    assert re.search("data worker .* exit code -9|DataLoader worker.* exited unexpectedly", ended.stdout), ended.stdout
    assert "closed" in ended.stdout


def test_a_worker_that_dies_stops_the_training(latents: Path) -> None:
    loader = Loader(latents, SPEC, phase="decoder", batch=1, workers=1, ahead=1)
    next(iter(loader))
    for child in multiprocessing.active_children():
        os.kill(child.pid or 0, signal.SIGKILL)
    with pytest.raises(RuntimeError, match=r"DataLoader worker|data worker"):
        [list(loader) for _ in range(3)]
    loader.close()


def test_a_process_ends_though_nobody_closed_its_loader(latents: Path) -> None:
    code = f"""
from training.data.loader import Loader
from training.model.spec import SPECS
if __name__ == "__main__":
    loader = Loader({str(latents)!r}, SPECS["debug"], phase="decoder", batch=1)
    print(next(iter(loader)).keys)
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=200, check=False)
    assert ended.returncode == 0, ended.stderr[-500:]
    assert "('" in ended.stdout
